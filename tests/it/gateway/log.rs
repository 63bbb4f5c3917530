//! The log of a real process: whole, in order, prompt, and nothing that anybody waits for.

use oncehook::webhook::event::EventKind;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{metric, to};
use crate::support::backend::{Action, Backend};
use crate::support::gateway::Gateway;
use crate::support::redis::until;
use crate::support::sender::{Sender, event};

const DROPPED: &str = "oncehook_log_lines_dropped_total";

/// The ids of the webhooks that have been logged, in order; every line must be whole.
fn logged(gateway: &Gateway) -> Vec<String> {
    let lines = gateway.log();
    let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).expect(line));
    lines.filter_map(|line| Some(line["id"].as_str()?.to_owned())).collect()
}

/// How many lines the log itself says it lacks.
fn told(gateway: &Gateway) -> u64 {
    let lines = gateway.log();
    let told = lines.iter().filter(|line| line.contains("log lines were dropped"));
    told.map(|line| serde_json::from_str::<Value>(line).unwrap()["lines"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_logged_line_by_line_in_order_and_at_once() {
    const SENDERS: usize = 8;
    const EACH: usize = 250;
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&to(&backend, ""));
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        let sender = Sender::to(&gateway.url("/webhook"));
        senders.spawn(async move {
            for copy in 0..EACH {
                let id = format!("EV_{number}_{copy}");
                let told = sender.post(&event(EventKind::RoomStarted, 1, &id)).await;
                assert_eq!(told.status, 200);
            }
        });
    }
    senders.join_all().await;
    // Nothing else happens from here on: the last lines need no others to push them out.
    until("all are logged", async || logged(&gateway).len() >= SENDERS * EACH).await;
    let logged = logged(&gateway);
    for number in 0..SENDERS {
        let prefix = format!("EV_{number}_");
        let of = logged.iter().filter_map(|id| id.strip_prefix(&prefix));
        let wanted = (0..EACH).map(|copy| copy.to_string());
        assert!(of.eq(wanted), "sender {number}");
    }
    assert_eq!((logged.len(), metric(&gateway, DROPPED).await), (SENDERS * EACH, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stops_no_webhook_and_what_it_loses_is_counted() {
    const POSTS_MAX: usize = 10_000;
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&to(&backend, ""));
    let sender = Sender::to(&gateway.url("/webhook"));
    // As long as an id may be.
    let copy = event(EventKind::RoomStarted, 1, &format!("EV_{}", "x".repeat(250)));
    let unread = gateway.leave_log_unread().await;
    let mut posted: u64 = 0;
    for round in 0..POSTS_MAX {
        assert_eq!(sender.post(&copy).await.status, 200);
        posted += 1;
        if round % 100 == 99 && metric(&gateway, DROPPED).await > 0 {
            break;
        }
    }
    let dropped = metric(&gateway, DROPPED).await;
    assert!(dropped > 0 && dropped < posted / 2, "{dropped} of {posted}");

    drop(unread);
    // What is kept goes out whenever a worker comes by.
    until("all is read, and what was dropped is told", async || {
        sender.post(&copy).await;
        posted += 1;
        let dropped = metric(&gateway, DROPPED).await;
        told(&gateway) == dropped && logged(&gateway).len() as u64 + dropped == posted
    })
    .await;
    assert!(told(&gateway) >= dropped, "{} of {dropped}", told(&gateway));
}
