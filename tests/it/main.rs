//! The integration tests: one binary, because linking is what costs.

mod claim_fleet;
mod claim_fleet_effects;
mod claim_model;
mod claim_protocol;
mod claim_random;
mod claim_sim;
mod claim_world;
mod support;
