//! HTTP service of all other paths: untouched, streaming, upgrades.
//!
//! What comes in is passed to the backend as it arrives, and what comes back likewise; nothing is kept, read or
//! repeated. Rules for headers and the choice of a connection are left to `upstream`; interim answers (1xx) of the
//! backend are not passed on.

mod flow;
mod tunnel;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::upgrade::OnUpgrade;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::upstream::{
    BoxError, Carried, ForwardError, Outgoing, Passage, Peer, Upstream, strip_hop_by_hop,
    upgrade_wanted, via_seen,
};

use flow::{Flow, Paced};
use tunnel::Tunnel;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How long the relay waits. What is found stalled has been so for the time given, or for twice that at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// For the head of an answer, while nothing more of the request arrives.
    pub head_timeout: Duration,
    /// For the next piece of a body, in either direction.
    pub idle_timeout: Duration,
    /// For the next piece in either direction of an upgraded connection.
    pub tunnel_idle_timeout: Duration,
}

/// The service of all paths that are no webhook's.
#[derive(Clone)]
pub struct Relay {
    upstream: Upstream,
    options: Options,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Relay {
    /// Spawns nothing. Later, each upgraded connection is carried by a task on `tracker`, which ends when one side
    /// closes, when nothing passes for `tunnel_idle_timeout`, or at `stop`.
    pub const fn new(
        upstream: Upstream,
        options: Options,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { upstream, options, tracker, stop }
    }

    /// Passes a request to the backend, and its answer back.
    ///
    /// Dropping the future, or the answer's body, ends the exchange with the backend too.
    pub async fn serve<B>(
        &self,
        mut request: Request<B>,
        peer: &Peer,
        request_id: &str,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if via_seen(request.headers(), self.upstream.via()) {
            return problem(
                StatusCode::LOOP_DETECTED,
                "the request has been through this gateway already",
                request_id,
            );
        }
        if request.method() == Method::CONNECT {
            return problem(StatusCode::METHOD_NOT_ALLOWED, "this is no forward proxy", request_id);
        }
        let client = request
            .extensions()
            .get::<OnUpgrade>()
            .is_some()
            .then(|| hyper::upgrade::on(&mut request));
        let (head, body) = request.into_parts();
        let client = client.filter(|_| upgrade_wanted(&head).is_some());
        let flow = Arc::new(Flow::default());
        let body = self.outgoing(body, &flow);
        let passage = Passage { head: &head, body, peer, request_id };
        let answer = tokio::select! {
            answer = self.upstream.pass(passage) => answer,
            () = flow.stalled(self.options.head_timeout) => {
                return problem(StatusCode::GATEWAY_TIMEOUT, "the backend did not answer in time", request_id);
            }
        };
        match answer {
            Ok(answer) => self.answer(answer, client, request_id),
            Err(_) if flow.failed() => {
                problem(StatusCode::BAD_REQUEST, "the request's body did not arrive", request_id)
            }
            Err(error) => unreachable(&error, request_id),
        }
    }

    fn outgoing<B>(&self, body: B, flow: &Arc<Flow>) -> Outgoing
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return Outgoing::empty();
        }
        let paced =
            Paced::new(body.map_err(Into::into), self.options.idle_timeout, Some(Arc::clone(flow)));
        Outgoing::Stream(paced.boxed_unsync())
    }

    fn answer(
        &self,
        answer: Response<Carried>,
        client: Option<OnUpgrade>,
        request_id: &str,
    ) -> Response<Body> {
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return match client {
                Some(client) => self.switch(answer, client),
                None => problem(
                    StatusCode::BAD_GATEWAY,
                    "the backend changed the protocol unasked",
                    request_id,
                ),
            };
        }
        let (mut head, body) = answer.into_parts();
        strip_hop_by_hop(&mut head.headers);
        head.version = http::Version::HTTP_11;
        head.extensions.clear();
        let paced = Paced::new(body.map_err(Into::into), self.options.idle_timeout, None);
        Response::from_parts(head, paced.boxed_unsync())
    }

    /// Connects the two sides once both have changed the protocol (RFC 9110, §7.8).
    fn switch(&self, mut answer: Response<Carried>, client: OnUpgrade) -> Response<Body> {
        let backend = hyper::upgrade::on(&mut answer);
        let (mut head, body) = answer.into_parts();
        let protocol = head.headers.remove(UPGRADE);
        strip_hop_by_hop(&mut head.headers);
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            head.headers.insert(UPGRADE, protocol);
        }
        head.extensions.clear();
        let tunnel =
            Tunnel { client, backend, held: body, idle_timeout: self.options.tunnel_idle_timeout };
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            // Ends with its last byte, or when nobody has the time to wait for that: there is nobody to tell.
            stop.run_until_cancelled(tunnel.run()).await;
        });
        Response::from_parts(head, Full::default().map_err(BoxError::from).boxed_unsync())
    }
}

/// What the client is told when the backend gave no answer. Which host that is, and why, is not the client's business.
fn unreachable(error: &ForwardError, request_id: &str) -> Response<Body> {
    match error {
        ForwardError::Exhausted => {
            problem(StatusCode::SERVICE_UNAVAILABLE, "the backend is busy", request_id)
        }
        ForwardError::ConnectTimedOut
        | ForwardError::WriteTimedOut { .. }
        | ForwardError::AnswerTimedOut { .. } => {
            problem(StatusCode::GATEWAY_TIMEOUT, "the backend did not answer in time", request_id)
        }
        ForwardError::Unparsable { .. } | ForwardError::InterimOnly { .. } => {
            problem(StatusCode::BAD_GATEWAY, "the backend's answer makes no sense", request_id)
        }
        ForwardError::Unanswered { .. } => problem(
            StatusCode::BAD_GATEWAY,
            "the backend closed the connection without an answer",
            request_id,
        ),
        ForwardError::DeadlinePassed
        | ForwardError::Resolve { .. }
        | ForwardError::Connect { .. }
        | ForwardError::Handshake { .. }
        | ForwardError::CertificateRefused { .. }
        | ForwardError::Unwritten { .. } => {
            problem(StatusCode::BAD_GATEWAY, "the backend cannot be reached", request_id)
        }
    }
}

/// An answer of the relay's own (RFC 9457).
fn problem(status: StatusCode, detail: &str, request_id: &str) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or("Error");
    let code = status.as_u16();
    // Both texts are this file's own: nothing in them needs escaping.
    let json = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{code},"detail":"{detail}"}}"#
    );
    let mut response = Response::new(Full::from(json).map_err(BoxError::from).boxed_unsync());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    response
}
