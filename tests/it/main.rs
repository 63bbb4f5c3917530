//! The integration tests: one binary, because linking is what costs.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::excessive_nesting,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it did not expect should stop and say so"
)]

mod admin;
mod architecture;
mod bench;
mod claim_fleet;
mod claim_fleet_effects;
mod claim_model;
mod claim_protocol;
mod claim_random;
mod claim_sim;
mod claim_world;
mod cli;
mod config;
mod gateway;
mod hostile;
mod listener;
mod listener_clients;
mod listener_limits;
mod listener_proxy;
mod listener_tls;
mod relay;
mod reload;
mod secrets;
mod store;
mod store_cluster;
mod store_commands;
mod store_disk;
mod store_errors;
mod store_faults;
mod store_memory;
mod store_proxy;
mod store_redis;
mod store_sentinel;
mod support;
mod systemd;
mod telemetry;
mod upstream;
mod webhook;
mod webhook_cli;
mod webhook_token;
