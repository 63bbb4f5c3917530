//! The integration tests: one binary, because linking is what costs.

mod admin;
mod listener;
mod listener_limits;
mod listener_tls;
mod support;
mod telemetry;
