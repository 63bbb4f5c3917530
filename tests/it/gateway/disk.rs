//! Gateways with records in a file: killed, started twice, started on a damaged file.

use std::path::Path;
use std::sync::Arc;

use oncehook::webhook::event::EventKind;

use super::{metric, to};
use crate::support::backend::{Action, Backend, Gate, Piece};
use crate::support::gateway::{Gateway, Surroundings};
use crate::support::process;
use crate::support::redis::until;
use crate::support::sender::{Sender, event};

/// How many senders post at once.
const LANES: usize = 8;

fn on_disk(backend: &Backend, file: &Path, more: &str) -> String {
    let file = file.display();
    to(backend, &format!("store.kind = \"disk\"\nstore.disk.path = \"{file}\"\n{more}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_settled_before_a_kill_is_a_duplicate_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records.redb");
    let backend = Backend::always(Action::status(200));
    let configuration = on_disk(&backend, &file, "");
    let mut gateway = Gateway::start(&configuration);
    let sender = Sender::to(&gateway.url("/webhook"));
    for number in 0..20 {
        let told = sender.post(&event(EventKind::EgressEnded, number, "EV_1")).await;
        assert_eq!((told.status, told.word.as_str()), (200, "forwarded"));
    }
    gateway.kill();
    let gateway = Gateway::start(&configuration);
    let sender = Sender::to(&gateway.url("/webhook"));
    for number in 0..20 {
        let told = sender.post(&event(EventKind::EgressEnded, number, "EV_2")).await;
        assert_eq!((told.status, told.word.as_str()), (200, "duplicate"));
    }
    assert_eq!(backend.requests().len(), 20);
    assert_eq!(metric(&gateway, "oncehook_store_disk_records").await, 20);
    assert_eq!(metric(&gateway, "oncehook_store_disk_files_set_aside_total").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_in_mid_forward_at_a_kill_is_forwarded_again_and_marked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records.redb");
    let gate = Arc::new(Gate::default());
    let held = Action::raw("").and(Piece::Gate(Arc::clone(&gate)));
    let backend = Backend::in_turn(vec![held, Action::status(200)]);
    let terms = "claim.lease = \"3s\"\nclaim.guard = \"1500ms\"\nclaim.join_wait = \"500ms\"\nupstream.timeout = \"1s\"\n\
                 upstream.connect_timeout = \"1s\"";
    let configuration = on_disk(&backend, &file, terms);
    let mut gateway = Gateway::start(&configuration);
    let sender = Sender::to(&gateway.url("/webhook"));
    let lost = tokio::spawn(async move {
        sender.try_post(&event(EventKind::EgressEnded, 1, "EV_1")).await.is_err()
    });
    until("the backend has the event", async || backend.requests().len() == 1).await;
    gateway.kill();
    assert!(lost.await.unwrap(), "the sender gets no answer from a gateway that is gone");
    gate.open();

    let gateway = Gateway::start(&configuration);
    let sender = Sender::to(&gateway.url("/webhook"));
    let told = sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await;
    assert_eq!(told.status, 503, "the lease still runs");
    until("the lease has lapsed", async || {
        sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await.status == 200
    })
    .await;
    let requests = backend.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].one("oncehook-possible-duplicate"), Some("1"));
    assert_eq!(requests[1].one("oncehook-attempt"), Some("2"));
    assert_eq!(requests[0].one("idempotency-key"), requests[1].one("idempotency-key"));
    assert_eq!(sender.post(&event(EventKind::EgressEnded, 1, "EV_2")).await.word, "duplicate");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_on_one_file_says_which_file_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records.redb");
    let backend = Backend::always(Action::status(200));
    let configuration = on_disk(&backend, &file, "");
    let mut first = Gateway::start(&configuration);
    let keys = "[keys]\nAPItests = \"a-secret-of-at-least-thirty-two-characters\"\n";
    let config = folder.path().join("second.toml");
    let addresses = "listen.address = \"127.0.0.1:0\"\nadmin.address = \"127.0.0.1:0\"\n";
    std::fs::write(&config, format!("{addresses}{configuration}{keys}")).unwrap();
    std::process::Command::new("chmod").arg("600").arg(&config).status().unwrap();
    let arguments = ["run", "--config", &config.display().to_string()];
    let (code, _, said) = process::output(&arguments);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains(&file.display().to_string()), "{said}");
    assert!(said.contains("open in another process") && said.contains("fuser -v"), "{said}");

    first.signal("TERM");
    assert!(first.wait().success());
    // The file is free once the first has ended in order.
    let next = Gateway::start(&configuration);
    let told =
        Sender::to(&next.url("/webhook")).post(&event(EventKind::EgressEnded, 1, "EV_1")).await;
    assert_eq!(told.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_named_kept_aside_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records.redb");
    std::fs::write(&file, vec![0x5a; 100_000]).unwrap();
    let backend = Backend::always(Action::status(200));
    let mut gateway = Gateway::start(&on_disk(&backend, &file, ""));
    let line = gateway.wait_for_line("is damaged and was set aside");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["level"].as_str().map(str::to_lowercase).as_deref(), Some("error"));
    let kept = line["kept_as"].as_str().unwrap();
    assert!(kept.starts_with(&format!("{}.corrupt-", file.display())), "{kept}");
    assert_eq!(std::fs::read(kept).unwrap(), vec![0x5a; 100_000]);
    assert_eq!(metric(&gateway, "oncehook_store_disk_files_set_aside_total").await, 1);
    let told =
        Sender::to(&gateway.url("/webhook")).post(&event(EventKind::EgressEnded, 1, "EV_1")).await;
    assert_eq!((told.status, told.word.as_str()), (200, "forwarded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_nothing_more_is_refused_and_used_again_when_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records.redb");
    let backend = Backend::always(Action::status(200));
    let configuration = on_disk(&backend, &file, "store.on_store_error = \"reject\"");
    let surroundings = Surroundings { survives_full_files: true, ..Surroundings::default() };
    let mut gateway = Gateway::start_in(&surroundings, &configuration);
    let sender = Sender::to(&gateway.url("/webhook"));
    assert_eq!(sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await.word, "forwarded");

    gateway.limit_files("1");
    let told = sender.post(&event(EventKind::EgressEnded, 2, "EV_2")).await;
    assert_eq!((told.status, told.word.as_str()), (503, "store-unavailable"));
    let line = gateway.wait_for_line("the store's file failed; it is opened anew");
    assert!(
        line.contains(&file.display().to_string()) && line.contains("File too large"),
        "{line}"
    );
    assert_eq!(backend.requests().len(), 1, "nothing is forwarded that cannot be remembered");
    until("the gauge says so", async || metric(&gateway, "oncehook_store_degraded").await == 1)
        .await;

    gateway.limit_files("unlimited");
    until("the event is taken", async || {
        sender.post(&event(EventKind::EgressEnded, 2, "EV_2")).await.status == 200
    })
    .await;
    gateway.wait_for_line("the store's file is open again");
    assert_eq!(backend.requests().len(), 2);
    assert_eq!(metric(&gateway, "oncehook_store_disk_files_set_aside_total").await, 0);
    gateway.kill();
    let gateway = Gateway::start(&configuration);
    let sender = Sender::to(&gateway.url("/webhook"));
    for number in 1..=2 {
        let told = sender.post(&event(EventKind::EgressEnded, number, "EV_3")).await;
        assert_eq!(told.word, "duplicate", "what was written before and after is there");
    }
}

/// Posts event after event until nobody answers; returns the numbers of those that were delivered.
async fn post_until_the_end(sender: Sender, first: u64) -> Vec<u64> {
    let mut delivered = Vec::new();
    for number in (first..).step_by(LANES) {
        let copy = event(EventKind::TrackPublished, number, &format!("EV_{number}"));
        match sender.try_post(&copy).await {
            Ok(told) if told.status == 200 => delivered.push(number),
            Ok(_) => {}
            Err(_) => return delivered,
        }
    }
    delivered
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_acknowledged_before_a_kill_under_load_is_known_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records.redb");
    let backend = Backend::always(Action::status(200));
    let configuration = on_disk(&backend, &file, "");
    let mut gateway = Gateway::start(&configuration);
    let mut acknowledged = Vec::new();
    for kills in 1..=3_u64 {
        let mut lanes = tokio::task::JoinSet::new();
        for lane in (kills * 100_000..).take(LANES) {
            lanes.spawn(post_until_the_end(Sender::to(&gateway.url("/webhook")), lane));
        }
        let so_far = backend.requests().len();
        until("some events came", async || backend.requests().len() > so_far + 150).await;
        gateway.kill();
        let delivered = lanes.join_all().await.concat();
        assert!(delivered.len() > 100, "only {} were delivered", delivered.len());
        acknowledged.extend(delivered);
        gateway = Gateway::start(&configuration);
    }
    let forwarded = backend.requests().len();
    let sender = Sender::to(&gateway.url("/webhook"));
    for number in acknowledged {
        let copy = event(EventKind::TrackPublished, number, &format!("EV_again_{number}"));
        assert_eq!(sender.post(&copy).await.word, "duplicate", "{number}");
    }
    assert_eq!(backend.requests().len(), forwarded);
    assert_eq!(metric(&gateway, "oncehook_store_disk_files_set_aside_total").await, 0);
}
