//! Gateways that die, or stand still, at a moment that matters: a trap in the proxy or at the backend holds what passes
//! there, and the gateway goes as soon as something is caught.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::backend::{Act, Gate};
use crate::checker::Report;
use crate::senders::Load;
use crate::support::gateway::Surroundings;
use crate::support::proxy::{Asked, Fate};
use crate::world::{LEASE, Plan, Setup, World};

use super::{counter, until};

/// How many gateways are killed one after the other.
const ROUNDS: usize = 3;

async fn start(plan: Plan) -> World {
    let mut world = World::start(plan, Setup::default()).await;
    world.send(Load::paced(plan.events(400), 50));
    sleep(Duration::from_millis(500)).await;
    world
}

/// Kills gateways, each when `fate` has hit the first `asked` of it.
async fn killed_at(plan: Plan, asked: Asked, fate: Fate) -> Report {
    let mut world = start(plan).await;
    for victim in 0..ROUNDS {
        let proxy = world.members[victim].proxy();
        proxy.rule(move |each| if each == asked { fate } else { Fate::Pass });
        let caught = until(|| proxy.hits() > 0).await;
        assert!(caught, "nothing was caught in {asked:?}");
        world.kill(victim);
        world.join(&Surroundings::default()).await;
        sleep(Duration::from_millis(500)).await;
    }
    world.finish().await
}

pub(super) async fn killed_before_claim(plan: Plan) -> Report {
    killed_at(plan, Asked::Claim, Fate::StallBefore).await
}

pub(super) async fn killed_after_claim(plan: Plan) -> Report {
    killed_at(plan, Asked::Claim, Fate::StallAfter).await
}

pub(super) async fn killed_before_settle(plan: Plan) -> Report {
    killed_at(plan, Asked::Settle, Fate::StallBefore).await
}

pub(super) async fn killed_after_settle(plan: Plan) -> Report {
    killed_at(plan, Asked::Settle, Fate::StallAfter).await
}

/// From now on the backend accepts everything and answers nothing until the gate is open; whether it has caught some.
pub(super) fn trap(world: &World) -> (Arc<Gate>, Arc<AtomicBool>) {
    let (gate, caught) = (Gate::new(), Arc::new(AtomicBool::new(false)));
    let (held, count) = (Arc::clone(&gate), counter());
    let told = Arc::clone(&caught);
    world.backend.script(move |_| {
        told.store(count.fetch_add(1, Ordering::SeqCst) >= 8, Ordering::SeqCst);
        Act::AcceptAndHold(Arc::clone(&held))
    });
    (gate, caught)
}

/// One gateway is killed, the others get their answers: nine events are under way at least, so that each has some.
pub(super) async fn killed_in_mid_forward(plan: Plan) -> Report {
    let mut world = start(plan).await;
    for victim in 0..ROUNDS {
        let (gate, caught) = trap(&world);
        assert!(until(|| caught.load(Ordering::SeqCst)).await, "nothing reached the backend");
        world.kill(victim);
        gate.open();
        world.backend.script(|_| Act::Accept);
        world.join(&Surroundings::default()).await;
        sleep(Duration::from_millis(500)).await;
    }
    world.finish().await
}

pub(super) async fn stopped_beyond_lease(plan: Plan) -> Report {
    let world = start(plan).await;
    for victim in 0..2 {
        let (gate, caught) = trap(&world);
        assert!(until(|| caught.load(Ordering::SeqCst)).await, "nothing reached the backend");
        let began = world.recorder.now();
        world.signal(victim, "STOP");
        gate.open();
        world.backend.script(|_| Act::Accept);
        sleep(LEASE + Duration::from_millis(500)).await;
        world.signal(victim, "CONT");
        world.recorder.fault(world.recorder.over("a gateway stands still", began));
        sleep(Duration::from_millis(500)).await;
    }
    world.finish().await
}
