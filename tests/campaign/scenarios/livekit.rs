//! The sender that LiveKit runs, in the place of ours: what the other scenarios say holds for it, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::backend::{Act, Request};
use crate::checker::Report;
use crate::history::{End, History, Told};
use crate::nodes::{HINT, Program};
use crate::random::Random;
use crate::senders::Load;
use crate::support::gateway::Surroundings;
use crate::world::{Plan, Setup, World};

use super::gateways::trap;
use super::until;

/// How many gateways are killed one after the other.
const ROUNDS: usize = 3;

/// Longer than a lease, and than the 3.3 s that a node gives an attempt: it hangs up by itself.
const STANDSTILL: Duration = Duration::from_millis(4_500);

/// Nodes post each event three times; gateways die with events under way, then one stands still; and all along the
/// backend has no 2xx for a third of the events when they first come.
pub(super) async fn go_sender(plan: Plan) -> Report {
    let Program::Built(program) = Program::build().await else { return lacking(plan) };
    let mut world = World::start(plan, Setup::default()).await;
    let refused = Arc::default();
    refuse_some(&world, &refused);
    world.send_by(&program, &Load::paced(plan.events(500), 40)).await;
    for victim in 0..ROUNDS {
        let before = refused.load(Ordering::SeqCst);
        let refusing = until(|| refused.load(Ordering::SeqCst) >= before + 5).await;
        assert!(refusing, "the backend had nothing to refuse");
        let (gate, caught) = trap(&world);
        assert!(until(|| caught.load(Ordering::SeqCst)).await, "nothing reached the backend");
        world.kill(victim);
        gate.open();
        refuse_some(&world, &refused);
        world.join(&Surroundings::default()).await;
        sleep(Duration::from_millis(500)).await;
    }
    stand_still(&world, ROUNDS).await;
    let recorder = Arc::clone(&world.recorder);
    let mut report = world.finish().await;
    let (note, again) = retries(&recorder.write());
    report.notes.push(format!("{note}, {} refused or reset", refused.load(Ordering::SeqCst)));
    if again == 0 {
        report.violations.push("nothing was sent again, whatever the backend did".to_owned());
    }
    report
}

async fn stand_still(world: &World, gateway: usize) {
    let began = world.recorder.now();
    world.signal(gateway, "STOP");
    sleep(STANDSTILL).await;
    world.signal(gateway, "CONT");
    world.recorder.fault(world.recorder.over("a gateway stands still", began));
}

fn lacking(plan: Plan) -> Report {
    if !plan.named {
        return Report { not_run: Some("needs go"), ..Report::default() };
    }
    Report { violations: vec![format!("needs go, and there is none; {HINT}")], ..Report::default() }
}

/// A third of the events meet this when they first come: half of them a refusal, of which nobody is in doubt, the others
/// a reset, having been accepted or not.
fn refuse_some(world: &World, refused: &Arc<AtomicUsize>) {
    let (seed, refused) = (world.plan.seed, Arc::clone(refused));
    world.backend.script(move |Request { event, nth }| {
        let mut random = Random::new(seed, event << 8);
        if nth > 1 || random.below(3) > 0 {
            return Act::Accept;
        }
        refused.fetch_add(1, Ordering::SeqCst);
        match random.below(4) {
            0 => Act::Reset,
            1 => Act::AcceptAndReset,
            _ => Act::Say("500 Internal Server Error"),
        }
    });
}

/// What the nodes had to do, and how many requests were not the first of their copy.
fn retries(history: &History) -> (String, usize) {
    let again = history.attempts.iter().filter(|attempt| attempt.number > 1).count();
    let most = history.attempts.iter().map(|attempt| attempt.number).max().unwrap_or(0);
    let told = |which: Told| history.attempts.iter().filter(|each| each.told == which).count();
    let of = |which: End| history.ends.values().filter(|end| **end == which).count();
    let note = format!(
        "{} requests, {again} of them again (a copy up to {most} times), {} cut off, {} hung up \
         on; {} copies given up, {} dropped",
        history.attempts.len(),
        told(Told::Nothing),
        told(Told::HungUp),
        of(End::GivenUp),
        of(End::Gone)
    );
    (note, again)
}
