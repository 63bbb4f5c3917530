//! What an operator sees of the gateway's work: numbers ([`metrics`]) and lines ([`log`]), in the same words
//! ([`labels`]).
//!
//! Other rooms say what happened; how that is counted and written stands here. Where the numbers are served is left to
//! `admin`.

mod copies;
mod families;
mod json;
pub mod labels;
pub mod log;
pub mod metrics;
mod process;
mod series;
mod sink;
mod totals;
mod webhook_line;

pub use metrics::Metrics;
pub use series::Route;
