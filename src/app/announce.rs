//! What a configuration says to the log when it begins to hold.

use crate::config::Config;

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
