//! What a configuration says to the log when it begins to hold, and what an operator should know besides.

use std::time::Duration;

use crate::clock;
use crate::config::Config;
use crate::listener::tls::{Leaf, Tls, Validity};
use crate::telemetry::Metrics;

/// From when on an expiry is worth a warning.
const CERTIFICATE_WARNING: Duration = Duration::from_hours(14 * 24);

/// The certificates that are shown from now on.
pub(super) fn certificates(tls: Option<&Tls>, metrics: &Metrics) {
    for leaf in tls.iter().flat_map(|tls| &tls.leaves) {
        metrics.certificate(&leaf.name, clock::UnixTime::from_epoch(leaf.not_after));
        warn_of(leaf);
    }
}

/// The routes, and what looks like a mistake.
pub(super) fn configuration(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if !config.enabled {
        tracing::warn!(
            "verification and deduplication are OFF: every request is relayed as it comes"
        );
    }
    for route in &config.routes {
        tracing::info!(path = route.path.as_str(), backend = %route.upstream.backend.uri(), "route");
    }
}

fn warn_of(leaf: &Leaf) {
    let certificate = leaf.name.as_str();
    match leaf.validity(clock::unix().since_epoch()) {
        Validity::Valid(left) if left > CERTIFICATE_WARNING => {}
        Validity::Valid(left) => {
            tracing::warn!(certificate, days_left = days(left), "this certificate expires soon");
        }
        Validity::Expired(since) => {
            tracing::error!(
                certificate,
                days_since = days(since),
                "this certificate has expired: LiveKit refuses it"
            );
        }
        Validity::NotYet(early) => {
            tracing::error!(
                certificate,
                seconds_early = early.as_secs(),
                "this certificate is not valid yet"
            );
        }
    }
}

const fn days(duration: Duration) -> u64 {
    duration.as_secs() / 86_400
}
