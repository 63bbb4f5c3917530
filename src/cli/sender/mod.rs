//! How LiveKit sends: one simulated node, its connections and its retries.
//!
//! What livekit/protocol's notifier does over hashicorp/go-retryablehttp 0.7, as far as a receiver can tell: which
//! answers are retried and when, which count as success although the backend never had the event, and how many
//! connections a node opens. Which events are sent, and what is printed of it, is left to `trigger`, `bench` and `demo`.

mod connection;
mod sending;
mod trust;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Full;

use crate::clock;

pub use connection::{Client, PostError, Protocol, Target, TargetError};
pub use sending::Sending;
pub use trust::{Trust, TrustError};

/// What Go's `net/http` calls itself when the caller gives no name.
const GO_USER_AGENT: &str = "Go-http-client/2.0";

/// The waits between attempts: `RetryWaitMin` 1 s, doubled for each of `RetryMax` 4 retries, below `RetryWaitMax` 30 s.
const BACK_OFF: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// How often a webhook is sent at most.
pub const ATTEMPTS_MAX: usize = BACK_OFF.len() + 1;

/// Whether a node tries again what failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retries {
    /// At 0, 1, 3, 7 and 15 s, as LiveKit does.
    AsLiveKit,
    /// Once.
    None,
}

/// A webhook ready to be sent: the bytes and the token that signs them.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The JSON text, byte for byte.
    pub body: Bytes,
    /// The token, without `Bearer`, as LiveKit writes it.
    pub authorization: String,
}

/// One request and what came of it.
#[derive(Debug)]
pub struct Attempt {
    /// Counts from 1.
    pub number: usize,
    /// What came back.
    pub result: Result<Answer, PostError>,
    /// From the request to the end of the answer.
    pub duration: Duration,
    /// What a LiveKit node does next.
    pub next: Next,
}

/// An answer, as far as a sender looks at it.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// What `Oncehook-Status` says.
    pub oncehook_status: Option<String>,
    /// `Retry-After` in whole seconds, on 429 and 503 alone: elsewhere LiveKit does not look.
    pub retry_after: Option<Duration>,
}

/// What a LiveKit node does after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// 2xx: it is done, and rightly so.
    Acknowledged,
    /// 3xx, 4xx but 429, and 501: it takes that for success and forgets the event.
    LostInSilence,
    /// It tries again after this wait.
    Retry(Duration),
    /// It has no attempt left, or the failure is one that it never retries; the event is gone.
    GivenUp,
}

impl Next {
    /// A word for it, as it is printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::LostInSilence => "lost_in_silence",
            Self::Retry(_) => "retry",
            Self::GivenUp => "given_up",
        }
    }
}

/// One simulated LiveKit node.
#[derive(Debug)]
pub struct Node {
    name: String,
    client: Client,
    retries: Retries,
}

impl Node {
    /// A node that has not connected yet.
    pub fn new(name: String, client: Client, retries: Retries) -> Self {
        Self { name, client, retries }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Posts one webhook, for the `number`th time, counted from 1; each attempt carries the same bytes and token.
    ///
    /// Whoever calls waits as [`Attempt::next`] says; after [`ATTEMPTS_MAX`] it never says to.
    pub async fn attempt(&self, webhook: &Signed, number: usize) -> Attempt {
        let before = clock::monotonic();
        let result = self.client.send(request(webhook, self.client.target())).await;
        let result = result.map(|(status, headers)| answer(status, &headers));
        let duration = clock::monotonic().since(before);
        let wait = match self.retries {
            Retries::AsLiveKit => BACK_OFF.get(number - 1).copied(),
            Retries::None => None,
        };
        Attempt { number, next: next(&result, wait), result, duration }
    }
}

/// What go-retryablehttp's `DefaultRetryPolicy` and `DefaultBackoff` decide, if `wait` is the next step of the
/// schedule, or there is none.
fn next(result: &Result<Answer, PostError>, wait: Option<Duration>) -> Next {
    let again = |wait: Option<Duration>| wait.map_or(Next::GivenUp, Next::Retry);
    match result {
        // A certificate that is not trusted stays so: the policy gives up at once.
        Err(error) if error.is_certificate() => Next::GivenUp,
        Err(_) => again(wait),
        Ok(answer) if answer.status.is_success() => Next::Acknowledged,
        Ok(answer) if retried(answer.status) => {
            again(wait.map(|wait| answer.retry_after.unwrap_or(wait)))
        }
        Ok(_) => Next::LostInSilence,
    }
}

fn retried(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || (status.as_u16() >= 500 && status != StatusCode::NOT_IMPLEMENTED)
}

fn request(webhook: &Signed, target: &Target) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(webhook.body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.uri().clone();
    let headers = request.headers_mut();
    if let Ok(token) = webhook.authorization.parse() {
        headers.insert(AUTHORIZATION, token);
    }
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/webhook+json"));
    // Go asks for gzip of its own accord.
    headers.insert(ACCEPT_ENCODING, http::HeaderValue::from_static("gzip"));
    headers.insert(USER_AGENT, http::HeaderValue::from_static(GO_USER_AGENT));
    request
}

fn answer(status: StatusCode, headers: &HeaderMap) -> Answer {
    let text =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let obeyed =
        status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE;
    let seconds = text(RETRY_AFTER.as_str()).and_then(|value| value.trim().parse().ok());
    Answer {
        status,
        oncehook_status: text("oncehook-status"),
        retry_after: seconds.filter(|_| obeyed).map(Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(status: u16, retry_after: Option<&str>, wait: Option<Duration>) -> Next {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, value.parse().unwrap());
        }
        next(&Ok(answer(StatusCode::from_u16(status).unwrap(), &headers)), wait)
    }

    #[test]
    fn livekit_retries_5xx_and_429_alone() {
        let wait = Some(Duration::from_secs(4));
        for status in [429, 500, 502, 503, 504, 599] {
            assert_eq!(after(status, None, wait), Next::Retry(Duration::from_secs(4)), "{status}");
            assert_eq!(after(status, None, None), Next::GivenUp, "{status}");
        }
        for status in [301, 302, 400, 401, 403, 404, 409, 501] {
            assert_eq!(after(status, None, wait), Next::LostInSilence, "{status}");
        }
        for status in [200, 202, 204] {
            assert_eq!(after(status, None, wait), Next::Acknowledged, "{status}");
        }
    }

    #[test]
    fn retry_after_is_obeyed_on_429_and_503_alone() {
        let wait = Some(Duration::from_secs(1));
        assert_eq!(after(429, Some("7"), wait), Next::Retry(Duration::from_secs(7)));
        assert_eq!(after(503, Some("0"), wait), Next::Retry(Duration::ZERO));
        assert_eq!(after(502, Some("7"), wait), Next::Retry(Duration::from_secs(1)));
        assert_eq!(after(503, Some("soon"), wait), Next::Retry(Duration::from_secs(1)));
        assert_eq!(after(503, Some("7"), None), Next::GivenUp);
    }
}
