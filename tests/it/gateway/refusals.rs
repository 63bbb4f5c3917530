//! Nothing unverified counts: it reaches neither Redis nor the backend, and learns nothing.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use oncehook::clock;
use oncehook::webhook::event::EventKind;
use oncehook::webhook::verify::sign;
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{metric, through_redis, to};
use crate::support::backend::{Action, Backend};
use crate::support::gateway::{API_KEY, API_SECRET, Gateway};
use crate::support::redis::RedisServer;
use crate::support::sender::{Sender, Signed, event};

fn signed_at(before: Duration, body: &Bytes) -> String {
    let then = clock::UnixTime::from_epoch(clock::unix().since_epoch().saturating_sub(before));
    sign(API_KEY, &SecretString::from(API_SECRET), body, then, Duration::from_mins(5)).unwrap()
}

/// A token for joining a room: the right secret, no digest.
fn join_token() -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let head = part(r#"{"alg":"HS256","typ":"JWT"}"#);
    let exp = clock::unix().seconds() + 300;
    let claims = part(&format!(
        r#"{{"iss":"{API_KEY}","exp":{exp},"sub":"eve","video":{{"roomJoin":true}}}}"#
    ));
    let key = jsonwebtoken::EncodingKey::from_secret(API_SECRET.as_bytes());
    let message = format!("{head}.{claims}");
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256)
            .unwrap();
    format!("{message}.{signature}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_by_our_key_touches_neither_redis_nor_the_backend() {
    let redis = RedisServer::start().await;
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&through_redis(&backend, &redis.url(), ""));
    let sender = Sender::to(&gateway.url("/webhook"));
    // Opens the connection to Redis, so that its own commands are not counted below.
    assert_eq!(sender.post(&event(EventKind::RoomStarted, 0, "EV_0")).await.status, 200);

    let good = event(EventKind::EgressEnded, 1, "EV_1");
    let mut altered = good.body.to_vec();
    altered[10] ^= 1;
    let mut tampered = good.token.clone();
    tampered.pop();
    let refused = [
        Signed::by(API_KEY, "another-secret-of-thirty-two-characters", good.body.clone()),
        Signed::by("APIother", API_SECRET, good.body.clone()),
        Signed { body: altered.into(), token: good.token.clone() },
        Signed { body: Bytes::new(), token: good.token.clone() },
        Signed { body: good.body.clone(), token: join_token() },
        Signed { body: good.body.clone(), token: signed_at(Duration::from_mins(10), &good.body) },
        Signed { body: good.body.clone(), token: String::new() },
        Signed { body: good.body.clone(), token: "not a token".into() },
        Signed { body: good.body.clone(), token: format!("Bearer {}", good.token) },
        Signed { body: good.body.clone(), token: tampered },
        Signed { body: good.body.clone(), token: "x".repeat(9_000) },
    ];
    let commands = redis.store_commands().await;
    let total = refused.len();
    for (number, signed) in refused.into_iter().enumerate() {
        let told = sender.post(&signed).await;
        assert_eq!((told.status, told.word.as_str()), (401, "refused"), "case {number}");
    }
    assert_eq!(redis.store_commands().await, commands, "Redis was asked");
    assert_eq!(backend.requests().len(), 1, "the backend was asked");
    let counted = metric(
        &gateway,
        "oncehook_webhooks_answered_total{route=\"/webhook\",result=\"refused\",class=\"4xx\"}",
    )
    .await;
    assert_eq!(counted, total as u64);
    assert_eq!(sender.post(&good).await.status, 200, "and the real one is still new");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_told_which_one_is_right() {
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&to(&backend, ""));
    let sender = Sender::to(&gateway.url("/webhook"));
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let told = sender.request(method, HeaderMap::new(), Bytes::new()).await.unwrap();
        assert_eq!(told.status, 405);
        assert_eq!(told.headers["allow"], "POST");
    }
    assert!(backend.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_has_been_here_is_a_loop() {
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&to(&backend, ""));
    let mut headers = HeaderMap::new();
    headers.insert("via", HeaderValue::from_static("1.1 oncehook"));
    let told = Sender::to(&gateway.url("/webhook"))
        .request(Method::POST, headers, Bytes::new())
        .await
        .unwrap();
    assert_eq!((told.status, told.word.as_str()), (508, "loop"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&to(&backend, "limits.body_bytes_max = \"64KiB\""));
    let sender = Sender::to(&gateway.url("/webhook"));
    let told = sender.post(&Signed::new(vec![b'x'; 64 * 1024 + 1])).await;
    assert_eq!((told.status, told.word.as_str()), (413, "too-large"));
    assert!(backend.requests().is_empty());
    let told = sender.post(&Signed::new(vec![b'x'; 64 * 1024])).await;
    assert_eq!(
        (told.status, told.word.as_str()),
        (200, "forwarded"),
        "any signed body is forwarded"
    );
}

/// Writes the head of a webhook whose body never comes, and returns what is answered.
async fn answer_without_body(gateway: &Gateway, token: &str, more: &str) -> String {
    let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
    let head = format!(
        "POST /webhook HTTP/1.1\r\nhost: gateway\r\nauthorization: {token}\r\ncontent-length: 10\r\nconnection: close\r\n{more}\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verified_head_with_a_slow_body_is_told_to_come_again() {
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&to(&backend, "limits.body_timeout = \"1s\""));
    let token = Signed::new("0123456789").token;
    let answer = answer_without_body(&gateway, &token, "").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("oncehook-status: body-slow"), "{answer}");
    let counted = "oncehook_refusals_total{route=\"/webhook\",reason=\"body-slow\"}";
    assert_eq!(metric(&gateway, counted).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_targets_and_tokens_are_held_to_their_configured_limits() {
    let backend = Backend::always(Action::status(200));
    let limits = "limits.head_bytes_max = \"8KiB\"\nlimits.head_fields_max = 16\n\
                  limits.uri_bytes_max = \"1KiB\"\nlimits.token_bytes_max = \"1KiB\"";
    let gateway = Gateway::start(&to(&backend, limits));
    let long = "a".repeat(1025);
    let many = "x: y\r\n".repeat(13);
    let cases = [
        ("/webhook", long.as_str(), "", 401, "token_too_long"),
        (&format!("/webhook?{long}"), "a", "", 414, "target_too_long"),
        ("/webhook", "a", &many, 431, "too_many_fields"),
        ("/webhook", "a", &format!("x: {}\r\n", "a".repeat(8100)), 431, "head_too_large"),
    ];
    for (target, token, fields, status, reason) in cases {
        let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
        let head = format!(
            "POST {target} HTTP/1.1\r\nhost: gateway\r\nauthorization: {token}\r\n\
             content-length: 0\r\nconnection: close\r\n{fields}\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{reason}: {answer}");
        let malformed = format!("oncehook_requests_malformed_total{{reason=\"{reason}\"}}");
        let refused = format!("oncehook_refusals_total{{route=\"/webhook\",reason=\"{reason}\"}}");
        let counted = metric(&gateway, &malformed).await + metric(&gateway, &refused).await;
        assert_eq!(counted, 1, "{reason}");
    }
    assert!(backend.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_a_token_is_asked_for_a_body() {
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&to(&backend, "limits.body_timeout = \"1s\""));
    let answer = answer_without_body(&gateway, "no-token", "expect: 100-continue\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let token = Signed::new("0123456789").token;
    let answer = answer_without_body(&gateway, &token, "expect: 100-continue\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 100 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_token_or_body_reaches_the_log() {
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&to(&backend, "log.level = \"trace\""));
    let sender = Sender::to(&gateway.url("/webhook"));
    let good = event(EventKind::ParticipantJoined, 1, "EV_1");
    sender.post(&good).await;
    sender
        .post(&Signed::by("APIother", "another-secret-of-thirty-two-characters", good.body.clone()))
        .await;
    let log = gateway.log().join("\n");
    assert!(log.contains("participant_joined"), "the log is read before it is written: {log}");
    let signature = good.token.rsplit('.').next().unwrap();
    for secret in [API_SECRET, good.token.as_str(), signature, "\"metadata\"", "turnPassword"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
