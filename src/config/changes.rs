//! What differs between two configurations: names of keys, never their values.
//!
//! Whether a difference can take effect while the gateway runs is left to `app`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sha2::{Digest as _, Sha256};

use super::Config;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// The key of this path, as in `claim.lease` or `route[0].backend`, has another value, or is there in one only.
    Key(String),
    /// The file that this key names holds something else.
    File(String),
}

/// Marks of secrets by the path of their key: two are compared without either being kept.
#[derive(Clone, Default)]
pub(super) struct Secrets(BTreeMap<String, [u8; 32]>);

impl Secrets {
    pub(super) fn note(&mut self, path: String, secret: &str) {
        self.0.insert(path, Sha256::digest(secret).into());
    }
}

impl Change {
    /// The key.
    pub fn key(&self) -> &str {
        match self {
            Self::Key(key) | Self::File(key) => key,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.write_str(key),
            Self::File(key) => write!(f, "{key} (its file)"),
        }
    }
}

impl Config {
    /// What `new` says otherwise, in the order of the names.
    pub fn changes(&self, new: &Self) -> BTreeSet<Change> {
        let mut changes: BTreeSet<Change> =
            differing(&self.shown(), &new.shown()).map(Change::Key).collect();
        changes.extend(differing(&self.secrets.0, &new.secrets.0).map(Change::Key));
        changes.extend(differing_files(self, new).map(Change::File));
        changes
    }

    fn shown(&self) -> BTreeMap<String, String> {
        self.settings.iter().map(|setting| (setting.path.clone(), setting.value.clone())).collect()
    }
}

/// The names that have another value in the other map, or none.
fn differing<'a, V: PartialEq>(
    old: &'a BTreeMap<String, V>,
    new: &'a BTreeMap<String, V>,
) -> impl Iterator<Item = String> + use<'a, V> {
    let names: BTreeSet<&'a String> = old.keys().chain(new.keys()).collect();
    names.into_iter().filter(|name| old.get(*name) != new.get(*name)).cloned()
}

/// The keys whose files are the same by name, and not by content. That a key names another file is a change of the key,
/// and what differs in the configuration file is told key by key.
fn differing_files(old: &Config, new: &Config) -> impl Iterator<Item = String> {
    let differs = |file: &&super::InputFile| {
        !file.key.is_empty()
            && old.inputs.iter().any(|known| {
                known.key == file.key && known.path == file.path && known.digest != file.digest
            })
    };
    new.inputs.iter().filter(differs).map(|file| file.key.clone())
}
