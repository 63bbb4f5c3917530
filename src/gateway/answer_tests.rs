//! The tables of [`super::answer`]: which conclusion and which error becomes which status.

use std::time::Duration;

use http::header::RETRY_AFTER;

use super::answer::{Answer, Rejection, respond};
use crate::claim::Verdict;
use crate::claim::exchange::{Conclusion, Outcome};
use crate::dispatch::Concluded;
use crate::telemetry::labels::AnswerResult;

fn status(outcome: Outcome) -> u16 {
    Answer::from(&Concluded::of(Conclusion::Forwarded(outcome))).status.as_u16()
}

/// What go-retryablehttp tries again; anything else is, to LiveKit, delivered.
fn tried_again(status: u16) -> bool {
    status == 429 || (status >= 500 && status != 501)
}

#[test]
fn the_table_of_outcomes_holds() {
    for code in [200, 204, 299] {
        assert_eq!(status(Outcome::Delivered(code)), code);
    }
    for code in [400, 409, 410, 411, 413, 414, 415, 422] {
        assert_eq!(status(Outcome::Refused(code)), code);
    }
    assert_eq!(status(Outcome::Misconfigured(401)), 502);
    assert_eq!(status(Outcome::Overloaded { status: 429, retry_after: None }), 429);
    assert_eq!(status(Outcome::Overloaded { status: 503, retry_after: None }), 503);
    assert_eq!(status(Outcome::Failed(Some(500))), 502);
    assert_eq!(status(Outcome::Failed(Some(501))), 502);
    assert_eq!(status(Outcome::Failed(Some(504))), 504);
    assert_eq!(status(Outcome::Failed(Some(301))), 502);
    assert_eq!(status(Outcome::Failed(None)), 502);
    assert_eq!(status(Outcome::Unreached), 503);
    assert_eq!(status(Outcome::Ambiguous), 504);
}

#[test]
fn every_passing_trouble_is_a_status_that_livekit_tries_again() {
    let after = Duration::from_secs(3);
    let conclusions = [
        Conclusion::Busy { retry_after: after },
        Conclusion::StoreUnavailable,
        Conclusion::Forwarded(Outcome::Misconfigured(404)),
        Conclusion::Forwarded(Outcome::Overloaded { status: 429, retry_after: Some(after) }),
        Conclusion::Forwarded(Outcome::Failed(Some(501))),
        Conclusion::Forwarded(Outcome::Failed(None)),
        Conclusion::Forwarded(Outcome::Unreached),
        Conclusion::Forwarded(Outcome::Ambiguous),
    ];
    for conclusion in conclusions {
        for collapsed in [false, true] {
            let answer = Answer::from(&Concluded { collapsed, ..Concluded::of(conclusion) });
            assert!(tried_again(answer.status.as_u16()), "{conclusion:?} became {}", answer.status);
            assert_eq!(answer.result, AnswerResult::Failed, "{conclusion:?}");
        }
    }
    let rejections = [
        Rejection::BodySlow(after),
        Rejection::Crowded,
        Rejection::Unanswered(after),
        Rejection::Broken,
        Rejection::Loop,
    ];
    for rejection in rejections {
        let status = Answer::from(&rejection).status.as_u16();
        assert!(tried_again(status), "{rejection:?} became {status}");
    }
}

#[test]
fn retry_after_is_clamped_for_a_backend_and_never_zero() {
    let told = |after| {
        let outcome = Outcome::Overloaded { status: 503, retry_after: after };
        let answer = Answer::from(&Concluded::of(Conclusion::Forwarded(outcome)));
        respond(&answer, "r")
            .headers()
            .get(RETRY_AFTER)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(told(None), None);
    assert_eq!(told(Some(Duration::ZERO)).as_deref(), Some("2"));
    assert_eq!(told(Some(Duration::from_secs(7))).as_deref(), Some("7"));
    assert_eq!(told(Some(Duration::from_hours(1))).as_deref(), Some("10"));
    let busy = Answer::from(&Concluded::of(Conclusion::Busy {
        retry_after: Duration::from_millis(1_200),
    }));
    assert_eq!(respond(&busy, "r").headers().get(RETRY_AFTER).unwrap(), "2");
    let busy = Answer::from(&Concluded::of(Conclusion::Busy { retry_after: Duration::ZERO }));
    assert_eq!(respond(&busy, "r").headers().get(RETRY_AFTER).unwrap(), "1");
}

#[test]
fn duplicates_are_told_what_the_backend_said() {
    for (verdict, expected) in
        [(Verdict::Delivered(204), 204), (Verdict::Refused(422), 422), (Verdict::Unknown, 200)]
    {
        let answer =
            Answer::from(&Concluded::of(Conclusion::Duplicate { verdict, conflict: false }));
        assert_eq!((answer.status.as_u16(), answer.word), (expected, "duplicate"));
    }
}
