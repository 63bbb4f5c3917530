//! A gateway whose Redis is run as operators run it. When it fails over, nothing is lost, and what comes twice is marked.

use std::collections::HashMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oncehook::webhook::event::EventKind;
use tokio::task::JoinSet;

use super::{metric, to};
use crate::support::backend::{Action, Backend};
use crate::support::cluster::RedisCluster;
use crate::support::gateway::Gateway;
use crate::support::redis::{RedisServer, Settings, until};
use crate::support::sender::{Sender, event};
use crate::support::sentinel::SentinelFleet;

/// How many events there are, and how many copies of each.
const EVENTS: u64 = 120;
const COPIES: u64 = 2;

/// As LiveKit's sender, with shorter pauses: a test has no fifteen seconds for each.
const PAUSES_MS: [u64; 8] = [100, 200, 400, 800, 1_000, 2_000, 4_000, 4_000];

/// Sends one copy until it is accepted; whether it was.
async fn deliver(sender: Arc<Sender>, number: u64, copy: u64) -> bool {
    for pause in PAUSES_MS {
        let copy = event(EventKind::EgressEnded, number, &format!("EV_{number}_{copy}"));
        if sender.try_post(&copy).await.is_ok_and(|told| told.status == 200) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    false
}

/// Sends all events to both gateways while `fault` happens, and counts what the backend got.
async fn under_load(gateways: &[Gateway], backend: &Backend, fault: impl AsyncFnOnce()) {
    let senders: Vec<_> =
        gateways.iter().map(|one| Arc::new(Sender::to(&one.url("/webhook")))).collect();
    let mut copies = JoinSet::new();
    let mut fault = Some(fault);
    for number in 0..EVENTS {
        for (copy, sender) in (0..COPIES).zip(senders.iter().cycle()) {
            copies.spawn(deliver(Arc::clone(sender), number, copy));
        }
        if number == EVENTS / 3 {
            fault.take().unwrap()().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let accepted = copies.join_all().await;
    assert!(accepted.iter().all(|accepted| *accepted), "a copy was given up");
    let mut forwards: HashMap<String, u32> = HashMap::new();
    let mut unmarked: HashMap<String, u32> = HashMap::new();
    for request in backend.requests() {
        let key = request.one("idempotency-key").unwrap().to_owned();
        *forwards.entry(key.clone()).or_default() += 1;
        if request.one("oncehook-possible-duplicate").is_none() {
            *unmarked.entry(key).or_default() += 1;
        }
    }
    assert_eq!(forwards.len() as u64, EVENTS, "none is lost");
    let extra: u32 = forwards.values().map(|count| count - 1).sum();
    let twice_unmarked = unmarked.values().filter(|count| **count > 1).count();
    eprintln!("{EVENTS} events, {extra} forwarded once more, {twice_unmarked} of them unmarked");
    assert_eq!(twice_unmarked, 0, "what comes twice is marked");
    assert!(u64::from(extra) < EVENTS / 4, "{extra}");
}

const PATIENT: &str = "store.on_store_error = \"reject-then-local\"\nstore.on_store_error_after = \"10s\"\nclaim.lease = \
                       \"3s\"\nclaim.guard = \"1s\"\nupstream.timeout = \"2s\"\n";

/// One of two replicas: after a fail-over there is one left to wait for.
const REPLICATED: &str = "store.redis.wait_replicas = 1\n";

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_fail_over_clean_and_by_a_kill() {
    for kill in [false, true] {
        let mut fleet = SentinelFleet::start().await;
        let backend = Backend::always(Action::status(200));
        let configuration =
            to(&backend, &format!("{}{PATIENT}{REPLICATED}", fleet.configuration()));
        let gateways = [Gateway::start(&configuration), Gateway::start(&configuration)];
        let began = Instant::now();
        under_load(&gateways, &backend, async || {
            if kill {
                fleet.servers[0].kill();
            } else {
                fleet.fail_over().await;
            }
        })
        .await;
        assert_ne!(fleet.master().await, 0, "there was a fail-over");
        eprintln!(
            "with {} it took {:?}",
            if kill { "a kill" } else { "a command" },
            began.elapsed()
        );
        for gateway in &gateways {
            until("it is over", async || metric(gateway, "oncehook_store_degraded").await == 0)
                .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_cluster_dies() {
    let mut cluster = RedisCluster::start_with(1, &["cluster-replica-validity-factor 0"]).await;
    let backend = Backend::always(Action::status(200));
    let seeds = format!(
        "store.kind = \"redis\"\nstore.redis.cluster.addresses = [\"127.0.0.1:{}\", \"127.0.0.1:1\"]\n",
        cluster.nodes[2].port()
    );
    let configuration = to(&backend, &format!("{seeds}{PATIENT}"));
    let gateways = [Gateway::start(&configuration), Gateway::start(&configuration)];
    under_load(&gateways, &backend, async || cluster.nodes[0].kill()).await;
    for gateway in &gateways {
        until("it is over", async || metric(gateway, "oncehook_store_degraded").await == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stays_away_does_not_hold_what_is_written_back_to_the_others() {
    const FACTS: u64 = 60;
    let cluster = RedisCluster::start_with(0, &["cluster-require-full-coverage no"]).await;
    let backend = Backend::always(Action::status(200));
    let addresses: Vec<String> =
        cluster.nodes.iter().map(|node| format!("\"127.0.0.1:{}\"", node.port())).collect();
    let gateway = Gateway::start(&to(
        &backend,
        &format!(
            "store.kind = \"redis\"\nstore.redis.cluster.addresses = [{}]\nstore.on_store_error = \"local\"\n",
            addresses.join(", ")
        ),
    ));
    let sender = Arc::new(Sender::to(&gateway.url("/webhook")));
    cluster.nodes.iter().for_each(RedisServer::pause);
    for number in 0..FACTS {
        assert!(deliver(Arc::clone(&sender), number, 1).await);
    }
    until("none is recorded", async || metric(&gateway, "oncehook_unfinished").await == FACTS)
        .await;
    cluster.nodes[1..].iter().for_each(RedisServer::resume);
    let records = async |node: usize| cluster.nodes[node].records().await as u64;
    // A third belongs to the first node, give or take: nobody has 45 of 60 by chance.
    until("the others know what is theirs", async || {
        records(1).await + records(2).await + metric(&gateway, "oncehook_unfinished").await == FACTS
            && metric(&gateway, "oncehook_unfinished").await < 45
            && records(1).await > 0
            && records(2).await > 0
    })
    .await;
    let written = records(1).await + records(2).await;
    assert!(written < FACTS, "some are the first node's");
    cluster.nodes[0].resume();
    until("the first one knows its own", async || {
        metric(&gateway, "oncehook_unfinished").await == 0
    })
    .await;
    assert_eq!(records(0).await + records(1).await + records(2).await, FACTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_with_tls_a_client_certificate_a_user_a_prefix_and_a_password_in_a_file() {
    let redis =
        RedisServer::start_with(Settings::default().tls().line(
            "user hook on >secret ~fleet:* -@all +eval +evalsha +get +set +pttl +time +ping",
        ))
        .await;
    let folder = redis.directory();
    let (chain, key) = &redis.authority().client;
    for (name, text) in
        [("client.pem", chain.as_str()), ("client.key", key), ("password", "secret\n")]
    {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    }
    let file = |name: &str| format!("\"{}\"", folder.join(name).display());
    let settings = format!(
        "store.redis.url = \"rediss://localhost:{}\"\nstore.redis.username = \"hook\"\nstore.redis.prefix = \"fleet:\"\n\
         store.redis.password_file = {}\nstore.redis.tls.ca_file = {}\nstore.redis.tls.certificate_file = {}\n\
         store.redis.tls.key_file = {}\n",
        redis.tls_port(),
        file("password"),
        file("ca.pem"),
        file("client.pem"),
        file("client.key")
    );
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&to(&backend, &settings));
    let sender = Sender::to(&gateway.url("/webhook"));
    for word in ["forwarded", "duplicate"] {
        let told = sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await;
        assert_eq!((told.status, told.word.as_str()), (200, word));
    }
    let keys: Vec<String> = redis.command(&["KEYS", "*"]).await;
    assert!(!keys.is_empty() && keys.iter().all(|key| key.starts_with("fleet:{")), "{keys:?}");
    assert_eq!(metric(&gateway, "oncehook_store_degraded").await, 0);
}
