//! Machines whose clocks are off, or that have too few descriptors; and a bit of everything.

use std::time::Duration;

use tokio::time::sleep;

use crate::backend::{Act, Request};
use crate::checker::Report;
use crate::history::Fault;
use crate::random::Random;
use crate::senders::Load;
use crate::support::gateway::Surroundings;
use crate::world::{LEASE, Plan, Setup, World};

/// Debian's libfaketime, where the package puts it on the two machines that CI knows.
const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
];

/// A process whose wall clock is off; its monotonic clock is not.
fn off_by(seconds: &str) -> Surroundings {
    let library = FAKETIME.iter().find(|path| std::path::Path::new(path).exists());
    let library =
        library.expect("libfaketime is missing; install it: apt-get install -y libfaketime");
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let variables = vec![
        variable("LD_PRELOAD", library),
        variable("FAKETIME", seconds),
        variable("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    Surroundings { variables, ..Surroundings::default() }
}

async fn clocks(plan: Plan, offset: &str, refuses: bool) -> Report {
    let mut world = World::start(plan, Setup { gateways: 1, ..Setup::default() }).await;
    world.join(&off_by(&format!("+{offset}"))).await;
    world.join(&off_by(&format!("-{offset}"))).await;
    for member in &world.members[1..] {
        let warned = member.gateway.log().iter().any(|line| line.contains("s off ours"));
        assert!(warned, "a clock that is {offset} off is told at the start");
    }
    let began = world.recorder.now();
    world.send(Load::paced(plan.events(300), 50));
    while world.is_busy() {
        sleep(Duration::from_millis(100)).await;
    }
    let fault = world.recorder.over("a gateway's clock is off", began);
    world.recorder.fault(Fault { costs: 0, refuses, ..fault });
    world.finish().await
}

pub(super) async fn clocks_30s(plan: Plan) -> Report {
    clocks(plan, "30s", false).await
}

/// The gateway that is behind refuses tokens that are not valid yet.
pub(super) async fn clocks_90s(plan: Plan) -> Report {
    clocks(plan, "90s", true).await
}

pub(super) async fn descriptors(plan: Plan) -> Report {
    let mut world = World::start(plan, Setup { gateways: 2, ..Setup::default() }).await;
    let few = Surroundings { descriptors_max: Some(40), ..Surroundings::default() };
    world.join(&few).await;
    world.backend.script(|_| Act::AcceptAfter(Duration::from_millis(100)));
    let began = world.recorder.now();
    world.send(Load { spread: 100, ..Load::paced(plan.events(500), 100) });
    while world.is_busy() {
        sleep(Duration::from_millis(100)).await;
    }
    world.recorder.fault(world.recorder.over("a gateway has too few descriptors", began));
    world.finish().await
}

/// Eight faults, one after the other, while the backend breaks now and then.
pub(super) async fn everything(plan: Plan) -> Report {
    let mut world = World::start(plan, Setup::default()).await;
    let seed = plan.seed;
    world.backend.script(move |Request { event, nth }| {
        let mut random = Random::new(seed, event << 8 | u64::from(nth));
        match random.below(60) {
            0 if nth == 1 => Act::AcceptAndReset,
            1 if nth == 1 => Act::Hang,
            2 if nth == 1 => Act::Say("503 Service Unavailable"),
            _ => Act::AcceptAfter(random.millis(0, 20)),
        }
    });
    world.send(Load { spread: 1_500, ..Load::paced(plan.events(800), 50) });
    let mut random = world.random();
    for _ in 0..8 {
        sleep(random.millis(300, 900)).await;
        strike(&mut world, &mut random).await;
    }
    world.finish().await
}

/// One fault at random. The gateways that were started last are up.
async fn strike(world: &mut World, random: &mut Random) {
    let up = world.members.len() - 3..world.members.len();
    let victim = up.start + usize::try_from(random.below(3)).unwrap();
    let began = world.recorder.now();
    match random.below(6) {
        0 => {
            // The oldest goes, so that those that are left are still the last ones.
            world.kill(up.start);
            world.join(&Surroundings::default()).await;
        }
        1 => {
            world.signal(victim, "STOP");
            sleep(LEASE + random.millis(0, 500)).await;
            world.signal(victim, "CONT");
            world.recorder.fault(world.recorder.over("a gateway stands still", began));
        }
        2 => {
            world.redis().pause();
            sleep(random.millis(100, 1_500)).await;
            world.redis().resume();
            world.recovered().await;
            world.recorder.fault(world.recorder.over("Redis stands still", began));
        }
        3 => {
            let _: () = world.redis().command(&["FLUSHALL"]).await;
            let fault = world.recorder.over("FLUSHALL", began);
            world.recorder.fault(Fault { forgets: true, ..fault });
        }
        4 => {
            world.members[victim].proxy().part();
            sleep(random.millis(100, 1_500)).await;
            world.members[victim].proxy().heal();
            world.recovered().await;
            world.recorder.fault(world.recorder.over("a gateway is cut off from Redis", began));
        }
        _ => {
            world.members[victim].proxy().cut();
            world.recorder.fault(world.recorder.over("a connection to Redis breaks", began));
        }
    }
}
