//! The Redis store behind a network that loses single commands and replies: what was executed is not executed twice,
//! and what was not is asked for again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oncehook::claim::record::{Operation, Reply};
use oncehook::store::StoreError;
use oncehook::store::redis::{Options, Redis};

use crate::support::proxy::{Asked, Fate, Proxy};
use crate::support::redis::{RedisServer, until};
use crate::support::store::{CLAIM, RELEASE, SETTLE, WINDOW, key, options_at, owner};

const WON: Reply = Reply::Won { attempt: 1, possible_duplicate: false };

/// For what never comes.
const SHORT: Duration = Duration::from_millis(300);

async fn behind(server: &RedisServer) -> (Proxy, Redis) {
    let proxy = Proxy::to(SocketAddr::from(([127, 0, 0, 1], server.port()))).await;
    let port = proxy.url().rsplit(':').next().unwrap().parse().unwrap();
    let redis = Redis::new(Options { breaker_failures: 1_000, ..options_at(port) }).unwrap();
    // From here on the server knows the scripts: a first use is answered with NOSCRIPT, and no fault should hit that.
    for (copy, operation) in [(1, CLAIM), (2, CLAIM), (1, RELEASE), (1, SETTLE)] {
        redis.execute(key(99), owner(copy), operation).await.unwrap();
    }
    (proxy, redis)
}

/// Hits the first `asked` from now on, and it alone.
fn once(proxy: &Proxy, asked: Asked, fate: Fate) {
    nth(proxy, 0, asked, fate);
}

/// Hits the `number`th `asked` from now on, from 0, and it alone.
fn nth(proxy: &Proxy, number: usize, asked: Asked, fate: Fate) {
    let passed = Arc::new(AtomicUsize::new(0));
    proxy.rule(move |each| {
        let is_it = each == asked && passed.fetch_add(1, Ordering::SeqCst) == number;
        if is_it { fate } else { Fate::Pass }
    });
}

#[tokio::test]
async fn a_claim_whose_reply_was_lost_is_won_again_by_its_owner_and_by_nobody_else() {
    let server = RedisServer::start().await;
    let (proxy, redis) = behind(&server).await;
    once(&proxy, Asked::Claim, Fate::CutAfter);
    let error = redis.execute(key(1), owner(1), CLAIM).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
    assert_eq!(proxy.hits(), 1);
    let other = redis.execute(key(1), owner(2), CLAIM).await.unwrap();
    assert!(matches!(other, Reply::Busy { .. }), "{other:?}");
    assert_eq!(redis.execute(key(1), owner(1), CLAIM).await.unwrap(), WON);
}

/// Each worker has a connection of its own, and one that was idle through an outage does not know of it.
#[test]
fn what_opens_the_breaker_on_one_worker_ends_the_connections_of_all() {
    let script = async {
        let server = RedisServer::start().await;
        let proxy = Proxy::to(SocketAddr::from(([127, 0, 0, 1], server.port()))).await;
        let port = proxy.url().rsplit(':').next().unwrap().parse().unwrap();
        let options = Options { operation_timeout: SHORT, breaker_failures: 2, ..options_at(port) };
        let redis = Arc::new(Redis::new(options).unwrap());
        let crew = oncehook::worker::crew();
        for (number, worker) in (1..).zip(crew.iter()) {
            let redis = Arc::clone(&redis);
            let claim = async move { redis.execute(key(number), owner(1), CLAIM).await };
            assert_eq!(worker.spawn(claim).await.unwrap().unwrap(), WON);
        }
        // This command's own connection is one more.
        let open = async || {
            let list: String = server.command(&["CLIENT", "LIST", "TYPE", "normal"]).await;
            list.lines().count() - 1
        };
        assert_eq!(open().await, crew.len());
        proxy.rule(|_| Fate::StallBefore);
        for _ in 0..2 {
            redis.execute(key(90), owner(1), CLAIM).await.unwrap_err();
        }
        let opened = redis.execute(key(90), owner(1), CLAIM).await.unwrap_err();
        assert!(matches!(opened, StoreError::Open), "{opened}");
        until("all are given up", async || open().await == 0).await;
    };
    oncehook::worker::run(|| (), script).unwrap();
}

/// Where a record is found, the claim is a second command, the script; either may be lost.
#[tokio::test]
async fn a_claim_after_a_lapse_is_won_once_whichever_of_its_commands_or_replies_is_lost() {
    let server = RedisServer::start().await;
    let (proxy, redis) = behind(&server).await;
    let lapsed = Operation::Claim { lease: Duration::ZERO, window: WINDOW };
    let won = Reply::Won { attempt: 2, possible_duplicate: true };
    let faults = [0, 1].map(|number| [(number, Fate::CutBefore), (number, Fate::CutAfter)]);
    for (event, (number, fate)) in (1..).zip(faults.into_iter().flatten()) {
        assert_eq!(redis.execute(key(event), owner(1), lapsed).await.unwrap(), WON);
        nth(&proxy, number, Asked::Claim, fate);
        redis.execute(key(event), owner(2), CLAIM).await.unwrap_err();
        assert_eq!(redis.execute(key(event), owner(2), CLAIM).await.unwrap(), won, "{fate:?}");
        let other = redis.execute(key(event), owner(3), CLAIM).await.unwrap();
        assert!(matches!(other, Reply::Busy { .. }), "{fate:?}: {other:?}");
    }
    assert_eq!(proxy.hits(), 4);
}

#[tokio::test]
async fn a_claim_that_was_lost_itself_is_vacant_for_whoever_comes() {
    let server = RedisServer::start().await;
    let (proxy, redis) = behind(&server).await;
    once(&proxy, Asked::Claim, Fate::CutBefore);
    redis.execute(key(1), owner(1), CLAIM).await.unwrap_err();
    assert_eq!(redis.execute(key(1), owner(2), CLAIM).await.unwrap(), WON);
}

#[tokio::test]
async fn a_settle_whose_reply_was_lost_stays_settled() {
    let server = RedisServer::start().await;
    let (proxy, redis) = behind(&server).await;
    redis.execute(key(1), owner(1), CLAIM).await.unwrap();
    once(&proxy, Asked::Settle, Fate::CutAfter);
    redis.execute(key(1), owner(1), SETTLE).await.unwrap_err();
    assert_eq!(redis.execute(key(1), owner(1), SETTLE).await.unwrap(), Reply::AlreadySettled);
    assert_eq!(redis.execute(key(1), owner(1), RELEASE).await.unwrap(), Reply::Fenced);
}

#[tokio::test]
async fn garbage_in_the_place_of_a_reply_ends_the_connection_and_no_more() {
    let server = RedisServer::start().await;
    let (proxy, redis) = behind(&server).await;
    once(&proxy, Asked::Claim, Fate::Corrupt);
    redis.execute(key(1), owner(1), CLAIM).await.unwrap_err();
    assert_eq!(redis.execute(key(1), owner(1), CLAIM).await.unwrap(), WON);
}

#[tokio::test]
async fn silence_costs_one_time_out_and_no_more() {
    let server = RedisServer::start().await;
    for fate in [Fate::StallBefore, Fate::StallAfter, Fate::Delay(4 * SHORT)] {
        let (proxy, _) = behind(&server).await;
        let port = proxy.url().rsplit(':').next().unwrap().parse().unwrap();
        let impatient = Options { operation_timeout: SHORT, ..options_at(port) };
        let redis = Redis::new(impatient).unwrap();
        server.command::<()>(&["FLUSHALL"]).await;
        once(&proxy, Asked::Claim, fate);
        let error = redis.execute(key(1), owner(1), CLAIM).await.unwrap_err();
        assert!(matches!(error, StoreError::Timeout(_)), "{fate:?}: {error}");
        until("the next one is answered", async || {
            redis.execute(key(1), owner(1), CLAIM).await.is_ok_and(|reply| reply == WON)
        })
        .await;
    }
}

#[tokio::test]
async fn a_partition_is_silence_until_it_heals() {
    let server = RedisServer::start().await;
    let (proxy, redis) = behind(&server).await;
    redis.execute(key(1), owner(1), CLAIM).await.unwrap();
    proxy.part();
    let port = proxy.url().rsplit(':').next().unwrap().parse().unwrap();
    let impatient = Redis::new(Options {
        connect_timeout: SHORT,
        operation_timeout: SHORT,
        ..options_at(port)
    });
    impatient.unwrap().execute(key(2), owner(2), CLAIM).await.unwrap_err();
    proxy.heal();
    proxy.cut();
    proxy.pass();
    until("the store is asked", async || {
        redis.execute(key(1), owner(1), CLAIM).await.is_ok_and(|reply| reply == WON)
    })
    .await;
}
