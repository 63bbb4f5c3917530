//! The Redis store against a real server: what an operation costs, who may do it, and what a fault comes to.

use std::sync::Arc;
use std::time::Duration;

use oncehook::claim::record::Reply;
use oncehook::claim::{Digest, Key, Verdict};
use oncehook::clock;
use oncehook::store::redis::{Endpoint, Options, Redis, WaitReplicas};
use oncehook::store::{Store, StoreError};
use tokio::task::JoinSet;

use crate::support::redis::{RedisServer, Settings, versions};
use crate::support::store::{CLAIM, REFUSED, RELEASE, SETTLE, credentials, key, options, owner};

const WON: Reply = Reply::Won { attempt: 1, possible_duplicate: false };

/// What the documentation tells the operator to grant.
const LEAST: &str =
    "user gateway on >secret ~oncehook:* -@all +eval +evalsha +get +set +pttl +time +ping";

fn store(options: Options) -> Redis {
    Redis::new(options).unwrap()
}

fn least(server: &RedisServer) -> Options {
    Options { credentials: Some(credentials(Some("gateway"), "secret")), ..options(server) }
}

#[tokio::test]
async fn a_new_event_takes_two_round_trips_and_a_duplicate_one() {
    let server = RedisServer::start().await;
    let redis = store(options(&server));
    assert_eq!(server.store_commands().await, 0, "a store connects to nothing until it is asked");
    for number in 1..=100 {
        assert_eq!(redis.execute(key(number), owner(1), CLAIM).await.unwrap(), WON);
        assert_eq!(redis.execute(key(number), owner(1), SETTLE).await.unwrap(), Reply::Done);
    }
    assert_eq!(server.calls("set").await, 200);
    for number in 1..=100 {
        let duplicate = Reply::Duplicate { verdict: Verdict::Delivered(200), digest: Digest(7) };
        assert_eq!(redis.execute(key(number), owner(2), CLAIM).await.unwrap(), duplicate);
    }
    assert_eq!(server.calls("set").await, 300);
    assert_eq!(server.store_commands().await, 300, "no script was asked for");
}

#[tokio::test]
async fn a_server_that_forgot_the_scripts_is_sent_them_again() {
    let server = RedisServer::start().await;
    let redis = store(options(&server));
    assert_eq!(redis.execute(key(1), owner(1), CLAIM).await.unwrap(), WON);
    let _: String = server.command(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(redis.execute(key(1), owner(1), CLAIM).await.unwrap(), WON);
    assert_eq!(redis.execute(key(1), owner(1), RELEASE).await.unwrap(), Reply::Done);
}

async fn claim(redis: Arc<Redis>, event: u128, copy: u128) -> Reply {
    redis.execute(key(event), owner(copy), CLAIM).await.unwrap()
}

#[tokio::test]
async fn a_thousand_claims_of_one_key_are_won_by_one() {
    let server = RedisServer::start().await;
    // Two replicas of the gateway: two connections.
    let replicas = [Arc::new(store(options(&server))), Arc::new(store(options(&server)))];
    for round in 0..5 {
        let mut claims = JoinSet::new();
        for copy in 0..1_000_u128 {
            let redis = Arc::clone(&replicas[usize::try_from(copy % 2).unwrap()]);
            claims.spawn(claim(redis, round, copy));
        }
        let replies = claims.join_all().await;
        assert_eq!(replies.iter().filter(|reply| **reply == WON).count(), 1);
        assert_eq!(replies.iter().filter(|reply| matches!(reply, Reply::Busy { .. })).count(), 999);
    }
}

#[tokio::test]
async fn a_settled_record_takes_at_most_180_bytes_of_redis() {
    const RECORDS: u64 = 20_000;
    let server = RedisServer::start().await;
    let redis = store(options(&server));
    let used = async || {
        let info: String = server.command(&["INFO", "memory"]).await;
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    redis.execute(Key([0xff; 16]), owner(1), SETTLE).await.unwrap();
    let single: u64 = server.command(&["MEMORY", "USAGE", &redis.name(Key([0xff; 16]))]).await;
    let before = used().await;
    for number in 0..RECORDS {
        redis.execute(key(u128::from(number)), owner(1), SETTLE).await.unwrap();
    }
    let average = (used().await - before) / RECORDS;
    let size: u64 = server.command(&["DBSIZE"]).await;
    assert_eq!(size, RECORDS + 1);
    eprintln!(
        "a settled record: MEMORY USAGE {single} bytes; of the server's memory, tables and expiry included, {average} bytes"
    );
    assert!(single <= 180, "{single}");
    assert!(average <= 180, "{average}");
}

#[tokio::test]
async fn the_least_privileges_suffice_and_the_check_tolerates_what_they_lack() {
    for settings in versions() {
        let server = RedisServer::start_with(settings.line(LEAST)).await;
        let redis = store(least(&server));
        let warnings = redis.check().await.unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].contains("INFO") && warnings[0].contains("hint: +info"),
            "{warnings:?}"
        );
        let _: String = server.command(&["SCRIPT", "FLUSH"]).await;
        for (operation, reply) in [(CLAIM, WON), (RELEASE, Reply::Done), (SETTLE, Reply::Fenced)] {
            assert_eq!(redis.execute(key(1), owner(1), operation).await.unwrap(), reply);
        }
    }
}

#[tokio::test]
async fn a_user_who_may_not_do_what_is_needed_is_a_wrong_setting() {
    let lacks =
        |right: &str| LEAST.split(' ').filter(|word| *word != right).collect::<Vec<_>>().join(" ");
    let elsewhere = LEAST.replace("~oncehook:*", "~other:*");
    for line in ["+eval", "+evalsha", "+get", "+set", "+pttl", "+time", "+ping"]
        .map(lacks)
        .into_iter()
        .chain([elsewhere])
    {
        for settings in versions() {
            let server = RedisServer::start_with(settings.line(&line)).await;
            let error = store(least(&server)).check().await.expect_err(&line);
            assert!(matches!(error, StoreError::Permission(_)), "{line}: {error}");
            assert!(
                error.is_misconfigured() && error.hint().contains("+evalsha"),
                "{line}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn waiting_for_replicas_needs_one_right_more_and_replicas() {
    let may_wait = format!("{LEAST} +wait");
    for (line, label) in [(LEAST, "permission"), (&may_wait, "unavailable")] {
        let server = RedisServer::start_with(Settings::default().line(line)).await;
        let wait = WaitReplicas { replicas: 1, timeout: Duration::from_millis(20) };
        let redis = store(Options { wait_replicas: Some(wait), ..least(&server) });
        let error = redis.check().await.unwrap_err();
        assert_eq!(error.label(), label, "{error}");
        assert!(label != "permission" || error.hint().contains("+wait"), "{}", error.hint());
    }
}

#[tokio::test]
async fn wrong_credentials_are_a_wrong_setting() {
    let server = RedisServer::start_with(Settings::default().password("right")).await;
    let right = Options { credentials: Some(credentials(None, "right")), ..options(&server) };
    store(right).check().await.unwrap();
    let wrong =
        [None, Some(credentials(None, "wrong")), Some(credentials(Some("nobody"), "right"))];
    for credentials in wrong {
        let redis = store(Options { credentials, ..options(&server) });
        for error in [
            redis.check().await.unwrap_err(),
            redis.execute(key(1), owner(1), CLAIM).await.unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Credentials(_)), "{error}");
            assert!(error.is_misconfigured() && error.hint().contains("password"), "{error}");
            assert!(!format!("{error} {error:?}").contains("wrong\""), "no secret in {error:?}");
        }
    }
    let open = RedisServer::start().await;
    let needless = store(Options { credentials: Some(credentials(None, "x")), ..options(&open) });
    assert!(matches!(needless.check().await, Err(StoreError::Credentials(_))));
}

#[tokio::test]
async fn a_record_that_is_not_ours_is_left_alone_and_does_not_open_the_breaker() {
    let server = RedisServer::start().await;
    let redis = store(options(&server));
    let corrupt = [
        "",
        "1",
        "1L",
        "1Lxyz:1:0:1",
        "1L00:1:0",
        "1R1:0:x",
        "D200",
        "X20012345678",
        "D2x012345678",
        "D30212345678",
        "U20012345678",
        "D200123456789",
        "2SD200:00",
        "1F",
        "1F0000000000000000000000000000000g:1:1",
        "1F00000000000000000000000000000002:1",
        "1F00000000000000000000000000000002:1:1:1",
        "1F00000000000000000000000000000002:-1:1",
        "1Lg0000000000000000000000000000000:1:0:1",
        "hello",
    ];
    for text in corrupt {
        let _: String = server.command(&["SET", &redis.name(key(1)), text]).await;
        for operation in [CLAIM, REFUSED, RELEASE] {
            let error = redis.execute(key(1), owner(1), operation).await.expect_err(text);
            assert!(
                matches!(error, StoreError::Foreign(_)) && error.is_misconfigured(),
                "{text}: {error}"
            );
        }
        assert_eq!(server.command::<String>(&["GET", &redis.name(key(1))]).await, text);
        // That the backend has it must not be lost; the SET comes before anybody has looked.
        assert_eq!(redis.execute(key(1), owner(1), SETTLE).await.unwrap(), Reply::Fenced, "{text}");
        let duplicate = redis.execute(key(1), owner(2), CLAIM).await.unwrap();
        assert!(matches!(duplicate, Reply::Duplicate { .. }), "{text}: {duplicate:?}");
    }
    let _: u64 = server.command(&["RPUSH", &redis.name(key(2)), "x"]).await;
    for operation in [CLAIM, SETTLE, REFUSED, RELEASE] {
        let error = redis.execute(key(2), owner(1), operation).await.unwrap_err();
        assert!(matches!(error, StoreError::Foreign(_)), "{error}");
    }
    assert_eq!(server.command::<u64>(&["LLEN", &redis.name(key(2))]).await, 1);
    assert_eq!(redis.outage(), None);
    assert_eq!(redis.execute(key(3), owner(1), CLAIM).await.unwrap(), WON);
}

#[tokio::test]
async fn the_check_warns_of_a_policy_that_evicts() {
    let server = RedisServer::start().await;
    let redis = store(options(&server));
    assert_eq!(redis.check().await.unwrap(), Vec::<String>::new());
    let _: String = server
        .command(&["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"])
        .await;
    let warnings = Store::Redis(redis).check().await.unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("allkeys-lru"), "{warnings:?}");
}

#[tokio::test]
async fn databases_and_prefixes_keep_records_apart_and_a_unix_socket_will_do() {
    let server = RedisServer::start().await;
    let other = |change: fn(&mut Options)| {
        let mut options = options(&server);
        change(&mut options);
        store(options)
    };
    let mut by_socket = options(&server);
    by_socket.endpoint = Endpoint::Unix(server.socket());
    assert_eq!(store(options(&server)).execute(key(1), owner(1), CLAIM).await.unwrap(), WON);
    let busy = store(by_socket).execute(key(1), owner(2), CLAIM).await.unwrap();
    assert!(matches!(busy, Reply::Busy { .. }), "the same record over the socket: {busy:?}");
    for apart in [
        other(|options| options.database = 3),
        other(|options| "b:".clone_into(&mut options.prefix)),
    ] {
        assert_eq!(apart.execute(key(1), owner(2), CLAIM).await.unwrap(), WON);
    }
    let error = other(|options| options.database = 99).check().await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("out of range"), "{error}");
    let braces = Options { prefix: "a{b}".to_owned(), ..options(&server) };
    assert!(matches!(Redis::new(braces), Err(StoreError::Options(_))));
}

#[tokio::test]
async fn the_remaining_lease_is_told_in_the_servers_time() {
    let server = RedisServer::start().await;
    let redis = store(options(&server));
    let started = clock::monotonic();
    redis.execute(key(1), owner(1), CLAIM).await.unwrap();
    let Reply::Busy { remaining } = redis.execute(key(1), owner(2), CLAIM).await.unwrap() else {
        panic!("not busy")
    };
    let passed = clock::monotonic().since(started) + Duration::from_millis(2);
    let lease = crate::support::store::LEASE;
    assert!(
        remaining <= lease && remaining + passed >= lease,
        "{remaining:?} of {lease:?} after {passed:?}"
    );
}
