//! Settings, parsed and cross-checked.
