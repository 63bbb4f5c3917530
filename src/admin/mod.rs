//! What an operator, an orchestrator and Prometheus ask: is it alive, is it ready, what has it counted.
//!
//! It has its own listener and its own thread, so that it answers while the gateway is drowning. This file listens;
//! [`guard`] lets in, `pages` answers, [`readiness`] and [`status`] are what they are told. Which thread it is, is left
//! to `app`.

pub mod guard;
mod pages;
pub mod readiness;
pub mod status;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::{runtime, time};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::guard::Shown;
pub use self::guard::{Guard, Token};
pub use self::readiness::{Readiness, StoreHealth};
pub use self::status::Status;
use crate::telemetry::Metrics;
use crate::telemetry::labels::AdminRefusal;

/// A head and its fields are small here: curl, kubelet and Prometheus send a few hundred bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// How long a whole connection may take: Prometheus gives up after 10 s by default.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(30);
/// How long open connections may still take after the stop.
const FAREWELL: Duration = Duration::from_secs(1);
/// After an accept error such as EMFILE.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the admin listener is held to. Defaults stand in `config`.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen: a loopback address, unless the guard asks for something.
    pub address: SocketAddr,
    /// How long a request's head may take.
    pub head_timeout: Duration,
    /// How many connections there may be; others wait in the kernel.
    pub connections_max: usize,
}

/// What the pages are made from.
#[derive(Clone)]
pub struct State {
    /// What has been counted.
    pub metrics: Arc<Metrics>,
    /// Whether the gateway is ready.
    pub readiness: Arc<Readiness>,
    /// How the store is, asked at each request: it must neither block nor do I/O.
    pub store: Arc<dyn Fn() -> StoreHealth + Send + Sync>,
    /// Everything for `/status`, likewise.
    pub status: Arc<dyn Fn() -> Status + Send + Sync>,
}

/// Why the admin listener could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Other machines would reach it.
    #[error(
        "the admin address {address} is no loopback address, and the pages ask for neither a token nor a client \
         certificate; hint: set admin.token_file or admin.tls.client_ca_file, or listen on 127.0.0.1 or [::1]"
    )]
    NotLoopback {
        /// Where it should have listened.
        address: SocketAddr,
    },
    /// The operating system refuses.
    #[error("cannot listen on the admin address {address}; hint: `ss -ltnp 'sport = :{}'` names who does", address.port())]
    Listen {
        /// Where it should have listened.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
}

/// A bound admin listener.
pub struct Admin {
    socket: TcpListener,
    local_address: SocketAddr,
    options: Options,
    guard: Arc<ArcSwap<Guard>>,
    state: State,
}

impl Admin {
    /// Binds the address. Needs no runtime.
    ///
    /// # Errors
    /// [`BindError`], if `guard` is open and the address no loopback one, or if the operating system refuses.
    pub fn bind(options: Options, guard: Guard, state: State) -> Result<Self, BindError> {
        let address = options.address;
        if guard.is_open() && !address.ip().to_canonical().is_loopback() {
            return Err(BindError::NotLoopback { address });
        }
        let bind = || {
            let socket = TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            let local_address = socket.local_addr()?;
            Ok((socket, local_address))
        };
        let (socket, local_address) =
            bind().map_err(|source| BindError::Listen { address, source })?;
        let guard = Arc::new(ArcSwap::from_pointee(guard));
        Ok(Self { socket, local_address, options, guard, state })
    }

    /// What is asked of those who connect from now on, to be replaced while it serves.
    pub fn guard(&self) -> Arc<ArcSwap<Guard>> {
        Arc::clone(&self.guard)
    }

    /// Where it listens, with the port that the operating system chose if the configured one is 0.
    pub const fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Answers until `stop`, on the calling thread, which must be none of a runtime's: it blocks, and brings its own.
    /// Fails if that runtime cannot be made.
    pub fn serve(self, stop: &CancellationToken) -> io::Result<()> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.answer(stop))
    }

    async fn answer(self, stop: &CancellationToken) -> io::Result<()> {
        let Self { socket, options, guard, state, .. } = self;
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let places = Arc::new(Semaphore::new(options.connections_max));
        let connections = TaskTracker::new();
        let metrics = Arc::clone(&state.metrics);
        let pages = TowerToHyperService::new(pages::router(state));
        let accepting = async {
            loop {
                let (stream, place) = next(&socket, &places).await;
                let conversation = Conversation {
                    guard: guard.load_full(),
                    pages: pages.clone(),
                    metrics: Arc::clone(&metrics),
                    head_timeout: options.head_timeout,
                };
                connections.spawn(conversation.hold(stream, place));
            }
        };
        tokio::select! {
            () = accepting => {}
            () = stop.cancelled() => {}
        }
        connections.close();
        // Whoever has not read its answer by then goes with the runtime.
        match time::timeout(FAREWELL, connections.wait()).await {
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// The next connection, once there is a place for it.
async fn next(
    socket: &tokio::net::TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match socket.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                tracing::warn!(%error, "cannot accept admin connections");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One request, one answer, one connection: so a time-out for all of it needs no exceptions.
struct Conversation {
    guard: Arc<Guard>,
    pages: TowerToHyperService<axum::Router>,
    metrics: Arc<Metrics>,
    head_timeout: Duration,
}

impl Conversation {
    async fn hold(self, stream: TcpStream, place: Option<OwnedSemaphorePermit>) {
        match time::timeout(CONNECTION_TIME_MAX, self.shake_hands(stream)).await {
            Ok(()) => {}
            Err(_elapsed) => tracing::debug!("admin connection took too long"),
        }
        drop(place);
    }

    async fn shake_hands(self, stream: TcpStream) {
        let Some(tls) = self.guard.tls.clone() else {
            return self.talk(stream, Shown::No).await;
        };
        let shaking = TlsAcceptor::from(tls).accept(stream);
        let failure = match time::timeout(self.head_timeout, shaking).await {
            Ok(Ok(stream)) => {
                let certificates = stream.get_ref().1.peer_certificates();
                let shown = if certificates.is_some() { Shown::Yes } else { Shown::No };
                return self.talk(stream, shown).await;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => "timeout".to_owned(),
        };
        self.metrics.admin_refused(AdminRefusal::Handshake);
        tracing::debug!(error = failure, "no TLS handshake with the admin listener");
    }

    async fn talk(self, stream: impl AsyncRead + AsyncWrite + Unpin, shown: Shown) {
        let Self { guard, pages, metrics, head_timeout } = self;
        let guarded = service_fn(|request: Request<Incoming>| {
            let admitted = guard.admit(request.uri().path(), request.headers(), shown);
            answer(admitted.map(|()| pages.call(request)), &metrics)
        });
        let conversation = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_timeout)
            .max_header_size(HEAD_BYTES_MAX)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), guarded);
        if let Err(error) = conversation.await {
            tracing::debug!(%error, "admin connection broke");
        }
    }
}

/// What a page says, or that it may not be seen.
async fn answer<P, B, E>(
    page: Result<P, AdminRefusal>,
    metrics: &Metrics,
) -> Result<Response<Either<B, Full<Bytes>>>, E>
where
    P: Future<Output = Result<Response<B>, E>>,
{
    match page {
        Ok(page) => Ok(page.await?.map(Either::Left)),
        Err(reason) => {
            metrics.admin_refused(reason);
            tracing::debug!(reason = reason.label(), "admin page refused");
            Ok(guard::refused(reason).map(Either::Right))
        }
    }
}
