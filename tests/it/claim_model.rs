//! The claim protocol, checked in every interleaving: three copies of one event at two replicas, two faults, and a
//! backend that fails once of its own accord. A sender's next attempt is one more copy.

use std::time::Duration;

use oncehook::claim::exchange::{Effect, OnStoreError, Place, Terms};
use oncehook::claim::record::{Operation, Record};
use stateright::{Checker, HasDiscoveries, Model, Property};

use super::claim_protocol::{MUTANTS, Mutant, Protocol, Told, terms};
use super::claim_world::{
    Backend, COPIES, Doing, Fault, REPLICAS, Stage, State, World, monotonic, replica,
};

/// The last second at which a copy arrives: late enough to meet the end of a second lease.
const ARRIVALS: u64 = 4;

#[derive(Clone, Copy)]
struct ClaimModel {
    world: World,
    faults_max: u8,
    failures_max: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Tick,
    /// A copy comes, and claims at once: until it has, it makes no difference to anybody.
    Arrive(usize),
    /// The outstanding effect is done, and what came of it taken in.
    Perform(usize),
    /// The request is written, and the backend does this.
    Write(usize, Backend),
    /// What was left unfinished reaches the shared store.
    Finish(usize),
    ApplyLate(usize),
    Restore(usize),
    Strike(Fault),
}

impl ClaimModel {
    fn new(mutant: Option<Mutant>, on_store_error: OnStoreError) -> Self {
        let terms = Terms {
            lease: Duration::from_secs(2),
            guard: Duration::from_secs(1),
            join_wait: Duration::from_secs(1),
            ..terms(on_store_error)
        };
        Self { world: World { protocol: Protocol(mutant), terms }, faults_max: 2, failures_max: 1 }
    }

    /// Adds what `copy` may do, and whether it must do it before the second is over.
    fn actions_of(&self, state: &State, copy: usize, actions: &mut Vec<Action>) -> bool {
        let now = state.now;
        let Stage::Active { run, doing, stalled_until } = &state.copies[copy].stage else {
            let coming = self.is_next(state, copy);
            if coming {
                actions.push(Action::Arrive(copy));
            }
            return coming && now >= ARRIVALS;
        };
        if *stalled_until > now {
            return false;
        }
        match (*doing, run.effect) {
            (Doing::Waiting(until), _) if until > now => return false,
            (Doing::Begun, Effect::Forward { deadline, .. })
                if self.world.protocol.may_write(deadline, monotonic(now)) =>
            {
                actions.push(Action::Write(copy, Backend::Accepts));
                if state.failures < self.failures_max {
                    actions.push(Action::Write(copy, Backend::Fails));
                }
            }
            _ => actions.push(Action::Perform(copy)),
        }
        match *doing {
            Doing::Written { by, .. } => now >= by,
            Doing::Begun | Doing::Replied(_) | Doing::Waiting(_) => true,
        }
    }

    /// Copies come at every even second; those of one replica are alike, and come in order.
    fn is_next(&self, state: &State, copy: usize) -> bool {
        let free = copy < REPLICAS
            || match state.copies[copy - REPLICAS].stage {
                Stage::Coming => false,
                // It would share the exchange.
                // The model finds what comes of it otherwise: a replica that is cut off between a delivery and its settle
                // would have another copy win in its own store before it has settled there.
                Stage::Active { .. } => {
                    self.world.terms.on_store_error == OnStoreError::Reject
                        || self.world.protocol.has(Mutant::ExchangesNotShared)
                }
                Stage::Over { .. } | Stage::Dead => true,
            };
        free && state.copies[copy].stage == Stage::Coming && state.now.is_multiple_of(2)
    }

    fn faults_of(&self, state: &State, copy: usize, actions: &mut Vec<Action>) {
        let reachable = !state.cut_off[replica(copy)];
        let mut strike = |fault| actions.push(Action::Strike(fault));
        let Stage::Active { run, doing, stalled_until } = &state.copies[copy].stage else {
            if reachable && self.is_next(state, copy) {
                strike(Fault::StallOnReply(copy));
                strike(Fault::ReplyLost(copy));
            }
            return;
        };
        if *stalled_until > state.now {
            return;
        }
        // One that stalls before it claims is one that comes later.
        if !matches!(run.effect, Effect::Store(_, Operation::Claim { .. })) {
            strike(Fault::Stall(copy));
        }
        match (*doing, run.effect) {
            (Doing::Begun, Effect::Store(Place::Shared, _)) if reachable => {
                strike(Fault::StallOnReply(copy));
                strike(Fault::ReplyLost(copy));
            }
            (Doing::Begun, Effect::Forward { deadline, .. })
                if self.world.protocol.may_write(deadline, monotonic(state.now)) =>
            {
                strike(Fault::AnswerLost(copy));
            }
            _ => {}
        }
    }

    fn faults(&self, state: &State, actions: &mut Vec<Action>) {
        for copy in 0..COPIES {
            self.faults_of(state, copy, actions);
        }
        for struck in 0..REPLICAS {
            let copies =
                || state.copies.iter().enumerate().filter(|(copy, _)| replica(*copy) == struck);
            let busy = |stage: &Stage| {
                matches!(stage, Stage::Active { .. } | Stage::Over { unfinished: Some(_), .. })
            };
            if copies().any(|(_, copy)| busy(&copy.stage)) {
                actions.push(Action::Strike(Fault::Crash(struck)));
            }
            let ahead = |stage: &Stage| matches!(stage, Stage::Active { .. } | Stage::Coming);
            if !state.cut_off[struck] && copies().any(|(_, copy)| ahead(&copy.stage)) {
                actions.push(Action::Strike(Fault::CutOff(struck)));
            }
        }
        // Alone, because it spoils all that the others are held to.
        if state.shared != Record::Vacant && state.faults == 0 {
            actions.push(Action::Strike(Fault::Forget));
        }
    }
}

impl Model for ClaimModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.world.protocol)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.is_over() {
            return;
        }
        let mut urgent = state.copies.iter().all(|copy| copy.stage == Stage::Coming);
        for copy in 0..COPIES {
            urgent |= self.actions_of(state, copy, actions);
            if matches!(state.copies[copy].stage, Stage::Over { unfinished: Some(_), .. })
                && !state.cut_off[replica(copy)]
            {
                actions.push(Action::Finish(copy));
            }
            if state.copies[copy].late.is_some() {
                actions.push(Action::ApplyLate(copy));
            }
        }
        if !urgent {
            actions.push(Action::Tick);
        }
        actions
            .extend((0..REPLICAS).filter(|replica| state.cut_off[*replica]).map(Action::Restore));
        if state.faults < self.faults_max && !state.forgotten {
            self.faults(state, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Tick => next.now += 1,
            Action::Arrive(copy) => {
                self.world.arrive(&mut next, copy);
                self.world.perform(&mut next, copy);
            }
            Action::Perform(copy) => self.world.perform(&mut next, copy),
            Action::Write(copy, backend) => self.world.write(&mut next, copy, backend),
            Action::Finish(copy) => {
                if let Stage::Over { unfinished, .. } = &mut next.copies[copy].stage
                    && let Some(operation) = unfinished.take()
                {
                    self.world.apply_shared(&mut next, copy, &operation);
                }
            }
            Action::ApplyLate(copy) => {
                let operation = next.copies[copy].late.take()?;
                self.world.apply_shared(&mut next, copy, &operation);
            }
            Action::Restore(replica) => next.cut_off[replica] = false,
            Action::Strike(fault) => self.world.strike(&mut next, fault),
        }
        next.forget_what_makes_no_difference();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a 2xx means delivered", |_, state: &State| {
                state.accepted > 0 || !state.told().any(Told::acknowledges)
            }),
            Property::always(
                "a fault costs one copy at most, and only where it may",
                |_, state: &State| state.accepted_at_most <= 1 + state.excuses,
            ),
            Property::always(
                "all copies that are accepted but one are marked",
                |_, state: &State| state.unmarked_at_most <= 1 || state.forgotten,
            ),
            Property::always("a verdict that reached the store stays", |_, state: &State| {
                !state.recorded || state.forgotten || matches!(state.shared, Record::Settled { .. })
            }),
            Property::always(
                "a sender that comes again is served",
                |model: &Self, state: &State| !state.is_over() || model.world.recovers(state),
            ),
            Property::always(
                "nothing stands still before it is over",
                |model: &Self, state: &State| {
                    let mut actions = Vec::new();
                    model.actions(state, &mut actions);
                    state.is_over() || !actions.is_empty()
                },
            ),
            Property::eventually("every copy is answered or dies", |_, state: &State| {
                state.is_over()
            }),
            Property::sometimes("a copy is a duplicate", |_, state: &State| {
                state.told().any(|told| told == Told::Duplicate)
            }),
            Property::sometimes("a copy waits and is collapsed", |_, state: &State| {
                state.told().any(|told| told == Told::Collapsed)
            }),
            Property::sometimes("a copy is sent away as busy", |_, state: &State| {
                state.told().any(|told| matches!(told, Told::Retry { after: Some(_) }))
            }),
            Property::sometimes("an event is accepted twice", |_, state: &State| {
                state.accepted == 2
            }),
            Property::sometimes("an event is accepted three times", |_, state: &State| {
                state.accepted == 3
            }),
            Property::sometimes("an accepted copy is marked", |_, state: &State| {
                state.accepted > state.unmarked_at_most
            }),
            Property::sometimes("faults cost nothing", |model: &Self, state: &State| {
                state.is_over() && state.faults == model.faults_max && state.accepted == 1
            }),
            Property::sometimes("an event is not delivered", |_, state: &State| {
                state.is_over() && state.accepted == 0
            }),
        ]
    }
}

/// The failed properties, with how they come about.
fn failures<C: Checker<ClaimModel>>(checker: &C) -> Vec<String> {
    let discoveries = checker.discoveries().into_iter();
    let failures = discoveries
        .filter(|(name, _)| checker.model().property(name).expectation.discovery_is_failure());
    failures.map(|(name, path)| format!("{name}: {:?}", path.into_actions())).collect()
}

#[expect(clippy::print_stdout, reason = "how many states there are, for who tunes the model")]
fn check_the_real_protocol(model: ClaimModel) {
    let checker = model.checker().threads(2).spawn_bfs().join();
    println!(
        "{} states, {} in all, depth {}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth()
    );
    let failures = failures(&checker);
    assert!(failures.is_empty(), "{failures:#?}");
    for property in model.properties() {
        let found = checker.discovery(property.name).is_some();
        assert!(
            found || property.expectation != stateright::Expectation::Sometimes,
            "never: {}",
            property.name
        );
    }
}

#[test]
fn the_protocol_keeps_its_guarantee_while_a_store_that_is_out_rejects() {
    check_the_real_protocol(ClaimModel::new(None, OnStoreError::Reject));
}

#[test]
fn the_protocol_keeps_its_guarantee_while_a_replica_cut_off_decides_alone() {
    check_the_real_protocol(ClaimModel::new(None, OnStoreError::Local));
}

#[test]
#[expect(clippy::print_stdout, reason = "how many states it takes, for who tunes the model")]
fn the_model_finds_every_mutant_of_the_protocol() {
    let mut found = 0;
    for mutant in MUTANTS.into_iter().filter(|mutant| *mutant != Mutant::FollowersEarly) {
        let alone = [Mutant::LocalUnmarked, Mutant::ExchangesNotShared].contains(&mutant);
        let policy = if alone { OnStoreError::Local } else { OnStoreError::Reject };
        let mut model = ClaimModel::new(Some(mutant), policy);
        if mutant == Mutant::ExchangesNotShared {
            // One fault is enough, and the copies that meet make for many more states.
            (model.faults_max, model.failures_max) = (1, 0);
        }
        let checker =
            model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let failures = failures(&checker);
        println!(
            "{mutant:?}: {} states, {:?}",
            checker.unique_state_count(),
            failures.iter().filter_map(|failure| failure.split(':').next()).collect::<Vec<_>>()
        );
        assert!(!failures.is_empty(), "{mutant:?} is not found");
        found += 1;
    }
    assert_eq!(found, MUTANTS.len() - 1);
}
