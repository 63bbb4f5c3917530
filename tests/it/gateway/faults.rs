//! What happens while the store cannot be asked.

use oncehook::webhook::event::EventKind;

use super::{metric, page, through_redis};
use crate::support::backend::{Action, Backend};
use crate::support::gateway::Gateway;
use crate::support::redis::{RedisServer, until};
use crate::support::sender::{Sender, event};

/// How many senders post at once.
const LANES: u64 = 8;
const LANES_STEP: usize = 8;

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

/// Posts events 0 to `count` with an id that begins with `id`, some at once, and returns how each was answered.
async fn post_all(url: &str, count: u64, id: &'static str) -> Vec<(u16, String)> {
    let mut lanes = tokio::task::JoinSet::new();
    for lane in 0..LANES {
        let sender = Sender::to(url);
        lanes.spawn(async move { post_lane(&sender, (lane..count).step_by(LANES_STEP), id).await });
    }
    lanes.join_all().await.concat()
}

async fn post_lane(
    sender: &Sender,
    numbers: impl Iterator<Item = u64>,
    id: &str,
) -> Vec<(u16, String)> {
    let mut told = Vec::new();
    for number in numbers {
        let copy = event(EventKind::TrackPublished, number, &format!("{id}_{number}"));
        let answer = sender.post(&copy).await;
        told.push((answer.status, answer.word));
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_facts_are_written_back_at_a_bounded_rate_and_another_replica_knows_them() {
    const EVENTS: u64 = 2_000;
    let mut redis = RedisServer::start().await;
    let backend = Backend::always(Action::status(200));
    let configuration = through_redis(&backend, &redis.url(), "store.on_store_error = \"local\"");
    let (mut one, two) = (Gateway::start(&configuration), Gateway::start(&configuration));
    redis.kill();
    let told = post_all(&one.url("/webhook"), EVENTS, "EV_a").await;
    assert_eq!(told.len(), 2_000);
    assert!(told.iter().all(|told| *told == (200, "forwarded".to_owned())));
    let told = post_all(&one.url("/webhook"), 500, "EV_b").await;
    assert!(told.iter().all(|told| *told == (200, "duplicate".to_owned())), "this process knows");
    one.wait_for_line("the store cannot be asked");
    assert!((2_000..=2_500).contains(&metric(&one, "oncehook_unfinished").await));

    redis.restart().await;
    let written = "oncehook_written_back_total{operation=\"settle\",result=\"fenced\"}";
    until("the first fact is written back", async || metric(&one, written).await > 0).await;
    let began = std::time::Instant::now();
    until("all are", async || metric(&one, written).await == 2_000).await;
    let took = began.elapsed();
    assert!(
        took >= std::time::Duration::from_millis(1_200),
        "a returning store is not flooded: {took:?}"
    );
    eprintln!("2,000 facts were written back in {took:?}");
    let line = one.wait_for_line("what was learnt while the store was out is written back");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (line["facts_written"].as_u64(), line["facts_dropped"].as_u64()),
        (Some(2_000), Some(0))
    );
    one.wait_for_line("the store answers again");
    let text = page(&one, "/metrics").await.1;
    let seconds =
        text.lines().find_map(|line| line.strip_prefix("oncehook_store_degraded_seconds_total "));
    let seconds: f64 = seconds.unwrap().parse().unwrap();
    assert!(seconds > 0.2, "{seconds}");
    let dropped = "oncehook_unfinished_dropped_total{operation=\"settle\"}";
    assert_eq!(metric(&one, dropped).await, 0);

    until("the other replica asks the store", async || {
        metric(&two, "oncehook_store_degraded").await == 0
    })
    .await;
    let told = post_all(&two.url("/webhook"), EVENTS, "EV_c").await;
    assert!(told.iter().all(|told| *told == (200, "duplicate".to_owned())), "it knows every one");
    assert_eq!(backend.requests().len(), 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_comes_back_while_a_gateway_ends_is_still_told() {
    const EVENTS: u64 = 20;
    let mut redis = RedisServer::start().await;
    let backend = Backend::always(Action::status(200));
    let configuration = through_redis(&backend, &redis.url(), "store.on_store_error = \"local\"");
    let mut one = Gateway::start(&configuration);
    redis.kill();
    let told = post_all(&one.url("/webhook"), EVENTS, "EV_a").await;
    assert!(told.iter().all(|told| *told == (200, "forwarded".to_owned())));
    one.wait_for_line("is not asked for now");
    redis.restart().await;
    // The breaker is open: only the probe finds out.
    one.signal("TERM");
    assert!(one.wait().success());
    assert_eq!(redis.records().await, 20, "{:#?}", one.log());
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
