//! A backend that breaks: by the event's number, the seed, and how often it has come.

use std::time::Duration;

use tokio::time::sleep;

use crate::backend::{Act, Request};
use crate::checker::Report;
use crate::random::Random;
use crate::senders::Load;
use crate::world::{Plan, Setup, World};

/// Beyond the gateways' time-out of 1.5 s.
const LATE: Duration = Duration::from_millis(1800);

/// How often an event may be met with a fault: the sender has five attempts, and three copies share them.
const FAULTS_EACH: u32 = 2;

/// Half of the events meet a fault, some of them two.
async fn broken(plan: Plan, break_it: fn(&mut Random) -> Act) -> Report {
    let mut world = World::start(plan, Setup::default()).await;
    let seed = plan.seed;
    world.backend.script(move |Request { event, nth }| {
        let mut random = Random::new(seed, event << 8 | u64::from(nth));
        if nth > FAULTS_EACH || random.below(2) == 0 {
            return Act::Accept;
        }
        break_it(&mut random)
    });
    world.send(Load::paced(plan.events(300), 50));
    world.finish().await
}

pub(super) async fn backend_breaks(plan: Plan) -> Report {
    broken(plan, |random| match random.below(8) {
        0 => Act::Hang,
        1 => Act::AcceptAndHang,
        2 => Act::Reset,
        3 => Act::AcceptAndReset,
        4 => Act::AcceptAndTruncate,
        5 => Act::AcceptLate(LATE),
        6 => Act::AcceptAfter(random.millis(1, 800)),
        _ => refusal(random),
    })
    .await
}

pub(super) async fn backend_refuses(plan: Plan) -> Report {
    broken(plan, refusal).await
}

fn refusal(random: &mut Random) -> Act {
    const ANSWERS: [&str; 8] = [
        "500 Internal Server Error",
        "501 Not Implemented",
        "502 Bad Gateway",
        "503 Service Unavailable",
        "503 Service Unavailable\r\nretry-after: 0",
        "429 Too Many Requests\r\nretry-after: 1",
        "401 Unauthorized",
        "302 Found\r\nlocation: /elsewhere",
    ];
    Act::Say(ANSWERS[usize::try_from(random.below(8)).unwrap()])
}

pub(super) async fn backend_hangs(plan: Plan) -> Report {
    broken(plan, |random| if random.below(2) == 0 { Act::Hang } else { Act::AcceptAndHang }).await
}

pub(super) async fn backend_resets(plan: Plan) -> Report {
    broken(plan, |random| if random.below(2) == 0 { Act::Reset } else { Act::AcceptAndReset }).await
}

pub(super) async fn backend_truncates(plan: Plan) -> Report {
    broken(plan, |_| Act::AcceptAndTruncate).await
}

pub(super) async fn backend_slow(plan: Plan) -> Report {
    broken(plan, |random| {
        if random.below(2) == 0 {
            Act::AcceptAfter(random.millis(50, 1_000))
        } else {
            Act::AcceptLate(LATE)
        }
    })
    .await
}

/// Nobody listens: what was under way is in doubt, all else certainly did not arrive.
pub(super) async fn backend_away(plan: Plan) -> Report {
    let mut world = World::start(plan, Setup::default()).await;
    world.backend.script(|_| Act::AcceptAfter(Duration::from_millis(20)));
    world.send(Load::paced(plan.events(300), 50));
    let mut random = world.random();
    for _ in 0..3 {
        sleep(random.millis(500, 1_000)).await;
        let began = world.recorder.now();
        world.backend.close();
        sleep(random.millis(300, 1_200)).await;
        world.backend.open().await;
        world.recorder.fault(world.recorder.over("the backend is away", began));
    }
    world.finish().await
}
