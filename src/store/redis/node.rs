//! One server that records are on: whether it is worth asking, and what it says.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::barrier::{Barrier, WaitReplicas};
use super::classify;
use super::link::Dialer;
use super::script::{Answer, Asking, Call};
use super::wire::{Patience, Source, Wire};
use crate::claim::record::Reply;
use crate::clock::{self, Monotonic};
use crate::store::StoreError;
use crate::store::breaker::{Breaker, Change};

/// What a server was asked for, or who is to be asked instead.
pub(super) enum Said {
    /// The reply.
    Reply(Reply),
    /// Another node serves the slot from now on: `host:port`.
    Moved(String),
    /// Another node has this one record, or will: `host:port`.
    Ask(String),
}

/// What every node is made with.
pub(super) struct Terms {
    pub(super) dialer: Arc<Dialer>,
    pub(super) patience: Patience,
    pub(super) breaker_failures: u32,
    pub(super) wait_replicas: Option<WaitReplicas>,
}

/// A server, or the master whatever its address.
pub(super) struct Node {
    pub(super) wire: Wire,
    pub(super) health: Health,
    barrier: Option<Barrier>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// An operation, which an open breaker refuses.
    Operation,
    /// A probe, by which it closes.
    Probe,
}

impl Node {
    /// Connects to nothing yet; called `name` in the log.
    pub(super) fn new(source: Source, name: String, terms: &Terms) -> Self {
        let barrier = terms
            .wait_replicas
            .map(|wait| Barrier::new(wait, Arc::clone(&terms.dialer), terms.patience));
        Self {
            wire: Wire::new(source, terms.patience),
            health: Health::new(name, terms.breaker_failures),
            barrier,
        }
    }

    /// Has `call` performed, and takes note of what came of it.
    pub(super) async fn perform(
        &self,
        call: &Call<'_>,
        asking: Asking,
        errand: Errand,
    ) -> Result<Said, StoreError> {
        if errand == Errand::Operation && self.health.is_open() {
            return Err(StoreError::Open);
        }
        let began = clock::monotonic();
        let said = pin!(self.say(call, asking)).await;
        if self.health.note(began, said.as_ref().err()) == Change::Opened {
            self.wire.give_up();
        }
        said
    }

    async fn say(&self, call: &Call<'_>, asking: Asking) -> Result<Said, StoreError> {
        let asked = pin!(self.wire.ask(async |link| pin!(call.run(link, asking)).await)).await;
        let (answer, link) = asked?;
        let reply = match answer {
            Answer::Reply(said) => said?,
            Answer::Moved(target) => return Ok(Said::Moved(target)),
            Answer::Ask(target) => return Ok(Said::Ask(target)),
        };
        // A claim alone is waited for: the backend must not be asked on the strength of one that a fail-over forgets.
        // A settle that it forgets leaves the claim, which lapses, and the next forward is marked.
        if let (Some(barrier), Reply::Won { .. }) = (&self.barrier, reply) {
            Box::pin(barrier.pass(&link, call.name, asking)).await?;
        }
        Ok(Said::Reply(self.marked(reply)))
    }

    /// A server that has just taken another's place may lack what that one had acknowledged last: what it takes for the
    /// first attempt may be the second.
    fn marked(&self, reply: Reply) -> Reply {
        match reply {
            Reply::Won { attempt, possible_duplicate } => Reply::Won {
                attempt,
                possible_duplicate: possible_duplicate || self.wire.is_heir(),
            },
            Reply::Busy { .. }
            | Reply::Duplicate { .. }
            | Reply::Done
            | Reply::AlreadySettled
            | Reply::Fenced => reply,
        }
    }
}

/// How a server has fared lately.
pub(super) struct Health {
    of: String,
    breaker: Mutex<Breaker>,
}

impl Health {
    /// Of the server called `of` in the log; opens at the `failures_max`th failure in a row.
    pub(super) const fn new(of: String, failures_max: u32) -> Self {
        Self { of, breaker: Mutex::new(Breaker::new(failures_max)) }
    }

    /// Whether operations are refused.
    pub(super) fn is_open(&self) -> bool {
        self.breaker().is_open()
    }

    /// Whether the last operation failed.
    pub(super) fn wants_probe(&self) -> bool {
        self.breaker().wants_probe()
    }

    /// How long every operation and probe has failed; `None` if the last one did not.
    pub(super) fn outage(&self) -> Option<Duration> {
        self.breaker().outage(clock::monotonic())
    }

    /// Takes note of what came of something that began at `began`: `None` is a success. Says what that changed.
    pub(super) fn note(&self, began: Monotonic, outcome: Option<&StoreError>) -> Change {
        let failure = outcome.filter(|error| !error.concerns_one_record());
        let now = clock::monotonic();
        let change = match failure {
            Some(_) => self.breaker().failed(began, now),
            None => self.breaker().succeeded(now),
        };
        match (change, failure) {
            (Change::Opened, Some(error)) => {
                tracing::error!(server = self.of, error = error.label(), detail = %classify::with_sources(error),
                    hint = error.hint(), "the store fails again and again and is not asked for now");
            }
            (Change::Closed, _) => tracing::info!(server = self.of, "the store answers again"),
            (Change::None | Change::Opened, _) => {}
        }
        change
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
