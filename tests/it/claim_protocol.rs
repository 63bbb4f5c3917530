//! The claim protocol as the model and the simulation drive it: the crate's own functions, or one of them bent.
//!
//! A mutant changes what goes into or comes out of the real [`apply`] and [`Exchange::step`], so that the product needs
//! no hook for it. The model and the simulation must find every one of them, and nothing in the real protocol.

use std::time::Duration;

use oncehook::claim::exchange::{
    Answer, Conclusion, Effect, Exchange, Input, OnAmbiguous, OnStoreError, Outcome, Place, Terms,
};
use oncehook::claim::record::{Ending, Operation, Record, Reply, StoreTime, apply};
use oncehook::claim::{Digest, Owner, Verdict};
use oncehook::clock::Monotonic;

pub(crate) const DIGEST: Digest = Digest(7);

/// DESIGN's terms, at least once, with `on_store_error`.
pub(crate) const fn terms(on_store_error: OnStoreError) -> Terms {
    Terms {
        lease: Duration::from_secs(10),
        guard: Duration::from_secs(2),
        join_wait: Duration::from_secs(5),
        window: Duration::from_hours(1),
        on_ambiguous: OnAmbiguous::Retry,
        on_store_error,
    }
}

/// A bug that a careful person could plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mutant {
    /// A release does not ask whose lease it is.
    AnyoneReleases,
    /// A settle is recorded only for the owner of the lease.
    SettleNeedsOwner,
    /// A claim takes a lease that still runs.
    RunningLeaseTaken,
    /// A lapsed lease is never taken over.
    LeaseNeverLapses,
    /// A lapsed lease leaves a vacant record: that an attempt was made is forgotten.
    LapseForgotten,
    /// The store's mark does not reach the forward.
    MarkDropped,
    /// A later attempt that failed wipes out the doubt about an earlier one.
    DoubtNotSticky,
    /// A busy copy is told that all is well.
    BusyAcknowledged,
    /// The owner writes whenever it gets to it.
    NoDeadline,
    /// The deadline is counted from the reply to the claim.
    DeadlineFromReply,
    /// The deadline is counted from the last claim, even if an earlier one may be applied late.
    DeadlineFromLastClaim,
    /// No answer is taken for no delivery.
    AmbiguousIsFailure,
    /// A failure is taken for a delivery.
    FailureIsDelivery,
    /// A claim that got no reply is taken for won.
    LostClaimIsWon,
    /// A replica that decides alone does not mark what it forwards.
    LocalUnmarked,
    /// Copies that meet in a replica do not share an exchange, although it decides alone (model only: the shell's duty).
    ExchangesNotShared,
    /// All exchanges of a replica use one owner.
    OwnerShared,
    /// Followers of an exchange are answered before it is (simulation only: the model has no followers).
    FollowersEarly,
}

/// All of them.
pub(crate) const MUTANTS: [Mutant; 18] = [
    Mutant::AnyoneReleases,
    Mutant::SettleNeedsOwner,
    Mutant::RunningLeaseTaken,
    Mutant::LeaseNeverLapses,
    Mutant::LapseForgotten,
    Mutant::MarkDropped,
    Mutant::DoubtNotSticky,
    Mutant::BusyAcknowledged,
    Mutant::NoDeadline,
    Mutant::DeadlineFromReply,
    Mutant::DeadlineFromLastClaim,
    Mutant::AmbiguousIsFailure,
    Mutant::FailureIsDelivery,
    Mutant::LostClaimIsWon,
    Mutant::LocalUnmarked,
    Mutant::ExchangesNotShared,
    Mutant::OwnerShared,
    Mutant::FollowersEarly,
];

/// The protocol under test: the real one, or with one mutant in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol(pub(crate) Option<Mutant>);

impl Protocol {
    pub(crate) fn has(self, mutant: Mutant) -> bool {
        self.0 == Some(mutant)
    }

    pub(crate) fn owner(self, of_its_own: u128, replica: usize) -> Owner {
        Owner(if self.has(Mutant::OwnerShared) {
            u128::try_from(replica).expect("a replica")
        } else {
            of_its_own
        })
    }

    /// What the shell asks immediately before the first byte.
    pub(crate) fn may_write(self, deadline: Monotonic, now: Monotonic) -> bool {
        now < deadline || self.has(Mutant::NoDeadline)
    }

    pub(crate) fn apply(
        self,
        slot: &mut Record,
        owner: Owner,
        operation: &Operation,
        now: StoreTime,
    ) -> Reply {
        let reply = match *operation {
            Operation::Claim { lease, .. } => {
                return self.apply_claim(slot, owner, operation, (lease, now));
            }
            Operation::Settle { .. }
                if self.has(Mutant::SettleNeedsOwner) && !settles(slot, owner) =>
            {
                return Reply::Fenced;
            }
            Operation::Release { .. } if self.has(Mutant::AnyoneReleases) => {
                apply(slot, holder(slot).map_or(owner, |(holder, _)| holder), operation, now)
            }
            Operation::Settle { .. } | Operation::Release { .. } => {
                apply(slot, owner, operation, now)
            }
        };
        if self.has(Mutant::DoubtNotSticky)
            && matches!(operation, Operation::Release { ending: Ending::Failed, .. })
            && let Record::Released { lapses, .. } = slot
        {
            *lapses = 0;
        }
        reply
    }

    fn apply_claim(
        self,
        slot: &mut Record,
        owner: Owner,
        claim: &Operation,
        (lease, now): (Duration, StoreTime),
    ) -> Reply {
        let mut now = now;
        if let Some((holder, until)) = holder(slot)
            && holder != owner
        {
            let lapsed = until <= now;
            if lapsed && self.has(Mutant::LeaseNeverLapses) {
                return Reply::Busy { remaining: lease };
            }
            if lapsed && self.has(Mutant::LapseForgotten) {
                *slot = Record::Vacant;
            }
            if self.has(Mutant::RunningLeaseTaken) {
                now = now.max(until);
            }
        }
        let reply = apply(slot, owner, claim, now);
        match reply {
            Reply::Won { attempt, .. } if self.has(Mutant::MarkDropped) => {
                Reply::Won { attempt, possible_duplicate: false }
            }
            Reply::Won { .. }
            | Reply::Busy { .. }
            | Reply::Duplicate { .. }
            | Reply::Done
            | Reply::AlreadySettled
            | Reply::Fenced => reply,
        }
    }
}

fn holder(slot: &Record) -> Option<(Owner, StoreTime)> {
    if let Record::Leased { owner, until, .. } = *slot { Some((owner, until)) } else { None }
}

fn settles(slot: &Record, owner: Owner) -> bool {
    matches!(slot, Record::Settled { .. })
        || holder(slot).is_some_and(|(holder, _)| holder == owner)
}

/// One exchange, with the effect that is outstanding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Run {
    exchange: Exchange,
    pub(crate) effect: Effect,
    /// When the effect was begun.
    begun: Monotonic,
    term: Duration,
    pub(crate) waited: bool,
}

impl Run {
    pub(crate) fn start(terms: Terms, owner: Owner, now: Monotonic) -> Self {
        let (exchange, effect) = Exchange::start(terms, owner, DIGEST, now);
        let term = terms.lease.saturating_sub(terms.guard);
        Self { exchange, effect, begun: now, term, waited: false }
    }

    pub(crate) fn step(&mut self, protocol: Protocol, input: Input, now: Monotonic) {
        let input = protocol.bend_input(self.effect, input);
        if protocol.has(Mutant::BusyAcknowledged)
            && matches!(input, Input::Replied(Reply::Busy { .. }))
        {
            let conclusion =
                Conclusion::Duplicate { verdict: Verdict::Delivered(200), conflict: false };
            self.effect = Effect::Answer(Answer { conclusion, unfinished: None });
            return;
        }
        let deadline = match protocol.0 {
            Some(Mutant::NoDeadline) => Some(Monotonic::from_origin(Duration::MAX)),
            Some(Mutant::DeadlineFromReply) => Some(now.plus(self.term)),
            Some(Mutant::DeadlineFromLastClaim) => Some(self.begun.plus(self.term)),
            Some(_) | None => None,
        };
        // A deadline that is bent must not be enforced by the real one: it is asked long before.
        let won = matches!(input, Input::Replied(Reply::Won { .. }));
        let seen = if won && deadline.is_some() { Monotonic::default() } else { now };
        self.effect = protocol.bend_effect(self.exchange.step(input, seen), deadline);
        // Kept for this one mutant alone: the model would tell apart what differs in it.
        if protocol.has(Mutant::DeadlineFromLastClaim) {
            self.begun = now;
        }
        self.waited |= matches!(self.effect, Effect::Wait(_));
    }
}

impl Protocol {
    fn bend_input(self, effect: Effect, input: Input) -> Input {
        let claiming = matches!(effect, Effect::Store(Place::Shared, Operation::Claim { .. }));
        match input {
            Input::Forwarded(Outcome::Ambiguous) if self.has(Mutant::AmbiguousIsFailure) => {
                Input::Forwarded(Outcome::Failed(None))
            }
            Input::Forwarded(Outcome::Failed(_)) if self.has(Mutant::FailureIsDelivery) => {
                Input::Forwarded(Outcome::Delivered(200))
            }
            Input::StoreFailed { .. } if self.has(Mutant::LostClaimIsWon) && claiming => {
                Input::Replied(Reply::Won { attempt: 1, possible_duplicate: false })
            }
            Input::Replied(_) | Input::StoreFailed { .. } | Input::Woke | Input::Forwarded(_) => {
                input
            }
        }
    }

    fn bend_effect(self, effect: Effect, bent: Option<Monotonic>) -> Effect {
        let Effect::Forward { attempt, possible_duplicate, deadline } = effect else {
            return effect;
        };
        // Only a replica that decides alone marks a first attempt.
        let possible_duplicate =
            possible_duplicate && !(self.has(Mutant::LocalUnmarked) && attempt == 1);
        Effect::Forward { attempt, possible_duplicate, deadline: bent.unwrap_or(deadline) }
    }
}

/// What a sender makes of a conclusion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Told {
    /// 2xx, because this copy was delivered.
    Delivered,
    /// 2xx, because another copy was.
    Duplicate,
    /// 2xx or the refusal, found out by waiting for another copy.
    Collapsed,
    /// 2xx, although nobody knows.
    Unknown,
    /// A 4xx that the sender takes for an end.
    Refused,
    /// A status that the sender tries again on.
    Retry {
        /// The `Retry-After` that it is sent.
        after: Option<Duration>,
    },
}

impl Told {
    pub(crate) fn of(conclusion: Conclusion, waited: bool) -> Self {
        match conclusion {
            Conclusion::Forwarded(Outcome::Delivered(_)) => Self::Delivered,
            Conclusion::Suppressed | Conclusion::Duplicate { verdict: Verdict::Unknown, .. } => {
                Self::Unknown
            }
            Conclusion::Duplicate { verdict: Verdict::Delivered(_), .. } if waited => {
                Self::Collapsed
            }
            Conclusion::Duplicate { verdict: Verdict::Delivered(_), .. } => Self::Duplicate,
            Conclusion::Forwarded(Outcome::Refused(_))
            | Conclusion::Duplicate { verdict: Verdict::Refused(_), .. } => Self::Refused,
            Conclusion::Forwarded(Outcome::Overloaded { retry_after, .. }) => {
                Self::Retry { after: retry_after }
            }
            Conclusion::Busy { retry_after } => Self::Retry { after: Some(retry_after) },
            Conclusion::Forwarded(
                Outcome::Misconfigured(_)
                | Outcome::Failed(_)
                | Outcome::Unreached
                | Outcome::Ambiguous,
            )
            | Conclusion::StoreUnavailable => Self::Retry { after: None },
        }
    }

    /// The sender was told 2xx because the event was delivered.
    pub(crate) fn acknowledges(self) -> bool {
        matches!(self, Self::Delivered | Self::Duplicate | Self::Collapsed)
    }
}
