//! What happens while the store cannot be asked.

use oncehook::webhook::event::EventKind;

use super::{metric, through_redis};
use crate::support::backend::{Action, Backend};
use crate::support::gateway::Gateway;
use crate::support::redis::{RedisServer, until};
use crate::support::sender::{Sender, event};

#[tokio::test(flavor = "multi_thread")]
async fn reject_answers_503_until_the_store_is_back() {
    let mut redis = RedisServer::start().await;
    let backend = Backend::always(Action::status(200));
    let mut gateway =
        Gateway::start(&through_redis(&backend, &redis.url(), "store.on_store_error = \"reject\""));
    let sender = Sender::to(&gateway.url("/webhook"));
    redis.kill();
    let told = sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await;
    assert_eq!((told.status, told.word.as_str()), (503, "store-unavailable"));
    assert!(backend.requests().is_empty());
    gateway.wait_for_line("the store cannot be asked");
    redis.restart().await;
    until("the store is asked again", async || {
        sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await.status == 200
    })
    .await;
    gateway.wait_for_line("the store answers again");
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn local_goes_on_alone_and_writes_back_what_it_learnt() {
    let mut redis = RedisServer::start().await;
    let backend = Backend::always(Action::status(200));
    let configuration = through_redis(&backend, &redis.url(), "store.on_store_error = \"local\"");
    let (one, two) = (Gateway::start(&configuration), Gateway::start(&configuration));
    let sender = Sender::to(&one.url("/webhook"));
    redis.kill();
    let told = sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await;
    assert_eq!((told.status, told.word.as_str()), (200, "forwarded"));
    let told = sender.post(&event(EventKind::EgressEnded, 1, "EV_2")).await;
    assert_eq!((told.status, told.word.as_str()), (200, "duplicate"), "this process knows");
    until("the gauge says so", async || metric(&one, "oncehook_store_degraded").await == 1).await;
    assert_eq!(
        backend.only().one("oncehook-possible-duplicate"),
        Some("1"),
        "other replicas could not be asked"
    );

    redis.restart().await;
    until("the gauge is back", async || metric(&one, "oncehook_store_degraded").await == 0).await;
    until("the fact is written", async || redis.command::<u64>(&["dbsize"]).await > 0).await;
    until("the other replica knows it", async || {
        let told =
            Sender::to(&two.url("/webhook")).post(&event(EventKind::EgressEnded, 1, "EV_3")).await;
        told.status == 200
    })
    .await;
    assert_eq!(backend.requests().len(), 1, "nobody forwarded it again");
}

#[tokio::test(flavor = "multi_thread")]
async fn reject_then_local_rides_out_a_short_outage_first() {
    let mut redis = RedisServer::start().await;
    let backend = Backend::always(Action::status(200));
    let policy =
        "store.on_store_error = \"reject-then-local\"\nstore.on_store_error_after = \"2s\"";
    let gateway = Gateway::start(&through_redis(&backend, &redis.url(), policy));
    let sender = Sender::to(&gateway.url("/webhook"));
    redis.kill();
    let began = std::time::Instant::now();
    let told = sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await;
    assert_eq!((told.status, told.word.as_str()), (503, "store-unavailable"));
    until("it goes on alone", async || {
        sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await.status == 200
    })
    .await;
    assert!(began.elapsed() >= std::time::Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_not_there_yet_does_not_keep_a_gateway_from_starting() {
    let mut redis = RedisServer::start().await;
    let backend = Backend::always(Action::status(200));
    redis.kill();
    let gateway =
        Gateway::start(&through_redis(&backend, &redis.url(), "store.on_store_error = \"reject\""));
    redis.restart().await;
    let sender = Sender::to(&gateway.url("/webhook"));
    until("the store is asked", async || {
        sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await.status == 200
    })
    .await;
}
