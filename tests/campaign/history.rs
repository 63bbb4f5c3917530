//! What happened in one scenario, as the senders, the backend and the nemesis saw it. All times are of one clock, so
//! that "an acknowledgement came after the acceptance" can be read off.
//!
//! What it means is left to `checker`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Since the scenario began.
pub(crate) type At = Duration;

/// One request of a sender, and what it was told.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) event: u64,
    pub(crate) copy: u32,
    /// From 1.
    pub(crate) number: u32,
    /// The gateway's, in the order of their starts.
    pub(crate) gateway: usize,
    pub(crate) sent: At,
    pub(crate) ended: At,
    pub(crate) told: Told,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Status(u16),
    /// No connection, no answer, or half of one.
    Nothing,
    /// The sender itself went away before an answer came.
    HungUp,
}

/// How a copy ended for its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// 2xx.
    Acknowledged,
    /// 3xx, 501, and 4xx but 429: the sender takes it for success.
    Dismissed,
    /// Its last attempt failed as well.
    GivenUp,
    /// The sender went away.
    Gone,
}

/// One request that reached the backend whole.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// `None`: nobody sent this event with a valid signature.
    pub(crate) event: Option<u64>,
    /// `Idempotency-Key`.
    pub(crate) key: String,
    /// `Oncehook-Possible-Duplicate`.
    pub(crate) marked: bool,
    pub(crate) at: At,
    pub(crate) accepted: Option<At>,
}

/// Something that went wrong on purpose.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) what: &'static str,
    pub(crate) began: At,
    pub(crate) ended: At,
    /// The only event that it touches; else it touches all whose life it overlaps.
    pub(crate) event: Option<u64>,
    /// How many more copies of each of them it may cost.
    pub(crate) costs: u32,
    /// It made the store forget what it had acknowledged: nobody can know that a later copy ought to be marked.
    pub(crate) forgets: bool,
    /// It makes a gateway refuse valid copies (a clock that is far off).
    pub(crate) refuses: bool,
}

/// Everything that was recorded.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) attempts: Vec<Attempt>,
    /// How each copy (event, number of the copy) ended.
    pub(crate) ends: BTreeMap<(u64, u32), End>,
    pub(crate) arrivals: Vec<Arrival>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) forged: u64,
    /// Forged copies that were answered with anything but a refusal.
    pub(crate) believed: u64,
    /// What was found wrong on the way: gateways' pages and logs, and what is left in the store.
    pub(crate) complaints: Vec<String>,
}

/// Collects a [`History`].
pub(crate) struct Recorder {
    began: Instant,
    history: Mutex<History>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), history: Mutex::default() }
    }

    pub(crate) fn now(&self) -> At {
        self.began.elapsed()
    }

    pub(crate) fn write(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fault that began then, is over now, touched all events that lived meanwhile and may have cost each of them one
    /// more copy.
    pub(crate) fn over(&self, what: &'static str, began: At) -> Fault {
        let ended = self.now();
        Fault { what, began, ended, event: None, costs: 1, forgets: false, refuses: false }
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.write().faults.push(fault);
    }

    pub(crate) fn complain(&self, complaint: String) {
        self.write().complaints.push(complaint);
    }
}
