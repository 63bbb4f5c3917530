//! Gateways that are cut off from Redis by their network: one of them, another, all at once, for moments and for seconds.
//! Nothing stands in between but the kernel's own TCP.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::backend::Act;
use crate::checker::Report;
use crate::history::Fault;
use crate::namespaces::{self, Cut, Network};
use crate::senders::Load;
use crate::servers::Wanted;
use crate::support::redis::until;
use crate::world::{COMPRESSED, LOCAL, Plan, REJECT, Setup, World};

const GATEWAYS: usize = 3;

/// Each gateway that decides alone may forward an event once.
const ALONE: u32 = 2;

/// How long the backend takes, so that at each moment a cut meets forwards that Redis is to hear of next.
const FORWARD: Duration = Duration::from_millis(200);

/// Who is cut off, for how many milliseconds, and how many more copies of an event it may cost.
type Parting = (&'static [usize], (u64, u64), u32);

/// The short one is over before any operation has to fail, or nearly; the long one outlasts a lease.
const DECIDING: [Parting; 4] = [
    (&[0], (800, 1_500), 1),
    (&[0, 1, 2], (100, 400), ALONE),
    (&[0, 1, 2], (1_500, 2_500), ALONE),
    (&[1], (3_500, 4_500), 1),
];

/// Nobody forwards without a claim: what lasts beyond a lease may cost one copy, however many are cut off.
const REJECTING: [Parting; 4] = [
    (&[0], (800, 1_500), 1),
    (&[0, 1, 2], (100, 400), 1),
    (&[0, 1, 2], (1_500, 2_500), 1),
    (&[1], (3_500, 4_500), 1),
];

/// Shorter ones may be over before an operation has timed out.
const NOTICED: Duration = Duration::from_millis(800);

async fn parted(plan: Plan, policy: &'static str, cut: Cut, partings: [Parting; 4]) -> Report {
    if let Some(lacking) = namespaces::lacking() {
        return not_run(plan, lacking);
    }
    let scenario = move |network: Arc<Network>| async move {
        let servers = Wanted::Apart(Arc::clone(&network));
        let more = COMPRESSED.to_owned() + policy;
        let mut world = World::start(plan, Setup { gateways: GATEWAYS, more, servers }).await;
        world.backend.script(|_| Act::AcceptAfter(FORWARD));
        world.send(Load { spread: 1_500, ..Load::paced(plan.events(600), 50) });
        let mut random = world.random();
        let mut notes = Vec::new();
        for (who, (least, most), costs) in partings {
            sleep(Duration::from_millis(600)).await;
            let lasts = random.millis(least, most);
            notes.push(part(&world, &network, (who, lasts, cut), costs).await);
        }
        let mut report = world.finish().await;
        report.notes.extend(notes);
        report
    };
    let playing = spawn_blocking(move || namespaces::play(GATEWAYS, scenario));
    playing.await.expect("the scenario does not panic")
}

fn not_run(plan: Plan, lacking: String) -> Report {
    if !plan.named {
        return Report { not_run: Some("needs root and ip (iproute2)"), ..Report::default() };
    }
    Report { violations: vec![lacking], ..Report::default() }
}

/// Parts them once, and says how long that took them.
async fn part(
    world: &World,
    network: &Network,
    (who, lasts, cut): (&[usize], Duration, Cut),
    costs: u32,
) -> String {
    let mut probes = Vec::new();
    for gateway in who {
        probes.push(connect(world, network, *gateway).await);
    }
    let began = world.recorder.now();
    network.cut(who, cut);
    let parted = world.recorder.now();
    prove(world, network, who).await;
    if cut == Cut::Replies {
        prove_heard(world, probes).await;
    }
    sleep((parted + lasts).saturating_sub(world.recorder.now())).await;
    if lasts >= NOTICED {
        world.degraded(who).await;
    }
    network.heal(who, cut);
    let healed = world.recorder.now();
    world.recovered().await;
    let fault = world.recorder.over("gateways are cut off from Redis", began);
    let (lasted, after) = (healed.saturating_sub(parted), fault.ended.saturating_sub(healed));
    world.recorder.fault(Fault { costs, ..fault });
    format!(
        "{who:?} cut off for {} ms, all asked Redis again {} ms later",
        lasted.as_millis(),
        after.as_millis()
    )
}

/// A partition that parts nobody, or the wrong ones, or that tells anybody, is not what is to be shown.
async fn prove(world: &World, network: &Network, parted: &[usize]) {
    const SILENCE: Duration = Duration::from_millis(50);
    const LIMIT: Duration = Duration::from_secs(10);
    for gateway in 0..GATEWAYS {
        let connecting = connect(world, network, gateway);
        if parted.contains(&gateway) {
            let silence = timeout(SILENCE, connecting).await;
            assert!(silence.is_err(), "gateway {gateway} is not cut off: {silence:?}");
        } else {
            timeout(LIMIT, connecting).await.expect("its link is whole");
        }
    }
}

/// That Redis performs what comes over these connections, which are older than the cut.
async fn prove_heard(world: &World, mut probes: Vec<TcpStream>) {
    let heard = async || -> usize { world.redis().command(&["HLEN", "heard"]).await };
    let before = heard().await;
    for probe in &mut probes {
        let field = probe.local_addr().expect("it is connected");
        let command = format!("HSET heard {field} 1\r\n");
        probe.write_all(command.as_bytes()).await.expect("nobody is told");
    }
    until("Redis hears those who do not hear it", async || heard().await == before + probes.len())
        .await;
}

/// By the way of that gateway.
async fn connect(world: &World, network: &Network, gateway: usize) -> TcpStream {
    let redis = (network.address_for(gateway), world.redis().port());
    TcpStream::connect(redis).await.expect("the link leads to Redis, and nobody says otherwise")
}

pub(super) async fn partition_netns(plan: Plan) -> Report {
    parted(plan, LOCAL, Cut::Both, DECIDING).await
}

pub(super) async fn partition_netns_reject(plan: Plan) -> Report {
    parted(plan, REJECT, Cut::Both, REJECTING).await
}

pub(super) async fn partition_netns_one_way(plan: Plan) -> Report {
    parted(plan, REJECT, Cut::Replies, REJECTING).await
}
