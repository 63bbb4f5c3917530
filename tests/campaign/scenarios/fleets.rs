//! Redis as operators run it: sentinels that fail over, cleanly or with a lost tail, and a cluster that loses a node or
//! moves its slots.

use std::time::Duration;

use tokio::time::sleep;

use crate::checker::Report;
use crate::history::Fault;
use crate::senders::Load;
use crate::servers::{Servers, Wanted};
use crate::support::cluster::RedisCluster;
use crate::support::redis::{RedisServer, until};
use crate::support::sentinel::SentinelFleet;
use crate::world::{COMPRESSED, Plan, REJECT, Setup, World};

/// A record counts when one of the two replicas has it.
const REPLICATED: &str = "store.redis.wait_replicas = 1\n";

/// A gateway that has not heard of a record may forward once more, and so may the other one.
const ALONE: u32 = 2;

async fn start(plan: Plan, servers: Wanted, more: &str) -> World {
    let more = format!("{COMPRESSED}{REJECT}{more}");
    let mut world = World::start(plan, Setup { more, servers, ..Setup::default() }).await;
    // A fail-over takes its seconds however short the gateways' leases are: the senders try as long as LiveKit's.
    world.send(Load { spread: 1_500, pace: 1.0, ..Load::paced(plan.events(400), 50) });
    sleep(Duration::from_millis(1_500)).await;
    world
}

fn sentinels(world: &mut World) -> &mut SentinelFleet {
    match &mut world.servers {
        Servers::Sentinels(fleet) => fleet,
        Servers::Alone(_) | Servers::Apart(..) | Servers::Cluster(_) => {
            unreachable!("sentinels were asked for")
        }
    }
}

fn cluster(world: &mut World) -> &mut RedisCluster {
    match &mut world.servers {
        Servers::Cluster(cluster) => cluster,
        Servers::Alone(_) | Servers::Apart(..) | Servers::Sentinels(_) => {
            unreachable!("a cluster was asked for")
        }
    }
}

async fn failed_over(fleet: &SentinelFleet) {
    until("another server is the master", async || {
        fleet.servers[1].info("role").await == "master"
            || fleet.servers[2].info("role").await == "master"
    })
    .await;
}

async fn commanded(plan: Plan, more: &str, forgets: bool) -> Report {
    let mut world = start(plan, Wanted::Sentinels, more).await;
    let began = world.recorder.now();
    let fleet = sentinels(&mut world);
    fleet.fail_over().await;
    failed_over(fleet).await;
    until("the old master knows", async || fleet.servers[0].info("role").await == "slave").await;
    // The gateways learn it from the first READONLY.
    sleep(Duration::from_secs(1)).await;
    world.recovered().await;
    let fault = world.recorder.over("sentinels fail over", began);
    world.recorder.fault(Fault { costs: ALONE, forgets, ..fault });
    world.finish().await
}

/// The old master goes on until a sentinel has told it: what it acknowledges meanwhile, with a replica that has not been
/// told either, is lost.
pub(super) async fn sentinel_failover(plan: Plan) -> Report {
    commanded(plan, REPLICATED, true).await
}

/// The replica that is to be the master follows no more: nothing that it does not have is acknowledged.
pub(super) async fn sentinel_failover_all(plan: Plan) -> Report {
    commanded(plan, "store.redis.wait_replicas = 2\n", false).await
}

/// What the master acknowledged, one replica has; but not necessarily the one that becomes the master.
pub(super) async fn sentinel_master_killed(plan: Plan) -> Report {
    let mut world = start(plan, Wanted::Sentinels, REPLICATED).await;
    let began = world.recorder.now();
    let fleet = sentinels(&mut world);
    fleet.servers[0].kill();
    failed_over(fleet).await;
    world.recovered().await;
    let fault = world.recorder.over("the master is killed", began);
    world.recorder.fault(Fault { forgets: true, ..fault });
    world.finish().await
}

/// Lets the replicas log in as a user of their own, and throws that user out after `tail`: the master goes on alone.
async fn cut_off(fleet: &SentinelFleet) {
    const RULES: [&str; 8] =
        ["ACL", "SETUSER", "replica", "on", ">secret", "allkeys", "allchannels", "allcommands"];
    for server in &fleet.servers {
        server.command::<()>(&RULES).await;
    }
    for replica in &fleet.servers[1..] {
        replica.command::<()>(&["CONFIG", "SET", "masteruser", "replica"]).await;
        replica.command::<()>(&["CONFIG", "SET", "masterauth", "secret"]).await;
    }
    let master = &fleet.servers[0];
    master.command::<()>(&["ACL", "SETUSER", "replica", "off"]).await;
    drop(master.try_command(&["CLIENT", "KILL", "TYPE", "replica"]).await);
    until("no replica follows", async || replicas(master).await == "0").await;
}

async fn replicas(master: &RedisServer) -> String {
    master.info("connected_slaves").await
}

async fn with_a_cut(plan: Plan, more: &str, forgets: bool) -> Report {
    let mut world = start(plan, Wanted::Sentinels, more).await;
    let began = world.recorder.now();
    let fleet = sentinels(&mut world);
    cut_off(fleet).await;
    sleep(Duration::from_secs(1)).await;
    fleet.servers[0].kill();
    failed_over(fleet).await;
    world.recovered().await;
    let fault = world.recorder.over("a fail-over loses the last second", began);
    world.recorder.fault(Fault { costs: ALONE, forgets, ..fault });
    world.finish().await
}

pub(super) async fn sentinel_lost_tail(plan: Plan) -> Report {
    with_a_cut(plan, "", true).await
}

/// What no replica has is not acknowledged: claims fail, settles wait. What was forwarded meanwhile is marked when it is
/// forwarded again, unless the new master has never heard of the claim.
pub(super) async fn sentinel_cut_replicas(plan: Plan) -> Report {
    with_a_cut(plan, REPLICATED, true).await
}

pub(super) async fn cluster_node_killed(plan: Plan) -> Report {
    let mut world = start(plan, Wanted::Cluster, "").await;
    let began = world.recorder.now();
    let cluster = cluster(&mut world);
    cluster.nodes[0].kill();
    until("its replica is a master", async || cluster.nodes[3].info("role").await == "master")
        .await;
    world.recovered().await;
    let fault = world.recorder.over("a cluster's master is killed", began);
    world.recorder.fault(Fault { forgets: true, ..fault });
    world.finish().await
}

/// A record is in one place or the other, and whoever asks is told which.
pub(super) async fn cluster_slots_moved(plan: Plan) -> Report {
    let mut world = start(plan, Wanted::Cluster, "").await;
    while world.is_busy() {
        let began = world.recorder.now();
        let cluster = cluster(&mut world);
        let key: Option<String> = cluster.nodes[0].command(&["RANDOMKEY"]).await;
        let Some(key) = key else { break };
        let slot = cluster.slot(&key).await;
        cluster.open(slot, 0, 1).await;
        sleep(Duration::from_millis(50)).await;
        cluster.close(slot, 0, 1).await;
        let fault = world.recorder.over("a slot moves", began);
        world.recorder.fault(Fault { costs: 0, ..fault });
        sleep(Duration::from_millis(50)).await;
    }
    world.finish().await
}
