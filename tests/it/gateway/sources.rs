//! Where requests are from: what balancers and proxies say, who is believed, and what becomes of a source that is refused
//! again and again.

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use oncehook::webhook::event::EventKind;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{metric, to};
use crate::support::backend::{Action, Backend};
use crate::support::dial::read_answer;
use crate::support::gateway::Gateway;
use crate::support::sender::{Sender, Signed, Told, event};

/// Posts with a token as a proxy would that was reached from `client`.
async fn post_for(sender: &Sender, client: &str, token: &str, body: Bytes) -> Told {
    let mut headers = HeaderMap::new();
    headers.insert("x-forwarded-for", HeaderValue::from_str(client).unwrap());
    headers.insert(AUTHORIZATION, HeaderValue::from_str(token).unwrap());
    sender.request(Method::POST, headers, body).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_refused_too_often_is_told_to_wait_and_its_signed_webhooks_are_served() {
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&to(
        &backend,
        "limits.refusals_per_source_per_minute = 3\nlisten.trusted_proxies = [\"127.0.0.0/8\"]",
    ));
    let sender = Sender::to(&gateway.url("/webhook"));
    let other_path = Sender::to(&gateway.url("/other"));
    let refused = async |client: &str| {
        let told = post_for(&sender, client, "no token", Bytes::from_static(b"{}")).await;
        (told.status, told.word)
    };
    for _ in 0..30 {
        assert_eq!(refused("192.0.2.1").await, (401, "refused".to_owned()));
    }
    let told = post_for(&sender, "192.0.2.1", "no token", Bytes::new()).await;
    assert_eq!((told.status, told.word.as_str()), (429, "refused-too-often"));
    let wait: u64 = told.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
    let told = post_for(&other_path, "9.9.9.9, 192.0.2.1", "no token", Bytes::new()).await;
    assert_eq!(told.status, 429, "it is one source on every path, whatever it says of others");

    // Behind the same address there may be a good sender.
    for number in 0..5 {
        let good = event(EventKind::EgressEnded, number, &format!("EV_{number}"));
        let told = post_for(&sender, "192.0.2.1", &good.token, good.body).await;
        assert_eq!((told.status, told.word.as_str()), (200, "forwarded"));
    }
    assert_eq!(refused("192.0.2.2").await.0, 401, "another source has its own limit");
    assert_eq!(refused("192.0.2.1").await.0, 429);

    assert_eq!(metric(&gateway, "oncehook_refusals_limited_total").await, 3);
    let series = "oncehook_refusals_total{route=\"/webhook\",reason=\"not_a_token\"}";
    assert_eq!(metric(&gateway, series).await, 33, "those beyond are counted, too");
    let log = gateway.log();
    let lines = |part: &str| log.iter().filter(|line| line.contains(part)).count();
    assert_eq!(lines("\"status\":401"), 31, "{log:#?}");
    assert_eq!(lines("\"status\":429"), 0);
    assert_eq!(lines("refused more often than"), 1);
    assert!(log.iter().any(|line| line.contains("\"client\":\"192.0.2.1\"")));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_around_the_limit_by_a_header() {
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&to(&backend, "limits.refusals_per_source_per_minute = 1"));
    let sender = Sender::to(&gateway.url("/webhook"));
    let mut told = Vec::new();
    for client in 0..12 {
        let client = format!("192.0.2.{client}");
        told.push(post_for(&sender, &client, "no token", Bytes::new()).await.status);
    }
    assert_eq!(told, [&[401; 10][..], &[429; 2]].concat());
    let good = Signed::new("{}");
    assert_eq!(post_for(&sender, "192.0.2.4", &good.token, good.body).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backend_is_told_whom_the_balancer_named() {
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&to(
        &backend,
        "listen.proxy_protocol = true\nlisten.trusted_proxies = [\"127.0.0.1/32\", \"10.0.0.0/8\"]",
    ));
    // The balancer was reached by a sender, which is not believed; then by a proxy, which is.
    for (number, source, claimed, expected) in [
        (1, "192.0.2.7", "203.0.113.1", "192.0.2.7"),
        (2, "10.1.1.1", "203.0.113.1", "203.0.113.1, 10.1.1.1"),
    ] {
        let good = event(EventKind::EgressEnded, number, &format!("EV_{number}"));
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        let head = format!(
            "PROXY TCP4 {source} 127.0.0.1 4711 443\r\nPOST /webhook HTTP/1.1\r\nhost: gateway\r\n\
             authorization: {}\r\nx-forwarded-for: {claimed}\r\ncontent-length: {}\r\n\r\n",
            good.token,
            good.body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&good.body).await.unwrap();
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let requests = backend.requests();
        assert_eq!(requests.last().unwrap().one("x-forwarded-for"), Some(expected));
    }
}
