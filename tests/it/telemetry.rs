//! Metrics and log lines.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oncehook::claim::exchange::Outcome;
use oncehook::claim::record::{Operation, Reply};
use oncehook::claim::{Digest, Key, Verdict};
use oncehook::clock::UnixTime;
use oncehook::telemetry::Metrics;
use oncehook::telemetry::labels::{
    AnswerResult, ConnectionEnd, ConnectionRejection, ReloadResult, TlsFailure,
};
use oncehook::telemetry::log::{self, WebhookLine};
use oncehook::telemetry::metrics::{Degraded, Expiring};
use oncehook::webhook::event::EventKind;
use oncehook::webhook::key::Basis;

/// Something of everything.
fn busy() -> Arc<Metrics> {
    let metrics = Metrics::new();
    let route = metrics.route("/webhook \"quoted\\\"");
    metrics.received(&route, Some(EventKind::RoomStarted));
    metrics.received(&route, None);
    metrics.answered(&route, AnswerResult::Forwarded, 204);
    metrics.answered(&route, AnswerResult::Refused, 401);
    metrics.refused(&route, "bad_signature");
    metrics.forwarded(&route, Outcome::Delivered(204), Duration::from_millis(12));
    metrics.forwarded(&route, Outcome::Ambiguous, Duration::from_secs(9));
    let window = Duration::from_hours(1);
    let settle = Operation::Settle { verdict: Verdict::Delivered(204), digest: Digest(1), window };
    metrics.store_operation(settle, Ok(Reply::AlreadySettled), Duration::from_micros(90));
    metrics.store_operation(settle, Err("timeout"), Duration::from_millis(250));
    metrics.store_degraded(Degraded::Yes);
    metrics.store_memory(1, 2, 3);
    metrics.identified(Basis::Event);
    metrics.possible_duplicate();
    metrics.double();
    metrics.fenced();
    metrics.key_conflict();
    metrics.would_collapse();
    metrics.store_degraded_for(Duration::from_millis(1_500));
    metrics.store_disk(1, 2, 3, 4);
    metrics.unfinished(2);
    metrics.written_back(settle, Reply::Fenced);
    metrics.unfinished_dropped(settle);
    metrics.exchange_panicked();
    metrics.relayed(101);
    metrics.accept_failed();
    metrics.connection_rejected(ConnectionRejection::Source);
    metrics.tls_failed(TlsFailure::Untrusted);
    metrics.connection_ended(ConnectionEnd::Closed);
    metrics.service_panicked();
    metrics.configured(UnixTime::from_epoch(Duration::from_secs(1_700_000_000)));
    metrics
        .reloaded(ReloadResult::Rejected, UnixTime::from_epoch(Duration::from_secs(1_700_000_001)));
    metrics.expires(
        Expiring::Certificate,
        "hooks.example.com",
        UnixTime::from_epoch(Duration::from_secs(1_800_000_007)),
    );
    metrics
}

/// A sample: its name, its labels, its value.
type Sample = (String, BTreeMap<String, String>, f64);

/// Reads OpenMetrics text as strictly as the gateway's own needs: families are described before their samples, do not
/// interleave, and have the suffixes of their type; the end is marked.
fn parse(text: &str) -> Vec<Sample> {
    let body = text.strip_suffix("# EOF\n").expect("the end is marked");
    let mut seen = BTreeSet::new();
    let mut samples = Vec::new();
    let (mut family, mut kind) = (String::new(), String::new());
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(seen.insert(name.to_owned()), "{name} is described twice");
            assert!(help.ends_with('.') && !help.ends_with(".."), "{line}");
            name.clone_into(&mut family);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').expect("a type");
            assert_eq!(name, family);
            assert!(["counter", "gauge", "histogram", "info"].contains(&of), "{line}");
            of.clone_into(&mut kind);
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').expect("a unit");
            assert_eq!(name, family);
            assert!(
                name.ends_with(&format!("_{unit}")) && ["seconds", "bytes"].contains(&unit),
                "{line}"
            );
        } else {
            let sample = parse_sample(line);
            let suffix = sample
                .0
                .strip_prefix(&family)
                .unwrap_or_else(|| panic!("{line} is not of {family}"));
            let allowed: &[&str] = match kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "info" => &["_info"],
                _ => &["_bucket", "_sum", "_count"],
            };
            assert!(allowed.contains(&suffix), "{line}");
            samples.push(sample);
        }
    }
    samples
}

fn parse_sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    let Some((name, labels)) = series.split_once('{') else {
        return (series.to_owned(), BTreeMap::new(), value);
    };
    let mut labels = labels.strip_suffix('}').expect("a closing brace");
    let mut map = BTreeMap::new();
    while !labels.is_empty() {
        let (key, rest) = labels.split_once("=\"").expect("a quoted value");
        let mut end = 0;
        let bytes = rest.as_bytes();
        while bytes[end] != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        assert!(map.insert(key.to_owned(), rest[..end].to_owned()).is_none(), "{line}");
        labels = rest[end + 1..].strip_prefix(',').unwrap_or(&rest[end + 1..]);
    }
    (name.to_owned(), map, value)
}

#[test]
fn the_text_is_well_formed_and_names_no_room_and_no_participant() {
    let samples = parse(&busy().encode().unwrap());
    assert!(samples.len() > 60, "only {} samples", samples.len());
    let names: BTreeSet<_> = samples.iter().map(|(name, ..)| name.as_str()).collect();
    for name in [
        "oncehook_build_info",
        "oncehook_webhooks_received_total",
        "oncehook_forward_duration_seconds_bucket",
        "oncehook_tls_certificate_not_after_seconds",
        "process_start_time_seconds",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(names.contains(name), "{name} is missing");
    }
    let allowed = [
        "route",
        "event",
        "result",
        "class",
        "reason",
        "outcome",
        "operation",
        "basis",
        "name",
        "version",
        "le",
    ];
    for (name, labels, _) in &samples {
        for label in labels.keys() {
            assert!(allowed.contains(&label.as_str()), "{name} has a label {label}");
        }
    }
}

#[test]
fn what_is_received_adds_up_to_what_is_answered() {
    let samples = parse(&busy().encode().unwrap());
    let sum = |wanted: &str| {
        samples.iter().filter(|(name, ..)| name == wanted).map(|(.., value)| value).sum::<f64>()
    };
    assert!((sum("oncehook_webhooks_received_total") - 2.0).abs() < f64::EPSILON);
    assert!((sum("oncehook_webhooks_answered_total") - 2.0).abs() < f64::EPSILON);
}

/// Each is found by its place, so that one that stands in another's would count for it.
#[test]
fn every_word_has_a_series_of_its_own() {
    let metrics = Metrics::new();
    let route = metrics.route("main");
    let mut expected = Vec::new();
    let mut times = 0;
    let mut count = |series: String, counted: &dyn Fn()| {
        times += 1;
        (0..times).for_each(|_| counted());
        expected.push(format!("oncehook_{series} {times}"));
    };
    for kind in EventKind::ALL {
        let series = format!("webhooks_received_total{{route=\"main\",event=\"{}\"}}", kind.name());
        count(series, &|| metrics.received(&route, Some(kind)));
    }
    for &result in AnswerResult::ALL {
        for (status, class) in
            [(101, "1xx"), (204, "2xx"), (302, "3xx"), (404, "4xx"), (599, "5xx")]
        {
            let result_word = result.label();
            let series = format!(
                "webhooks_answered_total{{route=\"main\",result=\"{result_word}\",class=\"{class}\"}}"
            );
            count(series, &|| metrics.answered(&route, result, status));
        }
    }
    let outcomes = [
        (Outcome::Delivered(200), "delivered"),
        (Outcome::Refused(404), "refused"),
        (Outcome::Misconfigured(401), "misconfigured"),
        (Outcome::Failed(Some(500)), "failed"),
        (Outcome::Unreached, "unreached"),
        (Outcome::Ambiguous, "ambiguous"),
    ];
    for (outcome, word) in outcomes {
        let series = format!("forwards_total{{route=\"main\",outcome=\"{word}\"}}");
        count(series, &|| metrics.forwarded(&route, outcome, Duration::ZERO));
    }
    for basis in Basis::ALL {
        let series = format!("identity_basis_total{{basis=\"{}\"}}", basis.label());
        count(series, &|| metrics.identified(basis));
    }
    let claim = Operation::Claim { lease: Duration::ZERO, window: Duration::ZERO };
    let replies = [
        (Ok(Reply::Won { attempt: 1, possible_duplicate: false }), "won"),
        (Ok(Reply::Done), "done"),
        (Ok(Reply::AlreadySettled), "already_settled"),
        (Ok(Reply::Fenced), "fenced"),
        (Err("timeout"), "timeout"),
    ];
    for (reply, word) in replies {
        let series = format!("store_operations_total{{operation=\"claim\",result=\"{word}\"}}");
        count(series, &|| metrics.store_operation(claim, reply, Duration::ZERO));
    }
    let text = metrics.encode().unwrap();
    for line in expected {
        assert!(text.lines().any(|each| each == line), "{line} is not in\n{text}");
    }
}

#[test]
fn the_main_series_of_a_route_begin_at_zero() {
    let metrics = Metrics::new();
    metrics.route("main");
    let text = metrics.encode().unwrap();
    for result in AnswerResult::ALL {
        assert!(text.contains(&format!("route=\"main\",result=\"{}\"", result.label())), "{text}");
    }
}

#[test]
fn a_gauge_falls_when_its_guard_is_dropped() {
    let metrics = Metrics::new();
    let has = |line: &str| metrics.encode().unwrap().lines().any(|each| each == line);
    let guard = metrics.in_flight();
    assert!(has("oncehook_in_flight 1"));
    drop(guard);
    assert!(has("oncehook_in_flight 0"));
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(line: &WebhookLine<'_>) -> serde_json::Value {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || log::webhook(line));
    serde_json::from_slice(&captured.0.lock().unwrap()).expect("one JSON object")
}

#[test]
fn a_webhook_gets_one_line_whose_level_says_how_it_ended() {
    let metrics = Metrics::new();
    let route = metrics.route("main");
    let line = WebhookLine {
        result: AnswerResult::Forwarded,
        route: &route,
        event: Some(EventKind::EgressEnded),
        id: Some("EV_1\n\u{1b}[31m"),
        key: Some(Key([7; 16])),
        basis: Some("event"),
        attempt: Some(2),
        possible_duplicate: Some(true),
        status: 204,
        duration: Duration::from_micros(1500),
        peer: Some("192.0.2.1:443".parse().unwrap()),
        request_id: Some("r-1"),
        reason: None,
        hint: None,
    };
    let written = logged(&line);
    assert_eq!(written["level"], "INFO");
    assert_eq!(written["event"], "egress_ended");
    assert_eq!(written["id"], "EV_1\n\u{1b}[31m");
    assert_eq!(written["key"], "07070707070707070707070707070707");
    assert_eq!(written["possible_duplicate"], true);
    assert_eq!(written["duration_ms"], 1.5);
    assert_eq!(written["peer"], "192.0.2.1:443");
    assert!(written.get("reason").is_none(), "{written}");

    let refused = WebhookLine { result: AnswerResult::Refused, reason: Some("expired"), ..line };
    assert_eq!(logged(&refused)["level"], "WARN");
    let misconfigured =
        WebhookLine { result: AnswerResult::Failed, hint: Some("the backend answers 401"), ..line };
    assert_eq!(logged(&misconfigured)["level"], "ERROR");
}
