//! Real parts for the tests: backends, senders, Redis servers, gateways.

pub(crate) mod dial;
