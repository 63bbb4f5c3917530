//! The table "Outcome of a forward" (DESIGN.md §5), row by row.

use std::net::TcpListener;
use std::time::Duration;

use oncehook::claim::exchange::Outcome;
use oncehook::upstream::ForwardError;

use super::{Copy, only_once, options, upstream};
use crate::support::backend::{Action, Backend, Piece, Reading, Then, eventually};

const SHORT: Duration = Duration::from_millis(300);

async fn came_to(action: Action) -> (Outcome, Option<ForwardError>, Backend) {
    let backend = Backend::always(action);
    let forwarded =
        Copy::new().within(SHORT * 10).forward(&upstream(&options(&backend.url()))).await;
    (forwarded.outcome, forwarded.detail, backend)
}

#[tokio::test]
async fn every_status_comes_to_what_the_table_says_after_one_request() {
    let overloaded = |status, seconds: Option<u64>| Outcome::Overloaded {
        status,
        retry_after: seconds.map(Duration::from_secs),
    };
    let rows = [
        (Action::status(200), Outcome::Delivered(200)),
        (Action::status(204), Outcome::Delivered(204)),
        (Action::status(299), Outcome::Delivered(299)),
        (Action::status_with(301, "location: /elsewhere"), Outcome::Failed(Some(301))),
        (Action::status(304), Outcome::Failed(Some(304))),
        (Action::status(400), Outcome::Refused(400)),
        (Action::status(422), Outcome::Refused(422)),
        (Action::status(401), Outcome::Misconfigured(401)),
        (Action::status(404), Outcome::Misconfigured(404)),
        (Action::status(408), Outcome::Misconfigured(408)),
        (Action::status(418), Outcome::Misconfigured(418)),
        (Action::status_with(429, "retry-after: 7"), overloaded(429, Some(7))),
        (Action::status_with(503, "retry-after: soon"), overloaded(503, None)),
        (Action::status(503), overloaded(503, None)),
        (Action::status(500), Outcome::Failed(Some(500))),
        (Action::status(501), Outcome::Failed(Some(501))),
        (Action::status(799), Outcome::Failed(None)),
    ];
    for (action, expected) in rows {
        let (outcome, detail, backend) = came_to(action).await;
        assert_eq!(outcome, expected);
        assert!(detail.is_none(), "{expected:?}: {detail:?}");
        assert_eq!(
            backend.only().line(),
            "POST /livekit/webhook HTTP/1.1",
            "not followed, not repeated"
        );
    }
}

#[tokio::test]
async fn the_head_of_a_2xx_is_enough() {
    for then in [Then::Close, Then::Reset, Then::Hang] {
        let truncated =
            Action::raw("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf").then(then);
        assert_eq!(came_to(truncated).await.0, Outcome::Delivered(200));
    }
    let unread = Action::raw("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").reading(Reading::Head);
    assert_eq!(came_to(unread).await.0, Outcome::Delivered(200));
    let old = Action::raw("HTTP/1.0 200 OK\r\n\r\nas long as it lasts").then(Then::Close);
    assert_eq!(came_to(old).await.0, Outcome::Delivered(200));
}

#[tokio::test]
async fn interim_answers_are_passed_over_and_are_no_answer() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let delivered =
        Action::raw(interim).and_bytes("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(came_to(delivered).await.0, Outcome::Delivered(202));
    let (outcome, detail, _backend) = came_to(Action::raw(interim).then(Then::Close)).await;
    assert_eq!(outcome, Outcome::Failed(None));
    assert!(matches!(detail, Some(ForwardError::InterimOnly { .. })), "{detail:?}");
    let switched = Action::raw(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    );
    assert_eq!(came_to(switched).await.0, Outcome::Failed(None));
}

#[tokio::test]
async fn an_answer_that_is_none_has_failed() {
    let large = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(128 * 1024));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(200));
    let garbage: [&[u8]; 6] = [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"<html>not http</html>\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28",
        large.as_bytes(),
        many.as_bytes(),
    ];
    for bytes in garbage {
        let (outcome, detail, backend) = came_to(Action::raw(bytes).then(Then::Hang)).await;
        assert_eq!(outcome, Outcome::Failed(None), "{detail:?}");
        assert!(matches!(detail, Some(ForwardError::Unparsable { .. })), "{detail:?}");
        assert_eq!(backend.requests().len(), 1, "not repeated");
    }
}

#[tokio::test]
async fn a_connection_that_ends_without_an_answer_is_ambiguous_and_not_tried_again() {
    let ways = [
        Action::silent(Then::Close),
        Action::silent(Then::Reset),
        Action::silent(Then::Reset).reading(Reading::Head),
        Action::raw("HTTP/1.1 20").then(Then::Close),
        Action::raw("HTTP/1.1 200 OK\r\ncontent-le").then(Then::Reset),
    ];
    for (number, action) in ways.into_iter().enumerate() {
        let (outcome, detail, backend) = came_to(action).await;
        assert_eq!(outcome, Outcome::Ambiguous, "way {number}: {detail:?}");
        assert!(
            matches!(detail, Some(ForwardError::Unanswered { .. })),
            "way {number}: {detail:?}"
        );
        assert_eq!(backend.connections(), 1, "way {number}");
    }
}

#[tokio::test]
async fn a_backend_that_hangs_or_drips_is_ambiguous_when_the_budget_ends() {
    let mut drip = Action::raw("HTTP/1.1 200 OK\r\n");
    for _ in 0..100 {
        drip = drip.and(Piece::Pause(Duration::from_millis(50))).and_bytes("x: y\r\n");
    }
    for action in [Action::silent(Then::Hang), drip] {
        let backend = Backend::always(action);
        let upstream = upstream(&options(&backend.url()));
        let copy = Copy::new().within(SHORT);
        let bounded = tokio::time::timeout(SHORT * 3, copy.forward(&upstream)).await;
        let forwarded = bounded.expect("it returns within its budget");
        assert_eq!(forwarded.outcome, Outcome::Ambiguous);
        assert!(
            matches!(forwarded.detail, Some(ForwardError::AnswerTimedOut { .. })),
            "{:?}",
            forwarded.detail
        );
        assert_eq!(backend.connections(), 1);
    }
}

#[tokio::test]
async fn a_refused_connection_is_tried_three_times_and_unreached() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let forwarded = Copy::new().forward(&upstream(&options(&format!("http://{closed}")))).await;
    assert_eq!(forwarded.outcome, Outcome::Unreached);
    assert_eq!(forwarded.tries, 3);
    assert!(
        matches!(forwarded.detail, Some(ForwardError::Connect { address, .. }) if address == closed)
    );
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_unreached() {
    let forwarded = Copy::new().forward(&upstream(&options("http://backend.invalid:80"))).await;
    assert_eq!(forwarded.outcome, Outcome::Unreached);
    assert!(
        matches!(forwarded.detail, Some(ForwardError::Resolve { .. })),
        "{:?}",
        forwarded.detail
    );
}

#[tokio::test]
async fn an_own_retry_delivers_when_the_backend_comes_back() {
    // The port is taken again by the backend only while the forward is under way.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let upstream = upstream(&options(&format!("http://{address}")));
    let copy = Copy::new();
    let (forwarded, backend) = tokio::join!(copy.forward(&upstream), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Backend::start_at(address, |_| Action::status(200))
    });
    assert_eq!(forwarded.outcome, Outcome::Delivered(200));
    assert!(forwarded.tries > 1, "{}", forwarded.tries);
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test]
async fn nothing_is_written_once_the_deadline_has_passed() {
    let backend = Backend::always(Action::status(200));
    let upstream = upstream(&options(&backend.url()));
    let forwarded = Copy::new().forward_while(&upstream, &|| false).await;
    assert_eq!(forwarded.outcome, Outcome::Unreached);
    assert!(
        matches!(forwarded.detail, Some(ForwardError::DeadlinePassed)),
        "{:?}",
        forwarded.detail
    );
    assert_eq!(backend.received_bytes(), 0);
    // The connection that was not used serves the next one, once it has rested.
    eventually("the connection is at rest", || upstream.busy() == 0).await;
    let once = only_once();
    assert_eq!(Copy::new().forward_while(&upstream, &once).await.outcome, Outcome::Delivered(200));
    assert!(!once(), "it was asked");
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_forward_that_finds_no_free_connection_in_time_is_unreached() {
    let backend = Backend::always(Action::silent(Then::Hang));
    let mut narrow = options(&backend.url());
    narrow.connections_max = 1;
    let upstream = upstream(&narrow);
    let (first, second) = (Copy::new().within(SHORT * 2), Copy::new().within(SHORT));
    let (first, second) = tokio::join!(first.forward(&upstream), second.forward(&upstream));
    assert_eq!(first.outcome, Outcome::Ambiguous);
    assert_eq!(second.outcome, Outcome::Unreached);
    assert_eq!(second.tries, 0);
    assert!(matches!(second.detail, Some(ForwardError::Exhausted)), "{:?}", second.detail);
}

#[tokio::test]
async fn a_target_that_cannot_be_connected_to_is_refused_with_a_hint() {
    for target in ["/path", "ftp://host", "http://user@host", "http://host:0"] {
        let error = oncehook::upstream::Upstream::new(
            &options(target),
            tokio_util::task::TaskTracker::new(),
        );
        let message = error.err().expect(target).to_string();
        assert!(message.contains(target) && message.contains("hint: "), "{message}");
    }
}
