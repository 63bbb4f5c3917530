//! Nothing fails: every event is accepted exactly once. An update and senders that hang up are no faults.

use std::time::Duration;

use tokio::time::sleep;

use crate::checker::Report;
use crate::senders::Load;
use crate::support::gateway::Surroundings;
use crate::world::{Plan, REJECT, Setup, World};

/// Default times, so that a busy machine breaks none of them; a store that may take a second, for the same reason.
fn patient() -> Setup {
    let more = REJECT.to_owned() + "store.redis.operation_timeout = \"1500ms\"\n";
    Setup { more, ..Setup::default() }
}

fn flat_out(plan: Plan, events: u64) -> Load {
    Load {
        events: plan.events(events),
        copies: 3,
        per_second: None,
        lanes: 16,
        spread: 0,
        same_bytes: false,
        gone_percent: 0,
        pace: 1.0,
    }
}

/// Whatever happened: not one more, not one less.
async fn exactly_once(world: World) -> Report {
    let mut report = world.finish().await;
    let figures = report.figures;
    if figures.accepted != figures.events {
        let violation = format!("{} accepted of {} events", figures.accepted, figures.events);
        report.violations.push(violation);
    }
    report
}

pub(super) async fn burst(plan: Plan) -> Report {
    let mut world = World::start(plan, patient()).await;
    world.send(flat_out(plan, if plan.short { 3_000 } else { 10_000 }));
    exactly_once(world).await
}

pub(super) async fn same_id_retries(plan: Plan) -> Report {
    let mut world = World::start(plan, patient()).await;
    world.send(Load { same_bytes: true, ..flat_out(plan, 2_000) });
    exactly_once(world).await
}

pub(super) async fn rolling_update(plan: Plan) -> Report {
    let mut world = World::start(plan, Setup::default()).await;
    world.send(Load::paced(plan.events(400), 80));
    for old in 0..3 {
        sleep(Duration::from_secs(1)).await;
        world.join(&Surroundings::default()).await;
        world.end(old).await;
    }
    exactly_once(world).await
}

pub(super) async fn senders_gone(plan: Plan) -> Report {
    let mut world = World::start(plan, Setup::default()).await;
    // Slow enough that many have hung up before the answer.
    world.backend.script(|_| crate::backend::Act::AcceptAfter(Duration::from_millis(20)));
    world.send(Load { gone_percent: 33, ..Load::paced(plan.events(400), 80) });
    exactly_once(world).await
}
