//! Whether a store is worth asking: a pure machine that learns from what came of the last operations.
//!
//! After enough failures in a row it opens, and nobody pays a time-out any more; one success closes it. While anything
//! fails, its owner probes in the background. Time is an argument; probing is left to the store.

use std::time::Duration;

use crate::clock::Monotonic;

/// The memory of recent failures.
#[derive(Debug)]
pub struct Breaker {
    failures_max: u32,
    failures: u32,
    failing_since: Option<Monotonic>,
    succeeded: Option<Monotonic>,
}

/// What an outcome changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It opened: operations are refused from now on.
    Opened,
    /// It closed: operations are let through again.
    Closed,
}

impl Breaker {
    /// Closed; opens at the `failures_max`th failure in a row (at least the first).
    pub const fn new(failures_max: u32) -> Self {
        Self {
            failures_max: if failures_max == 0 { 1 } else { failures_max },
            failures: 0,
            failing_since: None,
            succeeded: None,
        }
    }

    /// Whether operations are refused.
    pub const fn is_open(&self) -> bool {
        self.failures >= self.failures_max
    }

    /// Whether the last outcome was a failure: it may have been the only one, with nothing to follow it for hours.
    pub const fn wants_probe(&self) -> bool {
        self.failing_since.is_some()
    }

    /// How long there has been no success, counted from the first failure.
    pub fn outage(&self, now: Monotonic) -> Option<Duration> {
        self.failing_since.map(|since| now.since(since))
    }

    /// An operation or a probe was answered at `now`.
    pub fn succeeded(&mut self, now: Monotonic) -> Change {
        self.succeeded = Some(now);
        let change = if self.is_open() { Change::Closed } else { Change::None };
        self.failures = 0;
        self.failing_since = None;
        change
    }

    /// An operation or a probe that began at `began` failed at `now`. One that is older than the last success says
    /// nothing new: what waited on a connection that fell silent fails one by one, while the next connection serves.
    pub fn failed(&mut self, began: Monotonic, now: Monotonic) -> Change {
        if self.succeeded.is_some_and(|succeeded| began < succeeded) {
            return Change::None;
        }
        let was_open = self.is_open();
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(now);
        if !was_open && self.is_open() { Change::Opened } else { Change::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn opens_at_the_last_of_the_failures_and_not_before() {
        let mut breaker = Breaker::new(3);
        assert_eq!(breaker.failed(at(1), at(1)), Change::None);
        assert_eq!(breaker.failed(at(2), at(2)), Change::None);
        assert!(!breaker.is_open());
        assert_eq!(breaker.failed(at(3), at(3)), Change::Opened);
        assert!(breaker.is_open());
        assert_eq!(breaker.failed(at(4), at(4)), Change::None, "it opens once");
    }

    #[test]
    fn one_success_closes_it_and_the_count_starts_anew() {
        let mut breaker = Breaker::new(2);
        breaker.failed(at(1), at(1));
        assert_eq!(breaker.succeeded(at(1)), Change::None);
        breaker.failed(at(2), at(2));
        assert!(!breaker.is_open(), "the failures were not in a row");
        breaker.failed(at(3), at(3));
        assert!(breaker.is_open());
        assert_eq!(breaker.succeeded(at(4)), Change::Closed);
        assert!(!breaker.is_open());
    }

    #[test]
    fn an_outage_lasts_from_the_first_failure_to_the_next_success() {
        let mut breaker = Breaker::new(2);
        assert_eq!(breaker.outage(at(9)), None);
        assert!(!breaker.wants_probe());
        breaker.failed(at(10), at(10));
        assert!(breaker.wants_probe(), "a closed breaker that saw a failure is probed as well");
        breaker.failed(at(12), at(12));
        assert_eq!(breaker.outage(at(15)), Some(Duration::from_secs(5)));
        breaker.succeeded(at(15));
        assert_eq!(breaker.outage(at(16)), None);
    }

    #[test]
    fn what_began_before_the_last_success_is_no_news() {
        let mut breaker = Breaker::new(2);
        breaker.succeeded(at(5));
        for began in [3, 4, 4, 3] {
            assert_eq!(breaker.failed(at(began), at(6)), Change::None);
        }
        assert_eq!(breaker.outage(at(6)), None);
        breaker.failed(at(5), at(7));
        assert_eq!(breaker.failed(at(6), at(7)), Change::Opened);
    }
}
