//! The Redis store when the server, the network or the certificate fails: quickly, with the right name, and not for
//! longer than the fault lasts.

use std::sync::Arc;
use std::time::Duration;

use oncehook::claim::record::Reply;
use oncehook::clock;
use oncehook::store::redis::{ClientCertificate, Endpoint, Options, Redis, TlsOptions};
use oncehook::store::{Store, StoreError};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::redis::{RedisServer, Settings, until};
use crate::support::store::{CLAIM, SETTLE, credentials, key, options, options_at, owner};

const WON: Reply = Reply::Won { attempt: 1, possible_duplicate: false };

/// Twice the defaults, for what has to succeed on a machine that is busy.
const TIMEOUT: Duration = Duration::from_millis(500);

/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(1);

fn impatient(options: Options) -> Options {
    Options { connect_timeout: TIMEOUT, operation_timeout: TIMEOUT, ..options }
}

/// The error of one claim, and how long it took.
async fn fails(redis: &Redis) -> (StoreError, Duration) {
    let start = clock::monotonic();
    let error = redis.execute(key(1), owner(1), CLAIM).await.unwrap_err();
    (error, clock::monotonic().since(start))
}

#[tokio::test]
async fn a_killed_server_is_noticed_at_once_and_used_again_when_it_is_back() {
    let mut server = RedisServer::start().await;
    let store = Arc::new(Store::Redis(Redis::new(impatient(options(&server))).unwrap()));
    let Store::Redis(redis) = &*store else { unreachable!() };
    assert_eq!(redis.execute(key(1), owner(1), CLAIM).await.unwrap(), WON);
    server.kill();
    for failure in 1..=5 {
        let (error, took) = fails(redis).await;
        assert!(matches!(error, StoreError::Unreachable(_)), "{failure}: {error}");
        assert!(took < TIMEOUT + SLACK && !error.is_misconfigured(), "{failure}: {took:?}");
    }
    let (error, took) = fails(redis).await;
    assert!(matches!(error, StoreError::Open) && took < TIMEOUT / 4, "{error} after {took:?}");
    assert!(store.outage().is_some());

    let mut tasks = JoinSet::new();
    let probing = Arc::clone(&store);
    tasks.spawn(async move { probing.probe_loop().await });
    server.restart().await;
    until("the breaker closes", async || store.outage().is_none()).await;
    assert_eq!(redis.execute(key(1), owner(2), CLAIM).await.unwrap(), WON, "the server forgot");
}

#[tokio::test]
async fn one_failure_with_nothing_after_it_is_probed_as_well() {
    let mut server = RedisServer::start().await;
    let store = Arc::new(Store::Redis(Redis::new(impatient(options(&server))).unwrap()));
    server.kill();
    store.execute(key(1), owner(1), CLAIM).await.unwrap_err();
    server.restart().await;
    assert!(store.outage().is_some(), "nobody has asked since");
    let mut tasks = JoinSet::new();
    let probing = Arc::clone(&store);
    tasks.spawn(async move { probing.probe_loop().await });
    until("the probe notices", async || store.outage().is_none()).await;
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closed_costs_nothing() {
    let server = RedisServer::start().await;
    let redis = Redis::new(options(&server)).unwrap();
    for number in 1..20 {
        assert_eq!(redis.execute(key(number), owner(1), CLAIM).await.unwrap(), WON);
        let killed: u64 =
            server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        assert_eq!(killed, 1);
        // The end arrived before the answer; only this thread's other tasks have to see it.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_server_that_hangs_costs_one_time_out_an_operation_and_none_once_the_breaker_is_open() {
    let server = RedisServer::start().await;
    let redis = Redis::new(impatient(options(&server))).unwrap();
    redis.execute(key(2), owner(1), CLAIM).await.unwrap();
    server.pause();
    for failure in 1..=5 {
        let (error, took) = fails(&redis).await;
        assert!(matches!(error, StoreError::Timeout(_)), "{failure}: {error}");
        assert!(took >= TIMEOUT && took < TIMEOUT + SLACK, "{failure}: {took:?}");
    }
    assert!(matches!(fails(&redis).await.0, StoreError::Open));
    server.resume();
}

#[tokio::test]
async fn a_claim_whose_reply_was_lost_is_repeated_by_the_same_owner() {
    let server = RedisServer::start().await;
    let redis = Redis::new(impatient(options(&server))).unwrap();
    redis.execute(key(2), owner(1), CLAIM).await.unwrap();
    server.pause();
    let (error, _) = fails(&redis).await;
    assert!(matches!(error, StoreError::Timeout(_)), "{error}");
    server.resume();
    let name = redis.name(key(1));
    until("the server performs the claim", async || {
        server.command::<u64>(&["EXISTS", &name]).await == 1
    })
    .await;
    assert_eq!(
        redis.execute(key(1), owner(1), CLAIM).await.unwrap(),
        WON,
        "its own claim, not a second attempt"
    );
    let busy = redis.execute(key(1), owner(2), CLAIM).await.unwrap();
    assert!(matches!(busy, Reply::Busy { .. }), "{busy:?}");
}

#[tokio::test]
async fn a_dropped_operation_does_not_shift_the_answers_of_the_others() {
    let server = RedisServer::start().await;
    let redis = Redis::new(options(&server)).unwrap();
    redis.execute(key(0), owner(1), CLAIM).await.unwrap();
    server.pause();
    for number in 1..20 {
        let claim = redis.execute(key(number), owner(number), CLAIM);
        tokio::time::timeout(Duration::from_millis(1), claim).await.unwrap_err();
    }
    server.resume();
    assert_eq!(redis.execute(key(0), owner(1), SETTLE).await.unwrap(), Reply::Done);
    for number in 1..20 {
        assert_eq!(redis.execute(key(number), owner(number), CLAIM).await.unwrap(), WON);
    }
}

#[tokio::test]
async fn a_server_with_too_many_clients_is_a_passing_fault_even_at_the_log_in() {
    let server = RedisServer::start_with(
        Settings::default().line("maxclients 2").line("user a on >b ~* +@all"),
    )
    .await;
    let held: Vec<Redis> = (0..2).map(|_| Redis::new(options(&server)).unwrap()).collect();
    for redis in &held {
        redis.execute(key(1), owner(1), CLAIM).await.unwrap();
    }
    for credentials in [None, Some(credentials(Some("a"), "b"))] {
        let redis = Redis::new(Options { credentials, ..options(&server) }).unwrap();
        let (error, _) = fails(&redis).await;
        assert!(!error.is_misconfigured(), "{error}");
    }
}

async fn answer_as_a_web_server(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = [0; 16];
        if stream.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_no_redis_server_is_not_mistaken_for_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(answer_as_a_web_server(listener));
    let (error, took) = fails(&Redis::new(impatient(options_at(port))).unwrap()).await;
    assert!(matches!(error, StoreError::Unexpected(_)), "{error}");
    assert!(took < TIMEOUT + SLACK && !error.is_misconfigured(), "{took:?}");
}

fn over_tls(server: &RedisServer, host: &str, tls: TlsOptions) -> Redis {
    let endpoint = Endpoint::Tcp { host: host.to_owned(), port: server.tls_port() };
    Redis::new(Options { endpoint, tls: Some(tls), ..options(server) }).unwrap()
}

fn trusting(ca: &str) -> TlsOptions {
    TlsOptions { ca: Some(ca.as_bytes().to_vec()), ..TlsOptions::default() }
}

#[tokio::test]
async fn tls_accepts_the_given_ca_and_no_other() {
    let server =
        RedisServer::start_with(Settings::default().tls().line("tls-auth-clients no")).await;
    let stranger = RedisServer::start_with(Settings::default().tls()).await;
    let ca = &server.authority().ca;
    let redis = over_tls(&server, "localhost", trusting(ca));
    redis.check().await.unwrap();
    assert_eq!(redis.execute(key(1), owner(1), CLAIM).await.unwrap(), WON);
    let named = TlsOptions { server_name: Some("localhost".to_owned()), ..trusting(ca) };
    over_tls(&server, "127.0.0.1", named).check().await.unwrap();

    let untrusted = [
        ("another CA", over_tls(&server, "localhost", trusting(&stranger.authority().ca))),
        ("the system's CAs", over_tls(&server, "localhost", TlsOptions::default())),
        ("a name that the certificate lacks", over_tls(&server, "127.0.0.1", trusting(ca))),
    ];
    for (what, redis) in untrusted {
        let error = redis.check().await.expect_err(what);
        assert!(
            matches!(error, StoreError::Untrusted(_)) && error.is_misconfigured(),
            "{what}: {error}"
        );
    }
    for junk in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let made = Redis::new(Options { tls: Some(trusting(junk)), ..options(&server) });
        assert!(matches!(made, Err(StoreError::Options(_))), "{junk:?}");
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_ours() {
    let server = RedisServer::start_with(Settings::default().tls()).await;
    let authority = server.authority();
    let (chain, key_pem) = authority.client.clone();
    let client = ClientCertificate { chain: chain.into_bytes(), key: SecretString::from(key_pem) };
    let with = TlsOptions { client: Some(client), ..trusting(&authority.ca) };
    over_tls(&server, "localhost", with).check().await.unwrap();
    let error = over_tls(&server, "localhost", trusting(&authority.ca)).check().await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn plain_and_tls_ports_confused_fail_within_the_time_outs() {
    let server = RedisServer::start_with(Settings::default().tls()).await;
    let plain = impatient(options_at(server.tls_port()));
    let mut tls = impatient(options(&server));
    tls.tls = Some(trusting(&server.authority().ca));
    for options in [plain, tls] {
        let (error, took) = fails(&Redis::new(options).unwrap()).await;
        assert!(took < TIMEOUT * 2 + SLACK && !error.is_misconfigured(), "{error} after {took:?}");
    }
}
