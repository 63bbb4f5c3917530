//! Every error that a Redis server answers with: by a real one wherever it can be brought to it, by a scripted one where
//! it cannot. Those of a Cluster's nodes that are no errors to a gateway (MOVED, ASK) are in `store_cluster`, NOSCRIPT
//! and wrong settings (NOAUTH, NOPERM, WRONGTYPE) in `store_redis`.

use std::time::Duration;

use oncehook::claim::record::Reply;
use oncehook::clock;
use oncehook::store::StoreError;
use oncehook::store::redis::{Credentials, Options, Redis};
use tokio::task::JoinSet;

use crate::support::redis::{LIMIT, RedisServer, Settings, connect, until, versions};
use crate::support::resp::{Answer, Scripted};
use crate::support::store::{CLAIM, SETTLE, key, options, options_at, owner};

const WON: Reply = Reply::Won { attempt: 1, possible_duplicate: false };

/// Never opens the breaker: each operation is to be seen.
fn persistent(options: Options) -> Redis {
    Redis::new(Options { breaker_failures: 1_000, ..options }).unwrap()
}

/// The server says `word` to every operation, that counts as a fault that passes, and does not stop a start.
async fn says(redis: &Redis, word: &str) {
    // A release of what is not leased writes nothing, and would not fail in all of these states.
    for operation in [CLAIM, SETTLE] {
        let error = redis.execute(key(1), owner(1), operation).await.unwrap_err();
        let is_told = matches!(&error, StoreError::Unavailable(text) if text.contains(word));
        assert!(is_told && !error.is_misconfigured(), "{word}: {error}");
    }
    assert!(redis.outage().is_some(), "{word}");
    let checked = redis.check().await.unwrap_err();
    assert!(!checked.is_misconfigured(), "the start is not stopped by {word}: {checked}");
}

/// It works, and did not take what it refused.
async fn works(redis: &Redis, word: &str) {
    assert_eq!(redis.execute(key(1), owner(2), CLAIM).await.unwrap(), WON, "{word}");
    assert_eq!(redis.outage(), None, "{word}");
}

#[tokio::test]
async fn states_of_a_server_that_pass() {
    let states: [(&[&str], &[&str], &str); 3] = [
        (&["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"], "OOM"),
        (&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"], "READONLY"),
        (
            &["CONFIG", "SET", "min-replicas-to-write", "1"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
            "NOREPLICAS",
        ),
    ];
    for settings in versions() {
        for (begin, end, word) in states {
            let server = RedisServer::start_with(settings.clone()).await;
            let redis = persistent(options(&server));
            let _: String = server.command(begin).await;
            says(&redis, word).await;
            let _: String = server.command(end).await;
            works(&redis, word).await;
        }
    }
}

#[tokio::test]
async fn masterdown_a_replica_that_lost_its_master_and_may_not_serve_old_data() {
    for settings in versions() {
        let server = RedisServer::start_with(settings).await;
        let redis = persistent(options(&server));
        let _: String = server.command(&["CONFIG", "SET", "replica-serve-stale-data", "no"]).await;
        let _: String = server.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
        let error = redis.execute(key(1), owner(1), CLAIM).await.unwrap_err();
        let is_told =
            matches!(&error, StoreError::Unavailable(text) if text.contains("MASTERDOWN"));
        assert!(is_told, "{error}");
        let _: String = server.command(&["REPLICAOF", "NO", "ONE"]).await;
        works(&redis, "MASTERDOWN").await;
    }
}

#[tokio::test]
async fn misconf_a_server_that_cannot_save() {
    let settings = Settings::default().line("save 3600 1").line("enable-protected-configs yes");
    let server = RedisServer::start_with(settings).await;
    let redis = persistent(options(&server));
    let away = server.directory().join("away");
    std::fs::create_dir(&away).unwrap();
    let _: String = server.command(&["CONFIG", "SET", "dir", away.to_str().unwrap()]).await;
    std::fs::remove_dir(&away).unwrap();
    let _: String = server.command(&["BGSAVE"]).await;
    until("saving has failed", async || server.info("rdb_last_bgsave_status").await == "err").await;
    says(&redis, "MISCONF").await;
    let here = server.directory().to_str().unwrap().to_owned();
    let _: String = server.command(&["CONFIG", "SET", "dir", &here]).await;
    let _: String = server.command(&["BGSAVE"]).await;
    until("saving works", async || server.info("rdb_last_bgsave_status").await == "ok").await;
    works(&redis, "MISCONF").await;
}

#[tokio::test]
async fn busy_a_server_that_runs_somebody_else_s_script() {
    let server = RedisServer::start_with(Settings::default().line("lua-time-limit 1")).await;
    let redis = persistent(options(&server));
    redis.execute(key(2), owner(1), CLAIM).await.unwrap();
    let mut other = connect(&server.url(), LIMIT).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let endless = ::redis::cmd("EVAL").arg("while true do end").arg(0).to_owned();
        drop(endless.query_async::<::redis::Value>(&mut other).await);
    });
    until("the script runs", async || {
        redis
            .execute(key(2), owner(1), CLAIM)
            .await
            .is_err_and(|error| error.label() == "unavailable")
    })
    .await;
    says(&redis, "BUSY").await;
    let mut killed = ::redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let _: String = ::redis::cmd("SCRIPT").arg("KILL").query(&mut killed).unwrap();
    until("the script has ended", async || redis.execute(key(2), owner(1), CLAIM).await.is_ok())
        .await;
    works(&redis, "BUSY").await;
}

#[tokio::test]
async fn loading_a_server_that_has_just_begun() {
    // Half a millisecond a key, and a look at the clients between some of them.
    let slow = Settings::default()
        .line("key-load-delay 500")
        .line("loading-process-events-interval-bytes 1024");
    let mut server = RedisServer::start_with(slow).await;
    let redis = persistent(options(&server));
    let fill = "for i = 1, 4000 do redis.call('SET', 'k' .. i, string.rep('x', 100)) end";
    let _: Option<String> = server.command(&["EVAL", fill, "0"]).await;
    let _: String = server.command(&["SAVE"]).await;
    server.kill();
    server.begin_restart();
    until("it answers that it loads", async || {
        redis.execute(key(1), owner(1), CLAIM).await.is_err_and(
            |error| matches!(&error, StoreError::Unavailable(text) if text.contains("LOADING")),
        )
    })
    .await;
    until("it has loaded", async || redis.execute(key(1), owner(2), CLAIM).await.is_ok()).await;
    assert_eq!(redis.outage(), None);
}

/// Says `first` to the first `command` that it is sent, and then what a claim is told that was won; by the script if that
/// is the command, and else by the SET that comes before it.
async fn says_once(command: &'static str, first: Answer) -> (Scripted, Redis) {
    let first = std::sync::Mutex::new(Some(first));
    let server = Scripted::start(move |words| {
        let is_first = words[0] == command;
        let said = is_first.then(|| first.lock().unwrap().take()).flatten();
        said.unwrap_or_else(|| match words[0].as_str() {
            "SET" if command == "SET" => Answer::bytes("$-1\r\n"),
            "SET" => Answer::bytes("$10\r\nsomething.\r\n"),
            _ => Answer::bytes("*3\r\n$3\r\nwon\r\n:1\r\n:0\r\n"),
        })
    })
    .await;
    let patient = options_at(server.port());
    let redis = persistent(Options { operation_timeout: Duration::from_millis(300), ..patient });
    (server, redis)
}

#[tokio::test]
async fn what_only_a_scripted_server_can_say() {
    let errors = [
        ("-TRYAGAIN Multiple keys request during rehashing of slot\r\n", "unavailable"),
        ("-CLUSTERDOWN Hash slot not served\r\n", "unavailable"),
        ("-UNKILLABLE Sorry the script already executed write commands\r\n", "unavailable"),
        ("-NOAUTH Authentication required.\r\n", "credentials"),
        ("-ERR something new\r\n", "unexpected"),
        ("-\r\n", "unexpected"),
        (":7\r\n", "unexpected"),
        ("$-1\r\n", "unexpected"),
        ("+OK\r\n", "unexpected"),
        ("*0\r\n", "unexpected"),
        ("*3\r\n$3\r\nwon\r\n:-1\r\n:0\r\n", "unexpected"),
        ("*2\r\n$4\r\nbusy\r\n:-5\r\n", "unexpected"),
        ("*3\r\n$9\r\nduplicate\r\n$4\r\nX200\r\n$1\r\nx\r\n", "unexpected"),
        ("\u{0}\u{1}garbage\r\n", "unexpected"),
        ("*9999999999999\r\n", "timeout"),
    ];
    for (answer, label) in errors {
        for command in ["SET", "EVALSHA"] {
            // To a SET this says that there was nothing.
            if answer.starts_with("$-1") && command == "SET" {
                continue;
            }
            let (_server, redis) = says_once(command, Answer::bytes(answer)).await;
            let error = redis.execute(key(1), owner(1), CLAIM).await.unwrap_err();
            assert_eq!(error.label(), label, "{answer:?} to {command}: {error}");
            let reply = redis.execute(key(1), owner(1), CLAIM).await.unwrap();
            assert_eq!(reply, WON, "after {answer:?} to {command}");
        }
    }
}

#[tokio::test]
async fn an_old_value_that_tells_a_delivery_nothing_is_no_reply() {
    for answer in [":7\r\n", "+OK\r\n", "*0\r\n", "*1\r\n$4\r\ndone\r\n"] {
        let (_server, redis) = says_once("SET", Answer::bytes(answer)).await;
        let error = redis.execute(key(1), owner(1), SETTLE).await.unwrap_err();
        assert_eq!(error.label(), "unexpected", "{answer:?}: {error}");
        assert_eq!(redis.execute(key(1), owner(1), SETTLE).await.unwrap(), Reply::Fenced);
    }
}

#[tokio::test]
async fn half_a_reply_costs_its_operation_alone() {
    let start = clock::monotonic();
    let halves = [
        ("EVALSHA", Answer::bytes("*3\r\n$3\r\nwo"), "timeout"),
        ("EVALSHA", Answer::bytes(""), "timeout"),
        ("EVALSHA", Answer::Last("*3\r\n$3\r\nwo".to_owned()), "unreachable"),
        ("SET", Answer::bytes("$12\r\nD200"), "timeout"),
        ("SET", Answer::Last("$12\r\nD200".to_owned()), "unreachable"),
        ("SET", Answer::Last(String::new()), "unreachable"),
    ];
    for (command, half, label) in halves {
        let (_server, redis) = says_once(command, half).await;
        let error = redis.execute(key(1), owner(1), CLAIM).await.unwrap_err();
        assert!(error.label() == label && !error.is_misconfigured(), "{label}: {error}");
        // Over a new connection: what is left of the reply must not be taken for the next one.
        assert_eq!(redis.execute(key(1), owner(1), CLAIM).await.unwrap(), WON, "after {label}");
    }
    assert!(clock::monotonic().since(start) < Duration::from_secs(10));
}

/// Redis repeats the arguments of a command that it does not know, which AUTH may be for what stands where a Redis
/// should; and a hostile server says what it likes.
#[tokio::test]
async fn a_server_that_repeats_the_password_does_not_get_it_into_an_error() {
    const PASSWORD: &str = "hunter2-of-redis";
    for reply in [
        "-ERR unknown command 'AUTH', with args beginning with: 'hunter2-of-redis' ",
        "-WRONGPASS hunter2-of-redis is not the password",
        "-hunter2-of-redis",
        "+hunter2-of-redis",
        "$16\r\nhunter2-of-redis",
    ] {
        let server = Scripted::start(move |_| Answer::Bytes(format!("{reply}\r\n"))).await;
        let credentials = Credentials { username: None, password: PASSWORD.into() };
        let options = Options { credentials: Some(credentials), ..options_at(server.port()) };
        let error = Redis::new(options).unwrap().check().await.unwrap_err();
        let told = format!("{error:?} {error}");
        assert!(!told.contains(PASSWORD), "{told}");
    }
}
