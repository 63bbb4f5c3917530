//! What a network does to a gateway and its Redis: replies and commands that are lost with their connection, garbage,
//! delays, silence, and a partition that leaves the others alone.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use crate::checker::Report;
use crate::history::Fault;
use crate::random::Random;
use crate::senders::Load;
use crate::support::proxy::{Asked, Fate};
use crate::world::{COMPRESSED, LOCAL, Plan, Setup, World};

use super::counter;

/// One of so many operations is hit, where only those that are under way with it suffer.
const OFTEN: u64 = 40;

/// The same, where each fault takes the gateway half a second to find out, and what it sent meanwhile fails as well: with
/// many more, no gateway would have a store for as long as senders try.
const SELDOM: u64 = 300;

/// Hits one operation in `one_in`, by the seed; each is a fault of that moment.
async fn hit(plan: Plan, what: &'static str, one_in: u64, fate: fn(&mut Random) -> Fate) -> Report {
    let mut world = World::start(plan, Setup::default()).await;
    for (number, member) in (0..).zip(&world.members) {
        let (count, seed) = (counter(), plan.seed);
        let recorder = std::sync::Arc::clone(&world.recorder);
        member.proxy().rule(move |asked| {
            let nth = count.fetch_add(1, Ordering::SeqCst) as u64;
            let mut random = Random::new(seed, number << 32 | nth);
            if asked == Asked::Other || random.below(one_in) != 0 {
                return Fate::Pass;
            }
            recorder.fault(recorder.over(what, recorder.now()));
            fate(&mut random)
        });
    }
    world.send(Load::paced(plan.events(400), 50));
    while world.is_busy() {
        sleep(Duration::from_millis(100)).await;
    }
    for member in &world.members {
        member.proxy().pass();
    }
    world.finish().await
}

pub(super) async fn replies_lost(plan: Plan) -> Report {
    hit(plan, "a reply is lost", OFTEN, |_| Fate::CutAfter).await
}

pub(super) async fn commands_lost(plan: Plan) -> Report {
    hit(plan, "a command is lost", OFTEN, |_| Fate::CutBefore).await
}

pub(super) async fn replies_corrupt(plan: Plan) -> Report {
    hit(plan, "a reply is garbage", OFTEN, |_| Fate::Corrupt).await
}

/// The gateways wait for half a second.
pub(super) async fn replies_late(plan: Plan) -> Report {
    hit(plan, "a reply is late", SELDOM, |random| Fate::Delay(random.millis(50, 1_200))).await
}

pub(super) async fn connections_stall(plan: Plan) -> Report {
    hit(plan, "a connection falls silent", SELDOM, |random| {
        if random.below(2) == 0 { Fate::StallBefore } else { Fate::StallAfter }
    })
    .await
}

async fn parted(plan: Plan, setup: Setup) -> Report {
    let mut world = World::start(plan, setup).await;
    world.send(Load { spread: 1_500, ..Load::paced(plan.events(400), 50) });
    for (number, seconds) in [(0, 1), (1, 3), (2, 1)] {
        sleep(Duration::from_millis(600)).await;
        let began = world.recorder.now();
        world.members[number].proxy().part();
        sleep(Duration::from_secs(seconds)).await;
        world.members[number].proxy().heal();
        // What the packets of a dead connection would meet.
        world.members[number].proxy().cut();
        world.recovered().await;
        let fault = world.recorder.over("a gateway is cut off from Redis", began);
        world.recorder.fault(Fault { costs: 1, ..fault });
    }
    world.finish().await
}

pub(super) async fn partition(plan: Plan) -> Report {
    parted(plan, Setup { more: COMPRESSED.to_owned() + LOCAL, ..Setup::default() }).await
}

pub(super) async fn partition_reject(plan: Plan) -> Report {
    parted(plan, Setup::default()).await
}
