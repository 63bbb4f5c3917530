//! What `/status` tells an operator, as JSON: what serves now, since when, and how it fares. No secrets.
//!
//! `app` knows all of it; what people read is left to `oncehook status`.

use serde::Serialize;

use crate::telemetry::metrics::Counts;

/// All of it. Times are RFC 3339, in UTC.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Of this program.
    pub version: &'static str,
    /// Whether webhooks are welcome.
    pub ready: bool,
    /// [`super::readiness::Stage::label`].
    pub stage: &'static str,
    /// When the process began to serve.
    pub started: String,
    /// How long ago that is.
    pub uptime_seconds: u64,
    /// The webhook paths.
    pub routes: Vec<Route>,
    /// Where all other paths go; `None`: they are not found.
    pub relay: Option<String>,
    /// How the store is.
    pub store: Store,
    /// Copies being worked on.
    pub in_flight: u64,
    /// Operations that wait for the store.
    pub unfinished: usize,
    /// What came of the last reload, if there was one.
    pub reload: Option<Reload>,
    /// Keys whose new values wait for a restart.
    pub restart_needed: Vec<String>,
    /// Those that are shown to senders.
    pub certificates: Vec<Certificate>,
    /// Copies since the start.
    pub counters: Counters,
}

/// A webhook path.
#[derive(Clone, Debug, Serialize)]
pub struct Route {
    /// The path.
    pub path: String,
    /// The URL it goes to.
    pub backend: String,
}

/// How the store is.
#[derive(Clone, Debug, Serialize)]
pub struct Store {
    /// Which one.
    pub kind: &'static str,
    /// Whether it cannot be asked …
    pub degraded: bool,
    /// … and since how long.
    pub outage_seconds: Option<u64>,
}

/// What came of a reload.
#[derive(Clone, Debug, Serialize)]
pub struct Reload {
    /// `applied`, `unchanged` or `rejected`.
    pub result: &'static str,
    /// When.
    pub at: String,
    /// The keys that changed and took effect.
    pub changed: Vec<String>,
    /// Why it was rejected: all that is wrong.
    pub error: Option<String>,
}

/// A certificate that is shown to senders.
#[derive(Clone, Debug, Serialize)]
pub struct Certificate {
    /// Its first name.
    pub name: String,
    /// When it expires.
    pub not_after: String,
    /// Whole days until then; negative once it is over.
    pub days_left: i64,
}

/// Copies since the start: `received` is the sum of all others once nothing is in flight.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Counters {
    /// They arrived.
    pub received: u64,
    /// They went to the backend, which took or refused them for good.
    pub forwarded: u64,
    /// Their event was known.
    pub duplicates: u64,
    /// They waited for another copy.
    pub collapsed: u64,
    /// They were no webhooks that may be accepted.
    pub refused: u64,
    /// They were told to come again.
    pub failed: u64,
}

impl From<Counts> for Counters {
    fn from(counts: Counts) -> Self {
        let Counts { received, forwarded, duplicates, collapsed, refused, failed, .. } = counts;
        Self { received, forwarded, duplicates, collapsed, refused, failed }
    }
}
