//! Gateways that are set up to break the guarantee: the same senders, backend and checker must find them out.

use crate::backend::Act;
use crate::checker::Report;
use crate::senders::Load;
use crate::world::{Plan, Setup, World};

/// A report in which these violations are what is expected.
async fn found(world: World, expected: &[&str]) -> Report {
    let report = world.finish().await;
    let missing = expected
        .iter()
        .filter(|part| !report.violations.iter().any(|violation| violation.contains(**part)));
    let violations = missing.map(|part| format!("the checker did not find: {part}")).collect();
    let notes = vec![format!("found {} violations, as planted", report.violations.len())];
    Report { violations, notes, ..Report::default() }
}

fn with(plan: Plan, line: &str) -> (Plan, Setup) {
    let setup = Setup::default();
    let more = format!("{}{line}\n", setup.more);
    (plan, Setup { more, ..setup })
}

/// A shadow collapses nothing.
pub(super) async fn planted_extras(plan: Plan) -> Report {
    let (plan, setup) = with(plan, "dedup.shadow = true");
    let mut world = World::start(plan, setup).await;
    world.send(Load::paced(plan.events(60), 60));
    found(world, &["accepted copies are not marked"]).await
}

/// `suppress` acknowledges what the backend may never have had.
pub(super) async fn planted_losses(plan: Plan) -> Report {
    let (plan, setup) = with(plan, "claim.on_ambiguous = \"suppress\"");
    let mut world = World::start(plan, setup).await;
    world.backend.script(|request| if request.event % 3 == 0 { Act::Reset } else { Act::Accept });
    world.send(Load::paced(plan.events(60), 60));
    found(world, &["acknowledged before", "lost: no copy"]).await
}
