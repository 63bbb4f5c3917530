//! Redis that dies, stands still, forgets, or has no room.

use std::time::Duration;

use tokio::time::sleep;

use crate::checker::Report;
use crate::history::{At, Attempt, Fault, History};
use crate::senders::Load;
use crate::servers::Wanted;
use crate::support::redis::Settings;
use crate::world::{COMPRESSED, LOCAL, Plan, Setup, World};

/// Each gateway that decides alone may forward an event once; from then on it knows it.
const ALONE: u32 = 2;

fn local() -> Setup {
    Setup { more: COMPRESSED.to_owned() + LOCAL, ..Setup::default() }
}

async fn start(plan: Plan, setup: Setup) -> World {
    let mut world = World::start(plan, setup).await;
    world.send(Load { spread: 1_500, ..Load::paced(plan.events(400), 50) });
    sleep(Duration::from_millis(700)).await;
    world
}

async fn killed(plan: Plan, setup: Setup, fault: fn(Fault) -> Fault) -> Report {
    let mut world = start(plan, setup).await;
    let mut random = world.random();
    for _ in 0..3 {
        let began = world.recorder.now();
        world.redis_mut().kill();
        sleep(random.millis(50, 1_000)).await;
        world.redis_mut().restart().await;
        world.recovered().await;
        world.recorder.fault(fault(world.recorder.over("Redis is killed", began)));
        sleep(random.millis(500, 1_500)).await;
    }
    world.finish().await
}

pub(super) async fn redis_killed_empty(plan: Plan) -> Report {
    killed(plan, local(), |fault| Fault { costs: ALONE, forgets: true, ..fault }).await
}

pub(super) async fn redis_killed_empty_reject(plan: Plan) -> Report {
    killed(plan, Setup::default(), |fault| Fault { costs: ALONE, forgets: true, ..fault }).await
}

pub(super) async fn redis_killed_aof(plan: Plan) -> Report {
    let redis = Settings::default().line("appendonly yes").line("appendfsync always");
    let servers = Wanted::Alone(redis);
    killed(plan, Setup { servers, ..Setup::default() }, |fault| fault).await
}

async fn frozen(plan: Plan, setup: Setup, costs: u32, pauses: &[u64]) -> Report {
    let world = start(plan, setup).await;
    let mut longest = (At::ZERO, At::ZERO);
    for pause in pauses {
        let began = world.recorder.now();
        world.redis().pause();
        sleep(Duration::from_millis(*pause)).await;
        world.redis().resume();
        world.recovered().await;
        world.recorder.fault(Fault { costs, ..world.recorder.over("Redis stands still", began) });
        longest = (began, world.recorder.now());
        sleep(Duration::from_millis(600)).await;
    }
    let recorder = std::sync::Arc::clone(&world.recorder);
    let mut report = world.finish().await;
    judge_waits(&recorder.write(), longest, &mut report);
    report
}

pub(super) async fn redis_frozen(plan: Plan) -> Report {
    let events = Some(plan.events(700));
    frozen(Plan { events, ..plan }, local(), ALONE, &[100, 400, 1_000, 10_000]).await
}

/// By when the breakers of a frozen Redis are open: their five time-outs run side by side.
const BREAKER: Duration = Duration::from_secs(2);

/// The slowest of a hundred answers may take so long once they are.
const P99_MAX: Duration = Duration::from_millis(300);

/// How long senders waited for the answers to what they sent while Redis had been standing still for a while.
fn judge_waits(history: &History, pause: (At, At), report: &mut Report) {
    let (began, ended) = pause;
    if ended < began + 2 * BREAKER {
        return;
    }
    let meant = |attempt: &&Attempt| attempt.sent > began + BREAKER && attempt.sent < ended;
    let attempts = history.attempts.iter().filter(meant);
    let mut waits: Vec<Duration> =
        attempts.map(|attempt| attempt.ended.saturating_sub(attempt.sent)).collect();
    waits.sort_unstable();
    let Some(p99) = waits.get(waits.len() * 99 / 100) else { return };
    let note =
        format!("{} answers while Redis stood still: p99 {} ms", waits.len(), p99.as_millis());
    if *p99 > P99_MAX && report.figures.overloads == 0 {
        report.violations.push(note);
    } else {
        report.notes.push(note);
    }
}

/// No longer than a sender tries, in its compressed time.
pub(super) async fn redis_frozen_reject(plan: Plan) -> Report {
    frozen(plan, Setup::default(), 1, &[100, 400, 1_000, 2_000]).await
}

/// Room for a few hundred records beside what the server itself takes.
pub(super) async fn redis_evicts(plan: Plan) -> Report {
    let mut world = start(plan, Setup::default()).await;
    let began = world.recorder.now();
    let used = used_memory(&world).await;
    let limit = (used + 32 * 1024).to_string();
    let _: () = world.redis().command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let _: () = world.redis().command(&["CONFIG", "SET", "maxmemory", &limit]).await;
    while world.is_busy() {
        sleep(Duration::from_millis(100)).await;
    }
    let stats: String = world.redis().command(&["INFO", "stats"]).await;
    let evicted = stats.lines().find_map(|line| line.strip_prefix("evicted_keys:")).unwrap();
    assert!(evicted.trim() != "0", "nothing was evicted below {limit} bytes");
    let fault = world.recorder.over("Redis evicts records", began);
    world.recorder.fault(Fault { costs: ALONE, forgets: true, ..fault });
    world.finish().await
}

async fn used_memory(world: &World) -> u64 {
    let memory: String = world.redis().command(&["INFO", "memory"]).await;
    let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    used.trim().parse().unwrap()
}

pub(super) async fn redis_out_of_memory(plan: Plan) -> Report {
    let world = start(plan, Setup::default()).await;
    for _ in 0..3 {
        let began = world.recorder.now();
        let _: () = world.redis().command(&["CONFIG", "SET", "maxmemory", "1"]).await;
        sleep(Duration::from_millis(800)).await;
        let _: () = world.redis().command(&["CONFIG", "SET", "maxmemory", "0"]).await;
        world.recovered().await;
        world.recorder.fault(world.recorder.over("Redis is out of memory", began));
        sleep(Duration::from_millis(800)).await;
    }
    world.finish().await
}

/// Costs nothing: the gateways send the scripts again.
pub(super) async fn script_flush(plan: Plan) -> Report {
    let mut world = start(plan, Setup::default()).await;
    while world.is_busy() {
        let began = world.recorder.now();
        let _: () = world.redis().command(&["SCRIPT", "FLUSH"]).await;
        let fault = world.recorder.over("SCRIPT FLUSH", began);
        world.recorder.fault(Fault { costs: 0, ..fault });
        sleep(Duration::from_millis(300)).await;
    }
    world.finish().await
}

pub(super) async fn flushall(plan: Plan) -> Report {
    let mut world = start(plan, Setup::default()).await;
    while world.is_busy() {
        let began = world.recorder.now();
        let _: () = world.redis().command(&["FLUSHALL"]).await;
        let fault = world.recorder.over("FLUSHALL", began);
        world.recorder.fault(Fault { forgets: true, ..fault });
        sleep(Duration::from_secs(1)).await;
    }
    world.finish().await
}
