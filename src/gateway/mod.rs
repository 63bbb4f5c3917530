//! The HTTP service of webhook paths: admit, read, verify, key, dispatch, answer.
//!
//! Nothing unverified goes further than this room: before the signature, its time and the body's digest are checked,
//! neither a store nor a backend is touched. What a copy is told is decided in [`answer`].

pub mod answer;
#[cfg(test)]
mod answer_tests;
mod body;
mod detached;
pub mod form;
pub mod http2;
mod refusals;
mod report;

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use foldhash::HashMap;
use http::header::{AUTHORIZATION, CONNECTION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Version};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::dispatch::window::Windows;
use crate::dispatch::{Concluded, Copy, Dispatch, Peer, twin_seen, via_seen};
use crate::telemetry::Metrics;
use crate::telemetry::labels::Malformed;
use crate::text;
use crate::webhook::key::{self, Identity};
use crate::webhook::verify::{Refusal, Verifier};

use answer::{Answer, Rejection};
use body::Shelf;
use detached::Detached;
use refusals::{Refusals, Verdict};
use report::Report;

/// What every oncehook calls itself in `Via`: a request that names it has been here.
pub const VIA_NAME: &str = "oncehook";
/// A sender's own request id is kept if it is no longer.
const REQUEST_ID_BYTES_MAX: usize = 128;
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// One webhook path.
pub struct Route {
    /// Whose signatures count here.
    pub verifier: Verifier,
    /// What makes two copies the same event.
    pub identity: Identity,
    /// How long each kind of event is remembered.
    pub windows: Windows,
    /// Where its events go.
    pub destination: Arc<crate::dispatch::Route>,
}

/// What a webhook may take.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The longest token; [`crate::webhook::token::TOKEN_BYTES_MAX`] at the most.
    pub token_bytes_max: usize,
    /// The longest body.
    pub body_bytes_max: usize,
    /// How long a body may take to come.
    pub body_timeout: Duration,
    /// All bodies in memory together.
    pub bodies_bytes_max: usize,
    /// How often one source may be refused in a minute and be told and logged, see `refusals`; 0: always.
    pub refusals_per_minute: u32,
    /// A sender is answered within this, whether or not its event's exchange is over.
    pub answer_within: Duration,
}

/// The service.
pub struct Gateway {
    routes: HashMap<String, Route>,
    options: Options,
    shelf: Shelf,
    refusals: Arc<Refusals>,
    dispatch: Arc<Dispatch>,
    metrics: Arc<Metrics>,
    exchanges: TaskTracker,
}

impl Gateway {
    /// Serves `routes`, by path. Exchanges run on `exchanges`, detached from their senders.
    pub fn new(
        routes: HashMap<String, Route>,
        options: Options,
        dispatch: Arc<Dispatch>,
        metrics: Arc<Metrics>,
        exchanges: TaskTracker,
    ) -> Self {
        Self {
            routes,
            options,
            shelf: Shelf::new(options.bodies_bytes_max),
            refusals: Arc::default(),
            dispatch,
            metrics,
            exchanges,
        }
    }

    /// The same service with other routes and options. What is under way ends at this one, and both share the memory for
    /// bodies, unless there shall be more or less of it.
    #[must_use]
    pub fn renewed(&self, routes: HashMap<String, Route>, options: Options) -> Self {
        Self {
            routes,
            options,
            shelf: self.shelf.resized(options.bodies_bytes_max),
            refusals: Arc::clone(&self.refusals),
            dispatch: Arc::clone(&self.dispatch),
            metrics: Arc::clone(&self.metrics),
            exchanges: self.exchanges.clone(),
        }
    }

    /// Whether `path` is a webhook path.
    pub fn serves(&self, path: &str) -> bool {
        self.routes.contains_key(path)
    }

    /// Whether `path` is one in disguise: see [`form::plain_path`].
    pub fn is_disguised(&self, path: &str) -> bool {
        form::plain_path(path).is_some_and(|plain| {
            self.routes
                .keys()
                .any(|route| route.trim_end_matches('/') == plain.trim_end_matches('/'))
        })
    }

    /// Answers one request; on a path that is no webhook path, that nothing is served there.
    pub async fn handle(
        &self,
        head: Box<Parts>,
        mut body: Incoming,
        peer: Peer,
    ) -> Response<Full<Bytes>> {
        let Some(route) = self.routes.get(head.uri.path()) else {
            return not_found(&request_id(&head.headers));
        };
        let version = head.version;
        let _in_flight = self.metrics.in_flight();
        let bodyless = body.is_end_stream();
        let mut report =
            Report::begin(&route.destination.name, &peer, request_id(&head.headers), &self.metrics);
        let concluded = pin!(self.webhook(route, (head, &mut body), peer, &mut report)).await;
        let answer = match concluded {
            Ok(concluded) => Answer::from(&concluded),
            Err(rejection) => {
                let answer = self.refuse(&rejection, &peer);
                report.rejected(rejection);
                answer
            }
        };
        let unread = !bodyless && report.is_early(&answer);
        report.end(&answer);
        http2::outlast(version, &mut body).await;
        let response = answer::respond(&answer, report.request_id());
        // An HTTP/1.1 connection cannot go on behind a body that nobody reads.
        if unread && version != Version::HTTP_2 { closing(response) } else { response }
    }

    /// The answer to a request that is refused for its form, on whatever path; logged unless its source is refused too
    /// often.
    pub fn malformed(
        &self,
        reason: Malformed,
        peer: &Peer,
        request_id: &str,
    ) -> Response<Full<Bytes>> {
        let answer = self.refuse(&Rejection::Malformed(reason), peer);
        if answer.word != refusals::LIMITED {
            tracing::warn!(
                peer = %peer.address, request_id, reason = reason.label(), "malformed request refused"
            );
        }
        answer::respond(&answer, request_id)
    }

    /// The answer on a path that nobody serves.
    pub fn unserved(&self, peer: &Peer, request_id: &str) -> Response<Full<Bytes>> {
        answer::respond(&self.refuse(&Rejection::NoRoute, peer), request_id)
    }

    /// What a sender is told that gets no exchange.
    fn refuse(&self, rejection: &Rejection, peer: &Peer) -> Answer {
        if !rejection.counts_for_its_source() {
            return Answer::from(rejection);
        }
        let per_minute = self.options.refusals_per_minute;
        let (client, now) = (peer.client, clock::monotonic());
        let wait = match self.refusals.count(client, per_minute, now) {
            Verdict::Told => return Answer::from(rejection),
            Verdict::FirstBeyond(wait) => {
                tracing::warn!(
                    %client,
                    per_minute,
                    "refused more often than limits.refusals_per_source_per_minute: counted from now on, not logged"
                );
                wait
            }
            Verdict::Beyond(wait) => wait,
        };
        self.metrics.refusal_limited();
        refusals::limited(wait)
    }

    async fn webhook(
        &self,
        route: &Route,
        (head, body): (Box<Parts>, &mut Incoming),
        peer: Peer,
        report: &mut Report,
    ) -> Result<Concluded, Rejection> {
        admit(&head)?;
        // Before the body is read: whoever has no valid token is not worth the memory, and gets no 100 (Continue).
        let options = &self.options;
        let token = authorization(&head.headers, options.token_bytes_max)?;
        let now = clock::unix();
        let signature = route.verifier.check_token(token, now)?;
        let body =
            body::read(body, &self.shelf, options.body_bytes_max, options.body_timeout).await?;
        let webhook = route.verifier.check_body(signature, body.bytes)?;

        let keyed = key::identify(&webhook, route.destination.name.as_str(), &route.identity);
        report.identified(&keyed);
        self.metrics.identified(keyed.basis);
        let (key, digest) = (keyed.key, keyed.digest);
        if let Some(known) = self.dispatch.known(&route.destination, key, digest) {
            report.concluded(&known, &self.metrics);
            return Ok(known);
        }
        // The body has taken a moment since: by that the window is longer, never shorter.
        let window = route.windows.of(keyed.kind, keyed.basis, webhook.expires(), now);
        let copy = Copy {
            route: Arc::clone(&route.destination),
            webhook,
            key,
            digest,
            window,
            head,
            peer,
            request_id: report.request_id_shared(),
        };
        let concluded = pin!(self.dispatched(copy, body.place)).await?;
        report.concluded(&concluded, &self.metrics);
        Ok(concluded)
    }

    /// Runs the exchange of `copy` detached, so that a sender who hangs up never leaves a claim unsettled, and waits for
    /// it as long as a sender is kept waiting.
    async fn dispatched(
        &self,
        copy: Copy,
        place: Option<tokio::sync::OwnedSemaphorePermit>,
    ) -> Result<Concluded, Rejection> {
        let dispatch = Arc::clone(&self.dispatch);
        let exchange = async move {
            let concluded = pin!(dispatch.exchange(&copy)).await;
            drop(place);
            concluded
        };
        let exchange = Detached::new(exchange, &self.exchanges);
        match tokio::time::timeout(self.options.answer_within, exchange).await {
            Ok(Ok(concluded)) => Ok(concluded),
            Ok(Err(ended)) => {
                self.metrics.exchange_panicked();
                tracing::error!(error = %ended, "an exchange ended without a conclusion; its lease will lapse");
                Err(Rejection::Broken)
            }
            Err(_) => Err(Rejection::Unanswered(self.options.answer_within)),
        }
    }
}

/// The answer on a path that nobody serves.
pub fn not_found(request_id: &str) -> Response<Full<Bytes>> {
    answer::respond(&Answer::from(&Rejection::NoRoute), request_id)
}

/// The answer to a request that is refused for its form.
pub fn malformed(reason: Malformed, request_id: &str) -> Response<Full<Bytes>> {
    answer::respond(&Answer::from(&Rejection::Malformed(reason)), request_id)
}

/// The same for HTTP/1.1, where a connection ends with it: nobody can be sure where the next request begins.
pub fn malformed_http1(reason: Malformed) -> Response<Full<Bytes>> {
    closing(malformed(reason, &fresh_request_id()))
}

/// An answer after which an HTTP/1.1 connection is closed.
pub fn closing(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Checks what needs no key.
fn admit(head: &Parts) -> Result<(), Rejection> {
    if head.method != Method::POST {
        return Err(Rejection::Method(head.method.clone()));
    }
    if via_seen(&head.headers, VIA_NAME) {
        return Err(Rejection::Loop);
    }
    if twin_seen(&head.headers) {
        return Err(Rejection::Malformed(Malformed::UnderscoreTwin));
    }
    Ok(())
}

/// The one token.
fn authorization(headers: &HeaderMap, bytes_max: usize) -> Result<&[u8], Rejection> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    match (fields.next(), fields.next()) {
        (Some(only), None) if only.len() > bytes_max => {
            Err(Rejection::Unsigned(Refusal::TokenTooLong))
        }
        (Some(only), None) => Ok(only.as_bytes()),
        (None, _) => Err(Rejection::Unsigned(Refusal::NoToken)),
        (Some(_), Some(_)) => Err(Rejection::TwoTokens),
    }
}

/// The sender's request id if it is fit for a log line, or a new one.
pub fn request_id(headers: &HeaderMap) -> Arc<str> {
    let given = headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let fit = given.filter(|id| {
        !id.is_empty()
            && id.len() <= REQUEST_ID_BYTES_MAX
            && id.bytes().all(|byte| byte.is_ascii_graphic())
    });
    fit.map_or_else(fresh_request_id, Arc::from)
}

/// 64 bits that no other request of this process has, and hardly one of another: it only has to be found again in a log.
/// The first is drawn, the others follow at steps that visit every number before the first comes again; asking the
/// operating system for each would be a system call.
fn fresh_request_id() -> Arc<str> {
    /// Odd, and far from a round part of 2^64: 2^64 divided by the golden ratio.
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    static NEXT: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(getrandom::u64().unwrap_or_default()));
    let id = NEXT.fetch_add(STEP, Ordering::Relaxed);
    Arc::from(text::hex(&id.to_be_bytes(), &mut [0; 16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_kept_only_if_a_log_line_can_hold_it() {
        let id_of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_static(value));
            request_id(&headers)
        };
        assert_eq!(&*id_of("abc-1"), "abc-1");
        assert_ne!(&*id_of("with space"), "with space");
        let none = HeaderMap::new();
        assert_eq!(request_id(&none).len(), 16);
        assert_ne!(request_id(&none), request_id(&none));
    }
}
