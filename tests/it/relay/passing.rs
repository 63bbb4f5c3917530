//! What passes: bytes, streams, upgrades, HTTP/2.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::{GET, Gateway, LIMIT, Protocol};
use crate::support::backend::{Action, Backend, Gate, Piece, Then, eventually};

#[tokio::test]
async fn a_request_and_its_answer_pass_untouched() {
    let answer = "HTTP/1.1 418 Short and stout\r\nx-a: 1\r\nx-a: 2\r\nkeep-alive: timeout=5\r\nset-cookie: a=b\r\n\
                  connection: x-hop\r\nx-hop: 1\r\ncontent-length: 5\r\n\r\nhello";
    let backend = Backend::always(Action::raw(answer));
    let gateway = Gateway::start(&backend.url()).await;
    let answer = gateway
        .ask(
            "DELETE /api/rooms?x=%20y HTTP/1.1\r\nhost: public.example\r\nconnection: close, x-own-hop\r\n\
             x-own-hop: 1\r\nx-forwarded-for: 203.0.113.9\r\nx-forwarded-prefix: /evil\r\ncookie: a=b\r\n\
             idempotency-key: the client's own\r\noncehook-attempt: 1\r\ncontent-length: 3\r\n\r\nabc",
        )
        .await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 418"), "{head}");
    for field in ["x-a: 1\r\nx-a: 2", "set-cookie: a=b", "content-length: 5"] {
        assert!(head.contains(field), "{field}: {head}");
    }
    assert!(!head.contains("x-hop") && !head.contains("keep-alive"), "{head}");
    assert_eq!(body, "hello");

    let request = backend.only();
    assert_eq!(request.line(), "DELETE /api/rooms?x=%20y HTTP/1.1");
    assert_eq!(request.body, b"abc");
    assert_eq!(request.one("host"), Some("public.example"));
    assert_eq!(request.one("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.one("x-forwarded-proto"), Some("http"));
    assert_eq!(request.one("x-forwarded-host"), Some("public.example"));
    assert_eq!(request.one("forwarded"), Some("for=127.0.0.1;host=\"public.example\";proto=http"));
    assert_eq!(request.one("via"), Some("1.1 oncehook"));
    assert_eq!(request.one("x-request-id"), Some("req-1"));
    assert_eq!(request.one("cookie"), Some("a=b"));
    assert_eq!(request.one("idempotency-key"), Some("the client's own"));
    for name in ["connection", "x-own-hop", "x-forwarded-prefix", "oncehook-attempt"] {
        assert_eq!(request.one(name), None, "{}", request.head);
    }
}

#[tokio::test]
async fn an_answer_streams_its_first_piece_arrives_before_the_last_is_sent() {
    let gate = Arc::new(Gate::default());
    let action = Action::raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        .and(Piece::Gate(Arc::clone(&gate)))
        .and_bytes("4\r\nlast\r\n0\r\n\r\n");
    let backend = Backend::always(action);
    let gateway = Gateway::start(&backend.url()).await;
    let mut client = gateway.connect().await;
    client.send(GET).await;
    client.until("first").await;
    gate.open();
    client.until("last").await;
}

#[tokio::test]
async fn a_request_streams_its_first_piece_arrives_before_the_last_is_sent() {
    let backend = Backend::always(Action::status(204));
    let gateway = Gateway::start(&backend.url()).await;
    let mut client = gateway.connect().await;
    client
        .send("PUT /up HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n")
        .await;
    eventually("the head arrives", || backend.received_bytes() > 0).await;
    let before = backend.received_bytes();
    client.send("5\r\nfirst\r\n").await;
    eventually("the first piece arrives", || backend.received_bytes() > before).await;
    client.send("4\r\nlast\r\n0\r\nx-sum: 7\r\n\r\n").await;
    assert!(client.until("\r\n\r\n").await.starts_with("HTTP/1.1 204"));
    let request = backend.only();
    assert_eq!(request.body, b"firstlast");
    assert_eq!(request.trailers, "x-sum: 7\r\n");
}

/// hyper leaves out the body of a GET whose length it does not know: the backend would get another request, and one whose
/// body is nonsense would be whole.
#[tokio::test]
async fn a_get_keeps_its_chunked_body() {
    let backend = Backend::always(Action::status(204));
    let gateway = Gateway::start(&backend.url()).await;
    let head = "GET /search HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = gateway.ask(&format!("{head}5\r\nquery\r\n0\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let request = backend.only();
    assert_eq!(
        (request.one("transfer-encoding"), &request.body[..]),
        (Some("chunked"), &b"query"[..])
    );

    let answer = gateway.ask(&format!("{head}5\r\nquery\r\n0\r\n\u{1}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(backend.requests().len(), 1, "a body that is nonsense came as a whole one");
}

#[tokio::test]
async fn trailers_of_an_answer_pass_to_a_client_that_takes_them() {
    let answer = "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n";
    let backend = Backend::always(Action::raw(answer));
    let gateway = Gateway::start(&backend.url()).await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te, close\r\n\r\n";
    let answer = gateway.ask(request).await;
    assert!(answer.ends_with("2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n"), "{answer}");
    assert_eq!(backend.only().one("te"), Some("trailers"));
}

#[tokio::test]
async fn a_large_body_passes_both_ways_byte_for_byte() {
    let body: Vec<u8> =
        (0..4 * 1024 * 1024_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(&body);
    let backend = Backend::always(Action::raw(answer));
    let gateway = Gateway::start(&backend.url()).await;
    let mut client = gateway.connect().await;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.send(head).await;
    client.send(&body).await;
    client.until("\r\n\r\n").await;
    client.socket.read_to_end(&mut client.buffer).await.unwrap();
    assert!(client.buffer == body, "{} bytes came back", client.buffer.len());
    assert!(backend.only().body == body);
}

#[tokio::test]
async fn answers_without_a_body_are_answers() {
    let rows = [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n", "content-length: 1234"),
        ("GET", "HTTP/1.1 204 No Content\r\nx: y\r\n\r\n", "x: y"),
        ("GET", "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n", "etag: \"a\""),
        (
            "GET",
            "HTTP/1.1 301 Moved\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n",
            "location: /there",
        ),
    ];
    for (method, answer, field) in rows {
        let backend = Backend::always(Action::raw(answer));
        let gateway = Gateway::start(&backend.url()).await;
        let got = gateway.ask(&GET.replacen("GET", method, 1)).await;
        assert_eq!(got.get(..12), answer.get(..12), "{got}");
        assert!(got.contains(field) && got.ends_with("\r\n\r\n"), "{got}");
    }
}

#[tokio::test]
async fn connections_to_the_backend_are_used_again_and_stale_ones_replaced() {
    let backend = Backend::always(Action::raw(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ));
    let gateway = Gateway::start(&backend.url()).await;
    for round in 1..=3 {
        for _ in 0..3 {
            assert!(gateway.ask(GET).await.starts_with("HTTP/1.1 200"));
            eventually("the connection is at rest", || gateway.upstream.busy() == 0).await;
        }
        assert!(backend.connections() <= round * 3, "round {round}: {}", backend.connections());
        assert!(round > 1 || backend.connections() == 1, "used again: {}", backend.connections());
        backend.hang_up();
    }
}

#[tokio::test]
async fn a_websocket_is_switched_and_echoes() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                  sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let backend = Backend::always(Action::raw(switch).then(Then::Echo));
    let gateway = Gateway::start(&backend.url()).await;
    let mut client = gateway.connect().await;
    client
        .send(
            "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    let head = client.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    for text in ["\u{1}frame one", "\u{2}frame two"] {
        client.send(text).await;
        client.until(text).await;
    }
    assert_eq!(gateway.tunnels.len(), 1);
    let request = backend.only();
    assert_eq!(request.one("upgrade"), Some("websocket"));
    assert_eq!(request.one("connection"), Some("upgrade"));
    drop(client);
    eventually("the tunnel ends with its client", || gateway.tunnels.is_empty()).await;
}

#[tokio::test]
async fn a_tunnel_ends_when_it_is_idle_or_told_to() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
    for (told, idle_timeout) in [(false, Duration::from_millis(50)), (true, LIMIT)] {
        let backend = Backend::always(Action::raw(switch).then(Then::Echo));
        let gateway = Gateway::start_with(&backend.url(), Protocol::Http1, |_, options| {
            options.tunnel_idle_timeout = idle_timeout;
        })
        .await;
        let mut client = gateway.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n").await;
        client.until("\r\n\r\n").await;
        if told {
            gateway.stop.cancel();
        }
        eventually("the tunnel ends", || gateway.tunnels.is_empty()).await;
        client.rest().await;
    }
}

#[tokio::test]
async fn a_request_over_http2_reaches_a_backend_of_http1() {
    let backend = Backend::always(Action::raw(
        "HTTP/1.1 201 Created\r\ncontent-length: 5\r\nconnection: x\r\nx: y\r\n\r\nhello",
    ));
    let gateway = Gateway::start_with(&backend.url(), Protocol::Http2, |_, _| {}).await;
    let socket = TcpStream::connect(gateway.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .unwrap();
    let tracker = TaskTracker::new();
    tracker.spawn(connection);
    let request = Request::post("http://public.example/api?a=b")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Full::new(Bytes::from_static(b"body")))
        .unwrap();
    let mut response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let hop = |headers: &HeaderMap| headers.contains_key("x") || headers.contains_key("connection");
    assert!(!hop(response.headers()), "{:?}", response.headers());
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), Bytes::from_static(b"hello"));
    let request = backend.only();
    assert_eq!(request.line(), "POST /api?a=b HTTP/1.1");
    assert_eq!(request.one("host"), Some("public.example"));
    assert_eq!(request.one("cookie"), Some("a=1; b=2"));
    assert_eq!(request.one("via"), Some("2.0 oncehook"));
    assert_eq!(request.body, b"body");
}
