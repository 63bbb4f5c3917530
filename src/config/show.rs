//! stub
use super::Config;

/// A key of the schema.
pub struct Key;
/// Every key.
pub fn schema() -> Vec<Key> {
    Vec::new()
}
/// The effective configuration as TOML, secrets replaced.
pub fn show(_config: &Config) -> String {
    String::new()
}
