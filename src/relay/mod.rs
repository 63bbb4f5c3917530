//! HTTP service of all other paths: untouched, streaming, upgrades.
