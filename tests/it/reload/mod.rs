//! Another configuration for a gateway that runs: real processes, files and signals.

mod admin;
mod certificates;
mod files;
mod restart;
mod status;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oncehook::webhook::event::EventKind;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::gateway::{metric, page};
use crate::support::backend::{Action, Backend, Gate, Piece};
use crate::support::dial::exchange;
use crate::support::gateway::Gateway;
use crate::support::redis::until;
use crate::support::sender::{Sender, Signed, event};

/// A second API key, and its secret.
const OTHER_KEY: &str = "APIother";
const OTHER_SECRET: &str = "another-secret-of-at-least-thirty-two-characters";

/// A line that lets the other key sign.
fn other_key() -> String {
    format!("keys.{OTHER_KEY} = \"{OTHER_SECRET}\"")
}

/// A configuration with these lines before its routes, each of which goes to `backend`.
fn configuration(backend: &Backend, lines: &[&str], routes: &[&str]) -> String {
    let mut text = format!(
        "tls.enabled = false\nshutdown.drain_delay = \"0s\"\nupstream.backend = \"{}/hook\"\n",
        backend.url()
    );
    for line in lines {
        writeln!(text, "{line}").unwrap();
    }
    for route in routes {
        writeln!(text, "[[route]]\npath = \"{route}\"").unwrap();
    }
    text
}

/// Replaces a file as editors do: whole, under another inode.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, file).unwrap();
}

async fn status(gateway: &Gateway) -> Value {
    let (code, body) = page(gateway, "/status").await;
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// How many reloads came to `result`.
async fn reloads(gateway: &Gateway, result: &str) -> u64 {
    metric(gateway, &format!("oncehook_config_reloads_total{{result=\"{result}\"}}")).await
}

/// Until so many reloads have come to `result`.
async fn reloaded(gateway: &Gateway, result: &str, times: u64) {
    let what = format!("{times} reloads are {result}");
    until(&what, async || reloads(gateway, result).await >= times).await;
}

/// The event `number`, signed with the other key.
fn by_other(number: u64) -> Signed {
    let body = event(EventKind::EgressEnded, number, &format!("EV_{number}")).body;
    Signed::by(OTHER_KEY, OTHER_SECRET, body)
}

fn held(gate: &Arc<Gate>) -> Action {
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    Action::raw("").and(Piece::Gate(Arc::clone(gate))).and_bytes(ok)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_brings_a_key_a_route_and_a_limit_and_disturbs_nothing_under_way() {
    let gate = Arc::new(Gate::default());
    let (old, new) = (Backend::always(held(&gate)), Backend::always(Action::status(200)));
    let gateway = Gateway::start(&configuration(&old, &[], &["/webhook"]));
    let first = Sender::to(&gateway.url("/webhook"));
    let mut resting = TcpStream::connect(gateway.address()).await.unwrap();
    let get = "GET /other HTTP/1.1\r\nhost: gateway\r\n\r\n";
    assert!(exchange(&mut resting, get).await.starts_with("HTTP/1.1 404"));
    let waiting =
        tokio::spawn(async move { first.post(&event(EventKind::EgressEnded, 1, "EV_1")).await });
    until("the backend has the event", async || old.requests().len() == 1).await;
    let second = Sender::to(&gateway.url("/second"));
    assert_eq!(second.post(&by_other(2)).await.status, 404);
    let webhook = Sender::to(&gateway.url("/webhook"));
    assert_eq!(webhook.post(&by_other(2)).await.status, 401);

    let lines = [&*other_key(), "limits.body_bytes_max = \"1KiB\"", "claim.join_wait = \"1s\""];
    replace(gateway.file(), &configuration(&new, &lines, &["/webhook", "/second"]));
    gateway.signal("HUP");
    reloaded(&gateway, "applied", 1).await;

    assert_eq!(second.post(&by_other(2)).await.word, "forwarded");
    assert_eq!(webhook.post(&by_other(3)).await.word, "forwarded");
    assert_eq!(webhook.post(&Signed::new(vec![b' '; 1025])).await.status, 413);
    assert_eq!(new.requests().len(), 2);
    assert!(exchange(&mut resting, get).await.starts_with("HTTP/1.1 404"), "the connection lives");

    // A copy of what is under way at the old backend waits for it: single flights outlive the reload.
    let sender = Sender::to(&gateway.url("/webhook"));
    let copy =
        tokio::spawn(async move { sender.post(&event(EventKind::EgressEnded, 1, "EV_1b")).await });
    until("both copies are in flight", async || metric(&gateway, "oncehook_in_flight").await >= 2)
        .await;
    gate.open();
    assert_eq!(waiting.await.unwrap().word, "forwarded");
    assert_eq!(copy.await.unwrap().word, "collapsed");
    assert_eq!(webhook.post(&event(EventKind::EgressEnded, 1, "EV_1c")).await.word, "duplicate");
    assert_eq!((old.requests().len(), new.requests().len()), (1, 2));

    let log = gateway.log();
    let told = log.iter().find(|line| line.contains("configuration reloaded")).unwrap();
    for key in ["keys.APIother", "limits.body_bytes_max", "route[1].path", "upstream.backend"] {
        assert!(told.contains(key), "{key} is not in {told}");
    }
    assert!(!log.iter().any(|line| line.contains(OTHER_SECRET)));
}

#[tokio::test(flavor = "multi_thread")]
async fn terms_and_limits_of_the_protocol_hold_for_the_next_copy() {
    let gate = Arc::new(Gate::default());
    let backend = Backend::always(held(&gate));
    let gateway = Gateway::start(&configuration(&backend, &[], &["/webhook"]));
    let lines = ["limits.followers_max = 1", "claim.guard = \"1s\""];
    replace(gateway.file(), &configuration(&backend, &lines, &["/webhook"]));
    gateway.signal("HUP");
    reloaded(&gateway, "applied", 1).await;
    let mut copies = JoinSet::new();
    for _ in 0..3 {
        let sender = Sender::to(&gateway.url("/webhook"));
        let copy = event(EventKind::EgressEnded, 1, "EV_1");
        copies.spawn(async move { sender.post(&copy).await });
    }
    // One leads, one may wait for it, and whichever is the third is told to come again after the new guard.
    let told = copies.join_next().await.unwrap().unwrap();
    assert_eq!((told.status, told.headers["retry-after"].to_str().unwrap()), (503, "1"));
    gate.open();
    assert!(copies.join_all().await.iter().all(|told| told.status == 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_gone_signs_no_more_and_a_route_that_is_gone_takes_nothing() {
    let backend = Backend::always(Action::status(200));
    let lines = [&*other_key()];
    let gateway = Gateway::start(&configuration(&backend, &lines, &["/webhook", "/second"]));
    let (webhook, second) =
        (Sender::to(&gateway.url("/webhook")), Sender::to(&gateway.url("/second")));
    assert_eq!(webhook.post(&by_other(1)).await.word, "forwarded");
    assert_eq!(second.post(&by_other(2)).await.word, "forwarded");
    replace(gateway.file(), &configuration(&backend, &[], &["/webhook"]));
    gateway.signal("HUP");
    reloaded(&gateway, "applied", 1).await;
    assert_eq!(webhook.post(&by_other(1)).await.status, 401);
    assert_eq!(second.post(&by_other(2)).await.status, 404);
    gateway.signal("HUP");
    reloaded(&gateway, "unchanged", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_configuration_changes_nothing_and_is_told_everywhere() {
    let backend = Backend::always(Action::status(200));
    let good = configuration(&backend, &[], &["/webhook"]);
    let gateway = Gateway::start(&good);
    let sender = Sender::to(&gateway.url("/webhook"));
    let successful = "oncehook_config_last_reload_successful";
    let since = "oncehook_config_last_reload_success_timestamp_seconds";
    assert_eq!(metric(&gateway, successful).await, 1);
    let at_start = metric(&gateway, since).await;
    assert!(at_start > 1_700_000_000, "{at_start}");

    // One part of it is new and right, two are wrong.
    let lines = [&*other_key(), "claim.lease = \"soon\"", "limits.body_byte_max = 1"];
    replace(gateway.file(), &configuration(&backend, &lines, &["/webhook"]));
    gateway.signal("HUP");
    reloaded(&gateway, "rejected", 1).await;
    assert_eq!(metric(&gateway, successful).await, 0);
    assert_eq!(metric(&gateway, since).await, at_start);
    let status = status(&gateway).await;
    assert_eq!(status["reload"]["result"], "rejected");
    assert_eq!(status["ready"], true);
    let error = status["reload"]["error"].as_str().unwrap();
    for part in ["claim.lease", "did you mean `body_bytes_max`", "oncehook.toml:"] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    let log = gateway.log();
    let told = log.iter().find(|line| line.contains("rejected")).unwrap();
    assert!(told.contains("claim.lease") && told.contains("\"ERROR\""), "{told}");
    assert!(!log.iter().any(|line| line.contains(OTHER_SECRET)));
    assert_eq!(sender.post(&by_other(1)).await.status, 401, "nothing of it holds");
    let told = sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await;
    assert_eq!(told.word, "forwarded", "the old one still does");

    replace(gateway.file(), &good);
    gateway.signal("HUP");
    reloaded(&gateway, "unchanged", 1).await;
    assert_eq!(metric(&gateway, successful).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_webhook_fails_while_the_configuration_is_reloaded_twenty_times() {
    const EVENTS: u64 = 2_000;
    const SENDERS: u64 = 8;
    let (one, two) = (Backend::always(Action::status(200)), Backend::always(Action::status(200)));
    // TLS, so that streams of one HTTP/2 connection meet old and new services.
    let with = |backend: &Backend, lines: &[&str]| {
        let plain = configuration(backend, lines, &["/webhook"]);
        plain.replace("tls.enabled = false", "tls.self_signed = true")
    };
    let gateway = Gateway::start(&with(&one, &[]));
    let url = format!("https://{}/webhook", gateway.address());
    let mut senders = Vec::new();
    for first in 0..SENDERS {
        let sender = Sender::to(&url);
        senders.push(tokio::spawn(async move {
            for number in (first..EVENTS).step_by(8) {
                let told = sender.post(&event(EventKind::EgressEnded, number, "EV_1")).await;
                assert_eq!((told.status, told.word.as_str()), (200, "forwarded"), "{number}");
                let told = sender.post(&event(EventKind::EgressEnded, number, "EV_2")).await;
                assert_eq!((told.status, told.word.as_str()), (200, "duplicate"), "{number}");
            }
        }));
    }
    let mut during = 0;
    for round in 1..=20_u32 {
        let backend = if round % 2 == 0 { &one } else { &two };
        let limit = format!("limits.followers_max = {}", 100 + round);
        replace(gateway.file(), &with(backend, &[&limit]));
        gateway.signal("HUP");
        reloaded(&gateway, "applied", u64::from(round)).await;
        during += u32::from(senders.iter().any(|sender| !sender.is_finished()));
        // So that the rounds spread over the webhooks.
        let so_far = || (one.requests().len() + two.requests().len()) as u64;
        let share = (EVENTS * u64::from(round)) / 20;
        until("the senders go on", async || so_far() >= share).await;
    }
    for sender in senders {
        tokio::time::timeout(Duration::from_mins(1), sender).await.unwrap().unwrap();
    }
    assert!(during >= 19, "only {during} reloads met webhooks");
    assert_eq!(one.requests().len() + two.requests().len(), 2_000);
    assert!(one.requests().len() > 200 && two.requests().len() > 200, "both had their share");
    let counters = status(&gateway).await["counters"].clone();
    assert_eq!(
        (counters["forwarded"].as_u64(), counters["failed"].as_u64()),
        (Some(2_000), Some(0))
    );
    assert_eq!(counters["duplicates"], 2_000);
}
