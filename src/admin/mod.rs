//! What an operator, an orchestrator and Prometheus ask: is it alive, is it ready, what has it counted.
//!
//! It has its own listener and its own thread, so that it answers while the gateway is drowning. This file listens;
//! `pages` answers, [`readiness`] and [`status`] are what they are told. Which thread it is, is left to `app`.

mod pages;
pub mod readiness;
pub mod status;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::{runtime, time};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::readiness::{Readiness, StoreHealth};
pub use self::status::Status;
use crate::telemetry::Metrics;

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
    /// Where to listen: a loopback address, since the pages have no authentication.
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
        "the admin address {address} is no loopback address, and the pages have no authentication; hint: listen on \
         127.0.0.1 or [::1]; a probe can run `oncehook healthcheck` beside the gateway"
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
    state: State,
}

impl Admin {
    /// Binds the address. Needs no runtime.
    pub fn bind(options: Options, state: State) -> Result<Self, BindError> {
        let address = options.address;
        if !address.ip().to_canonical().is_loopback() {
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
        Ok(Self { socket, local_address, options, state })
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
        let Self { socket, options, state, .. } = self;
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let places = Arc::new(Semaphore::new(options.connections_max));
        let connections = TaskTracker::new();
        let pages = TowerToHyperService::new(pages::router(state));
        let accepting = async {
            loop {
                let (stream, place) = next(&socket, &places).await;
                connections.spawn(converse(stream, pages.clone(), options.head_timeout, place));
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
async fn converse(
    stream: TcpStream,
    pages: TowerToHyperService<axum::Router>,
    head_timeout: Duration,
    place: Option<OwnedSemaphorePermit>,
) {
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_header_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), pages);
    match time::timeout(CONNECTION_TIME_MAX, conversation).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin connection broke"),
        Err(_elapsed) => tracing::debug!("admin connection took too long"),
    }
    drop(place);
}
