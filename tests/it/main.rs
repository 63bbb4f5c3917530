//! The integration tests: one binary, because linking is what costs.

mod relay;
mod support;
mod upstream;
