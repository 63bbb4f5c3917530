//! The listener: time-outs and limits, one at a time.

use std::fs::File;
use std::io;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use oncehook::listener::Options;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use crate::support::dial::{
    GET, Running, answer, exchange, http2_to, options, read_to_end, request, self_signed,
    shake_hands,
};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_connection_that_sends_nothing_is_closed_by_the_head_timeout() {
    let own = self_signed(&["localhost"]);
    let plain = Running::hello(Options { head_timeout: SHORT, ..options() });
    assert!(read_to_end(&mut plain.connect().await).await.is_empty());
    plain.counted("oncehook_connections_ended_total{reason=\"head_timeout\"}", 1).await;

    let tls =
        Running::hello(Options { head_timeout: SHORT, tls: Some(own.tls.server), ..options() });
    for alpn in [&b"h2"[..], b"http/1.1"] {
        let mut stream =
            shake_hands(tls.address, &own.certificate_pem, "localhost", &[alpn]).await.unwrap();
        // HTTP/2 says its SETTINGS before it closes.
        read_to_end(&mut stream).await;
    }
    tls.counted("oncehook_connections_ended_total{reason=\"head_timeout\"}", 2).await;
    tls.counted("oncehook_connections_open", 0).await;
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    let own = self_signed(&["localhost"]);
    let listener = Running::hello(Options {
        handshake_timeout: SHORT,
        tls: Some(own.tls.server),
        ..options()
    });
    assert!(read_to_end(&mut listener.connect().await).await.is_empty());
    listener.counted("oncehook_tls_failures_total{reason=\"timeout\"}", 1).await;
    listener.counted("oncehook_connections_open", 0).await;
}

#[tokio::test]
async fn a_head_that_drips_is_not_given_more_time() {
    let listener = Running::hello(Options { head_timeout: SHORT, ..options() });
    let stream = listener.connect().await;
    let (mut from, mut to) = stream.into_split();
    let dripping = tokio::spawn(async move {
        while to.write_all(b"G").await.is_ok() {
            sleep(SHORT / 10).await;
        }
    });
    read_to_end(&mut from).await;
    dripping.await.unwrap();
    listener.counted("oncehook_connections_ended_total{reason=\"head_timeout\"}", 1).await;
}

/// On either side of the number that hyper takes if it is told none: it must not be stricter than the gate.
#[tokio::test]
async fn as_many_fields_are_served_as_are_allowed() {
    for headers_max in [64, 100, 101, 300] {
        let listener = Running::hello(Options { headers_max, ..options() });
        for (fields, status) in [(headers_max, "200"), (headers_max + 1, "431")] {
            let others = "x: y\r\n".repeat(fields - 2);
            let head = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{others}\r\n");
            let mut stream = listener.connect().await;
            stream.write_all(head.as_bytes()).await.unwrap();
            let answer = String::from_utf8(read_to_end(&mut stream).await).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{fields}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_connection_may_rest_between_requests_for_longer_than_a_head_may_take() {
    let listener = Running::hello(Options { head_timeout: SHORT, ..options() });
    let mut stream = listener.connect().await;
    assert!(exchange(&mut stream, GET).await.ends_with("hello"));
    // It rests, and is left alone.
    timeout(SHORT * 3, stream.read_u8()).await.expect_err("nothing to read, and no end");
    assert!(exchange(&mut stream, GET).await.ends_with("hello"));
    // It begins a head, and does not end it.
    stream.write_all(b"GET / HT").await.unwrap();
    assert!(read_to_end(&mut stream).await.is_empty());
    listener.counted("oncehook_connections_ended_total{reason=\"head_timeout\"}", 1).await;
}

#[tokio::test]
async fn a_head_that_was_begun_while_another_was_answered_is_given_no_more_time() {
    let listener = Running::hello(Options { head_timeout: SHORT, ..options() });
    let mut stream = listener.connect().await;
    let both = format!("{GET}GET / HT");
    assert!(exchange(&mut stream, &both).await.ends_with("hello"));
    assert!(read_to_end(&mut stream).await.is_empty());
    listener.counted("oncehook_connections_ended_total{reason=\"head_timeout\"}", 1).await;
}

#[tokio::test]
async fn a_refusal_is_told_and_counted_and_the_service_never_sees_it() {
    let listener = Running::start(options(), |request, _peer| async move {
        assert_eq!(request.headers()["host"], "localhost", "what was refused is not served");
        answer("hello")
    });
    let mut stream = listener.connect().await;
    let request = format!("{GET}GET / HTTP/1.1\nHost: localhost\n\n{GET}");
    assert!(exchange(&mut stream, &request).await.ends_with("hello"));
    let rest = String::from_utf8(read_to_end(&mut stream).await).unwrap();
    assert!(rest.starts_with("HTTP/1.1 400 "), "{rest}");
    assert!(rest.contains("connection: close\r\n"), "{rest}");
    assert_eq!(rest.matches("HTTP/1.1").count(), 1, "{rest}");
    listener.counted("oncehook_requests_malformed_total{reason=\"bare_line_feed\"}", 1).await;
    listener.counted("oncehook_connections_ended_total{reason=\"closed\"}", 1).await;
}

#[tokio::test]
async fn a_connection_that_rests_for_too_long_is_closed_in_good_order() {
    let own = self_signed(&["localhost"]);
    let plain = Running::hello(Options { idle_timeout: SHORT, ..options() });
    let mut stream = plain.connect().await;
    assert!(exchange(&mut stream, GET).await.ends_with("hello"));
    assert!(read_to_end(&mut stream).await.is_empty());
    plain.counted("oncehook_connections_ended_total{reason=\"idle_timeout\"}", 1).await;

    let tls =
        Running::hello(Options { idle_timeout: SHORT, tls: Some(own.tls.server), ..options() });
    let mut sender = http2_to(tls.address, &own.certificate_pem).await;
    assert_eq!(sender.send_request(request("/")).await.unwrap().status(), StatusCode::OK);
    tls.counted("oncehook_connections_ended_total{reason=\"idle_timeout\"}", 1).await;
    assert!(sender.is_closed());
}

#[tokio::test]
async fn an_exchange_may_take_longer_than_a_head_and_a_rest() {
    let own = self_signed(&["localhost"]);
    for tls in [None, Some(own.tls.server)] {
        let speaks_tls = tls.is_some();
        let options = Options { head_timeout: SHORT, idle_timeout: SHORT, tls, ..options() };
        let listener = Running::start(options, |_request, _peer| async {
            sleep(SHORT * 3).await;
            answer("slow")
        });
        if speaks_tls {
            let mut sender = http2_to(listener.address, &own.certificate_pem).await;
            assert_eq!(sender.send_request(request("/")).await.unwrap().status(), StatusCode::OK);
        } else {
            assert!(exchange(&mut listener.connect().await, GET).await.ends_with("slow"));
        }
    }
}

#[tokio::test]
async fn connections_beyond_the_limits_are_closed_unread() {
    for (total, per_source, reason) in [(2, 100, "total"), (100, 2, "source")] {
        let options =
            Options { connections_max: total, connections_per_source_max: per_source, ..options() };
        let listener = Running::hello(options);
        let mut first = listener.connect().await;
        let mut second = listener.connect().await;
        assert!(exchange(&mut first, GET).await.ends_with("hello"));
        assert!(exchange(&mut second, GET).await.ends_with("hello"));
        assert!(read_to_end(&mut listener.connect().await).await.is_empty());
        listener
            .counted(&format!("oncehook_connections_rejected_total{{reason=\"{reason}\"}}"), 1)
            .await;
        drop(first);
        listener.counted("oncehook_connections_open", 1).await;
        assert!(exchange(&mut listener.connect().await, GET).await.ends_with("hello"));
    }
}

#[tokio::test]
async fn heads_that_are_too_large_or_too_many_are_answered_with_431() {
    let listener = Running::hello(options());
    let large =
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(16 * 1024));
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: a\r\n".repeat(64));
    for request in [large, many] {
        let mut stream = listener.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = String::from_utf8(read_to_end(&mut stream).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    let within = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: a\r\n".repeat(63));
    assert!(exchange(&mut listener.connect().await, &within).await.ends_with("hello"));
}

/// In a process of its own, for the limit is the process's.
#[test]
fn a_listener_survives_without_file_descriptors() {
    let run = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" --exact --ignored listener_limits::without_file_descriptors"])
        .arg(std::env::current_exe().unwrap())
        .output()
        .expect("sh");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&run.stderr)
    );
}

#[tokio::test]
#[ignore = "takes every file descriptor of its process; run by the test above"]
async fn without_file_descriptors() {
    let listener = Running::hello(options());
    let mut taken: Vec<File> = Vec::new();
    let full = loop {
        match File::open("/dev/null") {
            Ok(file) => taken.push(file),
            Err(error) => break error,
        }
        assert!(taken.len() < 1000, "the limit should be 64");
    };
    assert_eq!(full.raw_os_error(), Some(24), "EMFILE, not {full}");
    // One for this end of the connection, none for the other.
    taken.pop();
    let mut stream = listener.connect().await;
    let metrics = Arc::clone(&listener.metrics);
    let failures = move || -> io::Result<bool> {
        let text = metrics.encode().map_err(io::Error::other)?;
        let line = text.lines().find_map(|line| line.strip_prefix("oncehook_accept_errors_total "));
        Ok(line.is_some_and(|count| count.parse::<u64>().is_ok_and(|count| count >= 2)))
    };
    crate::support::dial::eventually("two accept errors", || failures().unwrap()).await;
    drop(taken);
    assert!(exchange(&mut stream, GET).await.ends_with("hello"));
}
