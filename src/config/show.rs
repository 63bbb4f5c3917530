//! The configuration in force, for people: as TOML, each value with its origin, secrets replaced.

use super::Config;
use super::raw;
use super::reader::{Files, Layers, Origin, Reader, Setting};

/// A key of the schema.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The header of its section, such as `[claim]` or `[[route]]`; empty before the first section.
    pub section: String,
    /// Its name.
    pub name: String,
    /// Its default as TOML, if it has one of its own.
    pub default: Option<String>,
}

/// Every key that a configuration file may have.
pub fn schema() -> Vec<Key> {
    let mut reader = Reader::new(Layers::default(), Files::Skip, None, None);
    drop(reader.read(raw::config));
    let mut keys = reader.finish().schema;
    keys.sort();
    keys.dedup();
    keys
}

/// The configuration in force as TOML, secrets replaced; a comment behind each value says where it comes from.
pub fn show(config: &Config) -> String {
    let mut sections: Vec<(&str, &str, Vec<&Setting>)> = Vec::new();
    for setting in &config.settings {
        match sections.iter_mut().find(|(section, ..)| *section == setting.section) {
            Some((_, _, settings)) => settings.push(setting),
            None => sections.push((&setting.section, &setting.header, vec![setting])),
        }
    }
    // What stands before the first section cannot stand after one.
    sections.sort_by_key(|(section, ..)| !section.is_empty());
    let mut out = String::new();
    for (section, header, settings) in sections {
        if !section.is_empty() {
            line(&mut out, &format!("\n{header}"));
        }
        for setting in settings {
            line(
                &mut out,
                &format!("{} = {}  # {}", bare(&setting.name), setting.value, origin(setting)),
            );
        }
    }
    out.trim_start().to_owned()
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn bare(name: &str) -> String {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if plain && !name.is_empty() { name.to_owned() } else { super::value::quoted(name) }
}

fn origin(setting: &Setting) -> String {
    match (&setting.origin, &setting.place) {
        (Origin::Default, _) => "default".to_owned(),
        (Origin::Dev, _) => "--dev".to_owned(),
        (Origin::File(_) | Origin::Variable(_) | Origin::Flag(_), Some(place)) => place.to_string(),
        (Origin::File(_) | Origin::Variable(_) | Origin::Flag(_), None) => "unknown".to_owned(),
    }
}
