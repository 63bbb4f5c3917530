//! The one place where conclusions and errors become what a sender reads.
//!
//! LiveKit takes every 4xx but 429, every 3xx and 501 for success (go-retryablehttp's default policy), so a passing
//! trouble is always a 5xx or 429 here, and `Retry-After`, which it obeys on 429 and 503 without a cap, is named only
//! where it was computed.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;

use crate::claim::Verdict;
use crate::claim::exchange::{Conclusion, Outcome};
use crate::dispatch::Concluded;
use crate::telemetry::labels::{AnswerResult, Malformed};
use crate::webhook::verify::Refusal;

/// What became of the webhook, for the sender's operator.
const ONCEHOOK_STATUS: HeaderName = HeaderName::from_static("oncehook-status");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A backend's `Retry-After` is passed on within these bounds: below, it would burn LiveKit's attempts; above, the
/// event would age out of its queue.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(2);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);

/// Why a copy gets no exchange.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// No webhook path, and nothing else is served.
    #[error("nothing is served on this path")]
    NoRoute,
    /// Its form is refused.
    #[error("the request is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// Not a POST.
    #[error("method {0} on a webhook path")]
    Method(http::Method),
    /// The gateway's own `Via` came back to it.
    #[error(
        "the request has passed through oncehook before: the backend's URL leads back to the gateway"
    )]
    Loop,
    /// Not signed by a key of this route, or not as signed.
    #[error(transparent)]
    Unsigned(#[from] Refusal),
    /// Two `Authorization` fields: the gateway might check the one and the backend the other.
    #[error("there are two authorization fields")]
    TwoTokens,
    /// The body is longer than a body may be.
    #[error("the body is longer than {0} bytes")]
    TooLarge(usize),
    /// The body of a verified head did not come in time.
    #[error("the body did not come within {0:?}")]
    BodySlow(Duration),
    /// The body's bytes are none of a body.
    #[error("the body is malformed")]
    BodyMalformed(#[source] hyper::Error),
    /// The body broke off.
    #[error("the body broke off")]
    BodyBroken(#[source] hyper::Error),
    /// The bodies in memory have reached their limit.
    #[error("the bodies under way fill the memory set aside for them")]
    Crowded,
    /// The exchange takes longer than a sender is kept waiting; it goes on.
    #[error("no result within {0:?}; the exchange goes on")]
    Unanswered(Duration),
    /// The exchange ended without a conclusion: a defect of the gateway.
    #[error("the exchange ended without a conclusion")]
    Broken,
}

/// What a sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// `Oncehook-Status`.
    pub word: &'static str,
    /// How it counts.
    pub result: AnswerResult,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// For a reader, in an error.
    pub detail: &'static str,
}

impl Answer {
    /// What nobody hears: the sender hung up before it was answered.
    pub const UNHEARD: Self = Self::failed(
        StatusCode::SERVICE_UNAVAILABLE,
        "sender-gone",
        "the sender hung up before it was answered",
    );

    const fn failed(status: StatusCode, word: &'static str, detail: &'static str) -> Self {
        Self { status, word, result: AnswerResult::Failed, retry_after: None, detail }
    }

    const fn refused(status: StatusCode, word: &'static str, detail: &'static str) -> Self {
        Self { status, word, result: AnswerResult::Refused, retry_after: None, detail }
    }

    fn passed_on(status: u16, word: &'static str, result: AnswerResult) -> Self {
        // A status that came over HTTP is one.
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        Self { status, word, result, retry_after: None, detail: "" }
    }

    const fn after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }
}

impl From<&Concluded> for Answer {
    fn from(concluded: &Concluded) -> Self {
        let answer = of_conclusion(&concluded.conclusion);
        match answer.result {
            AnswerResult::Forwarded | AnswerResult::Duplicate if concluded.collapsed => {
                Self { word: "collapsed", result: AnswerResult::Collapsed, ..answer }
            }
            AnswerResult::Forwarded
            | AnswerResult::Duplicate
            | AnswerResult::Collapsed
            | AnswerResult::Refused
            | AnswerResult::Failed => answer,
        }
    }
}

fn of_conclusion(conclusion: &Conclusion) -> Answer {
    match *conclusion {
        Conclusion::Forwarded(outcome) => of_outcome(outcome),
        Conclusion::Suppressed => Answer::passed_on(200, "suppressed", AnswerResult::Forwarded),
        Conclusion::Duplicate { verdict, .. } => {
            let status = match verdict {
                Verdict::Delivered(status) | Verdict::Refused(status) => status,
                Verdict::Unknown => 200,
            };
            Answer::passed_on(status, "duplicate", AnswerResult::Duplicate)
        }
        Conclusion::Busy { retry_after } => Answer::failed(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "another copy of this event is on its way, or the backend asked for a pause",
        )
        .after(Some(retry_after.max(Duration::from_secs(1)))),
        Conclusion::StoreUnavailable => Answer::failed(
            StatusCode::SERVICE_UNAVAILABLE,
            "store-unavailable",
            "the store of claims cannot be asked, so nobody knows whether the event was forwarded",
        ),
    }
}

fn of_outcome(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Delivered(status) | Outcome::Refused(status) => {
            Answer::passed_on(status, "forwarded", AnswerResult::Forwarded)
        }
        Outcome::Misconfigured(_) => Answer::failed(
            StatusCode::BAD_GATEWAY,
            "backend-misconfigured",
            "the backend refused an authentic event: check its path, its API key and secret",
        ),
        Outcome::Overloaded { status, retry_after } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            Answer::failed(status, "backend-overloaded", "the backend asks to try again later")
                .after(retry_after.map(|after| after.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)))
        }
        Outcome::Failed(Some(504)) => Answer::failed(
            StatusCode::GATEWAY_TIMEOUT,
            "backend-failed",
            "the backend answered 504",
        ),
        Outcome::Failed(_) => Answer::failed(
            StatusCode::BAD_GATEWAY,
            "backend-failed",
            "the backend failed to handle the event",
        ),
        Outcome::Unreached => Answer::failed(
            StatusCode::SERVICE_UNAVAILABLE,
            "backend-unreached",
            "the backend could not be reached; nothing was sent to it",
        ),
        Outcome::Ambiguous => Answer::failed(
            StatusCode::GATEWAY_TIMEOUT,
            "backend-silent",
            "the backend was sent the event and did not answer; the next copy will be marked",
        ),
    }
}

impl From<&Rejection> for Answer {
    fn from(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::NoRoute => {
                Self::refused(StatusCode::NOT_FOUND, "no-route", "nothing is served on this path")
            }
            Rejection::Malformed(malformed) => {
                let (status, detail) = of_malformed(*malformed);
                Self::refused(status, "malformed", detail)
            }
            Rejection::Method(_) => Self::refused(
                StatusCode::METHOD_NOT_ALLOWED,
                "refused",
                "webhooks are sent by POST",
            ),
            Rejection::Loop => Self::refused(
                StatusCode::LOOP_DETECTED,
                "loop",
                "the backend's URL leads back to the gateway",
            ),
            // Without a reason: whoever guesses should learn nothing. The log has it.
            Rejection::Unsigned(_) | Rejection::TwoTokens => {
                Self::refused(StatusCode::UNAUTHORIZED, "refused", "")
            }
            Rejection::TooLarge(_) => Self::refused(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                "the body is longer than the gateway takes",
            ),
            Rejection::BodySlow(_) => Self::failed(
                StatusCode::SERVICE_UNAVAILABLE,
                "body-slow",
                "the body did not come in time",
            ),
            Rejection::BodyMalformed(_) => Self::refused(
                StatusCode::BAD_REQUEST,
                "malformed",
                "the body is not framed as its head says",
            ),
            Rejection::BodyBroken(_) => {
                Self::failed(StatusCode::SERVICE_UNAVAILABLE, "body-broken", "the body broke off")
            }
            Rejection::Crowded => Self::failed(
                StatusCode::SERVICE_UNAVAILABLE,
                "crowded",
                "too many bodies are under way",
            ),
            Rejection::Unanswered(_) => Self::failed(
                StatusCode::SERVICE_UNAVAILABLE,
                "unanswered",
                "there is no result yet; the next copy will be told of it",
            ),
            Rejection::Broken => Self::failed(
                StatusCode::INTERNAL_SERVER_ERROR,
                "broken",
                "the gateway failed; its log says more",
            ),
        }
    }
}

fn of_malformed(malformed: Malformed) -> (StatusCode, &'static str) {
    match malformed {
        Malformed::TargetTooLong => (StatusCode::URI_TOO_LONG, "the target is too long"),
        Malformed::HeadTooLarge => {
            (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is too large")
        }
        Malformed::TooManyFields => {
            (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the head has too many fields")
        }
        Malformed::MethodUnserved => {
            (StatusCode::METHOD_NOT_ALLOWED, "nobody serves this method here")
        }
        Malformed::Expectation => {
            (StatusCode::EXPECTATION_FAILED, "nothing is met but 100-continue")
        }
        Malformed::RequestLine => (StatusCode::BAD_REQUEST, "the request line is none"),
        Malformed::Version => (StatusCode::BAD_REQUEST, "the version is not served"),
        Malformed::Target => (StatusCode::BAD_REQUEST, "the target is no URI"),
        Malformed::BareLineFeed => (StatusCode::BAD_REQUEST, "a line ends without CR"),
        Malformed::FoldedField => (StatusCode::BAD_REQUEST, "a field spans several lines"),
        Malformed::FieldName => (StatusCode::BAD_REQUEST, "a field has no valid name"),
        Malformed::FieldValue => (StatusCode::BAD_REQUEST, "a field has no valid value"),
        Malformed::ContentLength => {
            (StatusCode::BAD_REQUEST, "the content length is not one plain number")
        }
        Malformed::TransferEncoding => {
            (StatusCode::BAD_REQUEST, "no transfer coding is served but chunked")
        }
        Malformed::LengthAndEncoding => {
            (StatusCode::BAD_REQUEST, "there are a content length and a transfer coding")
        }
        Malformed::Chunk => (StatusCode::BAD_REQUEST, "a chunk is malformed"),
        Malformed::Method => (StatusCode::BAD_REQUEST, "methods are written in capitals"),
        Malformed::TargetForm => (StatusCode::BAD_REQUEST, "the target names no path"),
        Malformed::Scheme => {
            (StatusCode::BAD_REQUEST, "the target has another scheme than the connection")
        }
        Malformed::AuthorityMismatch => {
            (StatusCode::BAD_REQUEST, "target and host name different hosts")
        }
        Malformed::HostMissing => (StatusCode::BAD_REQUEST, "there is no host"),
        Malformed::HostRepeated => (StatusCode::BAD_REQUEST, "there are two hosts"),
        Malformed::HostInvalid => (StatusCode::BAD_REQUEST, "the host is not one host and port"),
        Malformed::DisguisedPath => {
            (StatusCode::BAD_REQUEST, "the path could be read as a webhook path, and is none")
        }
        Malformed::UnderscoreTwin => {
            (StatusCode::BAD_REQUEST, "a field's name differs from a known one by an underscore")
        }
    }
}

/// Writes `answer` down. Errors are problem details (RFC 9457).
pub fn respond(answer: &Answer, request_id: &str) -> Response<Full<Bytes>> {
    let body = if answer.status.is_success() { Bytes::new() } else { problem(answer, request_id) };
    let content_type = if answer.status.is_success() { PLAIN } else { PROBLEM };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(ONCEHOOK_STATUS, HeaderValue::from_static(answer.word));
    if let Ok(mut id) = HeaderValue::from_str(request_id) {
        // To HTTP/2 it means that the value is not worth remembering (RFC 7541, §7.1.3): no other answer has it.
        id.set_sensitive(true);
        headers.insert(REQUEST_ID, id);
    }
    if answer.status != StatusCode::NO_CONTENT {
        headers.insert(CONTENT_TYPE, content_type);
    }
    if answer.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("POST"));
    }
    if let Some(after) = answer.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
    }
    response
}

/// Rounded up: a sender that comes too early comes in vain.
fn whole_seconds(after: Duration) -> u64 {
    after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0))
}

fn problem(answer: &Answer, request_id: &str) -> Bytes {
    let mut problem = serde_json::json!({
        "type": "about:blank",
        "title": answer.status.canonical_reason().unwrap_or("Error"),
        "status": answer.status.as_u16(),
        "instance": format!("urn:oncehook:request:{request_id}"),
    });
    if let (false, Some(members)) = (answer.detail.is_empty(), problem.as_object_mut()) {
        members.insert("detail".into(), answer.detail.into());
    }
    Bytes::from(problem.to_string())
}
