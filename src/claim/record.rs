//! What a store holds for a key, and what each operation does to it.
//!
//! [`apply`] is the definition of every store: memory calls it, Redis' scripts and commands repeat it, a conformance test
//! holds them together. When a record expires, and how it is written down, is left to the stores.

use std::time::Duration;

use super::{Digest, Owner, Verdict};

/// A point on the clock of one store, in milliseconds. Values of two stores do not compare; no caller ever sees one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreTime(pub u64);

impl StoreTime {
    /// The point `after` later, or the last one that can be written. What is below a millisecond is dropped, as in the
    /// Redis scripts; the guard is there for such things.
    #[must_use]
    pub fn plus(self, after: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// What a store holds for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// Nothing.
    Vacant,
    /// Somebody may forward the event until the lease lapses.
    Leased {
        /// Whose attempt it is.
        owner: Owner,
        /// How often the key has been claimed, this time included: the number of the attempt, and its fence.
        attempts: u32,
        /// How many earlier attempts may have reached the backend without anybody knowing. Never reset: a later attempt
        /// that certainly failed says nothing about them.
        lapses: u32,
        /// When the lease lapses (milliseconds of the store's clock).
        until: StoreTime,
    },
    /// Given up; the next copy may claim it.
    Released {
        /// As in `Leased`.
        attempts: u32,
        /// As in `Leased`, the attempt just given up included.
        lapses: u32,
        /// Not to be claimed before (milliseconds of the store's clock).
        not_before: StoreTime,
    },
    /// The backend has it, or refused it for good.
    Settled {
        /// What the backend said.
        verdict: Verdict,
        /// Of the content that was forwarded.
        digest: Digest,
    },
}

/// What an attempt that is given up came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The backend certainly did not accept the event.
    Failed,
    /// It may have.
    Ambiguous,
}

/// What an exchange asks of a store. Each carries the window: the record's expiry in every state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Ask for the right to forward.
    Claim {
        /// For how long.
        lease: Duration,
        /// How long the store remembers the record.
        window: Duration,
    },
    /// Record what the backend said.
    Settle {
        /// What it said.
        verdict: Verdict,
        /// Of the content that was forwarded.
        digest: Digest,
        /// How long the store remembers the record.
        window: Duration,
    },
    /// Give the key up.
    Release {
        /// What the attempt came to.
        ending: Ending,
        /// How long nobody may claim it (a backend's `Retry-After`); zero for not at all.
        pause: Duration,
        /// How long the store remembers the record.
        window: Duration,
    },
}

impl Operation {
    /// Whether a store writes the record, and with it the expiry, though the record stays what it was: every delivery
    /// is remembered for the whole window, the first one and a repeated one.
    pub const fn always_writes(&self) -> bool {
        match self {
            Self::Settle { verdict, .. } => is_delivery(*verdict),
            Self::Claim { .. } | Self::Release { .. } => false,
        }
    }
}

/// What a store says to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// To a claim: the asker may forward.
    Won {
        /// The number of this attempt, from 1.
        attempt: u32,
        /// An earlier attempt may have reached the backend.
        possible_duplicate: bool,
    },
    /// To a claim: another may, or nobody may yet.
    Busy {
        /// How much of the lease or of the pause is left.
        remaining: Duration,
    },
    /// To a claim: it is done already.
    Duplicate {
        /// What the backend said.
        verdict: Verdict,
        /// Of the content that was forwarded.
        digest: Digest,
    },
    /// To a settle or a release: recorded.
    Done,
    /// To a settle: another had settled it. A real double, unless this is a repeat after a lost reply.
    AlreadySettled,
    /// To a settle: recorded, but the asker no longer held the lease. To a release: not recorded for that reason.
    Fenced,
}

/// Performs `operation` of `owner` on `slot` and says what came of it; the definition of every store.
///
/// `now` is read from the store's own clock, so that no two replicas need agree on the time. Forgetting a record once
/// its window has passed is the store's affair; until then it keeps the record through every lease that lapses.
///
/// # Panics
/// If `slot` counts what cannot be: a claim that is no attempt, or more lapses than attempts.
pub fn apply(slot: &mut Record, owner: Owner, operation: &Operation, now: StoreTime) -> Reply {
    assert_counts(slot);
    let reply = match *operation {
        Operation::Claim { lease, window: _ } => claim(slot, owner, now.plus(lease), now),
        Operation::Settle { verdict, digest, window: _ } => settle(slot, owner, verdict, digest),
        Operation::Release { ending, pause, window: _ } => {
            release(slot, owner, ending, now.plus(pause))
        }
    };
    assert_counts(slot);
    reply
}

fn claim(slot: &mut Record, owner: Owner, until: StoreTime, now: StoreTime) -> Reply {
    let (attempts, lapses) = match *slot {
        Record::Vacant => (0, 0),
        Record::Leased { owner: holder, attempts, lapses, .. } if holder == owner => {
            // A repeat after a lost reply. The lease is not renewed: the owner counts from its first claim.
            return won(attempts, lapses);
        }
        Record::Leased { until, .. } if now < until => {
            return Reply::Busy { remaining: until.since(now) };
        }
        // Whoever held it died or stalled, and may have forwarded.
        Record::Leased { attempts, lapses, .. } => (attempts, lapses.saturating_add(1)),
        Record::Released { not_before, .. } if now < not_before => {
            return Reply::Busy { remaining: not_before.since(now) };
        }
        Record::Released { attempts, lapses, .. } => (attempts, lapses),
        Record::Settled { verdict, digest } => return Reply::Duplicate { verdict, digest },
    };
    let attempts = attempts.saturating_add(1);
    *slot = Record::Leased { owner, attempts, lapses, until };
    won(attempts, lapses)
}

const fn won(attempt: u32, lapses: u32) -> Reply {
    Reply::Won { attempt, possible_duplicate: lapses > 0 }
}

/// That the backend has the event is a fact, not a lock: it is recorded whoever says so, whoever holds the lease.
fn settle(slot: &mut Record, owner: Owner, verdict: Verdict, digest: Digest) -> Reply {
    let reply = match *slot {
        Record::Settled { .. } if !is_delivery(verdict) => return Reply::AlreadySettled,
        Record::Settled { .. } => Reply::AlreadySettled,
        Record::Leased { owner: holder, .. } if holder == owner => Reply::Done,
        Record::Vacant | Record::Leased { .. } | Record::Released { .. } => Reply::Fenced,
    };
    *slot = Record::Settled { verdict, digest };
    reply
}

/// The first verdict stays, but for a delivery, which is always written: no later copy may be told that an event was
/// refused, or that nobody knows, once it was delivered.
///
/// Of two deliveries the last one stays. That is as good as the first: the backend has accepted the event twice, which
/// is counted either way, and whichever stays tells the next copy of a delivery. And it needs no look at the record
/// before the write: Redis does it with one SET that gives back what was there, for a third of what a script costs.
const fn is_delivery(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Delivered(_) => true,
        Verdict::Refused(_) | Verdict::Unknown => false,
    }
}

fn release(slot: &mut Record, owner: Owner, ending: Ending, not_before: StoreTime) -> Reply {
    match *slot {
        Record::Leased { owner: holder, attempts, lapses, .. } if holder == owner => {
            let lapses = match ending {
                Ending::Failed => lapses,
                Ending::Ambiguous => lapses.saturating_add(1),
            };
            *slot = Record::Released { attempts, lapses, not_before };
            Reply::Done
        }
        Record::Vacant
        | Record::Leased { .. }
        | Record::Released { .. }
        | Record::Settled { .. } => Reply::Fenced,
    }
}

fn assert_counts(record: &Record) {
    match *record {
        Record::Leased { attempts, lapses, .. } | Record::Released { attempts, lapses, .. } => {
            assert!(attempts > 0, "a record that was claimed counts no attempt: {record:?}");
            assert!(lapses <= attempts, "more attempts lapsed than were made: {record:?}");
        }
        Record::Vacant | Record::Settled { .. } => {}
    }
}
