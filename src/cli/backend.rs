//! A sample backend: it takes webhooks, verifies them, remembers what it accepted, and answers as it is told to.
//!
//! What `listen` and `demo` share. What is printed of it is left to them.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::AUTHORIZATION;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::webhook::event::EventKind;
use crate::webhook::key::{self, Identity};
use crate::webhook::verify::{Verifier, Webhook};

/// Larger bodies are refused. LiveKit's metadata reaches 512 KiB.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Connections at a time; the others wait to be accepted.
const CONNECTIONS_MAX: usize = 4096;
/// Events remembered for finding duplicates; the oldest are forgotten first.
const EVENTS_MAX: usize = 100_000;
/// How long the end waits for requests that are under way.
const GRACE: Duration = Duration::from_secs(5);
/// How long a new connection may take for a request's head. LiveKit leaves a connection idle for 90 s.
const HEAD_TIMEOUT: Duration = Duration::from_mins(2);
/// How long to wait before accepting again when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How the backend answers what it has verified.
#[derive(Clone, Debug)]
pub struct Manner {
    /// The status for what it accepts.
    pub status: StatusCode,
    /// The status for what it fails.
    pub fail_status: StatusCode,
    /// How many of 2^32 webhooks fail.
    pub fail_rate: u32,
    /// What decides which; the same seed fails the same arrivals.
    pub seed: u64,
    /// How many arrivals of each event fail before one is accepted.
    pub fail_first: u32,
    /// The events that may fail; none stands for all.
    pub fail_events: Vec<EventKind>,
    /// How long an answer takes.
    pub delay: Duration,
}

/// One webhook that came, and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Arrival {
    /// Counts from 1.
    pub number: u64,
    /// LiveKit's name of the event, as far as it is known; none for what was not verified.
    pub event: Option<&'static str>,
    /// The event's `id`.
    pub id: Option<String>,
    /// `Oncehook-Attempt`.
    pub attempt: Option<String>,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// Whether `Oncehook-Possible-Duplicate` is there.
    pub possible_duplicate: bool,
    /// Why it is not a webhook of this backend's LiveKit.
    pub refusal: Option<String>,
    /// The answer.
    pub status: u16,
    /// By what this is known to be an event that was accepted before.
    pub duplicate: Option<Known>,
}

impl Arrival {
    /// Whether the backend said that it has the event.
    pub fn is_accepted(&self) -> bool {
        self.refusal.is_none() && (200..300).contains(&self.status)
    }
}

/// By what an event is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// The same `Idempotency-Key`.
    IdempotencyKey,
    /// The same `id`.
    Id,
    /// The same resource, state and kind, under another `id`.
    Event,
}

/// A backend that listens, and takes nothing yet.
pub struct Backend {
    listener: TcpListener,
    service: Arc<Service>,
}

struct Service {
    verifier: Verifier,
    path: Option<String>,
    manner: Manner,
    ledger: Mutex<Ledger>,
    arrivals: mpsc::Sender<Arrival>,
}

impl Backend {
    /// A backend at `listener` that takes webhooks at `path`, or at every path, and tells of them on `arrivals`.
    pub fn new(
        listener: TcpListener,
        path: Option<String>,
        verifier: Verifier,
        manner: Manner,
        arrivals: mpsc::Sender<Arrival>,
    ) -> Self {
        let service = Service { verifier, path, manner, ledger: Mutex::default(), arrivals };
        Self { listener, service: Arc::new(service) }
    }

    /// Takes webhooks until `stop`, then ends those under way, within 5 s.
    pub async fn serve(self, stop: CancellationToken) {
        let (mut connections, graceful) = (JoinSet::new(), GracefulShutdown::new());
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Some(stream) = self.accept(&stop).await {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { break };
            let service = Arc::clone(&self.service);
            let service = service_fn(move |request| Arc::clone(&service).take(request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            let connection = graceful.watch(connection);
            connections.spawn(async move {
                // What breaks a connection is the peer's affair; a webhook that came whole has been told of.
                connection.await.ok();
                drop(permit);
            });
            while connections.try_join_next().is_some() {}
        }
        drop(self.listener);
        // After the grace the connections are dropped with their set.
        tokio::time::timeout(GRACE, graceful.shutdown()).await.ok();
    }

    /// The next connection, or none after `stop`.
    async fn accept(&self, stop: &CancellationToken) -> Option<TcpStream> {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return None,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => return Some(stream),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }
}

impl Service {
    async fn take(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        if self.path.as_deref().is_some_and(|path| path != head.uri.path()) {
            return Ok(empty(StatusCode::NOT_FOUND));
        }
        if head.method != Method::POST {
            return Ok(empty(StatusCode::METHOD_NOT_ALLOWED));
        }
        let authorization =
            head.headers.get(AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
        let webhook = match read(body).await {
            Some(body) => self.verify(authorization, body),
            None => Err(format!("the body is cut short or longer than {BODY_BYTES_MAX} bytes")),
        };
        let arrival = self.judge(webhook, &head.headers);
        let status =
            StatusCode::from_u16(arrival.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let delay = if arrival.refusal.is_none() { self.manner.delay } else { Duration::ZERO };
        // Told before the delay: a caller that hangs up meanwhile does not undo that the backend had the event.
        // Nobody may be listening any more; then nobody wants to know.
        self.arrivals.send(arrival).await.ok();
        tokio::time::sleep(delay).await;
        Ok(empty(status))
    }

    fn verify(&self, authorization: &[u8], body: Bytes) -> Result<Webhook, String> {
        let signature = self
            .verifier
            .check_token(authorization, clock::unix())
            .map_err(|refusal| refusal.to_string())?;
        self.verifier.check_body(signature, body).map_err(|refusal| refusal.to_string())
    }

    fn judge(&self, webhook: Result<Webhook, String>, headers: &http::HeaderMap) -> Arrival {
        let text =
            |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.arrivals += 1;
        let mut arrival = Arrival {
            number: ledger.arrivals,
            event: None,
            id: None,
            attempt: text("oncehook-attempt"),
            idempotency_key: text("idempotency-key"),
            possible_duplicate: headers.contains_key("oncehook-possible-duplicate"),
            refusal: None,
            status: StatusCode::UNAUTHORIZED.as_u16(),
            duplicate: None,
        };
        let webhook = match webhook {
            Ok(webhook) => webhook,
            Err(refusal) => {
                arrival.refusal = Some(refusal);
                return arrival;
            }
        };
        let keyed = key::identify(&webhook, "", &Identity::Event);
        arrival.event = Some(keyed.kind.name());
        arrival.id = keyed.id.map(std::borrow::Cow::into_owned);
        let names = [
            (Known::IdempotencyKey, arrival.idempotency_key.clone()),
            (Known::Id, arrival.id.clone()),
            (Known::Event, Some(keyed.key.to_string())),
        ];
        let names =
            names.map(|(known, name)| (known, name.map(|name| format!("{known:?} {name}"))));
        let status = self.manner.status_of(keyed.kind, ledger.arrivals, ledger.seen(&names));
        arrival.status = status.as_u16();
        if status.is_success() {
            arrival.duplicate = ledger.accept(names);
        }
        arrival
    }
}

impl Manner {
    fn status_of(&self, kind: EventKind, number: u64, seen: u32) -> StatusCode {
        let may_fail = self.fail_events.is_empty() || self.fail_events.contains(&kind);
        let fails = seen <= self.fail_first || draw(self.seed, number) < self.fail_rate;
        if may_fail && fails { self.fail_status } else { self.status }
    }
}

/// What was accepted, by each of the names it is known by.
#[derive(Default)]
struct Ledger {
    arrivals: u64,
    entries: HashMap<String, Entry>,
    order: VecDeque<String>,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    seen: u32,
    accepted: u32,
}

type Names = [(Known, Option<String>); 3];

impl Ledger {
    /// Counts an arrival under each name, and says how many there were, this one included.
    fn seen(&mut self, names: &Names) -> u32 {
        let names = names.iter().filter_map(|(_, name)| name.as_deref());
        names.map(|name| self.entry(name).count()).max().unwrap_or(1)
    }

    /// Counts an acceptance, and says by which name the event had been accepted before.
    fn accept(&mut self, names: Names) -> Option<Known> {
        let mut before = None;
        for (known, name) in names {
            let Some(name) = name else { continue };
            let entry = self.entry(&name);
            if entry.accepted > 0 {
                before = before.or(Some(known));
            }
            entry.accepted = entry.accepted.saturating_add(1);
        }
        before
    }

    fn entry(&mut self, name: &str) -> &mut Entry {
        if !self.entries.contains_key(name) {
            self.order.push_back(name.to_owned());
        }
        if self.order.len() > EVENTS_MAX * 3
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
        self.entries.entry(name.to_owned()).or_default()
    }
}

impl Entry {
    fn count(&mut self) -> u32 {
        self.seen = self.seen.saturating_add(1);
        self.seen
    }
}

/// A number that looks random and is always the same for the same seed and arrival (`SplitMix64`).
fn draw(seed: u64, number: u64) -> u32 {
    let mut z = seed.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(u32::MAX)
}

/// The body, unless it breaks off or is too long.
async fn read(mut body: Incoming) -> Option<Bytes> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        if read.len() + data.len() > BODY_BYTES_MAX {
            return None;
        }
        read.extend_from_slice(&data);
    }
    Some(read.freeze())
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// Where the backend listens: as asked, with the system's choice for port 0.
pub async fn bind(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
