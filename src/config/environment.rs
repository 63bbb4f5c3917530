//! Variables of the environment, as far as they concern the configuration: some are secrets, so all are wiped when they
//! are no longer needed, and none is shown.
//!
//! Reading them is left to [`super::load`]. What the process itself was started with stays where the operating system
//! keeps it (`/proc/PID/environ`): a file is the better place for a secret.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

/// Names and values. It has no `Debug`, since it may hold secrets.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, Zeroizing<String>>);

impl Environment {
    /// What a variable says; `None` if it is not there, or empty.
    pub(super) fn text(&self, name: &str) -> Option<Zeroizing<String>> {
        self.0.get(name).filter(|text| !text.is_empty()).cloned()
    }

    /// The names of all.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }
}

impl Extend<(String, String)> for Environment {
    fn extend<T: IntoIterator<Item = (String, String)>>(&mut self, pairs: T) {
        self.0.extend(pairs.into_iter().map(|(name, value)| (name, Zeroizing::new(value))));
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(pairs: T) -> Self {
        let mut environment = Self::default();
        environment.extend(pairs);
        environment
    }
}
