//! One copy of every event, whatever its copies look like.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use oncehook::webhook::event::EventKind;
use oncehook::webhook::sample::{self, Subject};
use tokio::task::JoinSet;

use super::{metric, through_redis, to};
use crate::support::backend::{Action, Backend, Gate, Piece, Then};
use crate::support::gateway::Gateway;
use crate::support::redis::{RedisServer, until};
use crate::support::sender::{Sender, Signed, event};

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_event_takes_two_round_trips_and_a_known_duplicate_none() {
    let redis = RedisServer::start().await;
    let backend = Backend::always(Action::status(204));
    let gateway = Gateway::start(&through_redis(&backend, &redis.url(), ""));
    let sender = Sender::to(&gateway.url("/webhook"));

    let before = redis.store_commands().await;
    let told = sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await;
    assert_eq!((told.status, told.word.as_str()), (204, "forwarded"));
    let fresh = redis.store_commands().await;
    assert_eq!(fresh - before, 2, "the first event is claimed and settled");

    sender.post(&event(EventKind::EgressEnded, 2, "EV_2")).await;
    let second = redis.store_commands().await;
    assert_eq!(second - fresh, 2, "a fresh event is claimed and settled");

    let told = sender.post(&event(EventKind::EgressEnded, 1, "EV_3")).await;
    assert_eq!((told.status, told.word.as_str()), (204, "duplicate"));
    let third = redis.store_commands().await;
    assert_eq!(third - second, 0, "a duplicate that this process remembers needs no store");
    assert_eq!(backend.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_what_they_know_through_redis() {
    let redis = RedisServer::start().await;
    let backend = Backend::always(Action::status(200));
    let configuration = through_redis(&backend, &redis.url(), "");
    let (one, two) = (Gateway::start(&configuration), Gateway::start(&configuration));
    let told =
        Sender::to(&one.url("/webhook")).post(&event(EventKind::RoomStarted, 1, "EV_1")).await;
    assert_eq!(told.word, "forwarded");
    let told =
        Sender::to(&two.url("/webhook")).post(&event(EventKind::RoomStarted, 1, "EV_2")).await;
    assert_eq!((told.status, told.word.as_str()), (200, "duplicate"));
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_waits_for_the_one_that_another_replica_forwards() {
    let redis = RedisServer::start().await;
    let gate = Arc::new(Gate::default());
    let held = Action::raw("")
        .and(Piece::Gate(Arc::clone(&gate)))
        .and_bytes("HTTP/1.1 201 Made\r\ncontent-length: 0\r\n\r\n");
    let backend = Backend::always(held);
    let configuration = through_redis(&backend, &redis.url(), "");
    let (one, two) = (Gateway::start(&configuration), Gateway::start(&configuration));
    let (first, second) = (Sender::to(&one.url("/webhook")), Sender::to(&two.url("/webhook")));
    let leader =
        tokio::spawn(async move { first.post(&event(EventKind::RoomStarted, 1, "EV_1")).await });
    until("the backend has the first copy", async || !backend.requests().is_empty()).await;
    let claims = redis.calls("evalsha").await;
    let follower =
        tokio::spawn(async move { second.post(&event(EventKind::RoomStarted, 1, "EV_2")).await });
    until("the second copy has asked twice", async || redis.calls("evalsha").await >= claims + 2)
        .await;
    gate.open();
    assert_eq!(leader.await.unwrap().word, "forwarded");
    let told = follower.await.unwrap();
    assert_eq!((told.status, told.word.as_str()), (201, "duplicate"));
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_copies_of_ten_thousand_events_with_distinct_ids_are_ten_thousand() {
    const EVENTS: u64 = 10_000;
    const NODES: u64 = 3;
    const AT_ONCE: u64 = 32;
    let redis = RedisServer::start().await;
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&through_redis(&backend, &redis.url(), ""));
    let mut nodes = JoinSet::new();
    for node in 0..NODES {
        let sender = Arc::new(Sender::to(&gateway.url("/webhook")));
        for lane in 0..AT_ONCE {
            let sender = Arc::clone(&sender);
            nodes.spawn(async move {
                for number in (lane..EVENTS).step_by(AT_ONCE as usize) {
                    let copy =
                        event(EventKind::TrackPublished, number, &format!("EV_{node}_{number}"));
                    let told = sender.post(&copy).await;
                    assert_eq!(told.status, 200, "{told:?}");
                }
            });
        }
    }
    while let Some(ended) = nodes.join_next().await {
        ended.unwrap();
    }
    let requests = backend.requests();
    assert_eq!(requests.len() as u64, EVENTS);
    let mut keys = HashMap::new();
    for request in &requests {
        *keys.entry(request.one("idempotency-key").unwrap().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(keys.len() as u64, EVENTS, "each event has a key of its own");
    assert_adds_up(&gateway, EVENTS * NODES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_and_fifty_simultaneous_copies_of_one_event_are_one() {
    const COPIES: usize = 250;
    let gate = Arc::new(Gate::default());
    let held = Action::raw("")
        .and(Piece::Gate(Arc::clone(&gate)))
        .and_bytes("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let backend = Backend::always(held);
    let gateway = Gateway::start(&to(&backend, ""));
    let sender = Arc::new(Sender::to(&gateway.url("/webhook")));
    let mut copies = JoinSet::new();
    for copy in 0..COPIES {
        let sender = Arc::clone(&sender);
        copies.spawn(async move {
            sender.post(&event(EventKind::RoomFinished, 1, &format!("EV_{copy}"))).await
        });
    }
    until("all copies are under way", async || {
        metric(&gateway, "oncehook_in_flight").await >= COPIES as u64
    })
    .await;
    gate.open();
    let mut words = HashMap::new();
    while let Some(told) = copies.join_next().await {
        let told = told.unwrap();
        assert_eq!(told.status, 200, "{told:?}");
        *words.entry(told.word).or_insert(0) += 1;
    }
    assert_eq!(words.get("forwarded"), Some(&1), "{words:?}");
    // One whose handling began after the answer finds the event settled.
    let shared = words.get("collapsed").unwrap_or(&0) + words.get("duplicate").unwrap_or(&0);
    assert_eq!(shared, COPIES - 1, "{words:?}");
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_beyond_those_that_may_wait_are_told_to_come_again() {
    let gate = Arc::new(Gate::default());
    let held = Action::raw("")
        .and(Piece::Gate(Arc::clone(&gate)))
        .and_bytes("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let backend = Backend::always(held);
    let gateway = Gateway::start(&to(&backend, "limits.followers_max = 1"));
    let sender = Arc::new(Sender::to(&gateway.url("/webhook")));
    let mut copies = JoinSet::new();
    for copy in 0..3 {
        let sender = Arc::clone(&sender);
        copies.spawn(async move {
            sender.post(&event(EventKind::RoomFinished, 1, &format!("EV_{copy}"))).await
        });
    }
    // One leads, one may wait; whichever of them came last is told at once.
    let told = copies.join_next().await.unwrap().unwrap();
    assert_eq!((told.status, told.word.as_str()), (503, "busy"));
    let after: u64 = told.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=10).contains(&after));
    gate.open();
    for told in copies.join_all().await {
        assert_eq!(told.status, 200);
    }
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_distinct_events_of_one_type_in_one_second_both_arrive() {
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&to(&backend, ""));
    let sender = Sender::to(&gateway.url("/webhook"));
    let second = 1_795_574_895;
    let at = oncehook::clock::UnixTime::from_epoch(Duration::from_secs(second));
    for number in 1..=2 {
        let subject = Subject::numbered(number, at);
        let body =
            sample::body(EventKind::ParticipantJoined, &subject, &format!("EV_{number}"), second);
        assert_eq!(sender.post(&Signed::new(body)).await.word, "forwarded");
    }
    assert_eq!(backend.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_widely_copied_key_loses_the_second_of_two_events_in_one_second() {
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&to(&backend, "dedup.identity = \"{createdAt}:{event}\""));
    let sender = Sender::to(&gateway.url("/webhook"));
    let second = 1_795_574_895;
    let at = oncehook::clock::UnixTime::from_epoch(Duration::from_secs(second));
    let mut words = Vec::new();
    for number in 1..=2 {
        let subject = Subject::numbered(number, at);
        let body =
            sample::body(EventKind::ParticipantJoined, &subject, &format!("EV_{number}"), second);
        words.push(sender.post(&Signed::new(body)).await.word);
    }
    assert_eq!(words, ["forwarded", "duplicate"], "this is why it is not the default");
    assert_eq!(metric(&gateway, "oncehook_key_conflicts_total").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_waits_for_another_event_of_its_key_is_a_conflict_too() {
    let gate = Arc::new(Gate::default());
    let slow = Action::raw("")
        .and(Piece::Gate(Arc::clone(&gate)))
        .and_bytes("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let backend = Backend::always(slow);
    let gateway = Gateway::start(&to(&backend, "dedup.identity = \"{createdAt}:{event}\""));
    let second = 1_795_574_895;
    let at = oncehook::clock::UnixTime::from_epoch(Duration::from_secs(second));
    let mut copies = JoinSet::new();
    for number in [1, 2, 2] {
        let subject = Subject::numbered(number, at);
        let body = sample::body(EventKind::ParticipantJoined, &subject, "EV_1", second);
        let sender = Sender::to(&gateway.url("/webhook"));
        copies.spawn(async move { sender.post(&Signed::new(body)).await.word });
    }
    until("all are under way", async || metric(&gateway, "oncehook_in_flight").await >= 3).await;
    gate.open();
    let words = copies.join_all().await;
    assert_eq!(words.iter().filter(|word| *word == "forwarded").count(), 1, "{words:?}");
    // Either the one of its kind was forwarded, and two differ from it, or one of the two, and one differs.
    let forwarded = String::from_utf8(backend.only().body).unwrap();
    let is_alone = forwarded.contains(&Subject::numbered(1, at).participant_sid);
    let conflicts = metric(&gateway, "oncehook_key_conflicts_total").await;
    assert_eq!(conflicts, if is_alone { 2 } else { 1 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_forwards_everything_and_says_what_it_would_have_collapsed() {
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&to(&backend, "dedup.shadow = true"));
    let sender = Sender::to(&gateway.url("/webhook"));
    for copy in 0..3 {
        let told = sender.post(&event(EventKind::EgressEnded, 1, &format!("EV_{copy}"))).await;
        assert_eq!((told.status, told.word.as_str()), (200, "forwarded"));
    }
    assert_eq!(backend.requests().len(), 3);
    assert_eq!(metric(&gateway, "oncehook_shadow_would_collapse_total").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_shadow_marks_is_logged_as_marked() {
    let backend = Backend::in_turn(vec![Action::silent(Then::Close), Action::status(200)]);
    let gateway = Gateway::start(&to(&backend, "dedup.shadow = true"));
    let sender = Sender::to(&gateway.url("/webhook"));
    for (id, status) in [("EV_1", 504), ("EV_2", 200)] {
        assert_eq!(sender.post(&event(EventKind::EgressEnded, 1, id)).await.status, status);
    }
    let requests = backend.requests();
    let marks: Vec<_> = requests.iter().map(|one| one.one("oncehook-possible-duplicate")).collect();
    assert_eq!(marks, [None, Some("1")]);
    let logged = |id: &str, said: &str| {
        let lines = gateway.log();
        lines.iter().any(|line| line.contains(id) && line.contains(said))
    };
    for (id, said) in
        [("EV_1", r#""possible_duplicate":false"#), ("EV_2", r#""possible_duplicate":true"#)]
    {
        until("the log tells the mark", async || logged(id, said)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_backend_gets_is_what_livekit_sent() {
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&to(&backend, ""));
    let signed = event(EventKind::TrackPublished, 1, "EV_1");
    Sender::to(&gateway.url("/webhook")).post(&signed).await;
    let request = backend.only();
    assert_eq!(request.line(), "POST /hook HTTP/1.1");
    assert_eq!(request.body, signed.body);
    assert_eq!(request.one("authorization"), Some(signed.token.as_str()));
    assert_eq!(request.one("content-type"), Some("application/webhook+json"));
    assert_eq!(request.one("user-agent"), Some("Go-http-client/2.0"));
    assert_eq!(request.one("oncehook-attempt"), Some("1"));
    assert_eq!(request.one("oncehook-possible-duplicate"), None);
    assert_eq!(request.one("idempotency-key").map(str::len), Some(32));
}

/// Once nothing is in flight: received = forwarded + duplicate + collapsed + refused + failed.
pub(super) async fn assert_adds_up(gateway: &Gateway, received: u64) {
    let text = super::page(gateway, "/metrics").await.1;
    let sum = |family: &str| -> u64 {
        let series = text.lines().filter(|line| line.starts_with(&format!("{family}{{")));
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    assert_eq!(sum("oncehook_webhooks_received_total"), received);
    assert_eq!(sum("oncehook_webhooks_answered_total"), received);
}
