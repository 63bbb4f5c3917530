//! Redis Cluster: whoever serves a slot is found, also while the slot is on its way, and after a node has died.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use oncehook::claim::record::Reply;
use oncehook::clock;
use oncehook::store::redis::{
    Address, ClientCertificate, Endpoint, Options, Redis, TlsOptions, WaitReplicas,
};
use oncehook::store::{Store, StoreError};
use secrecy::SecretString;
use tokio::task::JoinSet;

use crate::support::cluster::RedisCluster;
use crate::support::redis::{RedisServer, until};
use crate::support::store::{CLAIM, RELEASE, SETTLE, credentials, key, options, options_at, owner};

const WON: Reply = Reply::Won { attempt: 1, possible_duplicate: false };

fn of(cluster: &RedisCluster) -> Options {
    Options { endpoint: cluster.endpoint(), ..options_at(0) }
}

fn impatient(cluster: &RedisCluster) -> Options {
    let timeout = Duration::from_millis(500);
    Options { connect_timeout: timeout, operation_timeout: timeout, ..of(cluster) }
}

fn probing(options: Options) -> (Arc<Store>, JoinSet<std::convert::Infallible>) {
    let store = Arc::new(Store::Redis(Redis::new(options).unwrap()));
    let mut tasks = JoinSet::new();
    let probed = Arc::clone(&store);
    tasks.spawn(async move { probed.probe_loop().await });
    (store, tasks)
}

async fn calls(cluster: &RedisCluster, command: &str) -> u64 {
    let mut calls = 0;
    for node in &cluster.nodes {
        calls += node.calls(command).await;
    }
    calls
}

#[tokio::test]
async fn every_node_has_its_share_and_an_operation_is_one_round_trip() {
    let cluster = RedisCluster::start().await;
    let redis = Redis::new(of(&cluster)).unwrap();
    assert_eq!(redis.check().await.unwrap(), Vec::<String>::new());
    for number in 0..300 {
        assert_eq!(redis.execute(key(number), owner(1), CLAIM).await.unwrap(), WON);
        assert_eq!(redis.execute(key(number), owner(1), SETTLE).await.unwrap(), Reply::Done);
    }
    let records = cluster.records().await;
    assert!(records.values().all(|count| *count > 50), "{records:?}");
    let before = calls(&cluster, "set").await;
    for number in 0..300 {
        let reply = redis.execute(key(number), owner(2), CLAIM).await.unwrap();
        assert!(matches!(reply, Reply::Duplicate { .. }), "{reply:?}");
    }
    assert_eq!(calls(&cluster, "set").await - before, 300, "nobody was sent elsewhere");
    assert_eq!(calls(&cluster, "asking").await, 0);
    assert_eq!(redis.outage(), None);
}

#[tokio::test]
async fn a_record_on_its_way_is_asked_for_where_it_goes() {
    let cluster = RedisCluster::start().await;
    let redis = Redis::new(of(&cluster)).unwrap();
    redis.check().await.unwrap();
    for (number, before) in [(1, false), (2, true)] {
        let name = redis.name(key(number));
        let slot = cluster.slot(&name).await;
        let from = cluster.serving(slot).await;
        let to = (from + 1) % 3;
        if before {
            assert_eq!(redis.execute(key(number), owner(1), CLAIM).await.unwrap(), WON);
        }
        cluster.open(slot, from, to).await;
        let asked = cluster.nodes[to].calls("asking").await;
        // What is there stays there until it is moved; what is new begins where the slot goes.
        let _: String = cluster.nodes[to].command(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(redis.execute(key(number), owner(1), CLAIM).await.unwrap(), WON);
        let asked = cluster.nodes[to].calls("asking").await - asked;
        assert_eq!(asked, u64::from(!before), "for the SET that found nothing");
        let asked = cluster.nodes[to].calls("asking").await;
        let busy = redis.execute(key(number), owner(2), CLAIM).await.unwrap();
        assert!(matches!(busy, Reply::Busy { .. }), "{busy:?}");
        let asked = cluster.nodes[to].calls("asking").await - asked;
        assert_eq!(asked, if before { 0 } else { 3 }, "for the SET, for EVALSHA, for EVAL");
        cluster.close(slot, from, to).await;
        let busy = redis.execute(key(number), owner(2), CLAIM).await.unwrap();
        assert!(matches!(busy, Reply::Busy { .. }), "after the move: {busy:?}");
        let moved = cluster.nodes[from].store_commands().await;
        assert_eq!(redis.execute(key(number), owner(1), SETTLE).await.unwrap(), Reply::Done);
        assert_eq!(cluster.nodes[from].store_commands().await, moved, "the map is up to date");
        assert_eq!(cluster.nodes[to].command::<u64>(&["EXISTS", &name]).await, 1);
    }
}

/// Claims and settles each of the events, again and again; returns how often, when told to stop.
async fn load(redis: Arc<Redis>, events: std::ops::Range<u128>, stop: Arc<AtomicBool>) -> u64 {
    let mut operations = 0;
    let mut fresh = events.end;
    while !stop.load(Ordering::SeqCst) {
        for number in events.clone() {
            let reply = redis.execute(key(number), owner(2), CLAIM).await.unwrap();
            assert!(matches!(reply, Reply::Duplicate { .. }), "{number}: {reply:?}");
            // One that nobody has seen yet.
            assert_eq!(redis.execute(key(fresh), owner(1), CLAIM).await.unwrap(), WON);
            assert_eq!(redis.execute(key(fresh), owner(1), SETTLE).await.unwrap(), Reply::Done);
            (fresh, operations) = (fresh + 1, operations + 3);
        }
    }
    operations
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_under_load_and_nothing_is_refused_forgotten_or_won_twice() {
    const EVENTS: u128 = 200;
    let cluster = RedisCluster::start().await;
    let redis = Arc::new(Redis::new(of(&cluster)).unwrap());
    for number in 0..EVENTS {
        assert_eq!(redis.execute(key(number), owner(1), SETTLE).await.unwrap(), Reply::Fenced);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut loads = JoinSet::new();
    for part in 0..2_u128 {
        // Far apart, so that each has new events of its own.
        let first = part << 64;
        for number in first..first + EVENTS {
            redis.execute(key(number), owner(1), SETTLE).await.unwrap();
        }
        loads.spawn(load(Arc::clone(&redis), first..first + EVENTS, Arc::clone(&stop)));
    }
    let mut moves = 0;
    for number in 0..60 {
        let slot = cluster.slot(&redis.name(key(number))).await;
        let from = cluster.serving(slot).await;
        let to = (from + 1) % 3;
        cluster.open(slot, from, to).await;
        cluster.close(slot, from, to).await;
        moves += 1;
    }
    stop.store(true, Ordering::SeqCst);
    let operations: u64 = loads.join_all().await.into_iter().sum();
    eprintln!("{moves} slots moved during {operations} operations");
    assert!(operations > 1_000, "{operations}");
    assert_eq!(redis.outage(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_is_replaced_by_its_replica_and_the_others_notice_nothing() {
    const EVENTS: u128 = 300;
    let mut cluster = RedisCluster::start_with(
        1,
        &["cluster-require-full-coverage no", "cluster-replica-validity-factor 0"],
    )
    .await;
    let wait = WaitReplicas { replicas: 1, timeout: Duration::from_secs(1) };
    let names = Redis::new(of(&cluster)).unwrap();
    let name_of = |key| names.name(key);
    let (waiting, _tasks) = probing(Options { wait_replicas: Some(wait), ..impatient(&cluster) });
    for number in 0..EVENTS {
        assert_eq!(waiting.execute(key(number), owner(1), CLAIM).await.unwrap(), WON);
    }
    assert!(calls(&cluster, "wait").await > 0);
    let slot = cluster.slot(&name_of(key(EVENTS))).await;
    let from = cluster.serving(slot).await;
    let to = (from + 1) % 3;
    cluster.open(slot, from, to).await;
    let won = waiting.execute(key(EVENTS), owner(1), CLAIM).await.unwrap();
    assert_eq!(won, WON, "where the slot goes, replicas are waited for too");
    cluster.close(slot, from, to).await;
    drop(waiting);
    let (store, _tasks) = probing(impatient(&cluster));
    store.check().await.unwrap();
    cluster.nodes[0].kill();
    let began = clock::monotonic();
    let (mut failed, mut refused_at_once) = (0, 0);
    for number in 0..EVENTS {
        match store.execute(key(number), owner(2), CLAIM).await {
            Ok(reply) => assert!(matches!(reply, Reply::Busy { .. }), "{number}: {reply:?}"),
            Err(StoreError::Open) => refused_at_once += 1,
            Err(error) => {
                assert!(!error.is_misconfigured(), "{error}");
                failed += 1;
            }
        }
    }
    let swept = clock::monotonic().since(began);
    assert!(failed + refused_at_once < EVENTS / 2, "only the dead node's: {failed}");
    assert!(store.outage().is_some());
    until("the replica serves", async || store.outage().is_none()).await;
    let took = clock::monotonic().since(began);
    eprintln!(
        "a node killed: {failed} failures, {refused_at_once} refused at once in {swept:?}; all served after {took:?}"
    );
    for number in 0..EVENTS {
        let reply = store.execute(key(number), owner(2), CLAIM).await.unwrap();
        assert!(matches!(reply, Reply::Busy { .. }), "what a replica had counted: {reply:?}");
    }
    let mut marked = [0, 0];
    for number in EVENTS * 2..EVENTS * 2 + 60 {
        let of_the_dead =
            cluster.nodes[1].command::<u16>(&["CLUSTER", "KEYSLOT", &name_of(key(number))]).await
                < 5_000;
        let reply = store.execute(key(number), owner(1), CLAIM).await;
        if matches!(reply, Ok(Reply::Won { possible_duplicate: true, .. })) {
            marked[usize::from(of_the_dead)] += 1;
        }
    }
    assert!(
        marked[1] > 0 && marked[0] < 10,
        "the heir's first attempts may be second ones: {marked:?}"
    );
}

#[tokio::test]
async fn clusterdown_passes_when_the_missing_node_is_back() {
    let mut cluster = RedisCluster::start().await;
    let (store, _tasks) = probing(impatient(&cluster));
    assert_eq!(store.execute(key(1), owner(1), CLAIM).await.unwrap(), WON);
    cluster.nodes[2].kill();
    until("the others say so", async || {
        let asked = store.execute(key(1), owner(1), CLAIM).await;
        let other = store.execute(key(2), owner(1), CLAIM).await;
        [asked, other].into_iter().any(|outcome| {
            matches!(outcome, Err(StoreError::Unavailable(text)) if text.contains("CLUSTERDOWN"))
        })
    })
    .await;
    cluster.nodes[2].restart().await;
    until("all are served", async || {
        for number in 10..40 {
            if store.execute(key(number), owner(1), CLAIM).await.is_err() {
                return false;
            }
        }
        store.outage().is_none()
    })
    .await;
}

#[tokio::test]
async fn a_cluster_that_cannot_be_reached_opens_the_breaker_too() {
    let mut cluster = RedisCluster::start().await;
    for node in &mut cluster.nodes {
        node.kill();
    }
    let (store, _tasks) = probing(impatient(&cluster));
    let mut outcome = Ok(Reply::Done);
    until("the breaker opens", async || {
        outcome = store.execute(key(1), owner(1), CLAIM).await;
        matches!(outcome, Err(StoreError::Open))
    })
    .await;
    assert!(store.outage().is_some());
    for node in &mut cluster.nodes {
        node.begin_restart();
    }
    until("it works", async || store.execute(key(1), owner(1), CLAIM).await.is_ok()).await;
    until("the outage is over", async || store.outage().is_none()).await;
}

#[tokio::test]
async fn two_more_rights_suffice_in_a_cluster() {
    let least = "user gateway on >secret ~oncehook:* -@all +eval +evalsha +get +set +pttl +time +ping +cluster|slots +asking";
    let cluster = RedisCluster::start_with(0, &[least]).await;
    let user = || Some(credentials(Some("gateway"), "secret"));
    let redis = Redis::new(Options { credentials: user(), ..of(&cluster) }).unwrap();
    let warnings = redis.check().await.unwrap();
    assert!(warnings.len() == 3 && warnings.iter().all(|one| one.contains("INFO")), "{warnings:?}");
    let slot = cluster.slot(&redis.name(key(1))).await;
    let from = cluster.serving(slot).await;
    cluster.open(slot, from, (from + 1) % 3).await;
    for (operation, reply) in [(CLAIM, WON), (RELEASE, Reply::Done), (SETTLE, Reply::Fenced)] {
        assert_eq!(redis.execute(key(1), owner(1), operation).await.unwrap(), reply);
    }
    for node in &cluster.nodes {
        let _: String = node.command(&["ACL", "SETUSER", "gateway", "-cluster|slots"]).await;
    }
    let redis = Redis::new(Options { credentials: user(), ..of(&cluster) }).unwrap();
    let error = redis.check().await.unwrap_err();
    assert!(matches!(error, StoreError::Permission(_)), "{error}");
    assert!(error.hint().contains("+cluster|slots +asking"), "{}", error.hint());
}

#[tokio::test]
async fn every_node_is_asked_over_tls_and_shown_the_client_certificate() {
    let cluster = RedisCluster::start_with_tls().await;
    let authority = cluster.nodes[0].authority();
    let (chain, key_pem) = authority.client.clone();
    let client = ClientCertificate { chain: chain.into_bytes(), key: SecretString::from(key_pem) };
    let seed = Address { host: "localhost".to_owned(), port: cluster.nodes[1].tls_port() };
    let over_tls = |server_name: Option<&str>, client| Options {
        endpoint: Endpoint::Cluster(vec![seed.clone()]),
        tls: Some(TlsOptions {
            ca: Some(authority.ca.as_bytes().to_vec()),
            server_name: server_name.map(str::to_owned),
            client,
        }),
        ..options_at(0)
    };
    let redis = Redis::new(over_tls(Some("localhost"), Some(client))).unwrap();
    redis.check().await.unwrap();
    for number in 0..30 {
        assert_eq!(redis.execute(key(number), owner(1), CLAIM).await.unwrap(), WON);
    }
    let nameless = Redis::new(over_tls(Some("localhost"), None)).unwrap();
    assert!(matches!(nameless.check().await, Err(StoreError::Unreachable(_))));
    // Nodes announce addresses, which their certificates seldom name.
    let error = Redis::new(over_tls(None, None)).unwrap().check().await.unwrap_err();
    assert!(matches!(error, StoreError::Untrusted(_) | StoreError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn one_server_and_a_cluster_are_not_mistaken_for_each_other() {
    let cluster = RedisCluster::start().await;
    let single = RedisServer::start().await;
    let node = Redis::new(options(&cluster.nodes[0])).unwrap();
    let mut told = None;
    for number in 0..20 {
        told = told.or(node.execute(key(number), owner(1), CLAIM).await.err());
    }
    let error = told.expect("one of twenty belongs to another node");
    assert!(error.is_misconfigured() && error.hint().contains("store.redis.cluster"), "{error}");
    let mut seeds = of(&cluster);
    if let Endpoint::Cluster(seeds) = &mut seeds.endpoint {
        seeds[0].port = single.port();
    }
    let error = Redis::new(seeds).unwrap().check().await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("cluster support"), "{error}");
    let other = Redis::new(Options { database: 3, ..of(&cluster) });
    assert!(matches!(other, Err(StoreError::Options(_))));
}
