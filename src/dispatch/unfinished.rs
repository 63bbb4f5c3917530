//! What could not be recorded at once: settles and releases, retried in the background until they no longer matter.
//!
//! The queue is bounded; what finds no place, and what is given up, is counted and logged, since each may cost one more
//! copy. When the store returns after an outage, what was learnt meanwhile is written back no faster than it can take
//! beside its own work. Deciding what is unfinished is left to `claim::exchange`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::claim::record::Operation;
use crate::claim::{Key, Owner};
use crate::clock::{self, Monotonic};
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

/// How many operations may wait: a minute of a busy gateway, or about 8 MiB.
const WAITING_MAX: usize = 65_536;
/// Between two rounds, while the store, or a part of it, cannot be asked.
const PAUSE: Duration = Duration::from_millis(200);
/// How many tries go to the store in each [`BURST_INTERVAL`]: a thousand a second from each gateway. A store that has just come back meets the senders' retries, too.
const BURST_MAX: u32 = 100;
const BURST_INTERVAL: Duration = Duration::from_millis(100);

/// One operation that the shared store has not recorded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
                (waiting.pop(), !waiting.failed.is_empty())
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

/// That the backend has an event is a fact, and worth more than a lease that is given up before it lapses.
const fn is_fact(operation: &Operation) -> bool {
    match operation {
        Operation::Settle { .. } => true,
        Operation::Claim { .. } | Operation::Release { .. } => false,
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

/// What waits, the oldest first.
struct Waiting {
    facts: VecDeque<Unfinished>,
    releases: VecDeque<Unfinished>,
    /// What has failed in this round, of both kinds.
    failed: VecDeque<Unfinished>,
    max: usize,
}

impl Waiting {
    const fn new(max: usize) -> Self {
        Self { facts: VecDeque::new(), releases: VecDeque::new(), failed: VecDeque::new(), max }
    }

    fn len(&self) -> usize {
        self.facts.len() + self.releases.len() + self.failed.len()
    }

    fn facts_len(&self) -> usize {
        self.facts.len() + self.failed.iter().filter(|each| is_fact(&each.operation)).count()
    }

    /// Returns what has to go: the oldest release, whose lease ends first; else, for a fact, the oldest fact, whose
    /// copies have mostly come; else `new` itself. What has failed is older than the rest.
    fn push(&mut self, new: Unfinished) -> Option<Unfinished> {
        let lost = if self.len() < self.max { None } else { self.oldest_release() };
        let full = self.len() >= self.max;
        if !is_fact(&new.operation) {
            if full {
                return Some(new);
            }
            self.releases.push_back(new);
            return lost;
        }
        let lost = if full { self.oldest_fact() } else { lost };
        self.facts.push_back(new);
        lost
    }

    fn oldest_release(&mut self) -> Option<Unfinished> {
        let failed = self.failed.iter().position(|each| !is_fact(&each.operation));
        match failed {
            Some(at) => self.failed.remove(at),
            None => self.releases.pop_front(),
        }
    }

    /// Called when no release is left.
    fn oldest_fact(&mut self) -> Option<Unfinished> {
        self.failed.pop_front().or_else(|| self.facts.pop_front())
    }

    /// Facts first. While the store is out, releases that no longer matter come to light one by one.
    fn pop(&mut self) -> Option<Unfinished> {
        self.facts.pop_front().or_else(|| self.releases.pop_front())
    }

    /// For the next round.
    fn set_aside(&mut self, unfinished: Unfinished) {
        self.failed.push_back(unfinished);
    }

    /// What has failed comes first: it is the oldest.
    fn begin_round(&mut self) {
        while let Some(last) = self.failed.pop_back() {
            let lane = if is_fact(&last.operation) { &mut self.facts } else { &mut self.releases };
            lane.push_front(last);
        }
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
    use crate::claim::record::Ending;
    use crate::claim::{Digest, Verdict};

    const WINDOW: Duration = Duration::from_hours(1);

    const fn at(millis: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_millis(millis))
    }

    fn unfinished(number: u8, operation: Operation) -> Unfinished {
        Unfinished { key: Key([number; 16]), owner: Owner(1), operation, until: at(10_000) }
    }

    fn fact(number: u8) -> Unfinished {
        let verdict = Verdict::Delivered(200);
        unfinished(number, Operation::Settle { verdict, digest: Digest(0), window: WINDOW })
    }

    fn release(number: u8) -> Unfinished {
        let (ending, pause) = (Ending::Failed, Duration::ZERO);
        unfinished(number, Operation::Release { ending, pause, window: WINDOW })
    }

    #[test]
    fn when_it_overflows_releases_go_before_facts() {
        let mut waiting = Waiting::new(3);
        for each in [release(1), fact(2), release(3)] {
            assert_eq!(waiting.push(each), None);
        }
        assert_eq!(waiting.push(release(4)), Some(release(1)), "the oldest of its kind");
        assert_eq!(waiting.push(fact(5)), Some(release(3)));
        assert_eq!(waiting.push(fact(6)), Some(release(4)));
        assert_eq!(waiting.push(release(7)), Some(release(7)), "a fact does not go for a release");
        assert_eq!(waiting.push(fact(8)), Some(fact(2)), "among facts the oldest goes");
        assert_eq!(drained(&mut waiting), [fact(5), fact(6), fact(8)]);
    }

    fn drained(waiting: &mut Waiting) -> Vec<Unfinished> {
        std::iter::from_fn(|| waiting.pop()).collect()
    }

    #[test]
    fn facts_are_written_back_first_and_one_that_failed_holds_no_other() {
        let mut waiting = Waiting::new(9);
        for each in [release(1), fact(2), fact(3)] {
            waiting.push(each);
        }
        let first = waiting.pop().unwrap();
        assert_eq!(first, fact(2));
        waiting.set_aside(first);
        assert_eq!(waiting.len(), 3, "it counts");
        assert_eq!(waiting.facts_len(), 2);
        assert_eq!(drained(&mut waiting), [fact(3), release(1)]);
        waiting.push(fact(4));
        waiting.begin_round();
        assert_eq!(drained(&mut waiting), [fact(2), fact(4)], "the oldest first");
    }

    #[test]
    fn what_has_failed_is_the_first_to_go_of_its_kind() {
        let mut waiting = Waiting::new(4);
        for each in [fact(1), release(2), fact(3), release(4)] {
            waiting.push(each);
        }
        while let Some(next) = waiting.pop() {
            waiting.set_aside(next);
        }
        assert_eq!(waiting.push(fact(5)), Some(release(2)));
        assert_eq!(waiting.push(fact(6)), Some(release(4)));
        assert_eq!(waiting.push(fact(7)), Some(fact(1)));
        waiting.begin_round();
        assert_eq!(drained(&mut waiting), [fact(3), fact(5), fact(6), fact(7)]);
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
