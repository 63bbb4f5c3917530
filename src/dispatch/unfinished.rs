//! What could not be recorded at once: settles and releases, retried in the background until they no longer matter.
//!
//! The queue is bounded; what finds no place, and what is given up, is counted and logged, since each may cost one more
//! copy. When the store returns after an outage, what was learnt meanwhile is written back no faster than it can take
//! beside its own work. Deciding what is unfinished is left to `claim::exchange`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::{self, Monotonic};
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

use super::waiting::{Unfinished, Waiting, is_fact};

/// How many operations may wait: a minute of a busy gateway, or about 8 MiB.
const WAITING_MAX: usize = 65_536;
/// Between two rounds, while the store, or a part of it, cannot be asked.
const PAUSE: Duration = Duration::from_millis(200);
/// How many tries go to the store in each [`BURST_INTERVAL`]: a thousand a second from each gateway. A
/// store that has just come back meets the senders' retries, too.
const BURST_MAX: u32 = 100;
const BURST_INTERVAL: Duration = Duration::from_millis(100);

/// How far the writing back has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteBack {
    /// How many results of forwards wait for the store.
    pub facts_waiting: usize,
    /// How many leases wait to be given up there.
    pub releases_waiting: usize,
    /// How many results have been written back, since the start.
    pub facts_written: u64,
    /// How many results were given up, since the start.
    pub facts_dropped: u64,
}

impl WriteBack {
    /// How many operations wait.
    pub const fn waiting(&self) -> usize {
        self.facts_waiting.saturating_add(self.releases_waiting)
    }
}

/// The queue of them.
pub(super) struct Backlog {
    waiting: Mutex<Waiting>,
    filled: Notify,
    facts_written: AtomicU64,
    facts_dropped: AtomicU64,
}

impl Backlog {
    /// Empty.
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::new(Waiting::new(WAITING_MAX)),
            filled: Notify::new(),
            facts_written: AtomicU64::new(0),
            facts_dropped: AtomicU64::new(0),
        }
    }

    /// Takes `unfinished` in; what has to go for it, or itself, counts as lost.
    pub(super) fn add(&self, unfinished: Unfinished, metrics: &Metrics) {
        let mut waiting = self.waiting();
        let lost = waiting.push(unfinished);
        metrics.unfinished(waiting.len());
        drop(waiting);
        if let Some(lost) = lost {
            self.give_up(&lost, "the queue of unfinished operations is full", metrics);
        }
        self.filled.notify_one();
    }

    /// How far the writing back has come.
    pub(super) fn write_back(&self) -> WriteBack {
        let waiting = self.waiting();
        WriteBack {
            facts_waiting: waiting.facts_len(),
            releases_waiting: waiting.len() - waiting.facts_len(),
            facts_written: self.facts_written.load(Ordering::Relaxed),
            facts_dropped: self.facts_dropped.load(Ordering::Relaxed),
        }
    }

    /// Records them at `store` until `stop`; then goes on for `grace` at the most, and returns when none is left.
    ///
    /// One that fails waits for the next round, so that a part of the store that is out (a node of a Cluster) does not
    /// hold what the others would take.
    pub(super) async fn work(
        &self,
        store: &Store,
        metrics: &Metrics,
        stop: CancellationToken,
        grace: Duration,
    ) {
        let mut pace = Pace::new(clock::monotonic());
        let mut end = None;
        let mut facts_lost: u64 = 0;
        while let Some(next) = self.next(metrics, &stop).await {
            if stop.is_cancelled() {
                end.get_or_insert_with(|| clock::monotonic().plus(grace));
            }
            let said = self.record(&next, store, metrics).await;
            let now = clock::monotonic();
            match said {
                Ok(()) => {}
                // One record is at fault, and the next try would fail as well.
                Err(error) if now >= next.until || error.concerns_one_record() => {
                    self.give_up(&next, &error.to_string(), metrics);
                }
                Err(_) if end.is_some_and(|end| now >= end) => {
                    facts_lost += u64::from(self.count_lost(&next, metrics));
                }
                Err(_) => {
                    let mut waiting = self.waiting();
                    waiting.set_aside(next);
                    metrics.unfinished(waiting.len());
                }
            }
            sleep(pace.spend(now).unwrap_or_default(), &stop).await;
        }
        if facts_lost > 0 {
            tracing::error!(
                facts_lost,
                "the store is out at the end: later copies of these events may be forwarded again"
            );
        }
    }

    /// Whatever the store replies, it knows now. A settle that finds no lease, or another's, and a release that finds
    /// none of its own, are nothing unusual here: the claim may never have come there.
    async fn record(
        &self,
        next: &Unfinished,
        store: &Store,
        metrics: &Metrics,
    ) -> Result<(), StoreError> {
        let reply = store.execute(next.key, next.owner, next.operation).await?;
        metrics.written_back(next.operation, reply);
        metrics.unfinished(self.waiting().len());
        if is_fact(&next.operation) {
            self.facts_written.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The next that still matters; waits for one until `stop`. `None` once stopped and empty.
    async fn next(&self, metrics: &Metrics, stop: &CancellationToken) -> Option<Unfinished> {
        loop {
            let filled = self.filled.notified();
            let (next, has_failed) = {
                let mut waiting = self.waiting();
                (waiting.pop(), waiting.has_failed())
            };
            match next {
                Some(next) if next.until <= clock::monotonic() => {
                    self.give_up(&next, "it waited too long", metrics);
                }
                Some(next) => return Some(next),
                None if has_failed => {
                    // Even after `stop`: the store's probe takes about as long to find that it is back.
                    tokio::time::sleep(PAUSE).await;
                    self.waiting().begin_round();
                }
                None if stop.is_cancelled() => return None,
                None => tokio::select! {
                    () = filled => {}
                    () = stop.cancelled() => {}
                },
            }
        }
    }

    /// Says that an operation is lost, and what that may cost.
    fn give_up(&self, lost: &Unfinished, reason: &str, metrics: &Metrics) {
        if self.count_lost(lost, metrics) {
            tracing::error!(
                key = %lost.key, operation = ?lost.operation, reason,
                "could not record the end of a forward: a later copy of this event may be forwarded again"
            );
        } else {
            // Its lease, if there is one, lapses by itself.
            tracing::debug!(key = %lost.key, operation = ?lost.operation, reason, "a lease was not given up");
        }
    }

    /// Counts an operation as lost; whether it is a fact.
    fn count_lost(&self, lost: &Unfinished, metrics: &Metrics) -> bool {
        let is_fact = is_fact(&lost.operation);
        metrics.unfinished_dropped(lost.operation);
        metrics.unfinished(self.waiting().len());
        self.facts_dropped.fetch_add(u64::from(is_fact), Ordering::Relaxed);
        is_fact
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No pause is none: the runtime's timers would make a millisecond of it.
async fn sleep(pause: Duration, stop: &CancellationToken) {
    if pause.is_zero() {
        return;
    }
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = stop.cancelled() => {}
    }
}

/// Holds what is written back to its rate.
struct Pace {
    began: Monotonic,
    spent: u32,
}

impl Pace {
    const fn new(now: Monotonic) -> Self {
        Self { began: now, spent: 0 }
    }

    /// One more was tried; returns how long to wait before the next.
    fn spend(&mut self, now: Monotonic) -> Option<Duration> {
        if now.since(self.began) >= BURST_INTERVAL {
            *self = Self::new(now);
        }
        self.spent += 1;
        if self.spent < BURST_MAX {
            return None;
        }
        let pause = BURST_INTERVAL.saturating_sub(now.since(self.began));
        *self = Self::new(now.plus(pause));
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_millis(millis))
    }

    #[test]
    fn a_burst_is_followed_by_a_pause_and_a_lone_operation_by_none() {
        let mut pace = Pace::new(at(0));
        let pauses: Vec<_> = (0..250).filter_map(|_| pace.spend(at(0))).collect();
        assert_eq!(pauses, [BURST_INTERVAL, BURST_INTERVAL]);
        let mut pace = Pace::new(at(0));
        assert!((0..500).all(|number| pace.spend(at(10 * number)).is_none()), "never so fast");
    }
}
