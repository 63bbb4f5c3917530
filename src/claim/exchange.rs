//! What one copy does next, from its arrival to its answer.
//!
//! [`Exchange::step`] takes what came of the last effect and returns the next one; there is never more than one
//! outstanding. Performing it, and the waiting, is left to `dispatch`; what an answer looks like to `gateway::answer`.
//!
//! # Whose lease, until when
//! The owner may write until [`Effect::Forward`]'s deadline: lease − guard after the point just before the first claim
//! that may have taken the lease was sent. A busy reply proves that none has, so the next claim counts anew; but from
//! the first claim whose reply was lost the count is never started again, because that claim may be applied late.
//!
//! # While the shared store is out
//! A claim whose reply was lost is repeated once, and then the policy speaks. A replica that decides alone cannot know
//! what the others do, so all that it forwards is marked: of the copies that a backend accepts, at most one is not.
//! What it finds out is written back, and a claim that may have been applied all the same is released.

use std::time::Duration;

use crate::clock::Monotonic;

pub use super::effect::{
    Answer, Conclusion, Effect, Input, OnAmbiguous, OnStoreError, Outcome, Place, Terms,
};
use super::record::{Ending, Operation, Reply};
use super::{Digest, Owner, Verdict};

/// How often a claim whose reply was lost is repeated before the policy speaks.
const CLAIM_REPEATS_MAX: u32 = 1;

/// What is added to a store's remaining lease, so that the sender does not come a moment too early; and the least that
/// a sender is ever told to wait (0 would burn all its attempts at once).
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// The least that a backend's `Retry-After` counts for.
pub const PAUSE_MIN: Duration = Duration::from_secs(2);

/// The most that a backend's `Retry-After` counts for: the sender obeys it uncapped, and gives up 15 s after the start.
pub const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How long beyond lease − guard after its arrival a copy that had to wait may still be forwarded. With the defaults:
/// 8 s + 1 s, and two store operations of 250 ms, keep the answer within 9.5 s.
const ANSWER_SLACK: Duration = Duration::from_secs(1);

/// One copy's way from its arrival to its answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Exchange {
    terms: Terms,
    owner: Owner,
    digest: Digest,
    arrived: Monotonic,
    /// Just before the first claim that may have taken the lease was sent.
    claimed: Monotonic,
    /// A claim may be applied that nobody has seen the reply of.
    reply_lost: bool,
    /// How often a busy copy has asked again.
    polls: u32,
    state: State,
}

/// Which effect is outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Claiming { place: Place, repeats: u32 },
    Waiting { place: Place },
    Forwarding { place: Place },
    Concluding { place: Place, operation: Operation, conclusion: Conclusion },
    Answered,
}

impl Exchange {
    /// Begins the exchange of a copy that arrives `now`, and returns its first effect. `owner` is its own, never used
    /// before; `digest` is of its content.
    ///
    /// # Panics
    /// If the terms leave no time to forward, which `config` refuses.
    pub fn start(terms: Terms, owner: Owner, digest: Digest, now: Monotonic) -> (Self, Effect) {
        assert!(terms.guard < terms.lease, "no time to forward: {terms:?}");
        let state = State::Claiming { place: Place::Shared, repeats: 0 };
        let mut exchange = Self {
            terms,
            owner,
            digest,
            arrived: now,
            claimed: now,
            reply_lost: false,
            polls: 0,
            state,
        };
        let effect = exchange.claim(Place::Shared, 0);
        (exchange, effect)
    }

    /// Takes what came of the last effect, and returns the next. `now` is read after the one and before the other is
    /// begun: the deadline is counted from it.
    ///
    /// # Panics
    /// If `input` does not belong to the last effect: a bug of the caller. What a store replies never panics.
    pub fn step(&mut self, input: Input, now: Monotonic) -> Effect {
        match (self.state, input) {
            (State::Claiming { place, repeats }, Input::Replied(reply)) => {
                self.claim_replied(place, repeats, reply, now)
            }
            (State::Claiming { place, repeats }, Input::StoreFailed { outage }) => {
                self.claim_lost(place, repeats, outage)
            }
            (State::Waiting { place }, Input::Woke) => {
                if !self.reply_lost {
                    self.claimed = now;
                }
                self.claim(place, 0)
            }
            (State::Forwarding { place }, Input::Forwarded(outcome)) => {
                self.forwarded(place, outcome)
            }
            (State::Concluding { place, operation, conclusion }, Input::Replied(reply)) => {
                self.concluded(place, operation, conclusion, fits(&operation, reply))
            }
            (State::Concluding { place, operation, conclusion }, Input::StoreFailed { .. }) => {
                self.concluded(place, operation, conclusion, Recorded::No)
            }
            (
                State::Claiming { .. } | State::Concluding { .. },
                Input::Woke | Input::Forwarded(_),
            )
            | (
                State::Waiting { .. },
                Input::Replied(_) | Input::StoreFailed { .. } | Input::Forwarded(_),
            )
            | (
                State::Forwarding { .. },
                Input::Replied(_) | Input::StoreFailed { .. } | Input::Woke,
            )
            | (State::Answered, _) => unreachable!("{input:?} answers no effect of {self:?}"),
        }
    }

    fn claim(&mut self, place: Place, repeats: u32) -> Effect {
        self.state = State::Claiming { place, repeats };
        Effect::Store(
            place,
            Operation::Claim { lease: self.terms.lease, window: self.terms.window },
        )
    }

    fn claim_replied(
        &mut self,
        place: Place,
        repeats: u32,
        reply: Reply,
        now: Monotonic,
    ) -> Effect {
        match reply {
            Reply::Won { attempt, possible_duplicate } => {
                self.won(place, attempt, possible_duplicate, now)
            }
            Reply::Busy { remaining } => self.busy(place, remaining, now),
            Reply::Duplicate { verdict, digest } => {
                let conclusion = Conclusion::Duplicate { verdict, conflict: digest != self.digest };
                self.answer(conclusion, self.abandoned(place))
            }
            // Replies to other operations. A store that talks like that knows nothing of the claim.
            Reply::Done | Reply::AlreadySettled | Reply::Fenced => {
                self.claim_lost(place, repeats, Duration::ZERO)
            }
        }
    }

    fn won(
        &mut self,
        place: Place,
        attempt: u32,
        possible_duplicate: bool,
        now: Monotonic,
    ) -> Effect {
        let deadline = self.deadline();
        if now >= deadline {
            // Too late to write: the lease may be another's by the time the backend reads it.
            let conclusion = Conclusion::Busy { retry_after: RETRY_AFTER_MIN };
            return self.conclude(place, self.release(Ending::Failed, Duration::ZERO), conclusion);
        }
        self.state = State::Forwarding { place };
        let possible_duplicate = possible_duplicate || place == Place::Local;
        Effect::Forward { attempt, possible_duplicate, deadline }
    }

    /// The owner's own deadline; and for one that had to wait, the sender's patience.
    fn deadline(&self) -> Monotonic {
        let term = self.terms.lease.saturating_sub(self.terms.guard);
        self.claimed.plus(term).min(self.arrived.plus(term).plus(ANSWER_SLACK))
    }

    fn busy(&mut self, place: Place, remaining: Duration, now: Monotonic) -> Effect {
        let patience = self.terms.join_wait.saturating_sub(now.since(self.arrived));
        if patience.is_zero() {
            // No lease and no pause is longer, whatever a store may reply.
            let remaining = remaining.min(self.terms.lease.max(PAUSE_MAX));
            let retry_after = remaining.saturating_add(RETRY_AFTER_MIN);
            return self.answer(Conclusion::Busy { retry_after }, self.abandoned(place));
        }
        let wait = jittered(self.owner, self.polls).min(patience);
        self.polls = self.polls.saturating_add(1);
        self.state = State::Waiting { place };
        Effect::Wait(wait)
    }

    fn claim_lost(&mut self, place: Place, repeats: u32, outage: Duration) -> Effect {
        match place {
            Place::Shared if repeats < CLAIM_REPEATS_MAX => {
                self.reply_lost = true;
                self.claim(place, repeats.saturating_add(1))
            }
            Place::Shared if self.decides_alone(outage) => {
                self.reply_lost = true;
                self.claim(Place::Local, 0)
            }
            Place::Shared | Place::Local => {
                // One of the claims may have been applied. Nobody would use its lease, so it is given back: the sender
                // comes again in a second, and would find its own event busy.
                self.answer(Conclusion::StoreUnavailable, self.abandoned(Place::Local))
            }
        }
    }

    fn decides_alone(&self, outage: Duration) -> bool {
        match self.terms.on_store_error {
            OnStoreError::Local => true,
            OnStoreError::Reject => false,
            OnStoreError::RejectThenLocal(after) => outage >= after,
        }
    }

    fn forwarded(&mut self, place: Place, outcome: Outcome) -> Effect {
        let conclusion = Conclusion::Forwarded(outcome);
        match outcome {
            Outcome::Delivered(status) => {
                self.conclude(place, self.settle(Verdict::Delivered(status)), conclusion)
            }
            Outcome::Refused(status) => {
                self.conclude(place, self.settle(Verdict::Refused(status)), conclusion)
            }
            Outcome::Overloaded { status, retry_after } => {
                // Without a Retry-After the sender's own schedule is the pause.
                let retry_after = retry_after.map(|pause| pause.clamp(PAUSE_MIN, PAUSE_MAX));
                let conclusion = Conclusion::Forwarded(Outcome::Overloaded { status, retry_after });
                self.conclude(
                    place,
                    self.release(Ending::Failed, retry_after.unwrap_or_default()),
                    conclusion,
                )
            }
            Outcome::Misconfigured(_) | Outcome::Failed(_) | Outcome::Unreached => {
                self.conclude(place, self.release(Ending::Failed, Duration::ZERO), conclusion)
            }
            Outcome::Ambiguous => match self.terms.on_ambiguous {
                OnAmbiguous::Retry => self.conclude(
                    place,
                    self.release(Ending::Ambiguous, Duration::ZERO),
                    conclusion,
                ),
                OnAmbiguous::Suppress => {
                    self.conclude(place, self.settle(Verdict::Unknown), Conclusion::Suppressed)
                }
            },
        }
    }

    fn settle(&self, verdict: Verdict) -> Operation {
        Operation::Settle { verdict, digest: self.digest, window: self.terms.window }
    }

    fn release(&self, ending: Ending, pause: Duration) -> Operation {
        Operation::Release { ending, pause, window: self.terms.window }
    }

    fn conclude(&mut self, place: Place, operation: Operation, conclusion: Conclusion) -> Effect {
        self.state = State::Concluding { place, operation, conclusion };
        Effect::Store(place, operation)
    }

    /// The verdict stands whatever the store says; what it does not know yet is left to the background.
    fn concluded(
        &mut self,
        place: Place,
        operation: Operation,
        conclusion: Conclusion,
        recorded: Recorded,
    ) -> Effect {
        match (place, operation, recorded) {
            (Place::Shared, _, Recorded::Yes) => self.answer(conclusion, None),
            // So that this process at least knows, should it have to decide alone.
            (Place::Shared, Operation::Settle { .. }, Recorded::No) => {
                self.conclude(Place::Local, operation, conclusion)
            }
            (Place::Shared, Operation::Release { .. } | Operation::Claim { .. }, Recorded::No)
            | (Place::Local, _, Recorded::Yes | Recorded::No) => {
                self.answer(conclusion, Some(operation))
            }
        }
    }

    /// What is left of an exchange that ends without an attempt: whoever has come to the local store may hold a lease
    /// in the shared one without knowing.
    fn abandoned(&self, place: Place) -> Option<Operation> {
        match place {
            Place::Shared => None,
            Place::Local => Some(self.release(Ending::Failed, Duration::ZERO)),
        }
    }

    fn answer(&mut self, conclusion: Conclusion, unfinished: Option<Operation>) -> Effect {
        self.state = State::Answered;
        Effect::Answer(Answer { conclusion, unfinished })
    }
}

/// Whether a store has taken what an exchange ended with.
#[derive(Clone, Copy)]
enum Recorded {
    Yes,
    No,
}

/// A reply that does not belong to the operation is as good as none.
fn fits(operation: &Operation, reply: Reply) -> Recorded {
    match (operation, reply) {
        (Operation::Settle { .. }, Reply::Done | Reply::AlreadySettled | Reply::Fenced)
        | (Operation::Release { .. }, Reply::Done | Reply::Fenced) => Recorded::Yes,
        (Operation::Release { .. }, Reply::AlreadySettled)
        | (_, Reply::Won { .. } | Reply::Busy { .. } | Reply::Duplicate { .. })
        | (Operation::Claim { .. }, Reply::Done | Reply::AlreadySettled | Reply::Fenced) => {
            Recorded::No
        }
    }
}

/// How long a busy copy waits before it asks for the `polls`th time: 50, 100, 200, then 250 ms, give or take a quarter.
/// Each poll takes another byte of the owner, which is random, so that copies that came together do not stay together.
fn jittered(owner: Owner, polls: u32) -> Duration {
    let base = Duration::from_millis(match polls {
        0 => 50,
        1 => 100,
        2 => 200,
        3.. => 250,
    });
    let byte = u32::try_from((owner.0 >> (8 * (polls % 16))) & 0xff).unwrap_or_default();
    base * 3 / 4 + base * byte / 512
}
