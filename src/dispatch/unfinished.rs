//! What could not be recorded at once: settles and releases, retried in the background until they no longer matter.
//!
//! The queue is bounded; what finds no place, and what is given up, is counted and logged, since each may cost one more
//! copy. Deciding what is unfinished is left to `claim::exchange`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::claim::record::Operation;
use crate::claim::{Key, Owner};
use crate::clock::{self, Monotonic};
use crate::store::Store;
use crate::telemetry::Metrics;

/// How many operations may wait: some seconds of a busy gateway, or about 8 MiB.
const WAITING_MAX: usize = 65_536;
/// Between two tries while the store cannot be asked.
const PAUSE: Duration = Duration::from_millis(200);

/// One operation that the shared store has not recorded yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unfinished {
    /// Of the record.
    pub(super) key: Key,
    /// Whose attempt it was.
    pub(super) owner: Owner,
    /// What to record.
    pub(super) operation: Operation,
    /// After this it no longer matters.
    pub(super) until: Monotonic,
}

/// The queue of them.
#[derive(Default)]
pub(super) struct Backlog {
    waiting: Mutex<VecDeque<Unfinished>>,
    filled: Notify,
}

impl Backlog {
    /// Takes `unfinished` in, or counts it as lost.
    pub(super) fn add(&self, unfinished: Unfinished, metrics: &Metrics) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING_MAX {
            waiting.push_back(unfinished);
            drop(waiting);
            self.filled.notify_one();
        } else {
            drop(waiting);
            give_up(&unfinished, "the queue of unfinished operations is full", metrics);
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Records them at `store`, in order, until `stop`; then makes one last try for each and returns. An outage is
    /// common to all of them, so one that fails holds the others.
    pub(super) async fn work(
        &self,
        store: &Store,
        metrics: &Arc<Metrics>,
        stop: CancellationToken,
    ) {
        while let Some(next) = self.next(&stop).await {
            let recorded = store.execute(next.key, next.owner, next.operation).await;
            let Err(error) = recorded else { continue };
            if clock::monotonic() >= next.until || stop.is_cancelled() {
                give_up(&next, &error.to_string(), metrics);
                continue;
            }
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_front(next);
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// The oldest; waits for one until `stop`. `None` once stopped and empty.
    async fn next(&self, stop: &CancellationToken) -> Option<Unfinished> {
        loop {
            let filled = self.filled.notified();
            let oldest = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            if oldest.is_some() || stop.is_cancelled() {
                return oldest;
            }
            tokio::select! {
                () = filled => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// Says that an operation is lost, and what that may cost.
fn give_up(lost: &Unfinished, reason: &str, metrics: &Metrics) {
    metrics.unfinished_dropped();
    tracing::error!(
        key = %lost.key, operation = ?lost.operation, reason,
        "could not record the end of a forward: a later copy of this event may be forwarded again"
    );
}
