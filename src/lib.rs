//! oncehook: a reverse-proxy dedup gateway for LiveKit webhooks.
//!
//! In reading order:
//!
//! 1. [`clock`]: time as a value; [`text`]: numbers as text; [`worker`]: the threads that do the work.
//! 2. [`claim`]: the protocol that lets exactly one copy of an event through. Pure.
//! 3. [`webhook`]: LiveKit's format: signature, event, key. Pure.
//! 4. [`store`], [`upstream`]: what the protocol is carried out with: records, and the backend.
//! 5. [`dispatch`]: carries it out; the only room where decisions meet I/O.
//! 6. [`gateway`], [`relay`]: HTTP services for webhook paths and for all others.
//! 7. [`listener`]: connections, TLS, limits.
//! 8. [`telemetry`], [`admin`]: what an operator sees.
//! 9. [`config`], [`app`], [`cli`]: settings, the composition of all that, and its commands.

pub mod admin;
pub mod app;
pub mod claim;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dispatch;
pub mod gateway;
pub mod listener;
pub mod relay;
pub mod store;
pub mod telemetry;
pub mod text;
pub mod upstream;
pub mod webhook;
pub mod worker;
