//! Redis behind sentinels: the master is found, lost and found again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use oncehook::claim::record::Reply;
use oncehook::clock;
use oncehook::store::redis::{
    Address, ClientCertificate, Endpoint, Options, Redis, Sentinel, TlsOptions, WaitReplicas,
};
use oncehook::store::{Store, StoreError};
use secrecy::SecretString;
use tokio::task::JoinSet;

use crate::support::redis::{RedisServer, Settings, free_port, until};
use crate::support::resp::{Answer, Scripted};
use crate::support::sentinel::{MASTER, SentinelFleet, SentinelProcess, by_sentinels};
use crate::support::store::{CLAIM, SETTLE, credentials, key, options_at, owner};

const WON: Reply = Reply::Won { attempt: 1, possible_duplicate: false };

/// How many records there are before a fail-over.
const RECORDS: u128 = 200;

/// Twice the defaults.
fn behind(endpoint: Endpoint) -> Options {
    let timeout = Duration::from_millis(500);
    Options { endpoint, connect_timeout: timeout, operation_timeout: timeout, ..options_at(0) }
}

fn probing(options: Options) -> (Arc<Store>, JoinSet<std::convert::Infallible>) {
    let store = Arc::new(Store::Redis(Redis::new(options).unwrap()));
    let mut tasks = JoinSet::new();
    let probed = Arc::clone(&store);
    tasks.spawn(async move { probed.probe_loop().await });
    (store, tasks)
}

/// Settles records, has `fail` happen, and waits until the store works again: with the same records.
async fn survives(
    fleet: &mut SentinelFleet,
    how: &str,
    fail: impl AsyncFnOnce(&mut SentinelFleet),
) {
    let (store, _tasks) = probing(behind(fleet.endpoint()));
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
    let before = fleet.master().await;
    let records = 0..RECORDS;
    for number in records.clone() {
        assert_eq!(store.execute(key(number), owner(1), CLAIM).await.unwrap(), WON, "{how}");
        assert_eq!(store.execute(key(number), owner(1), SETTLE).await.unwrap(), Reply::Done);
    }
    let count = fleet.servers[before].command::<u64>(&["DBSIZE"]).await;
    for server in &fleet.servers {
        until("replicas have it all", async || {
            server.try_command(&["DBSIZE"]).await.ok()
                == Some(redis::Value::Int(count.cast_signed()))
        })
        .await;
    }
    fail(fleet).await;
    let began = clock::monotonic();
    until("another server is the master", async || fleet.master().await != before).await;
    let named = clock::monotonic().since(began);
    let Store::Redis(redis) = &*store else { unreachable!() };
    let master = fleet.master().await;
    let (mut failed, mut lost, mut next) = (0, 0, records.end);
    until("the new master has what the store is told", async || {
        next += 1;
        let Ok(reply) = store.execute(key(next), owner(1), CLAIM).await else {
            failed += 1;
            return false;
        };
        let has = fleet.servers[master].command::<u64>(&["EXISTS", &redis.name(key(next))]).await;
        // The old master took it, and does not know yet that it is none.
        lost += 1 - has;
        // The new one may lack a claim that the old one granted: whoever wins there is told so.
        let is_marked = matches!(reply, Reply::Won { possible_duplicate: true, .. });
        assert!(is_marked || has == 0, "{how}: {reply:?}");
        has == 1
    })
    .await;
    let took = clock::monotonic().since(began);
    eprintln!(
        "{how}: the sentinels named another after {named:?}; {failed} operations failed and {lost} went to the old \
         master before the store worked after {took:?}"
    );
    for number in records {
        let reply = store.execute(key(number), owner(2), CLAIM).await.unwrap();
        assert!(matches!(reply, Reply::Duplicate { .. }), "{number}: {reply:?}");
    }
}

#[tokio::test]
async fn a_fail_over_by_command_keeps_what_was_replicated() {
    let mut fleet = SentinelFleet::start().await;
    survives(&mut fleet, "command", async |fleet| fleet.fail_over().await).await;
}

#[tokio::test]
async fn a_fail_over_by_a_freeze_keeps_what_was_replicated() {
    let mut fleet = SentinelFleet::start().await;
    survives(&mut fleet, "freeze", async |fleet| fleet.servers[0].pause()).await;
}

#[tokio::test]
async fn a_fail_over_by_a_kill_keeps_what_was_replicated() {
    let mut fleet = SentinelFleet::start().await;
    survives(&mut fleet, "kill", async |fleet| fleet.servers[0].kill()).await;
}

#[tokio::test]
async fn a_claim_counts_only_when_enough_replicas_have_it() {
    let mut fleet = SentinelFleet::start().await;
    let wait = WaitReplicas { replicas: 2, timeout: Duration::from_millis(300) };
    let options = Options { wait_replicas: Some(wait), ..behind(fleet.endpoint()) };
    let (store, _tasks) = probing(options);
    let mut claims = JoinSet::new();
    for number in 0..100_u128 {
        let store = Arc::clone(&store);
        claims.spawn(async move { store.execute(key(number), owner(1), CLAIM).await.unwrap() });
    }
    assert!(claims.join_all().await.into_iter().all(|reply| reply == WON));
    let waits = fleet.servers[0].calls("wait").await;
    assert!((1..=100).contains(&waits), "{waits} for a hundred at once");
    eprintln!("a hundred claims at once: {waits} times WAIT");

    // One replica stands still: the claim is made, and does not count.
    fleet.servers[1].pause();
    let error = store.execute(key(1_000), owner(1), CLAIM).await.unwrap_err();
    let is_told =
        matches!(&error, StoreError::Unavailable(text) if text.contains("1 of 2 replicas"));
    assert!(is_told && !error.is_misconfigured(), "{error}");
    assert!(store.outage().is_some());
    let settled = store.execute(key(0), owner(1), SETTLE).await.unwrap();
    assert_eq!(settled, Reply::Done, "a settle is not waited for");
    fleet.servers[1].resume();
    until("it counts", async || store.execute(key(1_000), owner(1), CLAIM).await.is_ok()).await;

    // Nothing that counted is forgotten, however soon the master dies.
    for number in 2_000..2_050_u128 {
        assert_eq!(store.execute(key(number), owner(1), CLAIM).await.unwrap(), WON);
    }
    fleet.servers[0].kill();
    until("another server is the master", async || fleet.master().await != 0).await;
    let one = WaitReplicas { replicas: 1, ..wait };
    let (store, _tasks) = probing(Options { wait_replicas: Some(one), ..behind(fleet.endpoint()) });
    until("the store works again", async || store.execute(key(9), owner(9), CLAIM).await.is_ok())
        .await;
    for number in 2_000..2_050_u128 {
        let reply = store.execute(key(number), owner(2), CLAIM).await.unwrap();
        assert!(matches!(reply, Reply::Busy { .. }), "{number}: {reply:?}");
    }
}

/// A sentinel that names whom `port` holds.
async fn naming(port: &Arc<AtomicU16>) -> Scripted {
    let port = Arc::clone(port);
    Scripted::start(move |words| {
        assert_eq!(words, ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
        let port = port.load(Ordering::SeqCst).to_string();
        Answer::Bytes(format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len()))
    })
    .await
}

#[tokio::test]
async fn a_master_that_most_sentinels_have_given_up_is_left_though_it_answers() {
    let (old, new) = (RedisServer::start().await, RedisServer::start().await);
    let named: Vec<_> = (0..3).map(|_| Arc::new(AtomicU16::new(old.port()))).collect();
    let mut sentinels = Vec::new();
    for port in &named {
        sentinels.push(naming(port).await);
    }
    let ports: Vec<u16> = sentinels.iter().map(Scripted::port).collect();
    let (store, _tasks) = probing(behind(by_sentinels(&ports)));
    assert_eq!(store.execute(key(1), owner(1), CLAIM).await.unwrap(), WON);
    let asked = async |server: &RedisServer| server.store_commands().await;

    named[0].store(new.port(), Ordering::SeqCst);
    let start = clock::monotonic();
    until("some looks at the sentinels have passed", async || {
        assert!(store.execute(key(1), owner(1), CLAIM).await.is_ok());
        clock::monotonic().since(start) > Duration::from_millis(500)
    })
    .await;
    assert_eq!(asked(&new).await, 0, "one sentinel is not enough");

    named[1].store(new.port(), Ordering::SeqCst);
    until("the store changes over", async || {
        assert!(store.execute(key(1), owner(1), CLAIM).await.is_ok());
        asked(&new).await > 0
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_a_sentinel_takes_for_the_master_is_not_used() {
    let master = RedisServer::start().await;
    let follow = format!("replicaof 127.0.0.1 {}", master.port());
    let replica = RedisServer::start_with(Settings::default().line(&follow)).await;
    let late = naming(&Arc::new(AtomicU16::new(replica.port()))).await;
    let redis = Redis::new(behind(by_sentinels(&[late.port()]))).unwrap();
    let error = redis.check().await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Unavailable(text) if text.contains("which is a slave")),
        "{error}"
    );
    let right = naming(&Arc::new(AtomicU16::new(master.port()))).await;
    let redis = Redis::new(behind(by_sentinels(&[late.port(), right.port()]))).unwrap();
    redis.check().await.unwrap();
}

#[tokio::test]
async fn wrong_sentinels_are_told_from_absent_ones() {
    let server = RedisServer::start().await;
    let nowhere = Redis::new(behind(by_sentinels(&[1, 2]))).unwrap();
    let error = nowhere.check().await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)) && !error.is_misconfigured(), "{error}");
    let no_sentinel = Redis::new(behind(by_sentinels(&[server.port()]))).unwrap();
    let error = no_sentinel.check().await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("is no sentinel"), "{error}");
    let watch = [format!("sentinel monitor {MASTER} 127.0.0.1 {} 1", server.port())];
    let sentinel = SentinelProcess::start(&watch);
    sentinel.knows(0, 0).await;
    let mut endpoint = by_sentinels(&[sentinel.port()]);
    if let Endpoint::Sentinel(sentinel) = &mut endpoint {
        "other".clone_into(&mut sentinel.master);
    }
    let error = Redis::new(behind(endpoint)).unwrap().check().await.unwrap_err();
    assert!(
        error.is_misconfigured() && error.to_string().contains("no master called \"other\""),
        "{error}"
    );
    // One that is set up wrong does not speak for one that is away.
    let error = Redis::new(behind(by_sentinels(&[1, server.port()]))).unwrap();
    assert!(!error.check().await.unwrap_err().is_misconfigured());
    assert!(matches!(Redis::new(behind(by_sentinels(&[]))), Err(StoreError::Options(_))));
}

/// What the documentation tells the operator to grant, on both sides.
#[tokio::test]
async fn tls_and_users_of_few_rights_on_both_sides() {
    let server = RedisServer::start_with(Settings::default().tls().line(
        "user gateway on >secret ~oncehook:* -@all +eval +evalsha +get +set +pttl +time +ping",
    ))
    .await;
    let at = |name: &str| server.directory().join(name).display().to_string();
    let tls_port = free_port();
    let sentinel = SentinelProcess::start(&[
        format!("tls-port {tls_port}"),
        format!("tls-cert-file {}", at("server.pem")),
        format!("tls-key-file {}", at("server.key")),
        format!("tls-ca-cert-file {}", at("ca.pem")),
        "user gateway on >other -@all +sentinel|get-master-addr-by-name".to_owned(),
        "sentinel resolve-hostnames yes".to_owned(),
        "sentinel announce-hostnames yes".to_owned(),
        "tls-replication yes".to_owned(),
        format!("sentinel monitor {MASTER} localhost {} 1", server.tls_port()),
    ]);
    sentinel.knows(0, 0).await;
    let authority = server.authority();
    let (chain, key_pem) = authority.client.clone();
    let options = |user: &str, password: &str, rights: &str| Options {
        credentials: Some(credentials(Some("gateway"), rights)),
        tls: Some(TlsOptions {
            ca: Some(authority.ca.as_bytes().to_vec()),
            server_name: None,
            client: Some(ClientCertificate {
                chain: chain.clone().into_bytes(),
                key: SecretString::from(key_pem.clone()),
            }),
        }),
        ..behind(Endpoint::Sentinel(Sentinel {
            master: MASTER.to_owned(),
            addresses: vec![Address { host: "localhost".to_owned(), port: tls_port }],
            credentials: Some(credentials(Some(user), password)),
        }))
    };
    let redis = Redis::new(options("gateway", "other", "secret")).unwrap();
    let warnings = redis.check().await.unwrap();
    assert!(
        warnings.len() == 1 && warnings[0].contains("INFO"),
        "ROLE is not needed: {warnings:?}"
    );
    assert_eq!(redis.execute(key(1), owner(1), CLAIM).await.unwrap(), WON);
    let wrong = Redis::new(options("gateway", "wrong", "secret")).unwrap();
    let error = wrong.check().await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Credentials(text) if text.contains("the sentinel localhost")),
        "{error}"
    );
    let wrong = Redis::new(options("gateway", "other", "wrong")).unwrap();
    let error = wrong.check().await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Credentials(text) if !text.contains("sentinel")),
        "{error}"
    );
}
