//! Walks the sections of a configuration, and finds what stands for a key: in flag, variable, file or `--dev`, in that
//! order.
//!
//! `values` reads plain values there, `secrets` secrets and files. What keys there are, and their defaults, is left to
//! `raw`; what the kinds of values look like to `value`.

mod secrets;
mod values;

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::problem::{Fault, Place, Reveal};
use super::reader::{Origin, Reader, Setting};
use super::show::Key;
use values::wrong_type;

/// Variables that other programs set too, and the keys that they stand for.
const ALIASES: [(&str, &str); 2] =
    [("enabled", "WEBHOOK_ENABLED"), ("store.redis.url", "REDIS_URL")];

/// One section while it is read.
pub(super) struct Section<'r, 'a> {
    pub(super) reader: &'r mut Reader<'a>,
    table: Option<&'a DeTable<'a>>,
    span: Option<Range<usize>>,
    path: String,
    named: String,
    header: String,
    known: Vec<String>,
}

/// A value before it is parsed. It has no `Debug`: it may be a secret.
pub(super) enum Found<'a> {
    Text(Zeroizing<String>, Origin),
    Node(&'a Spanned<DeValue<'a>>),
}

/// How a key's name is completed.
fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Where a section begins.
pub(super) struct Entry<'a, 's> {
    pub(super) table: Option<&'a DeTable<'a>>,
    pub(super) span: Option<Range<usize>>,
    pub(super) path: &'s str,
    pub(super) named: &'s str,
    pub(super) header: &'s str,
}

impl<'r, 'a> Section<'r, 'a> {
    pub(super) fn run<R>(
        reader: &'r mut Reader<'a>,
        entry: Entry<'a, '_>,
        read: impl FnOnce(&mut Section<'_, 'a>) -> R,
    ) -> R {
        let mut section = Section {
            reader,
            table: entry.table,
            span: entry.span,
            path: entry.path.to_owned(),
            named: entry.named.to_owned(),
            header: entry.header.to_owned(),
            known: Vec::new(),
        };
        let result = read(&mut section);
        section.unknown_keys();
        result
    }

    /// `[name]`
    pub(super) fn section<R>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Section<'_, 'a>) -> R,
    ) -> R {
        self.known.push(name.to_owned());
        let (path, named) = (join(&self.path, name), join(&self.named, name));
        let header = format!("[{named}]");
        let node = self.table.and_then(|table| table.get(name));
        let table = node.and_then(|node| node.get_ref().as_table());
        let span = node.map(Spanned::span);
        if let (Some(node), None) = (node, table) {
            let fault = wrong_type(&format!("the section {header}"), node.get_ref());
            self.fault(&Origin::File(node.span().into()), Reveal::Key, fault.of(&named));
            self.reader.doubt(path.clone());
        }
        Section::run(
            self.reader,
            Entry { table, span, path: &path, named: &named, header: &header },
            read,
        )
    }

    /// `[[name]]`, each. Where only the schema is wanted, there is one.
    pub(super) fn sections<R>(
        &mut self,
        name: &str,
        mut read: impl FnMut(&mut Section<'_, 'a>) -> R,
    ) -> Vec<R> {
        self.known.push(name.to_owned());
        let named = join(&self.named, name);
        let header = format!("[[{named}]]");
        let mut results = Vec::new();
        for (index, (table, span)) in self.elements(name, &header).into_iter().enumerate() {
            let path = join(&self.path, &format!("{name}[{index}]"));
            let entry = Entry { table, span, path: &path, named: &named, header: &header };
            results.push(Section::run(self.reader, entry, &mut read));
        }
        results
    }

    fn elements(
        &mut self,
        name: &str,
        header: &str,
    ) -> Vec<(Option<&'a DeTable<'a>>, Option<Range<usize>>)> {
        let Some(node) = self.table.and_then(|table| table.get(name)) else {
            let schema_only = self.reader.is_schema_only();
            return if schema_only { vec![(None, None)] } else { Vec::new() };
        };
        let named = join(&self.named, name);
        let Some(array) = node.get_ref().as_array() else {
            let fault = wrong_type(&format!("any number of sections {header}"), node.get_ref())
                .hint(format!("write {header} with double brackets"));
            self.fault(&Origin::File(node.span().into()), Reveal::Key, fault.of(&named));
            self.reader.doubt(join(&self.path, name));
            return Vec::new();
        };
        let mut elements = Vec::new();
        for element in array {
            if let Some(table) = element.get_ref().as_table() {
                elements.push((Some(table), Some(element.span())));
            } else {
                let fault = wrong_type(&format!("the section {header}"), element.get_ref());
                self.fault(&Origin::File(element.span().into()), Reveal::Key, fault.of(&named));
                self.reader.doubt(join(&self.path, name));
            }
        }
        elements
    }

    /// What stands for `name`, from the strongest source that says something.
    pub(super) fn find(&mut self, name: &str) -> Option<Found<'a>> {
        self.known.push(name.to_owned());
        let path = join(&self.path, name);
        let variable = self.variable(&path);
        if let Some((flag, text)) = self.reader.flag(&path) {
            return Some(Found::Text(text, Origin::Flag(flag)));
        }
        if let Some((variable, text)) = variable {
            return Some(Found::Text(text, Origin::Variable(variable)));
        }
        if let Some(node) = self.table.and_then(|table| table.get(name)) {
            return Some(Found::Node(node));
        }
        self.reader.dev(&path).map(|text| Found::Text(text.to_owned().into(), Origin::Dev))
    }

    /// The variable that stands for `path`, and what it says. Elements of arrays have none.
    fn variable(&mut self, path: &str) -> Option<(String, Zeroizing<String>)> {
        if path.contains('[') {
            return None;
        }
        let own = format!("ONCEHOOK_{}", path.replace('.', "__").to_uppercase());
        let alias =
            ALIASES.into_iter().find(|(of, _)| *of == path).map(|(_, alias)| alias.to_owned());
        let said: Vec<_> = std::iter::once(own)
            .chain(alias)
            .filter_map(|name| self.reader.variable(&name).map(|text| (name, text)))
            .collect();
        said.into_iter().next()
    }

    /// Whether somebody says something about `name`, right or wrong.
    pub(super) fn has(&self, name: &str) -> bool {
        let path = join(&self.path, name);
        self.known_node(name) || self.reader.settings().any(|setting| setting.path == path)
    }

    fn known_node(&self, name: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(name))
    }

    /// The place of this section's header.
    pub(super) fn here(&self) -> Place {
        self.span.as_ref().map_or(Place::Nowhere, |span| {
            self.reader.place_of(&Origin::File(span.clone().into()), Reveal::Key)
        })
    }

    pub(super) fn fault_here(&mut self, fault: Fault) {
        let place = self.here();
        self.reader.error(place, fault);
    }

    pub(super) fn fault(&mut self, origin: &Origin, reveal: Reveal, fault: Fault) {
        let place = self.reader.place_of(origin, reveal);
        self.reader.error(place, fault);
    }

    /// This section's path, as in `route[0]`.
    pub(super) fn own_path(&self) -> &str {
        &self.path
    }

    /// This section's path with `name`, as in `route[0].path`.
    pub(super) fn path(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// The same as people write it, as in `route.path`.
    pub(super) fn named(&self, name: &str) -> String {
        join(&self.named, name)
    }

    pub(super) fn describe(&mut self, name: &str, default: Option<String>) {
        self.reader.describe(&self.header, name, default);
    }

    pub(super) fn record(&mut self, name: &str, value: String, origin: Origin, reveal: Reveal) {
        let place = match origin {
            Origin::Default | Origin::Dev => None,
            Origin::File(_) | Origin::Variable(_) | Origin::Flag(_) => {
                Some(self.reader.place_of(&origin, reveal))
            }
        };
        let (path, header) = (join(&self.path, name), self.header.clone());
        let (section, name) = (self.path.clone(), name.to_owned());
        self.reader.record(Setting { path, header, section, name, value, origin, place });
    }

    fn unknown_keys(&mut self) {
        let Some(table) = self.table else { return };
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if self.known.iter().any(|known| known == name) {
                continue;
            }
            let fault = self.unknown_key(name);
            self.fault(&Origin::File(key.span().into()), Reveal::Key, fault);
        }
    }

    fn unknown_key(&self, name: &str) -> Fault {
        let section =
            if self.header.is_empty() { String::new() } else { format!(" in {}", self.header) };
        let fault = Fault::new(format!("unknown key `{name}`{section}"))
            .did_you_mean(name, self.known.iter().map(String::as_str));
        if fault.has_hint() {
            return fault;
        }
        fault.hint(match super::show::schema().into_iter().find(|key| key.name == name) {
            Some(Key { section, .. }) if section.is_empty() => {
                format!("`{name}` stands before the first section")
            }
            Some(Key { section, .. }) => format!("`{name}` belongs to {section}"),
            None => format!("there are: {}", self.known.join(", ")),
        })
    }
}
