//! Watches the store, so that an outage has a beginning and an end in the log and a length in the metrics, and so has
//! the writing back of what was learnt meanwhile.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use crate::clock::{self, Monotonic};
use crate::dispatch::{Dispatch, WriteBack};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Degraded;

/// How often to look. An outage that is over sooner costs nobody more than a time-out.
const INTERVAL: Duration = Duration::from_millis(250);

/// Looks at the store of `dispatch` for as long as it is polled.
pub(super) async fn store(dispatch: &Dispatch, metrics: &Metrics) -> Infallible {
    let mut outage = None;
    let mut before = WriteBack::default();
    let mut recovery = None;
    loop {
        let store = &dispatch.stores().shared;
        let (now, back) = (store.outage(), dispatch.write_back());
        match (outage, now) {
            (None, Some(lasted)) => {
                before = back;
                recovery = None;
                began(store.kind(), lasted, metrics);
            }
            (Some(lasted), None) => {
                ended(store.kind(), lasted, &back, metrics);
                recovery = Some(Recovery { before, began: clock::monotonic() });
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
        let longer = now.unwrap_or_default().saturating_sub(outage.unwrap_or_default());
        metrics.store_degraded_for(longer);
        outage = now;
        if back.facts_waiting == 0
            && let Some(recovery) = recovery.take()
        {
            recovery.over(&back);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn began(store: &'static str, lasted: Duration, metrics: &Metrics) {
    metrics.store_degraded(Degraded::Yes);
    tracing::error!(
        store,
        outage_ms = millis(lasted),
        "the store cannot be asked: store.on_store_error decides now"
    );
}

fn ended(store: &'static str, lasted: Duration, back: &WriteBack, metrics: &Metrics) {
    metrics.store_degraded(Degraded::No);
    tracing::info!(
        store,
        outage_ms = millis(lasted),
        facts_waiting = back.facts_waiting,
        releases_waiting = back.releases_waiting,
        "the store answers again"
    );
}

/// The writing back after an outage.
struct Recovery {
    /// How far it was when the outage began.
    before: WriteBack,
    began: Monotonic,
}

impl Recovery {
    /// Says that nothing is left to write back, if there was anything.
    fn over(&self, back: &WriteBack) {
        let facts_written = back.facts_written.saturating_sub(self.before.facts_written);
        let facts_dropped = back.facts_dropped.saturating_sub(self.before.facts_dropped);
        if facts_written + facts_dropped > 0 {
            let took_ms = millis(clock::monotonic().since(self.began));
            tracing::info!(
                facts_written,
                facts_dropped,
                took_ms,
                "what was learnt while the store was out is written back"
            );
        }
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
