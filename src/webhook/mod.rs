//! LiveKit's webhook format: signature, event, key. The only room that knows it. Pure.
//!
//! In reading order: [`verify`] makes a [`verify::Webhook`] of a token and a body, with [`keys`] (who may sign),
//! [`token`] (what a token says) and [`refusal`] (why not); [`event`] reads what happened; [`key`] tells which event it
//! is, with [`template`] (the operator's own choice) and `content` (what copies should agree on); [`sample`] writes
//! bodies as LiveKit would. `json` is what bodies and tokens are read with, `quoted` finds the ends of its strings. HTTP, the
//! clock and the log are left to others.

mod content;
pub mod event;
pub mod field;
mod json;
#[cfg(test)]
mod json_tests;
pub mod key;
pub mod keys;
#[cfg(test)]
mod properties;
mod protojson;
mod quoted;
#[cfg(test)]
mod quoted_tests;
pub mod refusal;
pub mod sample;
pub mod template;
pub mod token;
pub mod verify;
