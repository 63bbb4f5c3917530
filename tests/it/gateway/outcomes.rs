//! The table of outcomes: what a backend does, what the sender is told, and what becomes of the next copy.

use std::time::{Duration, Instant};

use oncehook::webhook::event::EventKind;

use super::to;
use crate::support::backend::{Action, Backend, Reading, Then};
use crate::support::gateway::Gateway;
use crate::support::sender::{Sender, Told, event};

/// Sends two copies of one event to a backend that does `first` and then accepts.
async fn two_copies(first: Action, more: &str) -> (Backend, Told, Told) {
    let backend = Backend::in_turn(vec![first, Action::status(200)]);
    let gateway = Gateway::start(&to(&backend, more));
    let sender = Sender::to(&gateway.url("/webhook"));
    let one = sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await;
    let two = sender.post(&event(EventKind::EgressEnded, 1, "EV_2")).await;
    (backend, one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backend_says_for_good_is_said_again_without_asking_it() {
    for status in [200, 204, 400, 409, 410, 411, 413, 414, 415, 422] {
        let (backend, one, two) = two_copies(Action::status(status), "").await;
        assert_eq!((one.status, one.word.as_str()), (status, "forwarded"), "{status}");
        assert_eq!((two.status, two.word.as_str()), (status, "duplicate"), "{status}");
        assert_eq!(backend.requests().len(), 1, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_never_told_as_success_and_is_forwarded_again_unmarked() {
    let table = [
        (301, 502, "backend-failed"),
        (302, 502, "backend-failed"),
        (401, 502, "backend-misconfigured"),
        (403, 502, "backend-misconfigured"),
        (404, 502, "backend-misconfigured"),
        (405, 502, "backend-misconfigured"),
        (408, 502, "backend-misconfigured"),
        (421, 502, "backend-misconfigured"),
        (425, 502, "backend-misconfigured"),
        (429, 429, "backend-overloaded"),
        (500, 502, "backend-failed"),
        (501, 502, "backend-failed"),
        (503, 503, "backend-overloaded"),
        (504, 504, "backend-failed"),
    ];
    for (status, told, word) in table {
        let (backend, one, two) = two_copies(Action::status(status), "").await;
        assert_eq!((one.status, one.word.as_str()), (told, word), "{status}");
        assert!(!one.headers.contains_key("retry-after"), "{status}: none was computed");
        assert_eq!((two.status, two.word.as_str()), (200, "forwarded"), "{status}");
        let requests = backend.requests();
        assert_eq!(requests.len(), 2, "{status}");
        assert_eq!(requests[1].one("oncehook-attempt"), Some("2"), "{status}");
        assert_eq!(requests[1].one("oncehook-possible-duplicate"), None, "{status}");
        assert_eq!(requests[0].one("idempotency-key"), requests[1].one("idempotency-key"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backends_pause_is_passed_on_within_bounds_and_kept() {
    let (backend, one, two) =
        two_copies(Action::status_with(429, "retry-after: 3600"), "claim.join_wait = \"100ms\"")
            .await;
    assert_eq!(one.status, 429);
    assert_eq!(one.headers["retry-after"], "10");
    assert_eq!((two.status, two.word.as_str()), (503, "busy"), "the pause runs");
    assert_eq!(backend.requests().len(), 1);

    let pause = Instant::now();
    let (backend, one, two) = two_copies(Action::status_with(503, "retry-after: 0"), "").await;
    assert_eq!(one.headers["retry-after"], "2");
    assert_eq!(
        (two.status, two.word.as_str()),
        (200, "forwarded"),
        "a copy waits for a pause that is short"
    );
    assert!(pause.elapsed() >= Duration::from_secs(2));
    assert_eq!(backend.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_after_the_first_byte_is_ambiguous_and_the_next_copy_is_marked() {
    let patient = "upstream.timeout = \"500ms\"\nupstream.connect_timeout = \"500ms\"";
    let silences = [
        ("hangs", Action::silent(Then::Hang)),
        ("resets", Action::silent(Then::Reset)),
        ("closes", Action::silent(Then::Close)),
        ("resets after the head", Action::silent(Then::Reset).reading(Reading::Head)),
    ];
    for (what, silence) in silences {
        let (backend, one, two) = two_copies(silence, patient).await;
        assert_eq!((one.status, one.word.as_str()), (504, "backend-silent"), "{what}");
        assert_eq!((two.status, two.word.as_str()), (200, "forwarded"), "{what}");
        let requests = backend.requests();
        let last = requests.last().unwrap();
        assert_eq!(last.one("oncehook-possible-duplicate"), Some("1"), "{what}");
        assert_eq!(last.one("oncehook-attempt"), Some("2"), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn suppress_gives_up_the_second_copy_instead() {
    let more = "upstream.timeout = \"500ms\"\nupstream.connect_timeout = \"500ms\"\nclaim.on_ambiguous = \"suppress\"";
    let (backend, one, two) = two_copies(Action::silent(Then::Close), more).await;
    assert_eq!((one.status, one.word.as_str()), (200, "suppressed"));
    assert_eq!((two.status, two.word.as_str()), (200, "duplicate"));
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_none_have_failed() {
    let garbage = [
        ("garbage", Action::raw("SSH-2.0-OpenSSH_9.2\r\n").then(Then::Close)),
        (
            "an early end of the head",
            Action::raw("HTTP/1.1 200 OK\r\ncontent-le").then(Then::Close),
        ),
        ("1xx only", Action::raw("HTTP/1.1 102 Processing\r\n\r\n").then(Then::Close)),
    ];
    for (what, action) in garbage {
        let (backend, one, two) = two_copies(
            action,
            "upstream.timeout = \"500ms\"\nupstream.connect_timeout = \"500ms\"",
        )
        .await;
        assert!(one.status == 502 || one.status == 504, "{what}: {one:?}");
        assert_eq!((two.status, two.word.as_str()), (200, "forwarded"), "{what}");
        assert_eq!(backend.requests().len(), 2, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_cut_after_a_2xx_head_is_delivered() {
    let cut =
        Action::raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this").then(Then::Close);
    let (backend, one, two) = two_copies(cut, "").await;
    assert_eq!((one.status, one.word.as_str()), (200, "forwarded"));
    assert_eq!(two.word, "duplicate");
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_not_there_was_sent_nothing() {
    let backend = Backend::always(Action::status(200));
    let configuration = to(&backend, "");
    let address = backend.address();
    drop(backend);
    let gateway = Gateway::start(&configuration);
    let sender = Sender::to(&gateway.url("/webhook"));
    let told = sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await;
    assert_eq!((told.status, told.word.as_str()), (503, "backend-unreached"));
    let backend = Backend::start_at(address, |_| Action::status(200));
    let told = sender.post(&event(EventKind::EgressEnded, 1, "EV_2")).await;
    assert_eq!((told.status, told.word.as_str()), (200, "forwarded"));
    assert_eq!(backend.only().one("oncehook-possible-duplicate"), None);
}
