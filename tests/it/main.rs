//! The integration tests: one binary, because linking is what costs.

mod claim_model;
mod claim_protocol;
mod claim_world;
mod support;
