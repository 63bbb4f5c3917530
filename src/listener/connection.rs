//! One connection's life: handshake, requests, end.
//!
//! The protocol is chosen by ALPN, never guessed from the first bytes: hyper-util's `auto` builder waits for them
//! without a limit, and fails h2spec.

use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::frames::Frames;
use super::http1::{self, Gate};
use super::patience::Patience;
use super::service::{Answering, Panicked};
use super::spread::{Moving, Seated};
use super::told::Told;
use super::watch::{Heads, Phase, Watch};
use super::watched::{Hold, Watched};
use super::{Options, Peer, TlsPeer, handshake, tls, without_delay};
use crate::telemetry::Metrics;
use crate::telemetry::labels::ConnectionEnd;

/// How large hyper's buffers for one HTTP/1.1 connection may grow, unless a head may be larger. A body that turns out to
/// be too long has taken no more than this beyond its limit.
const HTTP1_BUFFER_BYTES: usize = 16 * 1024;
/// How many fields hyper takes unless it is told another number; then it fills its tables before it reads any head.
const HTTP1_FIELDS: usize = 100;
/// How much of an answer an HTTP/2 stream may hold that its peer has not taken yet.
const HTTP2_SEND_BUFFER_BYTES: usize = 64 * 1024;

/// What the connections of a listener share, as long as its options are these.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) metrics: Arc<Metrics>,
    pub(super) connections: TaskTracker,
}

/// A connection that was admitted.
pub(super) struct Connection {
    pub(super) stream: Moving,
    pub(super) address: SocketAddr,
    pub(super) hold: Hold,
    pub(super) seated: Seated,
    pub(super) stop: CancellationToken,
    pub(super) kill: CancellationToken,
}

impl Connection {
    pub(super) async fn run<S, F, B>(self, shared: Arc<Shared>, service: S)
    where
        S: Fn(Request<Incoming>, Arc<Peer>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let kill = self.kill.clone();
        let metrics = Arc::clone(&shared.metrics);
        tokio::select! {
            // First, for it is what is nearly always ready.
            biased;
            end = self.live(shared, service) => if let Some(end) = end {
                metrics.connection_ended(end);
            },
            () = Told::by(&kill) => metrics.connection_ended(ConnectionEnd::Killed),
        }
    }

    /// `None` if there was no handshake, or not even a begin; that is counted already.
    async fn live<S, F, B>(self, shared: Arc<Shared>, service: S) -> Option<ConnectionEnd>
    where
        S: Fn(Request<Incoming>, Arc<Peer>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { stream, address, mut hold, seated: _seated, stop, kill } = self;
        let mut stream = match stream.arrived() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, peer = %address, "cannot serve a connection on its worker");
                return Some(ConnectionEnd::Error);
            }
        };
        without_delay(&stream);
        let address = handshake::origin(&mut stream, &mut hold, &shared, address).await?;
        let Some(config) = shared.options.tls.clone() else {
            let peer = Arc::new(Peer { address, tls: None });
            let http = Http { shared, service, peer, stop, kill };
            return Some(Box::pin(http.one(stream, hold)).await);
        };
        // In boxes, so that a connection takes no more room than what it is doing needs.
        let stream = Box::pin(handshake::tls(stream, config, &shared, address)).await?;
        let session = stream.get_ref().1;
        let server_name = session.server_name().map(str::to_ascii_lowercase);
        let tls = Some(TlsPeer { server_name, version: session.protocol_version() });
        let speaks_http2 = session.alpn_protocol() == Some(tls::ALPN_HTTP2);
        let http = Http { shared, service, peer: Arc::new(Peer { address, tls }), stop, kill };
        Some(if speaks_http2 {
            Box::pin(http.two(stream, hold)).await
        } else {
            Box::pin(http.one(stream, hold)).await
        })
    }
}

/// A connection on which HTTP may begin.
pub(super) struct Http<S> {
    pub(super) shared: Arc<Shared>,
    pub(super) service: S,
    pub(super) peer: Arc<Peer>,
    pub(super) stop: CancellationToken,
    pub(super) kill: CancellationToken,
}

impl<S, F, B> Http<S>
where
    S: Fn(Request<Incoming>, Arc<Peer>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// HTTP/1.1.
    pub(super) async fn one<T>(self, stream: T, hold: Hold) -> ConnectionEnd
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { shared, service, peer, stop, kill } = self;
        let options = &shared.options;
        let watch = Watch::new(Heads::FollowIdle);
        let stream = Watched::new(stream, Arc::clone(&watch), kill, hold);
        let limits = http1::Limits {
            head_bytes: options.head_bytes_max,
            fields: options.headers_max,
            target_bytes: options.target_bytes_max,
        };
        let metrics = Arc::clone(&shared.metrics);
        let stream = Gate::new(stream, Arc::clone(&watch), limits, metrics, peer.address);
        let service = service_fn(|request| {
            let (service, peer) = (service.clone(), Arc::clone(&peer));
            let exchanging = watch.begin();
            let (refusal, refuse) = (watch.refusal(), options.refuse);
            // The call itself may panic, so it belongs into the future that is polled with care. In a box: hyper moves it
            // several times, and keeps room for it between requests.
            let answer = Box::pin(async move {
                match refusal {
                    None => pin!(service(request, peer)).await.map(Either::Left),
                    Some(malformed) => refuse(malformed).map(Either::Right),
                }
            });
            Answering::new(answer, exchanging, Arc::clone(&shared.metrics))
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            // The watch does it, see there.
            .header_read_timeout(None)
            // The gate holds the limits; hyper must not be stricter.
            .max_header_size(options.head_bytes_max.saturating_add(1))
            .max_buf_size(HTTP1_BUFFER_BYTES.max(options.head_bytes_max));
        if options.headers_max > HTTP1_FIELDS {
            builder.max_headers(options.headers_max);
        }
        let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let end = drive(
            connection,
            hyper::server::conn::http1::UpgradeableConnection::graceful_shutdown,
            &watch,
            (options, &stop),
        )
        .await;
        watch.http_is_over();
        end
    }

    /// HTTP/2.
    pub(super) async fn two<T>(self, stream: T, hold: Hold) -> ConnectionEnd
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { shared, service, peer, stop, kill } = self;
        let options = &shared.options;
        let limits = options.http2;
        let address = peer.address;
        let frames = Frames::new(limits.idle_frames_max, Arc::clone(&shared.metrics));
        let watch = Watch::new(Heads::AmongFrames);
        let streams = Streams { tracker: shared.connections.clone(), kill: kill.clone() };
        let stream = Watched::new(stream, Arc::clone(&watch), kill, hold).with_frames(frames);
        let service = service_fn(|request| {
            let (service, peer) = (service.clone(), Arc::clone(&peer));
            // In a box: on its way into a task of its own it is moved several times.
            let answer = Box::pin(async move { pin!(service(request, peer)).await });
            Answering::new(answer, watch.begin(), Arc::clone(&shared.metrics))
        });
        let connection = http2::Builder::new(streams)
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_max)
            .max_header_list_size(limits.header_list_bytes_max)
            .max_pending_accept_reset_streams(limits.pending_resets_max)
            .max_local_error_reset_streams(limits.local_resets_max)
            .initial_stream_window_size(limits.stream_window_bytes)
            .initial_connection_window_size(limits.connection_window_bytes)
            .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES)
            .keep_alive_interval(limits.ping_interval)
            .keep_alive_timeout(limits.ping_timeout)
            .serve_connection(TokioIo::new(stream), service);
        let finish = http2::Connection::graceful_shutdown;
        let end = drive(connection, finish, &watch, (options, &stop)).await;
        if !watch.flooded() {
            return end;
        }
        let idle_frames_max = limits.idle_frames_max;
        tracing::info!(peer = %address, idle_frames_max, "HTTP/2 flood: connection closed");
        ConnectionEnd::Flood
    }
}

/// Where the answers of an HTTP/2 connection are made, each in its own task: all are waited for, and end at the kill.
#[derive(Clone)]
struct Streams {
    tracker: TaskTracker,
    kill: CancellationToken,
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, answering: F) {
        let kill = self.kill.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                _ = answering => {}
                () = Told::by(&kill) => {}
            }
        });
    }
}

/// Whether a connection has been told to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Finishing {
    No,
    /// The listener stops.
    Stopped,
    /// It has rested for too long.
    Rested,
}

/// Runs a connection to its end, and measures its patience by what it is doing.
async fn drive<C>(
    connection: C,
    finish: fn(Pin<&mut C>),
    watch: &Watch,
    (options, stop): (&Options, &CancellationToken),
) -> ConnectionEnd
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    let mut stop = pin!(Told::by(stop));
    let mut patience = pin!(Patience::endless());
    let (mut finishing, mut known) = (Finishing::No, None);
    poll_fn(|cx| {
        loop {
            watch.attend();
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(end_of(result, finishing));
            }
            let (phase, changes) = watch.observe(cx);
            if known.replace((changes, finishing)) != Some((changes, finishing)) {
                patience.as_mut().renew(lasts(phase, finishing, options));
            }
            if finishing == Finishing::No && stop.as_mut().poll(cx).is_ready() {
                finishing = Finishing::Stopped;
                finish(connection.as_mut());
                continue;
            }
            ready!(patience.as_mut().poll_end(cx));
            match (phase, finishing) {
                (Phase::Head, _) => return Poll::Ready(ConnectionEnd::HeadTimeout),
                (Phase::Answered, _) => return Poll::Ready(ConnectionEnd::AnswerTimeout),
                // In good order, so that a request which crosses the end on the wire is still seen by its sender as not
                // taken.
                (_, Finishing::No) => {
                    finishing = Finishing::Rested;
                    finish(connection.as_mut());
                }
                (_, Finishing::Stopped | Finishing::Rested) => {
                    return Poll::Ready(ConnectionEnd::IdleTimeout);
                }
            }
        }
    })
    .await
}

/// How long a connection may go on with what it is doing.
const fn lasts(phase: Phase, finishing: Finishing, options: &Options) -> Option<Duration> {
    match (phase, finishing) {
        (Phase::Busy, _) => None,
        (Phase::Answered, _) => Some(options.answer_timeout),
        (Phase::Idle, Finishing::No) => Some(options.idle_timeout),
        // What has been told to end needs no more than the time to say so.
        (Phase::Head, _) | (Phase::Idle, Finishing::Stopped | Finishing::Rested) => {
            Some(options.head_timeout)
        }
    }
}

fn end_of(result: hyper::Result<()>, finishing: Finishing) -> ConnectionEnd {
    match (result, finishing) {
        // However the peer took it: many leave without a TLS close_notify, which is an error to rustls.
        (_, Finishing::Rested) => ConnectionEnd::IdleTimeout,
        (Ok(()), Finishing::No | Finishing::Stopped) => ConnectionEnd::Closed,
        (Err(error), _) if error.source().is_some_and(<dyn Error>::is::<Panicked>) => {
            ConnectionEnd::Panic
        }
        (Err(error), _) => {
            tracing::debug!(%error, "connection broke");
            ConnectionEnd::Error
        }
    }
}
