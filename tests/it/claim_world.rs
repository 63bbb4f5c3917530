//! The world of the model: copies, replicas, stores and a backend, and what each action does to them.
//!
//! Time goes in seconds. A copy does its next thing within the second, unless it waits, is being forwarded, or has
//! stalled, which is a fault. What a fault may cost is counted when it strikes: see [`State::excuses`].

use std::time::Duration;

use oncehook::claim::Owner;
use oncehook::claim::exchange::{Effect, Input, OnStoreError, Outcome, Place, Terms};
use oncehook::claim::record::{Operation, Record, Reply, StoreTime};
use oncehook::clock::Monotonic;

use super::claim_protocol::{Protocol, Run, Told};

pub(crate) const COPIES: usize = 3;
pub(crate) const REPLICAS: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) now: u64,
    pub(crate) shared: Record,
    local: [Record; REPLICAS],
    /// The replica cannot reach the shared store.
    pub(crate) cut_off: [bool; REPLICAS],
    pub(crate) copies: [Copy; COPIES],
    pub(crate) faults: u8,
    /// How often the backend has failed of its own accord.
    pub(crate) failures: u8,
    /// How often the backend has certainly accepted the event.
    pub(crate) accepted: u8,
    /// How often it has, or may have, or may do so yet: nothing in the protocol depends on when.
    pub(crate) accepted_at_most: u8,
    /// How often without a mark.
    pub(crate) unmarked_at_most: u8,
    /// How many more copies than one the faults so far may have cost. Only what strikes an attempt that may have been
    /// accepted, or what is known of one, may cost any: a stall before the first byte, say, may not.
    pub(crate) excuses: u8,
    /// A verdict has reached the shared store.
    pub(crate) recorded: bool,
    /// The shared store has forgotten what it acknowledged.
    pub(crate) forgotten: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Copy {
    owner: Owner,
    pub(crate) stage: Stage,
    /// An operation that was given up as lost, and may be applied yet.
    pub(crate) late: Option<Operation>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "most of a state's copies are active")]
pub(crate) enum Stage {
    Coming,
    Active { run: Run, doing: Doing, stalled_until: u64 },
    Over { told: Told, unfinished: Option<Operation> },
    Dead,
}

/// How far the outstanding effect has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Doing {
    /// Nothing has been done for it.
    Begun,
    /// The store has replied; nobody has looked.
    Replied(Reply),
    /// The wait is over then.
    Waiting(u64),
    /// The request is written; the answer comes by then at the latest.
    Written { outcome: Outcome, by: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Accepts,
    Fails,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A replica ends with all that it does and knows.
    Crash(usize),
    /// A replica loses the shared store, until it is restored.
    CutOff(usize),
    /// A copy does nothing until after any lease that it may hold.
    Stall(usize),
    /// The same, between the store's reply and the look at it.
    StallOnReply(usize),
    /// The store is given up: the operation may have been applied, may be at any time, or never.
    ReplyLost(usize),
    /// The request is written, and given up: it may have been accepted, may be at any time, or never.
    AnswerLost(usize),
    /// The shared store forgets the record.
    Forget,
}

pub(crate) const fn replica(copy: usize) -> usize {
    copy % REPLICAS
}

pub(crate) fn monotonic(now: u64) -> Monotonic {
    Monotonic::from_origin(Duration::from_secs(now))
}

/// The store's clock has an origin of its own.
pub(crate) fn store_time(now: u64) -> StoreTime {
    StoreTime(1_000_000 + now * 1_000)
}

/// What the world goes by.
#[derive(Clone, Copy)]
pub(crate) struct World {
    pub(crate) protocol: Protocol,
    pub(crate) terms: Terms,
}

impl Copy {
    fn die(&mut self) {
        match &mut self.stage {
            Stage::Over { unfinished, .. } => *unfinished = None,
            stage @ Stage::Active { .. } => *stage = Stage::Dead,
            Stage::Coming | Stage::Dead => {}
        }
    }
}

impl State {
    pub(crate) fn new(protocol: Protocol) -> Self {
        let copies = std::array::from_fn(|copy| {
            let owner = protocol.owner(100 + u128::try_from(copy).expect("a copy"), replica(copy));
            Copy { owner, stage: Stage::Coming, late: None }
        });
        Self {
            now: 0,
            shared: Record::Vacant,
            local: [Record::Vacant; REPLICAS],
            cut_off: [false; REPLICAS],
            copies,
            faults: 0,
            failures: 0,
            accepted: 0,
            accepted_at_most: 0,
            unmarked_at_most: 0,
            excuses: 0,
            recorded: false,
            forgotten: false,
        }
    }

    /// Every copy has been answered, or died with its replica.
    pub(crate) fn is_over(&self) -> bool {
        self.copies.iter().all(|copy| matches!(copy.stage, Stage::Over { .. } | Stage::Dead))
    }

    /// Once the store has the verdict, what was left unfinished or may come late changes nothing.
    pub(crate) fn forget_what_makes_no_difference(&mut self) {
        if !matches!(self.shared, Record::Settled { .. }) {
            return;
        }
        for copy in &mut self.copies {
            copy.late = None;
            if let Stage::Over { unfinished, .. } = &mut copy.stage {
                *unfinished = None;
            }
        }
    }

    pub(crate) fn told(&self) -> impl Iterator<Item = Told> {
        self.copies.iter().filter_map(|copy| match copy.stage {
            Stage::Over { told, .. } => Some(told),
            Stage::Coming | Stage::Active { .. } | Stage::Dead => None,
        })
    }

    /// What a copy of `replica` that is lost now may cost: it was accepted and that is recorded nowhere else.
    fn knows_alone(&self, copy: usize) -> bool {
        match &self.copies[copy].stage {
            Stage::Active {
                doing: Doing::Written { outcome: Outcome::Delivered(_), .. }, ..
            }
            | Stage::Over { unfinished: Some(Operation::Settle { .. }), .. } => true,
            Stage::Active { run, doing: Doing::Begun, .. } => {
                matches!(run.effect, Effect::Store(_, Operation::Settle { .. }))
            }
            Stage::Active { .. } | Stage::Over { .. } | Stage::Coming | Stage::Dead => false,
        }
    }
}

impl World {
    /// A copy comes, and is about to claim.
    pub(crate) fn arrive(&self, state: &mut State, copy: usize) {
        let run = Run::start(self.terms, state.copies[copy].owner, monotonic(state.now));
        state.copies[copy].stage = Stage::Active { run, doing: Doing::Begun, stalled_until: 0 };
    }

    pub(crate) fn apply_shared(
        &self,
        state: &mut State,
        copy: usize,
        operation: &Operation,
    ) -> Reply {
        state.recorded |= matches!(operation, Operation::Settle { .. });
        self.protocol.apply(
            &mut state.shared,
            state.copies[copy].owner,
            operation,
            store_time(state.now),
        )
    }

    /// Does what is outstanding, and takes in what came of it.
    pub(crate) fn perform(&self, state: &mut State, copy: usize) {
        let Stage::Active { run, doing, .. } = &state.copies[copy].stage else { unreachable!() };
        let effect = run.effect;
        let input = match (*doing, effect) {
            (Doing::Replied(reply), _) => Input::Replied(reply),
            (Doing::Waiting(_), _) => Input::Woke,
            (Doing::Written { outcome, .. }, _) => Input::Forwarded(outcome),
            (Doing::Begun, Effect::Store(Place::Shared, _)) if state.cut_off[replica(copy)] => {
                Input::StoreFailed { outage: Duration::from_secs(1) }
            }
            (Doing::Begun, Effect::Store(Place::Shared, operation)) => {
                Input::Replied(self.apply_shared(state, copy, &operation))
            }
            (Doing::Begun, Effect::Store(Place::Local, operation)) => {
                let (slot, now) = (&mut state.local[replica(copy)], store_time(state.now));
                Input::Replied(self.protocol.apply(slot, state.copies[copy].owner, &operation, now))
            }
            (Doing::Begun, Effect::Forward { .. }) => Input::Forwarded(Outcome::Unreached),
            (Doing::Begun, Effect::Wait(_) | Effect::Answer(_)) => unreachable!(),
        };
        self.step(state, copy, input);
    }

    pub(crate) fn step(&self, state: &mut State, copy: usize, input: Input) {
        let now = state.now;
        let Stage::Active { run, doing, .. } = &mut state.copies[copy].stage else {
            unreachable!()
        };
        run.step(self.protocol, input, monotonic(now));
        *doing = match run.effect {
            Effect::Wait(wait) => Doing::Waiting(now + 1 + wait.as_secs()),
            Effect::Store(..) | Effect::Forward { .. } => Doing::Begun,
            Effect::Answer(answer) => {
                let told = match Told::of(answer.conclusion, run.waited) {
                    // For how long makes no difference here.
                    Told::Retry { after: Some(_) } => Told::Retry { after: Some(Duration::ZERO) },
                    told @ (Told::Delivered
                    | Told::Duplicate
                    | Told::Collapsed
                    | Told::Unknown
                    | Told::Refused
                    | Told::Retry { after: None }) => told,
                };
                state.copies[copy].stage = Stage::Over { told, unfinished: answer.unfinished };
                return;
            }
        };
    }

    pub(crate) fn write(&self, state: &mut State, copy: usize, backend: Backend) {
        match backend {
            Backend::Accepts => {
                self.written(state, copy, Outcome::Delivered(200));
                state.accepted += 1;
            }
            Backend::Fails => {
                self.written(state, copy, Outcome::Failed(Some(500)));
                state.failures += 1;
            }
        }
    }

    /// Notes that the request has been written, and what will come of it.
    fn written(&self, state: &mut State, copy: usize, outcome: Outcome) {
        let latest = state.now + self.terms.lease.saturating_sub(self.terms.guard).as_secs();
        let Stage::Active { run, doing, .. } = &mut state.copies[copy].stage else {
            unreachable!()
        };
        let Effect::Forward { possible_duplicate, deadline, .. } = run.effect else {
            unreachable!()
        };
        *doing = Doing::Written { outcome, by: deadline.since_origin().as_secs().min(latest) };
        let accepted_at_most = matches!(outcome, Outcome::Delivered(_) | Outcome::Ambiguous);
        state.accepted_at_most += u8::from(accepted_at_most);
        state.unmarked_at_most += u8::from(accepted_at_most && !possible_duplicate);
    }

    pub(crate) fn strike(&self, state: &mut State, fault: Fault) {
        if let Fault::ReplyLost(copy) | Fault::StallOnReply(copy) = fault
            && state.copies[copy].stage == Stage::Coming
        {
            self.arrive(state, copy);
        }
        state.faults += 1;
        state.excuses += self.may_cost(state, fault);
        match fault {
            Fault::Crash(struck) => {
                state.local[struck] = Record::Vacant;
                let copies = state.copies.iter_mut().enumerate();
                for (_, dying) in copies.filter(|(copy, _)| replica(*copy) == struck) {
                    dying.die();
                }
            }
            Fault::CutOff(replica) => state.cut_off[replica] = true,
            Fault::Stall(copy) => self.stall(state, copy, None),
            Fault::StallOnReply(copy) => {
                let operation = outstanding(state, copy);
                let reply = self.apply_shared(state, copy, &operation);
                self.stall(state, copy, Some(Doing::Replied(reply)));
            }
            Fault::ReplyLost(copy) => {
                state.copies[copy].late = Some(outstanding(state, copy));
                self.step(state, copy, Input::StoreFailed { outage: Duration::from_secs(1) });
            }
            Fault::AnswerLost(copy) => self.written(state, copy, Outcome::Ambiguous),
            Fault::Forget => {
                state.shared = Record::Vacant;
                state.forgotten = true;
            }
        }
    }

    fn stall(&self, state: &mut State, copy: usize, now_doing: Option<Doing>) {
        let until = state.now + self.terms.lease.as_secs() + 1;
        let Stage::Active { doing, stalled_until, .. } = &mut state.copies[copy].stage else {
            unreachable!()
        };
        *stalled_until = until;
        *doing = now_doing.unwrap_or(*doing);
    }

    fn may_cost(&self, state: &State, fault: Fault) -> u8 {
        let alone = self.terms.on_store_error == OnStoreError::Local;
        u8::from(match fault {
            Fault::Crash(struck) => {
                matches!(state.local[struck], Record::Settled { .. })
                    || (0..COPIES).any(|copy| replica(copy) == struck && state.knows_alone(copy))
            }
            Fault::Stall(copy) => state.knows_alone(copy),
            Fault::StallOnReply(_) => false,
            Fault::CutOff(_) | Fault::Forget | Fault::AnswerLost(_) => true,
            Fault::ReplyLost(copy) => match outstanding(state, copy) {
                Operation::Claim { .. } => alone,
                Operation::Settle { .. } => true,
                Operation::Release { .. } => false,
            },
        })
    }

    /// A sender that comes again once every lease has lapsed is told 2xx by every replica, and rightly so.
    pub(crate) fn recovers(&self, state: &State) -> bool {
        (0..REPLICAS).all(|replica| {
            let mut state = state.clone();
            state.now += self.terms.lease.as_secs() + 1;
            state.cut_off = [false; REPLICAS];
            state.copies[replica].owner = Owner(999);
            self.arrive(&mut state, replica);
            self.come_to_an_end(&mut state, replica).is_some_and(Told::acknowledges)
                && state.accepted > 0
        })
    }

    fn come_to_an_end(&self, state: &mut State, copy: usize) -> Option<Told> {
        const STEPS_MAX: usize = 20;
        for _ in 0..STEPS_MAX {
            match &state.copies[copy].stage {
                Stage::Over { told, .. } => return Some(*told),
                Stage::Active { run, doing: Doing::Begun, .. }
                    if matches!(run.effect, Effect::Forward { .. }) =>
                {
                    self.write(state, copy, Backend::Accepts);
                }
                Stage::Active { doing: Doing::Waiting(until), .. } => {
                    state.now = *until;
                    self.perform(state, copy);
                }
                Stage::Active { .. } => self.perform(state, copy),
                Stage::Coming | Stage::Dead => return None,
            }
        }
        None
    }
}

/// What `copy` asks, or is about to ask, of the shared store.
fn outstanding(state: &State, copy: usize) -> Operation {
    let Stage::Active { run, .. } = &state.copies[copy].stage else { unreachable!() };
    let Effect::Store(Place::Shared, operation) = run.effect else { unreachable!() };
    operation
}
