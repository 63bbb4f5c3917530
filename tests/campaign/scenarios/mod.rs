//! The scenarios, by name.

mod backends;
mod calm;
mod fleets;
mod gateways;
mod livekit;
mod machines;
mod network;
mod partitions;
mod planted;
mod stores;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::checker::Report;
use crate::world::Plan;

type Run = fn(Plan) -> Pin<Box<dyn Future<Output = Report>>>;

/// One scenario.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// CI runs it.
    pub(crate) short: bool,
    pub(crate) run: Run,
}

macro_rules! scenarios {
    ($($(#[$when:ident])? $room:ident::$name:ident $about:literal,)+) => {
        /// All of them.
        pub(crate) const ALL: &[Scenario] = &[$(Scenario {
            name: stringify!($name),
            about: $about,
            short: scenarios!(@ $($when)?),
            run: |plan| Box::pin($room::$name(plan)),
        },)+];
    };
    (@) => { false };
    (@ short) => { true };
}

scenarios! {
    #[short] planted::planted_extras "gateways that collapse nothing: the checker has to find the copies",
    #[short] planted::planted_losses "gateways that acknowledge what is in doubt: the checker has to find the losses",
    #[short] calm::burst "three copies of each event, as fast as they go, through three gateways",
    #[short] calm::same_id_retries "three times the same bytes, at nearly the same time",
    #[short] calm::rolling_update "gateways are ended under load, and replaced",
    calm::senders_gone "a third of the senders hang up while they wait",
    gateways::killed_before_claim "kill -9 while a claim is on its way to Redis",
    gateways::killed_after_claim "kill -9 when a claim is executed and its reply is not read",
    #[short] gateways::killed_in_mid_forward "kill -9 while the backend has the event and has not answered",
    gateways::killed_before_settle "kill -9 after the backend's 2xx, before Redis knows",
    gateways::killed_after_settle "kill -9 when Redis knows, before the sender does",
    #[short] gateways::stopped_beyond_lease "a gateway stands still for longer than its lease, and goes on",
    livekit::go_sender "LiveKit's own sender: gateways killed or standing still, and a backend that refuses; needs Go",
    #[short] backends::backend_breaks "hangs, resets, truncates, is late: whatever the backend can do",
    backends::backend_refuses "429 and 5xx, with and without Retry-After, and 401",
    backends::backend_away "its port is closed and its connections broken, for a second or so, again and again",
    backends::backend_hangs "never answers, having accepted or not",
    backends::backend_resets "RST, having accepted or not",
    backends::backend_truncates "half an answer, having accepted",
    backends::backend_slow "answers late, but in time; or accepts when nobody waits any more",
    #[short] stores::redis_killed_empty "Redis is killed and comes back empty; gateways decide alone",
    stores::redis_killed_empty_reject "the same; gateways reject meanwhile",
    stores::redis_killed_aof "Redis is killed and comes back with all it acknowledged",
    #[short] stores::redis_frozen "Redis stands still for 0.1 to 10 s; gateways decide alone",
    stores::redis_frozen_reject "Redis stands still for 0.1 to 2 s; gateways reject meanwhile",
    stores::redis_evicts "too little memory, and a policy that evicts records",
    stores::redis_out_of_memory "no memory, and a policy that evicts nothing",
    stores::script_flush "SCRIPT FLUSH, again and again",
    stores::flushall "FLUSHALL, again and again",
    #[short] fleets::sentinel_failover "three sentinels make a replica the master, on command",
    fleets::sentinel_failover_all "the same, where a record counts only when both replicas have it",
    fleets::sentinel_master_killed "the master is killed, and a replica takes its place",
    fleets::sentinel_lost_tail "the same, with a replica that has not heard of the last second",
    fleets::sentinel_cut_replicas "the same, where a record counts only when a replica has it: wait_replicas",
    fleets::cluster_node_killed "a cluster's master is killed, and its replica takes its place",
    fleets::cluster_slots_moved "slots with records in them move between masters, under load",
    #[short] network::replies_lost "commands are executed, and their replies lost, one by one",
    network::commands_lost "commands are lost, one by one",
    network::replies_corrupt "replies are garbage, one by one",
    network::replies_late "replies come late, some later than anybody waits",
    network::connections_stall "connections fall silent and stay open",
    network::partition "one gateway is cut off from Redis, and decides alone",
    network::partition_reject "one gateway is cut off from Redis, and rejects",
    partitions::partition_netns "links in network namespaces go down, one or all; gateways decide alone; needs root",
    partitions::partition_netns_reject "the same; gateways reject meanwhile",
    partitions::partition_netns_one_way "Redis hears one gateway or all, and what it says is lost",
    machines::clocks_30s "two gateways' clocks are 30 s off, one ahead, one behind",
    machines::clocks_90s "the same by 90 s: more than a token allows",
    machines::descriptors "a gateway that may open few files",
    machines::everything "faults of all kinds, at random",
}

/// Waits until `holds`; whether it did within 20 s.
async fn until(holds: impl Fn() -> bool) -> bool {
    let limit = Instant::now() + Duration::from_secs(20);
    while Instant::now() < limit {
        if holds() {
            return true;
        }
        sleep(Duration::from_millis(1)).await;
    }
    false
}

/// A counter that rules and scripts share with their scenario.
fn counter() -> Arc<std::sync::atomic::AtomicUsize> {
    Arc::default()
}
