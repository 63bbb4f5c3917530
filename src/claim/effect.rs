//! What an exchange and the shell that carries it out say to each other: terms, effects, inputs, answers.
//!
//! [`super::exchange`] re-exports all of it, and is where the decisions are made.

use std::time::Duration;

use crate::clock::Monotonic;

use super::Verdict;
use super::record::{Operation, Reply};

/// What an exchange is held to. Checked by `config`: `upstream_timeout + guard <= lease`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// How long a claim lasts.
    pub lease: Duration,
    /// How long before the lease's end its owner stops.
    pub guard: Duration,
    /// How long a copy waits for another process's result.
    pub join_wait: Duration,
    /// How long a record is remembered.
    pub window: Duration,
    /// What to do when it is unknown whether the backend has the event.
    pub on_ambiguous: OnAmbiguous,
    /// What to do when the store cannot be asked.
    pub on_store_error: OnStoreError,
}

/// What to do when it is unknown whether the backend has the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnAmbiguous {
    /// At least once: release, and let the sender's retry forward it again, marked.
    Retry,
    /// At most once: settle as unknown, and tell the sender that all is well.
    Suppress,
}

/// What to do when the store cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnStoreError {
    /// This process's memory decides.
    Local,
    /// The sender is told to try again.
    Reject,
    /// Reject until the outage has lasted this long, then decide locally.
    RejectThenLocal(Duration),
}

/// Which store an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The one that the replicas share.
    Shared,
    /// This process's own memory, while the shared one cannot be asked.
    Local,
}

/// What the shell has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Ask a store; feed back [`Input::Replied`] or [`Input::StoreFailed`].
    Store(Place, Operation),
    /// Wait; feed back [`Input::Woke`].
    Wait(Duration),
    /// Forward the event; feed back [`Input::Forwarded`].
    Forward {
        /// The number of the attempt, from 1.
        attempt: u32,
        /// An earlier attempt may have reached the backend.
        possible_duplicate: bool,
        /// No byte may be written, and no answer waited for, after this.
        deadline: Monotonic,
    },
    /// Tell the sender; the exchange is over.
    Answer(Answer),
}

/// What came of the last effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The store replied.
    Replied(Reply),
    /// It could not be asked, or did not reply.
    StoreFailed {
        /// How long the store has been out, this failure included.
        outage: Duration,
    },
    /// The wait is over.
    Woke,
    /// The forward came to this.
    Forwarded(Outcome),
}

/// What a forward came to; `upstream` classifies it (DESIGN: "Outcome of a forward").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// 2xx.
    Delivered(u16),
    /// A 4xx that will be the same next time.
    Refused(u16),
    /// A 4xx that says the backend is set up wrong: the event is authentic.
    Misconfigured(u16),
    /// 429 or 503.
    Overloaded {
        /// Which of the two.
        status: u16,
        /// The backend's `Retry-After`; in a [`Conclusion`], held between [`super::exchange::PAUSE_MIN`] and [`super::exchange::PAUSE_MAX`].
        retry_after: Option<Duration>,
    },
    /// Another 5xx, a 3xx, or an answer that is none: `None` for the last.
    Failed(Option<u16>),
    /// Nothing was written: refused, DNS, TLS, or the deadline passed before the first byte.
    Unreached,
    /// Something was written, and no answer came.
    Ambiguous,
}

/// What the sender is told, and what is left to do behind its back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// What the sender is told.
    pub conclusion: Conclusion,
    /// What the shared store has yet to be told: to be retried there in the background, under the same owner, until the
    /// lease ends. A release that is refused as fenced is no fault then: its claim may never have been applied.
    pub unfinished: Option<Operation>,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Conclusion {
    /// This copy was forwarded, with this outcome.
    Forwarded(Outcome),
    /// Ambiguous, but settled as unknown under `suppress`.
    Suppressed,
    /// Another copy had been settled.
    Duplicate {
        /// What the backend said.
        verdict: Verdict,
        /// The content differs from what was forwarded.
        conflict: bool,
    },
    /// Another copy is still on its way, or the backend's pause still runs.
    Busy {
        /// When to ask again; at least a second.
        retry_after: Duration,
    },
    /// The store cannot be asked, and the policy is to reject.
    StoreUnavailable,
}
