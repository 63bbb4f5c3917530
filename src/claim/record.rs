//! What a store holds for a key, and what each operation does to it.
//!
//! [`apply`] is the definition of every store: memory calls it, the Redis scripts repeat it, a conformance test holds
//! them together. When a record expires, and how it is written down, is left to the stores.

use std::time::Duration;

use super::{Digest, Owner, Verdict};

/// A point on the clock of one store. Values of two stores do not compare; no caller ever sees one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreTime(pub u64);

/// What a store holds for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// Nothing.
    Vacant,
    /// Somebody may forward the event until the lease lapses.
    Leased {
        /// Whose attempt it is.
        owner: Owner,
        /// How often the key has been claimed, this time included; the number of the attempt.
        attempts: u32,
        /// How many earlier attempts may have reached the backend without anybody knowing.
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
