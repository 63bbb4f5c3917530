//! Reads settings that are no secrets. What is wrong with one is told, and its default stands in.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::DeValue;

use super::super::problem::{Fault, Reveal};
use super::super::reader::Origin;
use super::super::value::{Shape, Value};
use super::{Found, Section, join};

impl<'a> Section<'_, 'a> {
    /// A setting that has a default.
    pub(in crate::config) fn take<T: Value>(&mut self, name: &str, default: T) -> T {
        self.describe(name, Some(default.toml()));
        if let Some((value, _)) = self.value(name) {
            return value;
        }
        self.record(name, default.toml(), Origin::Default, Reveal::Value);
        default
    }

    /// A setting that has a default and bounds.
    pub(in crate::config) fn within<T: Value + PartialOrd>(
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
    pub(in crate::config) fn option<T: Value>(&mut self, name: &str) -> Option<T> {
        self.describe(name, None);
        self.value(name).map(|(value, _)| value)
    }

    /// A setting that need not be, with bounds.
    pub(in crate::config) fn option_within<T: Value + PartialOrd>(
        &mut self,
        name: &str,
        range: &RangeInclusive<T>,
    ) -> Option<T> {
        self.describe(name, None);
        self.value(name).and_then(|found| self.bounded(name, found, range))
    }

    /// A setting that must be.
    pub(in crate::config) fn required<T: Value>(&mut self, name: &str) -> Option<T> {
        self.describe(name, None);
        let present = self.known_node(name);
        let value = self.value(name).map(|(value, _)| value);
        if value.is_none() && !present {
            self.missing::<T>(name);
        }
        value
    }

    pub(super) fn missing<T: Value>(&mut self, name: &str) {
        let fault = Fault::new(format!("{} has no `{name}`", self.header));
        self.fault_here(fault.hint(format!("`{name}` is {}", T::EXPECTED)));
        self.reader.doubt(join(&self.path, name));
    }

    /// A list: an array in the file, separated by commas in a variable.
    pub(in crate::config) fn list<T: Value>(
        &mut self,
        name: &str,
        default: Option<&[T]>,
    ) -> Option<Vec<T>> {
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
        // They may stand on one line, which is shown whole or not at all.
        let has_secret = texts.iter().any(|(text, _)| reveal(text) == Reveal::Key);
        let revealed = if has_secret { Reveal::Key } else { Reveal::Value };
        let mut values = Vec::new();
        for (text, origin) in texts {
            match T::parse(&text) {
                Ok(value) => values.push(value),
                Err(fault) => {
                    self.fault(&origin, revealed, fault.of(&join(&self.named, name)));
                }
            }
        }
        self.record(name, array_text(&values), origin, revealed);
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
                Err(fault) => self.fault(&origin, plain(element.get_ref()), fault.of(&named)),
            }
        }
        texts
    }

    /// Looks `name` up and parses it; what is wrong is told, and counts as nothing.
    pub(super) fn value<T: Value>(&mut self, name: &str) -> Option<(T, Origin)> {
        let (text, origin, revealed) = match self.find(name)? {
            Found::Text(text, origin) => (Ok((*text).clone()), origin, Reveal::Key),
            Found::Node(node) => {
                let value = node.get_ref();
                let revealed = value.as_str().map_or_else(|| plain(value), reveal);
                (scalar::<T>(value), Origin::File(node.span().into()), revealed)
            }
        };
        match text.and_then(|text| T::parse(&text)) {
            Ok(value) => {
                self.record(name, value.toml(), origin.clone(), revealed);
                Some((value, origin))
            }
            Err(fault) => {
                self.fault(&origin, revealed, fault.of(&join(&self.named, name)));
                self.reader.doubt(join(&self.path, name));
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
        self.reader.doubt(join(&self.path, name));
        self.fault(&origin, Reveal::Value, fault.of(&join(&self.named, name)));
        None
    }
}

/// Before an `@` in a URL there may be a password.
fn reveal(text: &str) -> Reveal {
    if text.contains('@') { Reveal::Key } else { Reveal::Value }
}

/// What is no text cannot be a secret; what is no scalar may hold one.
const fn plain(value: &DeValue<'_>) -> Reveal {
    match value {
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            Reveal::Value
        }
        DeValue::String(_) | DeValue::Array(_) | DeValue::Table(_) => Reveal::Key,
    }
}

fn array_text<T: Value>(values: &[T]) -> String {
    format!("[{}]", values.iter().map(Value::toml).collect::<Vec<_>>().join(", "))
}

/// The text of a scalar of the shape that `T` has.
pub(super) fn scalar<T: Value>(value: &DeValue<'_>) -> Result<String, Fault> {
    match (T::SHAPE, value) {
        (Shape::Text, DeValue::String(text)) => Ok(text.to_string()),
        (Shape::Boolean, DeValue::Boolean(boolean)) => Ok(boolean.to_string()),
        (Shape::Integer, DeValue::Integer(integer)) => {
            match i128::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(number) => Ok(number.to_string()),
                Err(_) => Err(Fault::new(format!("expected {}, found {integer}", T::EXPECTED))),
            }
        }
        (Shape::Text, DeValue::Integer(_) | DeValue::Float(_)) => {
            Err(wrong_type(T::EXPECTED, value).hint("write it in quotes"))
        }
        (Shape::Integer | Shape::Boolean, DeValue::String(text))
            if T::parse(text).is_ok_and(|value| value.text() == **text) =>
        {
            Err(wrong_type(T::EXPECTED, value).hint("write it without quotes"))
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
