//! The integration tests: one binary, because linking is what costs.

mod support;
mod webhook;
mod webhook_cli;
mod webhook_token;
