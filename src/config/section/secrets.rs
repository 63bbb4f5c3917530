//! Reads secrets, written down or in files, and the paths of other files. No secret gets into a setting or a problem.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use toml::Spanned;
use toml::de::DeValue;
use zeroize::Zeroizing;

use super::super::load;
use super::super::problem::{Fault, Place, Reveal};
use super::super::reader::{Files, Origin, Sensitivity};
use super::values::{scalar, wrong_type};
use super::{Entry, Found, Section};

/// What is shown instead of a secret, as TOML.
const REDACTED: &str = "\"<redacted>\"";

impl<'a> Section<'_, 'a> {
    /// The path of a file, with where it was found. From the configuration file, it begins in that one's folder.
    pub(in crate::config) fn path_value(&mut self, name: &str) -> Option<(PathBuf, Origin)> {
        self.describe(name, None);
        let (path, origin) = self.value::<PathBuf>(name)?;
        match (&origin, self.reader.files()) {
            (Origin::File(_), Files::Read(folder)) => Some((folder.join(path), origin)),
            _ => Some((path, origin)),
        }
    }

    /// The path of a file that must be there, but is not read now.
    pub(in crate::config) fn file(
        &mut self,
        name: &str,
        sensitivity: Sensitivity,
    ) -> Option<PathBuf> {
        let (path, origin) = self.path_value(name)?;
        if *self.reader.files() == Files::Skip {
            return Some(path);
        }
        let place = self.reader.place_of(&origin, Reveal::Value);
        let key = self.path(name);
        self.reader.judged(&key, &place, (&path, sensitivity)).map(|()| path)
    }

    /// The same for a key that must be.
    pub(in crate::config) fn required_file(
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
    pub(in crate::config) fn secret(
        &mut self,
        name: &str,
        name_file: &str,
    ) -> Option<(SecretString, Origin)> {
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
                let text = scalar::<String>(node.get_ref()).map(Zeroizing::new);
                (text, Origin::File(node.span().into()))
            }
        };
        match text {
            Ok(text) => {
                self.record(name, REDACTED.to_owned(), origin.clone(), Reveal::Key);
                self.reader.secret(self.path(name), &text);
                Some((SecretString::from(text.as_str()), origin))
            }
            Err(fault) => {
                self.fault(&origin, Reveal::Key, fault.of(&self.named(name)));
                None
            }
        }
    }

    /// Reads a secret's file, unless files are not looked at.
    pub(in crate::config) fn secret_from(
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
    pub(in crate::config) fn secrets(
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

    /// The secret of an API key that is written as a table.
    fn only_secret(&mut self, api_key: &str) -> Option<(SecretString, Origin)> {
        let secret = self.secret("secret", "secret_file");
        if secret.is_none() && !self.has("secret") && !self.has("secret_file") {
            let fault = Fault::new(format!("API key `{api_key}` has no secret"));
            self.fault_here(
                fault.hint("write { secret_file = \"…\" }, or the secret alone in quotes"),
            );
        }
        secret
    }

    fn entry(
        &mut self,
        key: &str,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Option<(String, SecretString, Place)> {
        let secret = if let Some(table) = value.get_ref().as_table() {
            self.known.push(key.to_owned());
            let (path, named) = (self.path(key), self.named(key));
            let (table, span, header) = (Some(table), Some(value.span()), format!("[{named}]"));
            let entry = Entry { table, span, path: &path, named: &named, header: &header };
            Section::run(self.reader, entry, |section| section.only_secret(key))
        } else {
            self.inline_secret(key)
        };
        let (secret, origin) = secret?;
        let place = self.reader.place_of(&origin, Reveal::Key);
        Some((key.to_owned(), secret, place))
    }
}
