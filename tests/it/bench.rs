//! `oncehook bench` against real gateways, and without one, where its audit has to fail.

use serde_json::Value;

use crate::support::process::{Process, oncehook, output};
use crate::support::redis::free_port;

/// A gateway before `backend`, with free ports, and its URL.
fn gateway(backend: &str, tls: &str) -> (Process, String) {
    let mut command = oncehook(&["run", "--dev", "--listen", "127.0.0.1:0", "--backend", backend]);
    command.env("ONCEHOOK_ADMIN__ADDRESS", "127.0.0.1:0").env("ONCEHOOK_TLS__ENABLED", tls);
    command.env("ONCEHOOK_LOG__LEVEL", "error");
    let gateway = Process::start(command);
    let url = gateway.said(if tls == "true" { "https://" } else { "http://" });
    (gateway, url)
}

/// Runs `bench`, and hands over its exit code, its one object, and its talk.
fn bench(arguments: &[&str]) -> (i32, Value, String) {
    let (code, out, talk) = output(&[&["bench", "--format", "json"][..], arguments].concat());
    let whole = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{talk}"));
    (code, whole, talk)
}

/// An address where nobody listens yet.
fn address() -> String {
    format!("127.0.0.1:{}", free_port())
}

#[test]
fn bench_as_the_backend_sees_each_event_once() {
    let address = address();
    for (tls, event, how) in [
        ("false", "participant_joined", None),
        ("false", "participant_left", Some(["--metadata", "20KiB"])),
        ("true", "session", None),
        ("true", "all", Some(["--same-id", "--http1"])),
    ] {
        let (_gateway, url) = gateway(&format!("http://{address}/webhook"), tls);
        let mut arguments = vec!["--listen", &address, "--to", &url, "--insecure"];
        arguments.extend(["--events", "200", "--copies", "4", "--event", event]);
        arguments.extend(how.iter().flatten());
        let (code, whole, talk) = bench(&arguments);
        let audit = &whole["audit"];
        assert_eq!((code, &audit["ok"]), (0, &Value::Bool(true)), "{tls} {event}: {whole}{talk}");
        assert_eq!(audit["witness"], "backend");
        for (name, count) in
            [("events", 200), ("copies", 800), ("acknowledged", 800), ("forwarded", 200)]
        {
            assert_eq!(audit[name], count, "{name}: {whole}");
        }
        for name in ["extra", "missing", "foreign", "refused", "marked"] {
            assert_eq!(audit[name], 0, "{name}: {whole}");
        }
        assert_eq!(whole["oncehook_status"]["forwarded"], 200, "{whole}");
        assert!(whole["latency_ms"]["p50"].as_f64() <= whole["latency_ms"]["max"].as_f64());
    }
}

#[test]
fn bench_takes_the_gateways_word_where_it_is_not_the_backend() {
    let backend = Process::start(oncehook(&["listen", "--address", "127.0.0.1:0"]));
    let (_gateway, url) = gateway(&format!("{}webhook", backend.said("http://")), "false");
    let (code, whole, talk) = bench(&["--events", "100", "--to", &url]);
    let audit = &whole["audit"];
    assert_eq!((code, &audit["witness"]), (0, &Value::from("words")), "{whole}{talk}");
    assert_eq!((&audit["forwarded"], &audit["marked"]), (&Value::from(100), &Value::Null));
    assert!(talk.contains("oncehook-bench-"), "the rooms are named: {talk}");
    let (code, table, _) = output(&["bench", "--events", "5", "--to", &url]);
    assert!(code == 0 && table.contains("ok: every event arrived exactly once"), "{table}");
}

#[test]
fn the_audit_fails_where_nothing_collapses_copies() {
    let address = address();
    let url = format!("http://{address}/");
    let (code, whole, _) =
        bench(&["--listen", &address, "--to", &url, "--events", "50", "--settle", "0"]);
    let audit = &whole["audit"];
    assert_eq!((code, &audit["ok"]), (1, &Value::Bool(false)), "{whole}");
    assert_eq!((&audit["forwarded"], &audit["extra"]), (&Value::from(150), &Value::from(100)));
    let backend = Process::start(oncehook(&["listen", "--address", "127.0.0.1:0"]));
    let url = backend.said("http://");
    let (code, whole, talk) = bench(&["--to", &url, "--events", "50"]);
    assert_eq!((code, &whole["audit"]["missing"]), (1, &Value::from(50)), "{whole}");
    assert!(talk.contains("is there a gateway"), "{talk}");
}

#[test]
fn the_audit_fails_where_the_route_leads_elsewhere() {
    let (elsewhere, address) =
        (Process::start(oncehook(&["listen", "--address", "127.0.0.1:0"])), address());
    let (_gateway, url) = gateway(&format!("{}webhook", elsewhere.said("http://")), "false");
    let (code, whole, talk) =
        bench(&["--listen", &address, "--to", &url, "--events", "20", "--settle", "100ms"]);
    assert_eq!((code, &whole["audit"]["missing"]), (1, &Value::from(20)), "{whole}");
    assert!(talk.contains("nothing arrived at"), "{talk}");
    let wrong = ["--to", &url, "--events", "20", "--api-secret", "another"];
    let (code, whole, talk) = bench(&wrong);
    assert_eq!((code, &whole["audit"]["acknowledged"]), (1, &Value::from(0)), "{whole}");
    assert!(talk.contains("another secret"), "{talk}");
}

#[test]
fn a_bench_is_bounded_by_its_duration() {
    let address = address();
    let (_gateway, url) = gateway(&format!("http://{address}/webhook"), "false");
    // At this rate all events would take 300 s, which no test may.
    let (code, whole, talk) =
        bench(&["--listen", &address, "--to", &url, "--rate", "10", "--duration", "300ms"]);
    let copies = whole["audit"]["copies"].as_u64().unwrap();
    assert!(code == 0 && (1..=3).contains(&copies), "{whole}{talk}");
}

#[test]
fn a_bench_that_cannot_begin_says_why() {
    let url = format!("http://{}/", address());
    let (code, whole, talk) = bench(&["--to", &url, "--events", "2", "--no-retry"]);
    assert_eq!((code, &whole["audit"]["missing"]), (69, &Value::from(2)), "{whole}");
    assert!(talk.contains("is the gateway running"), "{talk}");
    let known_by_id: &[&str] = &["bench", "--to", &url, "--event", "recording_finished"];
    let unbounded: &[&str] = &["bench", "--to", &url, "--events", "0"];
    let too_large: &[&str] = &["bench", "--to", &url, "--metadata", "1025KiB"];
    for arguments in [known_by_id, unbounded, too_large, &["bench"]] {
        let (code, out, talk) = output(arguments);
        assert_eq!((code, out.as_str()), (64, ""), "{arguments:?}: {talk}");
    }
}
