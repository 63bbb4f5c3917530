//! The listener: protocols, graceful end, kill, panics, upgrades.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Response, StatusCode, Version};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use oncehook::listener::tls::{ALPN_HTTP1, ALPN_HTTP2};
use oncehook::listener::{Listener, Options};
use oncehook::telemetry::Metrics;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, Notify};
use tokio::time::timeout;

use crate::support::dial::{
    GET, LONG, Running, answer, eventually, exchange, http2, http2_to, options, read_answer,
    read_to_end, request, self_signed, shake_hands,
};

#[tokio::test]
async fn alpn_chooses_the_protocol_and_http1_is_for_those_that_do_not_say() {
    let own = self_signed(&["localhost"]);
    let options = Options { tls: Some(Arc::clone(&own.tls.server)), ..options() };
    let listener = Running::start(options, |request, peer| async move {
        let tls = peer.tls.as_ref().expect("TLS");
        assert_eq!(tls.server_name.as_deref(), Some("localhost"));
        answer(if request.version() == Version::HTTP_2 { "two" } else { "one" })
    });
    let both: &[&[u8]] = &[ALPN_HTTP2, ALPN_HTTP1];

    let stream =
        shake_hands(listener.address, &own.certificate_pem, "localhost", both).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(ALPN_HTTP2));
    let response = http2(stream).await.send_request(request("/")).await.unwrap();
    assert_eq!((response.version(), response.status()), (Version::HTTP_2, StatusCode::OK));

    for alpn in [&[ALPN_HTTP1][..], &[]] {
        let mut stream =
            shake_hands(listener.address, &own.certificate_pem, "localhost", alpn).await.unwrap();
        assert!(exchange(&mut stream, GET).await.ends_with("\r\n\r\none"));
    }

    let neither =
        shake_hands(listener.address, &own.certificate_pem, "localhost", &[b"spdy/3"]).await;
    neither.expect_err("no protocol in common");
    listener.counted("oncehook_tls_failures_total{reason=\"protocol\"}", 1).await;
}

#[tokio::test]
async fn fifty_streams_of_one_http2_connection_are_answered_at_once() {
    const STREAMS: usize = 50;
    let own = self_signed(&["localhost"]);
    let options = Options { tls: Some(Arc::clone(&own.tls.server)), ..options() };
    let barrier = Arc::new(Barrier::new(STREAMS));
    let listener = Running::start(options, move |_request, _peer| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            answer("together")
        }
    });
    let sender = http2_to(listener.address, &own.certificate_pem).await;
    let answers: Vec<_> = (0..STREAMS)
        .map(|_| {
            let mut sender = sender.clone();
            tokio::spawn(async move { sender.send_request(request("/")).await.unwrap().status() })
        })
        .collect();
    for each in answers {
        assert_eq!(
            timeout(LONG, each).await.expect("all streams should run at once").unwrap(),
            StatusCode::OK
        );
    }
    listener.counted("oncehook_connections_accepted_total", 1).await;
}

#[tokio::test]
async fn a_connection_that_is_to_be_closed_is() {
    let listener = Running::hello(options());
    let mut stream = listener.connect().await;
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(exchange(&mut stream, request).await.ends_with("hello"));
    assert!(read_to_end(&mut stream).await.is_empty());
    listener.counted("oncehook_connections_ended_total{reason=\"closed\"}", 1).await;
    listener.counted("oncehook_connections_open", 0).await;
}

/// A service that says when it is called, and answers when it may.
fn gated(options: Options) -> (Running, Arc<AtomicUsize>, Arc<Notify>) {
    let (called, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (count, open) = (Arc::clone(&called), Arc::clone(&gate));
    let listener = Running::start(options, move |_request, _peer| {
        let (count, open) = (Arc::clone(&count), Arc::clone(&open));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            open.notified().await;
            answer("at last")
        }
    });
    (listener, called, gate)
}

#[tokio::test]
async fn a_listener_that_stops_finishes_what_runs_closes_what_rests_and_accepts_nothing() {
    let (listener, called, gate) = gated(options());
    let address = listener.address;
    let mut busy = listener.connect().await;
    busy.write_all(GET.as_bytes()).await.unwrap();
    eventually("the service was called", || called.load(Ordering::SeqCst) == 1).await;
    let mut fresh = listener.connect().await;
    let mut rested = listener.connect().await;
    rested.write_all(GET.as_bytes()).await.unwrap();
    eventually("the service was called again", || called.load(Ordering::SeqCst) == 2).await;
    // Both wait for the gate; the first in line is the first that asked.
    gate.notify_one();
    let answered = tokio::select! {
        text = read_answer(&mut busy) => { std::mem::swap(&mut busy, &mut rested); text }
        text = read_answer(&mut rested) => text,
    };
    assert!(answered.ends_with("at last"));

    listener.stop.cancel();
    assert!(read_to_end(&mut fresh).await.is_empty());
    assert!(read_to_end(&mut rested).await.is_empty());
    refused(address).await;

    gate.notify_one();
    let last = String::from_utf8(read_to_end(&mut busy).await).unwrap();
    assert!(last.starts_with("HTTP/1.1 200 OK\r\n"), "{last}");
    assert!(last.contains("connection: close\r\n") && last.ends_with("at last"), "{last}");
    listener.ended().await;
}

async fn refused(address: std::net::SocketAddr) {
    let trying = async {
        loop {
            match TcpStream::connect(address).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return,
                // Accepted by the kernel just before the socket was closed.
                Ok(_) | Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    timeout(LONG, trying).await.expect("connections should be refused");
}

#[tokio::test]
async fn a_listener_that_stops_lets_http2_streams_finish() {
    let own = self_signed(&["localhost"]);
    let (listener, called, gate) = gated(Options { tls: Some(own.tls.server), ..options() });
    let mut sender = http2_to(listener.address, &own.certificate_pem).await;
    let answering = tokio::spawn(sender.send_request(request("/")));
    eventually("the service was called", || called.load(Ordering::SeqCst) == 1).await;
    listener.stop.cancel();
    refused(listener.address).await;
    gate.notify_one();
    let response = timeout(LONG, answering).await.expect("an answer").unwrap().expect("no error");
    assert_eq!(response.status(), StatusCode::OK);
    drop((response, sender));
    listener.ended().await;
}

#[tokio::test]
async fn a_kill_waits_for_no_http1_answer() {
    let (listener, called, _gate) = gated(options());
    let mut stream = listener.connect().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    eventually("the service was called", || called.load(Ordering::SeqCst) == 1).await;
    listener.kill.cancel();
    assert!(read_to_end(&mut stream).await.is_empty());
    listener.counted("oncehook_connections_ended_total{reason=\"killed\"}", 1).await;
    listener.ended().await;
}

#[tokio::test]
async fn a_kill_waits_for_no_http2_answer() {
    let own = self_signed(&["localhost"]);
    let (listener, called, _gate) = gated(Options { tls: Some(own.tls.server), ..options() });
    let mut sender = http2_to(listener.address, &own.certificate_pem).await;
    let asking = tokio::spawn(sender.send_request(request("/")));
    eventually("the service was called", || called.load(Ordering::SeqCst) == 1).await;
    listener.kill.cancel();
    timeout(LONG, asking).await.expect("an end").unwrap().expect_err("no answer");
    listener.counted("oncehook_connections_ended_total{reason=\"killed\"}", 1).await;
    listener.ended().await;
}

#[tokio::test]
async fn a_panic_of_the_service_fails_one_exchange_and_nothing_else() {
    let own = self_signed(&["localhost"]);
    let service = |request: http::Request<hyper::body::Incoming>, _peer| {
        // Once in the call itself, once in its future.
        assert!(request.uri().path() != "/call", "a planted panic");
        async move {
            assert!(request.uri().path() != "/future", "a planted panic");
            answer("well")
        }
    };
    let plain = Running::start(options(), service);
    for path in ["/call", "/future"] {
        let mut stream = plain.connect().await;
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
            .await
            .unwrap();
        assert!(read_to_end(&mut stream).await.is_empty());
    }
    assert!(exchange(&mut plain.connect().await, GET).await.ends_with("well"));
    plain.counted("oncehook_service_panics_total", 2).await;
    plain.counted("oncehook_connections_ended_total{reason=\"panic\"}", 2).await;

    let tls = Running::start(Options { tls: Some(own.tls.server), ..options() }, service);
    let mut sender = http2_to(tls.address, &own.certificate_pem).await;
    sender.send_request(request("/future")).await.expect_err("a reset stream");
    assert_eq!(sender.send_request(request("/")).await.unwrap().status(), StatusCode::OK);
    tls.counted("oncehook_service_panics_total", 1).await;
}

#[tokio::test]
async fn an_upgraded_connection_counts_as_open_and_ends_at_the_kill() {
    let listener = Running::start(options(), |mut request, _peer| async move {
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.expect("an upgrade");
            let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
            tokio::io::copy(&mut from, &mut to).await.expect_err("the kill")
        });
        let head = Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "echo");
        head.body(Full::<Bytes>::default()).unwrap()
    });
    let mut stream = listener.connect().await;
    let request =
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    assert!(exchange(&mut stream, request).await.starts_with("HTTP/1.1 101"));
    stream.write_all(b"as said").await.unwrap();
    let mut echo = [0; 7];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"as said");

    listener.stop.cancel();
    refused(listener.address).await;
    listener.counted("oncehook_connections_open", 1).await;
    listener.kill.cancel();
    assert!(read_to_end(&mut stream).await.is_empty());
    listener.ended().await;
}

#[tokio::test]
async fn what_is_sent_before_the_protocol_has_changed_arrives_after_it() {
    let (listener, called, gate) = gated_upgrade();
    let mut stream = listener.connect().await;
    let request =
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    // No HTTP, so it must not be judged as such.
    stream.write_all(format!("{request}\0one\n").as_bytes()).await.unwrap();
    eventually("the service was called", || called.load(Ordering::SeqCst) == 1).await;
    stream.write_all(b"\0two\n").await.unwrap();
    gate.notify_one();
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 101"));
    let mut echo = [0; 10];
    timeout(LONG, stream.read_exact(&mut echo)).await.expect("an echo").unwrap();
    assert_eq!(&echo, b"\0one\n\0two\n");
    listener.kill.cancel();
    listener.ended().await;
}

/// A service that echoes after a change of protocol, which it grants when it may.
fn gated_upgrade() -> (Running, Arc<AtomicUsize>, Arc<Notify>) {
    let (called, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (count, open) = (Arc::clone(&called), Arc::clone(&gate));
    let listener = Running::start(options(), move |mut request, _peer| {
        let (count, open) = (Arc::clone(&count), Arc::clone(&open));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            open.notified().await;
            tokio::spawn(async move {
                let upgraded = hyper::upgrade::on(&mut request).await.expect("an upgrade");
                let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
                // Ends at the kill, or with the client.
                tokio::io::copy(&mut from, &mut to).await.ok();
            });
            let head = Response::builder()
                .status(101)
                .header("connection", "upgrade")
                .header("upgrade", "echo");
            head.body(Full::<Bytes>::default()).unwrap()
        }
    });
    (listener, called, gate)
}

#[tokio::test]
async fn an_address_that_cannot_be_bound_is_named_with_a_hint() {
    let first = Running::hello(options());
    let options = Options { address: first.address, ..options() };
    let error = Listener::bind(options, Metrics::new()).expect_err("a port that is taken");
    let (address, port) = (first.address, first.address.port());
    assert_eq!(
        error.to_string(),
        format!(
            "cannot listen on {address}; hint: another process listens there (`ss -ltnp 'sport = :{port}'` names it); \
             stop it, or choose another port"
        )
    );
}
