//! Watches the store, so that an outage has a beginning and an end in the log and a gauge in the metrics.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use crate::store::Store;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Degraded;

/// How often to look. An outage that is over sooner costs nobody more than a time-out.
const INTERVAL: Duration = Duration::from_millis(250);

/// Looks at `store` for as long as it is polled.
pub(super) async fn store(store: &Store, metrics: &Metrics) -> Infallible {
    let mut outage: Option<Duration> = None;
    loop {
        let now = store.outage();
        match (outage, now) {
            (None, Some(lasted)) => {
                metrics.store_degraded(Degraded::Yes);
                tracing::error!(
                    store = store.kind(),
                    outage_ms = millis(lasted),
                    "the store cannot be asked: store.on_store_error decides now"
                );
            }
            (Some(lasted), None) => {
                metrics.store_degraded(Degraded::No);
                tracing::info!(
                    store = store.kind(),
                    outage_ms = millis(lasted),
                    "the store answers again"
                );
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
        outage = now;
        tokio::time::sleep(INTERVAL).await;
    }
}

/// An error and its sources, on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        line.push_str(": ");
        line.push_str(&inner.to_string());
        source = inner.source();
    }
    line
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
