//! How things end: gateways killed or told to end, senders that hang up.

use std::sync::Arc;

use oncehook::webhook::event::EventKind;

use super::{page, through_redis, to};
use crate::support::backend::{Action, Backend, Gate, Piece};
use crate::support::gateway::Gateway;
use crate::support::redis::{RedisServer, until};
use crate::support::sender::{Sender, event};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

fn held(gate: &Arc<Gate>) -> Action {
    Action::raw("").and(Piece::Gate(Arc::clone(gate))).and_bytes(OK)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_in_mid_forward_costs_one_more_copy_and_it_is_marked() {
    let redis = RedisServer::start().await;
    let gate = Arc::new(Gate::default());
    let backend = Backend::in_turn(vec![held(&gate), Action::status(200)]);
    let short = "claim.lease = \"2s\"\nclaim.guard = \"500ms\"\nupstream.timeout = \"1s\"\nupstream.connect_timeout = \"500ms\"";
    let configuration = through_redis(&backend, &redis.url(), short);
    let mut first = Gateway::start(&configuration);
    let second = Gateway::start(&configuration);
    let sender = Sender::to(&first.url("/webhook"));
    let lost = tokio::spawn(async move {
        sender.try_post(&event(EventKind::EgressEnded, 1, "EV_1")).await.is_err()
    });
    until("the backend has the event", async || backend.requests().len() == 1).await;
    first.kill();
    assert!(lost.await.unwrap(), "the sender gets no answer from a gateway that is gone");
    gate.open();

    // LiveKit tries again, at another replica, and again.
    let sender = Sender::to(&second.url("/webhook"));
    let mut told = sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await;
    for _ in 0..4 {
        if told.status == 200 {
            break;
        }
        assert_eq!(told.status, 503);
        told = sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await;
    }
    assert_eq!((told.status, told.word.as_str()), (200, "forwarded"));
    let requests = backend.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].one("oncehook-possible-duplicate"), Some("1"));
    assert_eq!(requests[1].one("oncehook-attempt"), Some("2"));
    assert_eq!(requests[0].one("idempotency-key"), requests[1].one("idempotency-key"));
    assert_eq!(sender.post(&event(EventKind::EgressEnded, 1, "EV_2")).await.word, "duplicate");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_hangs_up_in_mid_forward_leaves_the_claim_settled() {
    // HTTP/1.1: the connection ends; HTTP/2: one stream of it is reset.
    for (tls, scheme) in [("tls.enabled = false", "http"), ("tls.self_signed = true", "https")] {
        let redis = RedisServer::start().await;
        let gate = Arc::new(Gate::default());
        let backend = Backend::always(held(&gate));
        let plain = through_redis(&backend, &redis.url(), "");
        let mut one = Gateway::start(&plain.replace("tls.enabled = false", tls));
        let two = Gateway::start(&plain);
        let sender = Sender::to(&format!("{scheme}://{}/webhook", one.address()));
        let copy = event(EventKind::EgressEnded, 1, "EV_1");
        let hung_up = tokio::spawn(async move { sender.try_post(&copy).await });
        until("the backend has the event", async || backend.requests().len() == 1).await;
        hung_up.abort();
        assert!(hung_up.await.unwrap_err().is_cancelled());
        one.wait_for_line("sender-gone");
        gate.open();
        let again = event(EventKind::EgressEnded, 1, "EV_2");
        let told = Sender::to(&two.url("/webhook")).post(&again).await;
        assert_eq!((told.status, told.word.as_str()), (200, "duplicate"), "{scheme}");
        assert_eq!(backend.requests().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_told_to_end_finishes_what_it_has_begun() {
    for signal in ["TERM", "INT"] {
        let redis = RedisServer::start().await;
        let gate = Arc::new(Gate::default());
        let backend = Backend::always(held(&gate));
        let mut gateway = Gateway::start(&through_redis(&backend, &redis.url(), ""));
        assert_eq!(page(&gateway, "/readyz").await.0, 200);
        let sender = Sender::to(&gateway.url("/webhook"));
        let waiting =
            tokio::spawn(
                async move { sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await },
            );
        until("the backend has the event", async || backend.requests().len() == 1).await;
        gateway.signal(signal);
        until("it is no longer ready", async || page(&gateway, "/readyz").await.0 == 503).await;
        assert_eq!(page(&gateway, "/livez").await.0, 200, "and still alive");
        gate.open();
        let told = waiting.await.unwrap();
        assert_eq!((told.status, told.word.as_str()), (200, "forwarded"));
        assert!(gateway.wait().success(), "{}", gateway.log().join("\n"));

        let next = Gateway::start(&through_redis(&backend, &redis.url(), ""));
        let told =
            Sender::to(&next.url("/webhook")).post(&event(EventKind::EgressEnded, 1, "EV_2")).await;
        assert_eq!(told.word, "duplicate", "the claim was settled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let gate = Arc::new(Gate::default());
    let backend = Backend::always(held(&gate));
    let mut gateway = Gateway::start(&to(&backend, "").replace("\"0s\"", "\"60s\""));
    let sender = Sender::to(&gateway.url("/webhook"));
    let cut =
        tokio::spawn(
            async move { sender.try_post(&event(EventKind::EgressEnded, 1, "EV_1")).await },
        );
    until("the backend has the event", async || backend.requests().len() == 1).await;
    gateway.signal("TERM");
    until("it is no longer ready", async || page(&gateway, "/readyz").await.0 == 503).await;
    gateway.signal("TERM");
    assert!(!gateway.wait().success(), "an end that cuts something off is no success");
    assert!(cut.await.unwrap().is_err());
    gate.open();
}
