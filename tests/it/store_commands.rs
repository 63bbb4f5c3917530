//! Operations that are single commands to Redis, and the scripts that take over where those do not know: a first lease says
//! no time, and ends all the same when the server's clock says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oncehook::claim::record::{Operation, Reply};
use oncehook::claim::{Digest, Verdict};
use oncehook::store::StoreError;
use oncehook::store::redis::Redis;

use crate::support::redis::{RedisServer, Settings, until, versions};
use crate::support::resp::{Answer, Scripted};
use crate::support::store::{
    CLAIM, LEASE, REFUSED, RELEASE, SETTLE, WINDOW, credentials, key, options, options_at, owner,
};

const WON: Reply = Reply::Won { attempt: 1, possible_duplicate: false };
const AFTER_A_LAPSE: Reply = Reply::Won { attempt: 2, possible_duplicate: true };
const DUPLICATE: Reply = Reply::Duplicate { verdict: Verdict::Delivered(200), digest: Digest(7) };

/// Soon over; but not before the next command on a busy machine is likely to be asked.
const BRIEF: Duration = Duration::from_millis(50);

const BRIEF_CLAIM: Operation = Operation::Claim { lease: BRIEF, window: WINDOW };

fn store(server: &RedisServer) -> Redis {
    Redis::new(options(server)).unwrap()
}

async fn record(server: &RedisServer, redis: &Redis, number: u128) -> String {
    server.command(&["GET", &redis.name(key(number))]).await
}

fn is_busy_within(reply: Reply, limit: Duration) -> bool {
    matches!(reply, Reply::Busy { remaining } if remaining <= limit)
}

#[tokio::test]
async fn a_first_lease_lapses_by_the_servers_clock_and_the_next_attempt_is_marked() {
    for settings in versions() {
        let server = RedisServer::start_with(settings).await;
        let redis = store(&server);
        assert_eq!(redis.execute(key(1), owner(1), BRIEF_CLAIM).await.unwrap(), WON);
        let mut last = WON;
        until("the lease lapses", async || {
            last = redis.execute(key(1), owner(2), CLAIM).await.unwrap();
            assert!(last == AFTER_A_LAPSE || is_busy_within(last, BRIEF), "{last:?}");
            last == AFTER_A_LAPSE
        })
        .await;
        let late = redis.execute(key(1), owner(1), BRIEF_CLAIM).await.unwrap();
        assert!(is_busy_within(late, LEASE), "the first owner is one of many: {late:?}");
        assert_eq!(redis.execute(key(1), owner(1), SETTLE).await.unwrap(), Reply::Fenced);
        assert_eq!(redis.execute(key(1), owner(2), SETTLE).await.unwrap(), Reply::AlreadySettled);
    }
}

#[tokio::test]
async fn the_owner_of_a_first_lease_may_do_all_that_an_owner_may() {
    let server = RedisServer::start().await;
    let redis = store(&server);
    let steps: [(Operation, Reply); 3] =
        [(RELEASE, Reply::Done), (REFUSED, Reply::Done), (SETTLE, Reply::Done)];
    for (number, (operation, reply)) in (1..).zip(steps) {
        assert_eq!(redis.execute(key(number), owner(1), CLAIM).await.unwrap(), WON);
        assert!(record(&server, &redis, number).await.starts_with("1F"));
        // Its reply was lost.
        assert_eq!(redis.execute(key(number), owner(1), CLAIM).await.unwrap(), WON);
        assert!(record(&server, &redis, number).await.starts_with("1F"), "a repeat writes nothing");
        let other = redis.execute(key(number), owner(2), CLAIM).await.unwrap();
        assert!(is_busy_within(other, LEASE), "{other:?}");
        assert_eq!(redis.execute(key(number), owner(2), RELEASE).await.unwrap(), Reply::Fenced);
        assert_eq!(redis.execute(key(number), owner(1), operation).await.unwrap(), reply);
    }
    let again = Reply::Won { attempt: 2, possible_duplicate: false };
    assert_eq!(redis.execute(key(1), owner(2), CLAIM).await.unwrap(), again);
    assert_eq!(redis.execute(key(1), owner(2), SETTLE).await.unwrap(), Reply::Done, "by 1L");
    let refused = redis.execute(key(2), owner(2), CLAIM).await.unwrap();
    assert_eq!(refused, Reply::Duplicate { verdict: Verdict::Refused(422), digest: Digest(7) });
    assert_eq!(redis.execute(key(2), owner(1), SETTLE).await.unwrap(), Reply::AlreadySettled);
    assert_eq!(redis.execute(key(2), owner(1), REFUSED).await.unwrap(), Reply::AlreadySettled);
    assert_eq!(redis.execute(key(2), owner(2), CLAIM).await.unwrap(), DUPLICATE);
}

/// Whoever takes the expiry away by hand takes away what the lease is measured by.
#[tokio::test]
async fn a_first_lease_without_an_expiry_begins_again_and_ends() {
    let server = RedisServer::start().await;
    let redis = store(&server);
    assert_eq!(redis.execute(key(1), owner(1), BRIEF_CLAIM).await.unwrap(), WON);
    assert!(record(&server, &redis, 1).await.starts_with("1F"));
    let name = redis.name(key(1));
    assert_eq!(server.command::<u64>(&["PERSIST", &name]).await, 1);
    let mut reply = redis.execute(key(1), owner(2), CLAIM).await.unwrap();
    assert!(is_busy_within(reply, BRIEF), "{reply:?}");
    assert!(server.command::<i64>(&["PTTL", &name]).await > 0, "it will be forgotten again");
    assert!(record(&server, &redis, 1).await.starts_with("1L"));
    assert_eq!(redis.execute(key(1), owner(1), BRIEF_CLAIM).await.unwrap(), WON);
    until("the lease lapses", async || {
        reply = redis.execute(key(1), owner(2), CLAIM).await.unwrap();
        reply == AFTER_A_LAPSE
    })
    .await;
}

#[tokio::test]
async fn an_expiry_that_was_changed_by_hand_does_not_prolong_a_first_lease() {
    let server = RedisServer::start().await;
    let redis = store(&server);
    for (number, expiry) in [(1, "7200000"), (2, "3600000"), (3, "1000000")] {
        assert_eq!(redis.execute(key(number), owner(1), CLAIM).await.unwrap(), WON);
        let name = redis.name(key(number));
        assert_eq!(server.command::<u64>(&["PEXPIRE", &name, expiry]).await, 1);
        let reply = redis.execute(key(number), owner(2), CLAIM).await.unwrap();
        // Shortened by more than the lease, it has taken the lease along: the next attempt is marked.
        assert!(
            if number == 3 { reply == AFTER_A_LAPSE } else { is_busy_within(reply, LEASE) },
            "{number}: {reply:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_may_not_write_still_tells_a_duplicate() {
    let server = RedisServer::start().await;
    let redis = store(&server);
    redis.execute(key(1), owner(1), CLAIM).await.unwrap();
    redis.execute(key(1), owner(1), SETTLE).await.unwrap();
    let faults = [
        (["maxmemory", "1"], ["maxmemory", "0"], "OOM"),
        (["min-replicas-to-write", "1"], ["min-replicas-to-write", "0"], "NOREPLICAS"),
    ];
    for (fault, end, says) in faults {
        server.command::<()>(&["CONFIG", "SET", fault[0], fault[1]]).await;
        assert_eq!(redis.execute(key(1), owner(2), CLAIM).await.unwrap(), DUPLICATE, "{says}");
        for operation in [CLAIM, SETTLE] {
            let error = redis.execute(key(2), owner(1), operation).await.unwrap_err();
            assert!(
                matches!(&error, StoreError::Unavailable(text) if text.contains(says)),
                "{error}"
            );
        }
        server.command::<()>(&["CONFIG", "SET", end[0], end[1]]).await;
    }
    assert_eq!(redis.execute(key(2), owner(1), CLAIM).await.unwrap(), WON);
}

#[tokio::test]
async fn a_user_who_may_not_set_is_told_so_by_the_command_as_by_the_script() {
    let line = "user gateway on >secret ~oncehook:* -@all +eval +evalsha +get +pttl +time +ping";
    let server = RedisServer::start_with(Settings::default().line(line)).await;
    let user = Some(credentials(Some("gateway"), "secret"));
    let redis =
        Redis::new(oncehook::store::redis::Options { credentials: user, ..options(&server) });
    let redis = redis.unwrap();
    for operation in [CLAIM, SETTLE, REFUSED] {
        let error = redis.execute(key(1), owner(1), operation).await.unwrap_err();
        assert!(matches!(error, StoreError::Permission(_)), "{error}");
        assert!(error.hint().contains("+set"), "{}", error.hint());
    }
}

/// How often an old server was asked for what.
#[derive(Default)]
struct Old {
    set_nx_get: AtomicU64,
    scripts: AtomicU64,
}

/// Redis 6.2 as far as these tests need it.
async fn old_server(counts: &Arc<Old>) -> Scripted {
    let counts = Arc::clone(counts);
    Scripted::start(move |words| {
        let has = |word: &str| words.iter().any(|one| one == word);
        match words[0].as_str() {
            "SET" if has("NX") && has("GET") => {
                counts.set_nx_get.fetch_add(1, Ordering::SeqCst);
                Answer::bytes("-ERR syntax error\r\n")
            }
            "SET" => Answer::Last("$-1\r\n".to_owned()),
            _ => {
                counts.scripts.fetch_add(1, Ordering::SeqCst);
                Answer::bytes("*3\r\n$3\r\nwon\r\n:1\r\n:0\r\n")
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_server_that_knows_no_set_nx_get_is_asked_for_it_once_a_connection() {
    let counts = Arc::new(Old::default());
    let server = old_server(&counts).await;
    let redis = Redis::new(options_at(server.port())).unwrap();
    for connection in 1..=3 {
        until("the end of the last connection was seen", async || {
            redis.execute(key(0), owner(1), CLAIM).await.is_ok_and(|reply| reply == WON)
        })
        .await;
        for number in 1..10 {
            assert_eq!(redis.execute(key(number), owner(1), CLAIM).await.unwrap(), WON);
        }
        assert_eq!(counts.set_nx_get.load(Ordering::SeqCst), connection);
        assert_eq!(counts.scripts.load(Ordering::SeqCst), 10 * connection);
        // It closes after this one.
        assert_eq!(redis.execute(key(1), owner(1), SETTLE).await.unwrap(), Reply::Fenced);
    }
}
