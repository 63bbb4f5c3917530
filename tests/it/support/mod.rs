//! Real parts for the tests: backends, senders, Redis servers, gateways.

pub(crate) mod backend;
pub(crate) mod cluster;
pub(crate) mod corpus;
pub(crate) mod dial;
pub(crate) mod gateway;
pub(crate) mod h2;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod redis;
pub(crate) mod resp;
pub(crate) mod sender;
pub(crate) mod sentinel;
pub(crate) mod store;
pub(crate) mod traced;
