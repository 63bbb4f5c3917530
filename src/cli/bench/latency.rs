//! How long requests took: counts in buckets, so that a run of any length needs the same memory.
//!
//! Below 128 µs a bucket is 1 µs wide, above it 1/64 of its value at most: no percentile is off by more than 1.6 %.

use std::time::Duration;

/// Values in each doubling: 2^6.
const STEPS_BITS: u32 = 6;
/// Buckets for every number of microseconds that a `u64` holds.
const BUCKETS: usize = 60 << STEPS_BITS;

/// Counts of durations.
pub(super) struct Latency {
    counts: Vec<u64>,
    total: u64,
    longest: Duration,
}

impl Latency {
    pub(super) fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, longest: Duration::ZERO }
    }

    pub(super) fn add(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(micros)) {
            *count += 1;
        }
        self.total += 1;
        self.longest = self.longest.max(duration);
    }

    /// The longest.
    pub(super) fn longest(&self) -> Duration {
        self.longest
    }

    /// What so many of a hundred took at most; zero if there were none.
    pub(super) fn percentile(&self, percent: u64) -> Duration {
        let rank = (self.total * percent).div_ceil(100).max(1);
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank {
                return Duration::from_micros(last_of(bucket)).min(self.longest);
            }
        }
        self.longest
    }
}

/// Which bucket counts a value: its leading seven bits, and how many follow them.
fn bucket(micros: u64) -> usize {
    let shift = (u64::BITS - micros.leading_zeros()).saturating_sub(STEPS_BITS + 1);
    let step = usize::try_from(micros >> shift).unwrap_or(usize::MAX);
    step + (usize::try_from(shift).unwrap_or_default() << STEPS_BITS)
}

/// The largest value that a bucket counts.
fn last_of(bucket: usize) -> u64 {
    let doubling = (bucket >> STEPS_BITS).saturating_sub(1);
    let step = u64::try_from(bucket - (doubling << STEPS_BITS)).unwrap_or(u64::MAX);
    let shift = u32::try_from(doubling).unwrap_or_default();
    ((u128::from(step) + 1) << shift).saturating_sub(1).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_are_narrow() {
        let mut before = 0;
        for micros in 1..1_000_000 {
            let at = bucket(micros);
            assert!(at == before || at == before + 1, "{micros}");
            let last = last_of(at);
            assert!(micros <= last && last - micros <= micros / 64, "{micros} {last}");
            before = at;
        }
        assert!(bucket(u64::MAX) < BUCKETS);
        assert_eq!(last_of(bucket(u64::MAX)), u64::MAX);
    }

    #[test]
    fn percentiles_are_those_of_what_was_added() {
        let mut latency = Latency::new();
        assert_eq!(latency.percentile(99), Duration::ZERO);
        for micros in 1..=100 {
            latency.add(Duration::from_micros(micros));
        }
        assert_eq!(latency.percentile(50), Duration::from_micros(50));
        assert_eq!(latency.percentile(99), Duration::from_micros(99));
        assert_eq!(latency.longest(), Duration::from_micros(100));
    }
}
