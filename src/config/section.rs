//! Reads the keys of one section: for each it looks at flag, variable, file, `--dev` and default, in that order.
//!
//! What keys there are, and their defaults, is left to `raw`; what the kinds of values look like to `value`.

use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::load;
use super::problem::{Fault, Place, Reveal};
use super::reader::{Files, Origin, Reader, Sensitivity, Setting};
use super::show::Key;
use super::value::{Shape, Value};

/// Variables that other programs set too, and the keys that they stand for.
const ALIASES: [(&str, &str); 2] =
    [("enabled", "WEBHOOK_ENABLED"), ("store.redis.url", "REDIS_URL")];

/// What is shown instead of a secret, as TOML.
const REDACTED: &str = "\"<redacted>\"";

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

/// A value before it is parsed.
pub(super) enum Found<'a> {
    Text(String, Origin),
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
        let (mut table, mut span) = (None, None);
        if let Some(node) = self.table.and_then(|table| table.get(name)) {
            match node.get_ref() {
                DeValue::Table(inner) => (table, span) = (Some(inner), Some(node.span())),
                other => {
                    self.fault(
                        &Origin::File(node.span().into()),
                        Reveal::Key,
                        wrong_type(&format!("the section {header}"), other).of(&named),
                    );
                }
            }
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
        let mut elements = Vec::new();
        let wrong = match node.get_ref() {
            DeValue::Array(array) => {
                let mut wrong = Vec::new();
                for element in array {
                    match element.get_ref() {
                        DeValue::Table(table) => elements.push((Some(table), Some(element.span()))),
                        other => wrong.push((
                            element.span(),
                            wrong_type(&format!("the section {header}"), other),
                        )),
                    }
                }
                wrong
            }
            other => {
                let fault = wrong_type(&format!("any number of sections {header}"), other);
                vec![(node.span(), fault.hint(format!("write {header} with double brackets")))]
            }
        };
        let named = join(&self.named, name);
        for (span, fault) in wrong {
            self.fault(&Origin::File(span.into()), Reveal::Key, fault.of(&named));
        }
        elements
    }

    /// What stands for `name`, from the strongest source that says something.
    pub(super) fn find(&mut self, name: &str) -> Option<Found<'a>> {
        self.known.push(name.to_owned());
        let path = join(&self.path, name);
        if let Some((flag, text)) = self.reader.flag(&path) {
            return Some(Found::Text(text, Origin::Flag(flag)));
        }
        if !path.contains('[') {
            let own = format!("ONCEHOOK_{}", path.replace('.', "__").to_uppercase());
            let alias =
                ALIASES.into_iter().find(|(of, _)| *of == path).map(|(_, alias)| alias.to_owned());
            for variable in std::iter::once(own).chain(alias) {
                if let Some(text) = self.reader.variable(&variable) {
                    return Some(Found::Text(text, Origin::Variable(variable)));
                }
            }
        }
        if let Some(node) = self.table.and_then(|table| table.get(name)) {
            return Some(Found::Node(node));
        }
        self.reader.dev(&path).map(|text| Found::Text(text.to_owned(), Origin::Dev))
    }

    /// A setting that has a default.
    pub(super) fn take<T: Value>(&mut self, name: &str, default: T) -> T {
        self.describe(name, Some(default.toml()));
        match self.value(name) {
            Some((value, _)) => value,
            None => {
                self.record(name, default.toml(), Origin::Default, Reveal::Value);
                default
            }
        }
    }

    /// A setting that has a default and bounds.
    pub(super) fn within<T: Value + PartialOrd>(
        &mut self,
        name: &str,
        default: T,
        range: RangeInclusive<T>,
    ) -> T {
        self.describe(name, Some(default.toml()));
        let value = self.value(name).and_then(|found| self.bounded(name, found, &range));
        value.unwrap_or_else(|| {
            self.record(name, default.toml(), Origin::Default, Reveal::Value);
            default
        })
    }

    /// A setting that need not be.
    pub(super) fn option<T: Value>(&mut self, name: &str) -> Option<T> {
        self.describe(name, None);
        self.value(name).map(|(value, _)| value)
    }

    /// A setting that need not be, with bounds.
    pub(super) fn option_within<T: Value + PartialOrd>(
        &mut self,
        name: &str,
        range: &RangeInclusive<T>,
    ) -> Option<T> {
        self.describe(name, None);
        self.value(name).and_then(|found| self.bounded(name, found, range))
    }

    /// A setting that must be.
    pub(super) fn required<T: Value>(&mut self, name: &str) -> Option<T> {
        self.describe(name, None);
        let present = self.known_node(name);
        let value = self.value(name).map(|(value, _)| value);
        if value.is_none() && !present {
            self.missing::<T>(name);
        }
        value
    }

    fn missing<T: Value>(&mut self, name: &str) {
        let fault = Fault::new(format!("{} has no `{name}`", self.header));
        self.fault_here(fault.hint(format!("`{name}` is {}", T::EXPECTED)));
    }

    /// A list: an array in the file, separated by commas in a variable.
    pub(super) fn list<T: Value>(&mut self, name: &str, default: Option<&[T]>) -> Option<Vec<T>> {
        self.describe(name, default.map(array_text));
        let (texts, origin) = match self.find(name) {
            Some(Found::Text(text, origin)) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                (parts.map(|part| (part.to_owned(), origin.clone())).collect(), origin)
            }
            Some(Found::Node(node)) => {
                (self.array::<T>(name, node), Origin::File(node.span().into()))
            }
            None => {
                let default = default?;
                self.record(name, array_text(default), Origin::Default, Reveal::Value);
                return Some(default.to_vec());
            }
        };
        let mut values = Vec::new();
        for (text, origin) in texts {
            match T::parse(&text) {
                Ok(value) => values.push(value),
                Err(fault) => {
                    self.fault(&origin, reveal(&text), fault.of(&join(&self.named, name)))
                }
            }
        }
        self.record(name, array_text(&values), origin, Reveal::Value);
        Some(values)
    }

    fn array<T: Value>(
        &mut self,
        name: &str,
        node: &'a Spanned<DeValue<'a>>,
    ) -> Vec<(String, Origin)> {
        let named = join(&self.named, name);
        let DeValue::Array(array) = node.get_ref() else {
            let fault =
                wrong_type(&format!("an array, each element {}", T::EXPECTED), node.get_ref());
            self.fault(&Origin::File(node.span().into()), Reveal::Value, fault.of(&named));
            return Vec::new();
        };
        let mut texts = Vec::new();
        for element in array {
            let origin = Origin::File(element.span().into());
            match scalar::<T>(element.get_ref()) {
                Ok(text) => texts.push((text, origin)),
                Err(fault) => self.fault(&origin, Reveal::Key, fault.of(&named)),
            }
        }
        texts
    }

    /// Whether somebody says something about `name`, right or wrong.
    pub(super) fn has(&self, name: &str) -> bool {
        let path = join(&self.path, name);
        self.known_node(name) || self.reader.settings().any(|setting| setting.path == path)
    }

    /// The path of a file, with where it was found. From the configuration file, it begins in that one's folder.
    pub(super) fn path_value(&mut self, name: &str) -> Option<(PathBuf, Origin)> {
        self.describe(name, None);
        let (path, origin) = self.value::<PathBuf>(name)?;
        match (&origin, self.reader.files()) {
            (Origin::File(_), Files::Read(folder)) => Some((folder.join(path), origin)),
            _ => Some((path, origin)),
        }
    }

    /// The path of a file that must be there, but is not read now.
    pub(super) fn file(&mut self, name: &str, sensitivity: Sensitivity) -> Option<PathBuf> {
        let (path, origin) = self.path_value(name)?;
        if *self.reader.files() == Files::Skip {
            return Some(path);
        }
        let place = self.reader.place_of(&origin, Reveal::Value);
        let key = self.path(name);
        self.reader.judged(&key, &place, (&path, sensitivity)).map(|()| path)
    }

    /// The same for a key that must be.
    pub(super) fn required_file(
        &mut self,
        name: &str,
        sensitivity: Sensitivity,
    ) -> Option<PathBuf> {
        let path = self.file(name, sensitivity);
        if path.is_none() && !self.has(name) {
            self.missing::<PathBuf>(name);
        }
        path
    }

    /// A secret, written down or in a file. The stronger source counts; two of one strength contradict each other.
    pub(super) fn secret(&mut self, name: &str, name_file: &str) -> Option<(SecretString, Origin)> {
        let inline = self.inline_secret(name);
        let file = self.path_value(name_file);
        match (inline, file) {
            (Some((_, inline)), Some((_, file))) if inline.rank() == file.rank() => {
                let fault = Fault::new(format!("`{}` is set too", self.named(name)))
                    .hint("keep one of the two");
                let place = self.reader.place_of(&file, Reveal::Value);
                self.reader.error(place, fault.of(&self.named(name_file)));
                None
            }
            (Some(inline), None) => Some(inline),
            (Some(inline), Some((_, file))) if inline.1.rank() > file.rank() => {
                self.reader.forget(&self.path(name_file));
                Some(inline)
            }
            (weaker, Some((path, origin))) => {
                if weaker.is_some() {
                    self.reader.forget(&self.path(name));
                }
                self.secret_from(name_file, &path, &origin).map(|secret| (secret, origin))
            }
            (None, None) => None,
        }
    }

    fn inline_secret(&mut self, name: &str) -> Option<(SecretString, Origin)> {
        self.describe(name, None);
        let (text, origin) = match self.find(name)? {
            Found::Text(text, origin) => (Ok(text), origin),
            Found::Node(node) => {
                (scalar::<String>(node.get_ref()), Origin::File(node.span().into()))
            }
        };
        match text {
            Ok(text) => {
                self.record(name, REDACTED.to_owned(), origin.clone(), Reveal::Key);
                self.reader.secret(self.path(name), &text);
                Some((SecretString::from(text), origin))
            }
            Err(fault) => {
                self.fault(&origin, Reveal::Key, fault.of(&self.named(name)));
                None
            }
        }
    }

    /// Reads a secret's file, unless files are not looked at.
    pub(super) fn secret_from(
        &mut self,
        name: &str,
        path: &Path,
        origin: &Origin,
    ) -> Option<SecretString> {
        if *self.reader.files() == Files::Skip {
            return None;
        }
        let place = self.reader.place_of(origin, Reveal::Value);
        let key = self.path(name);
        self.reader.judged(&key, &place, (path, Sensitivity::Secret))?;
        load::secret(path).map_err(|fault| self.reader.error(place, fault)).ok()
    }

    /// `[name]`, each key the operator's own, each value a secret or `{ secret_file = "…" }`.
    pub(super) fn secrets(
        &mut self,
        name: &str,
        called: &str,
    ) -> Vec<(String, SecretString, Place)> {
        let (path, named) = (self.path(name), self.named(name));
        let header = format!("[{named}]");
        self.known.push(name.to_owned());
        self.reader.describe(&header, called, None);
        let Some(node) = self.table.and_then(|table| table.get(name)) else { return Vec::new() };
        let DeValue::Table(table) = node.get_ref() else {
            let fault = wrong_type(&format!("the section {header}"), node.get_ref()).of(&named);
            self.fault(&Origin::File(node.span().into()), Reveal::Key, fault);
            return Vec::new();
        };
        let entry = Entry {
            table: Some(table),
            span: Some(node.span()),
            path: &path,
            named: &named,
            header: &header,
        };
        Section::run(self.reader, entry, |section| {
            table.iter().filter_map(|(key, value)| section.entry(key.get_ref(), value)).collect()
        })
    }

    fn entry(
        &mut self,
        key: &str,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Option<(String, SecretString, Place)> {
        let secret = match value.get_ref() {
            DeValue::Table(table) => {
                self.known.push(key.to_owned());
                let (path, named) = (self.path(key), self.named(key));
                let header = format!("[{named}]");
                let entry = Entry {
                    table: Some(table),
                    span: Some(value.span()),
                    path: &path,
                    named: &named,
                    header: &header,
                };
                Section::run(self.reader, entry, |section| section.secret("secret", "secret_file"))
            }
            _ => self.inline_secret(key),
        };
        let (secret, origin) = secret?;
        let place = self.reader.place_of(&origin, Reveal::Key);
        Some((key.to_owned(), secret, place))
    }

    /// Looks `name` up and parses it; what is wrong is told, and counts as nothing.
    fn value<T: Value>(&mut self, name: &str) -> Option<(T, Origin)> {
        let (text, origin) = match self.find(name)? {
            Found::Text(text, origin) => (Ok(text), origin),
            Found::Node(node) => (scalar::<T>(node.get_ref()), Origin::File(node.span().into())),
        };
        let revealed = text.as_ref().map_or(Reveal::Key, |text| reveal(text));
        match text.and_then(|text| T::parse(&text)) {
            Ok(value) => {
                self.record(name, value.toml(), origin.clone(), revealed);
                Some((value, origin))
            }
            Err(fault) => {
                self.fault(&origin, revealed, fault.of(&join(&self.named, name)));
                None
            }
        }
    }

    fn bounded<T: Value + PartialOrd>(
        &mut self,
        name: &str,
        found: (T, Origin),
        range: &RangeInclusive<T>,
    ) -> Option<T> {
        let (value, origin) = found;
        if range.contains(&value) {
            return Some(value);
        }
        let (low, high) = (range.start().toml(), range.end().toml());
        let fault = Fault::new(format!("must be from {low} to {high}, found {}", value.toml()));
        self.fault(&origin, Reveal::Value, fault.of(&join(&self.named, name)));
        None
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
            let section =
                if self.header.is_empty() { String::new() } else { format!(" in {}", self.header) };
            let fault = Fault::new(format!("unknown key `{name}`{section}"));
            let mut fault = fault.did_you_mean(name, self.known.iter().map(String::as_str));
            let elsewhere = || super::show::schema().into_iter().find(|key| key.name == name);
            if !fault.has_hint()
                && let Some(Key { section, .. }) = elsewhere()
            {
                fault = fault.hint(match section.as_str() {
                    "" => format!("`{name}` stands before the first section"),
                    section => format!("`{name}` belongs to {section}"),
                });
            }
            self.fault(&Origin::File(key.span().into()), Reveal::Key, fault);
        }
    }
}

/// Before an `@` in a URL there may be a password.
fn reveal(text: &str) -> Reveal {
    if text.contains('@') { Reveal::Key } else { Reveal::Value }
}

fn array_text<T: Value>(values: &[T]) -> String {
    format!("[{}]", values.iter().map(Value::toml).collect::<Vec<_>>().join(", "))
}

/// The text of a scalar of the shape that `T` has.
fn scalar<T: Value>(value: &DeValue<'_>) -> Result<String, Fault> {
    match (T::SHAPE, value) {
        (Shape::Text, DeValue::String(text)) => Ok(text.to_string()),
        (Shape::Boolean, DeValue::Boolean(boolean)) => Ok(boolean.to_string()),
        (Shape::Integer, DeValue::Integer(integer)) => {
            match i128::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(number) => Ok(number.to_string()),
                Err(_) => Err(Fault::new(format!("expected {}, found {integer}", T::EXPECTED))),
            }
        }
        (Shape::Text | Shape::Integer | Shape::Boolean, other) => {
            Err(wrong_type(T::EXPECTED, other))
        }
    }
}

/// Never quotes the value: it may be a secret in the wrong place.
pub(super) fn wrong_type(expected: &str, found: &DeValue<'_>) -> Fault {
    let article = match found {
        DeValue::Integer(_) | DeValue::Array(_) => "an",
        DeValue::String(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Table(_) => "a",
    };
    Fault::new(format!("expected {expected}, found {article} {}", found.type_str()))
}
