//! Carries one exchange from its first effect to its answer.

use std::pin::pin;
use std::time::Duration;

use crate::claim::exchange::{Answer, Conclusion, Effect, Exchange, Input, Outcome, Place};
use crate::claim::record::{Operation, Reply};
use crate::claim::{Key, Owner};
use crate::clock::{self, Monotonic};
use crate::store::StoreError;
use crate::upstream::Forward;

use super::waiting::Unfinished;
use super::{Concluded, Copy, Dispatch, owner};

/// The forward of an exchange, as far as its conclusion tells.
#[derive(Clone, Copy, Default)]
pub(super) struct Attempt {
    /// From 1; 0 before the first.
    pub(super) number: u32,
    /// It was marked.
    pub(super) possible_duplicate: bool,
}

impl Dispatch {
    /// Performs the exchange of `copy`. Bounded: by `join_wait` while another process has the claim, and by the owner's
    /// deadline after it is won.
    pub(super) async fn perform(&self, copy: &Copy) -> Concluded {
        let began = clock::monotonic();
        let Some(owner) = owner::fresh(began) else {
            tracing::error!(
                "the operating system gives no random numbers: the event is not claimed"
            );
            return Concluded::of(Conclusion::StoreUnavailable);
        };
        let (mut exchange, mut effect) =
            Exchange::start(self.terms(copy), owner, copy.digest, began);
        let mut attempt = Attempt::default();
        // Read once between two effects: the end of the one is the begin of the next.
        let mut now = began;
        loop {
            let input;
            (input, now) = match effect {
                Effect::Store(place, operation) => {
                    pin!(self.ask((place, operation), copy.key, owner, now)).await
                }
                Effect::Wait(pause) => {
                    tokio::time::sleep(pause).await;
                    (Input::Woke, clock::monotonic())
                }
                Effect::Forward { attempt: number, possible_duplicate, deadline } => {
                    attempt = Attempt { number, possible_duplicate };
                    let (outcome, ended) = pin!(self.forward(copy, attempt, deadline, now)).await;
                    (Input::Forwarded(outcome), ended)
                }
                Effect::Answer(answer) => return self.conclude(copy, owner, answer, attempt),
            };
            effect = exchange.step(input, now);
        }
    }

    /// Asks a store, and counts what it says. Ends, as all of these, with the time when that was known.
    pub(super) async fn ask(
        &self,
        (place, operation): (Place, Operation),
        key: Key,
        owner: Owner,
        began: Monotonic,
    ) -> (Input, Monotonic) {
        let said = match place {
            Place::Shared => pin!(self.stores.shared.execute(key, owner, operation)).await,
            Place::Local => self.stores.local.execute(key, owner, operation, began),
        };
        let counted = said.as_ref().map(|reply| *reply).map_err(StoreError::label);
        let ended = clock::monotonic();
        self.metrics.store_operation(operation, counted, ended.since(began));
        let input = match said {
            Ok(reply) => {
                // The local store only hears of what the shared one did not take: that it knew of no lease means nothing.
                if place == Place::Shared {
                    self.count(&reply, &operation, key);
                }
                Input::Replied(reply)
            }
            Err(error) => {
                tracing::debug!(%key, ?operation, %error, "the store did not reply");
                Input::StoreFailed { outage: self.stores.shared.outage().unwrap_or_default() }
            }
        };
        (input, ended)
    }

    /// Forwards `copy`, and counts what came of it.
    pub(super) async fn forward(
        &self,
        copy: &Copy,
        attempt: Attempt,
        deadline: Monotonic,
        began: Monotonic,
    ) -> (Outcome, Monotonic) {
        let may_write = || clock::monotonic() < deadline;
        let forward = Forward {
            head: &copy.head,
            body: copy.webhook.body(),
            peer: &copy.peer,
            key: copy.key,
            attempt: attempt.number,
            possible_duplicate: attempt.possible_duplicate,
            request_id: &copy.request_id,
            budget: deadline.since(began).min(copy.route.upstream_timeout),
            may_write: &may_write,
        };
        let forwarded = pin!(copy.route.upstream.forward(forward)).await;
        let ended = clock::monotonic();
        self.metrics.forwarded(&copy.route.name, forwarded.outcome, ended.since(began));
        if attempt.possible_duplicate {
            self.metrics.possible_duplicate();
        }
        if let Some(detail) = forwarded.detail {
            tracing::warn!(
                route = copy.route.name.as_str(), key = %copy.key, request_id = %copy.request_id, attempt = attempt.number,
                error = %detail, "the backend gave no usable answer"
            );
        }
        (forwarded.outcome, ended)
    }

    /// Hands over what is unfinished, and reports.
    fn conclude(&self, copy: &Copy, owner: Owner, answer: Answer, attempt: Attempt) -> Concluded {
        if let Some(operation) = answer.unfinished {
            let until = clock::monotonic().plus(self.matters_for(&operation));
            self.backlog.add(Unfinished { key: copy.key, owner, operation, until }, &self.metrics);
        }
        Concluded {
            attempt: attempt.number,
            possible_duplicate: attempt.possible_duplicate,
            ..Concluded::of(answer.conclusion)
        }
    }

    /// How long an operation is worth recording: a fact as long as its record would live, a release as long as the lease
    /// that it would end.
    fn matters_for(&self, operation: &Operation) -> Duration {
        match *operation {
            Operation::Settle { window, .. } => window,
            Operation::Claim { .. } | Operation::Release { .. } => self.options().lease,
        }
    }

    /// Counts what a settle finds that should not have been: each is a copy too many, or the chance of one.
    fn count(&self, reply: &Reply, operation: &Operation, key: Key) {
        match (reply, operation) {
            (Reply::AlreadySettled, Operation::Settle { .. }) => {
                self.metrics.double();
                tracing::warn!(%key, "the event had been settled already: the backend got it twice");
            }
            (Reply::Fenced, Operation::Settle { .. }) => {
                self.metrics.fenced();
                tracing::warn!(%key, "the lease had passed on before this forward was settled: another may follow");
            }
            (
                Reply::Won { .. }
                | Reply::Busy { .. }
                | Reply::Duplicate { .. }
                | Reply::Done
                | Reply::AlreadySettled
                | Reply::Fenced,
                Operation::Claim { .. } | Operation::Settle { .. } | Operation::Release { .. },
            ) => {}
        }
    }
}
