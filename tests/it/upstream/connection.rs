//! Which connection a forward goes out on, and that a stale one never makes it ambiguous.

use std::time::Duration;

use bytes::Bytes;
use oncehook::claim::exchange::Outcome;
use oncehook::upstream::Upstream;
use tokio_util::task::TaskTracker;

use super::{Copy, options, upstream};
use crate::support::backend::{Action, Backend, Reading, Then, eventually};

async fn deliver(upstream: &Upstream, times: usize) {
    for number in 0..times {
        let forwarded = Copy::new().forward(upstream).await;
        assert_eq!(
            forwarded.outcome,
            Outcome::Delivered(200),
            "forward {number}: {:?}",
            forwarded.detail
        );
    }
}

/// Forwards one after the other, each when the connection of the one before is at rest again.
async fn deliver_slowly(upstream: &Upstream, times: usize) {
    for _ in 0..times {
        deliver(upstream, 1).await;
        eventually("the connection is at rest", || upstream.busy() == 0).await;
    }
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let backend = Backend::always(Action::status(200));
    deliver_slowly(&upstream(&options(&backend.url())), 10).await;
    assert_eq!(backend.connections(), 1);
    let requests = backend.requests();
    assert!(
        requests.len() == 10 && requests.iter().all(|request| request.connection == 0),
        "{requests:?}"
    );
}

#[tokio::test]
async fn a_connection_with_a_small_answer_is_used_again_and_one_with_a_large_one_is_not() {
    let answer = |size: usize| {
        Action::raw(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n{}",
            "x".repeat(size)
        ))
    };
    for (size, connections) in [(32 * 1024, 1), (128 * 1024, 3)] {
        let backend = Backend::always(answer(size));
        deliver_slowly(&upstream(&options(&backend.url())), 3).await;
        assert_eq!(backend.connections(), connections, "{size} bytes");
    }
}

#[tokio::test]
async fn five_hundred_forwards_to_a_backend_that_closes_after_each_answer_are_all_delivered() {
    for field in ["x: y", "connection: close", "keep-alive: timeout=5"] {
        let backend = Backend::always(Action::status_with(200, field).then(Then::Close));
        let upstream = upstream(&options(&backend.url()));
        deliver(&upstream, 500).await;
    }
}

#[tokio::test]
async fn a_backend_that_resets_idle_connections_never_makes_a_forward_ambiguous() {
    let backend = Backend::always(Action::status(200));
    let upstream = upstream(&options(&backend.url()));
    for _ in 0..50 {
        deliver_slowly(&upstream, 1).await;
        backend.hang_up();
        // At once: the connection's own task has had no turn yet, so that only the look at the socket can tell.
        deliver(&upstream, 1).await;
    }
    assert_eq!(backend.requests().len(), 100);
}

#[tokio::test]
async fn an_idle_connection_is_closed_when_its_time_ends() {
    let backend = Backend::always(Action::status(200));
    let mut short = options(&backend.url());
    short.idle_timeout = Duration::from_millis(100);
    let tracker = TaskTracker::new();
    let upstream = Upstream::new(&short, tracker.clone()).unwrap();
    deliver(&upstream, 1).await;
    assert_eq!(tracker.len(), 1);
    eventually("the connection's task ends", || tracker.is_empty()).await;
    deliver(&upstream, 1).await;
    assert_eq!(backend.connections(), 2);
}

#[tokio::test]
async fn a_connection_is_dropped_a_second_before_the_backend_would() {
    let backend = Backend::always(Action::status_with(200, "keep-alive: timeout=1"));
    deliver_slowly(&upstream(&options(&backend.url())), 3).await;
    assert_eq!(backend.connections(), 3, "a second before one second is at once");
}

#[tokio::test]
async fn a_dropped_forward_closes_its_connection() {
    let backend = Backend::always(Action::silent(Then::Hang));
    let tracker = TaskTracker::new();
    let upstream = Upstream::new(&options(&backend.url()), tracker.clone()).unwrap();
    let copy = Copy::new();
    let dropped = tokio::time::timeout(Duration::from_millis(100), copy.forward(&upstream)).await;
    assert!(dropped.is_err());
    eventually("the connection's task ends", || tracker.is_empty()).await;
}

#[tokio::test]
async fn no_more_connections_than_allowed_serve_many_forwards() {
    let backend = Backend::always(Action::status(200));
    let mut narrow = options(&backend.url());
    narrow.connections_max = 4;
    let upstream = upstream(&narrow);
    let forwards = TaskTracker::new();
    let handles: Vec<_> = (0..200)
        .map(|_| {
            let upstream = upstream.clone();
            forwards.spawn(async move { Copy::new().forward(&upstream).await.outcome })
        })
        .collect();
    for handle in handles {
        assert_eq!(handle.await.unwrap(), Outcome::Delivered(200));
    }
    assert_eq!(backend.connections(), 4);
}

#[tokio::test]
async fn a_backend_that_answers_before_it_has_read_still_gets_the_whole_body() {
    let early = || Action::status(200).reading(Reading::Head).then(Then::Hang);
    let backend = Backend::in_turn(vec![Action::status(200).then(Then::Close), early()]);
    let upstream = upstream(&options(&backend.url()));
    // Makes the pool wary, so that the next connection is not kept for its own sake.
    deliver_slowly(&upstream, 1).await;
    let mut copy = Copy::new();
    copy.body = Bytes::from(vec![b'x'; 16 * 1024 * 1024]);
    assert_eq!(copy.forward(&upstream).await.outcome, Outcome::Delivered(200));
    eventually("the whole body arrives", || backend.received_bytes() > copy.body.len()).await;
}
