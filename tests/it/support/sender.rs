//! A sender: signs as LiveKit does, posts, and says what it was told.

use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::Full;
use oncehook::cli::sender::{Client, PostError, Protocol, Trust};
use oncehook::clock;
use oncehook::webhook::event::EventKind;
use oncehook::webhook::sample::{self, Subject};
use oncehook::webhook::verify::sign;
use secrecy::{ExposeSecret as _, SecretString};

use super::gateway::{API_KEY, API_SECRET};
use super::traced;

/// Longer than any answer may take, a gateway's own limits included.
const PATIENCE: Duration = Duration::from_secs(30);

/// A body and the token that signs it.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    pub(crate) body: Bytes,
    pub(crate) token: String,
}

impl Signed {
    /// `body`, signed now with the key of the tests.
    pub(crate) fn new(body: impl Into<Bytes>) -> Self {
        Self::by(API_KEY, API_SECRET, body)
    }

    /// `body`, signed now with another key.
    pub(crate) fn by(key: &str, secret: &str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let secret = SecretString::from(secret.to_owned());
        let token = sign(key, &secret, &body, clock::unix(), Duration::from_mins(5)).unwrap();
        traced::canary(secret.expose_secret());
        token.split('.').skip(1).for_each(traced::canary);
        Self { body, token }
    }
}

/// A copy of the event of `kind` about subject `number`, announced under `id`.
pub(crate) fn event(kind: EventKind, number: u64, id: &str) -> Signed {
    let now = clock::unix();
    Signed::new(sample::body(kind, &Subject::numbered(number, now_of_subject()), id, now.seconds()))
}

/// Subjects carry times; copies of one event must carry the same.
fn now_of_subject() -> clock::UnixTime {
    clock::UnixTime::from_epoch(Duration::from_secs(1_795_574_895))
}

/// One LiveKit node.
pub(crate) struct Sender {
    client: Client,
}

/// What it was told.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    /// `Oncehook-Status`.
    pub(crate) word: String,
    pub(crate) headers: HeaderMap,
}

impl Sender {
    /// Posts to `url`; over TLS it trusts any certificate and speaks HTTP/2 where that is offered.
    pub(crate) fn to(url: &str) -> Self {
        let target = url.parse().unwrap();
        Self {
            client: Client::new(target, &Trust::Anything, Protocol::Negotiated, PATIENCE).unwrap(),
        }
    }

    /// Posts one copy, once.
    pub(crate) async fn post(&self, signed: &Signed) -> Told {
        self.try_post(signed).await.unwrap()
    }

    /// The same, where there may be no answer.
    pub(crate) async fn try_post(&self, signed: &Signed) -> Result<Told, PostError> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&signed.token).unwrap());
        headers.insert("content-type", HeaderValue::from_static("application/webhook+json"));
        headers.insert("user-agent", HeaderValue::from_static("Go-http-client/2.0"));
        self.request(Method::POST, headers, signed.body.clone()).await
    }

    /// Sends any request to the URL.
    pub(crate) async fn request(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Told, PostError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.client.target().uri().clone();
        *request.headers_mut() = headers;
        let (status, headers) = self.client.send(request).await?;
        let word = headers.get("oncehook-status").map(|word| word.to_str().unwrap().to_owned());
        Ok(Told { status: status.as_u16(), word: word.unwrap_or_default(), headers })
    }
}
