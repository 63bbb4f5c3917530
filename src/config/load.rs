//! The only reader of files and of the environment.
//!
//! Order of precedence: flags, environment, file, `--dev`, defaults. What a setting means is left to `raw`, what does
//! not fit together to `checks`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Config;
use super::problem::Problems;

/// Where a configuration comes from.
#[derive(Clone, Default)]
pub struct Sources {
    /// The configuration file, if there is one. Paths in it are relative to its folder.
    pub file: Option<PathBuf>,
    /// The environment; see [`environment`]. It may hold secrets: there is no `Debug`.
    pub environment: BTreeMap<String, String>,
    /// The command line.
    pub overrides: Overrides,
}

/// What the command line says. Values are as typed: they are checked together with all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--listen ADDRESS`
    pub listen: Option<String>,
    /// `--backend URL`: of every route that names none.
    pub backend: Option<String>,
    /// `--store memory` or `--store redis://…`
    pub store: Option<String>,
    /// `--dev`: defaults for trials. Key `devkey`, secret `secret` if there are no other ones; 127.0.0.1, plain HTTP,
    /// memory, text log. `ONCEHOOK_TLS__ENABLED=true` makes it HTTPS with a self-signed certificate.
    pub dev: bool,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {}", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is wrong: all errors.
    #[error("{0}")]
    Invalid(Problems),
}

/// Reads and checks everything.
pub fn load(sources: &Sources) -> Result<Config, LoadError> {
    super::raw::stub(sources)
}

/// Checks a part of a configuration file, such as an example in a page: keys, types and values, but not whether it is
/// complete, nor the files that it names.
pub fn check_fragment(name: &str, text: &str) -> Result<(), Problems> {
    super::raw::stub_fragment(name, text)
}

/// This process's environment, as far as it concerns the configuration.
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        })
        .filter(|(name, _)| {
            ["ONCEHOOK_", "LIVEKIT_", "WEBHOOK_", "REDIS_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        })
        .collect()
}
