//! Connections: accept, limits, TLS, time-outs, graceful end.
//!
//! Generic over the service: what a request means is left to whoever is called with it. This file accepts and admits;
//! `handshake` is what comes before HTTP on a connection, `ahead` how much is read at once, `connection` its life, `watch`
//! knows what it is doing, `http1` judges what hyper is given to read, `frames` reads HTTP/2's frames as they pass, `limit` counts, `spread` shares
//! connections out among the workers, `service` stands between hyper and the service, [`tls`] reads certificates,
//! [`proxy_protocol`] a balancer's headers.

mod ahead;
mod connection;
mod frames;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handshake;
mod http1;
mod limit;
mod patience;
pub mod proxy_protocol;
mod service;
mod spread;
pub mod tls;
mod told;
mod watch;
mod watched;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use ipnet::IpNet;
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connection::{Connection, Shared};
use self::limit::{Place, Places};
use self::spread::Spread;
use self::tls::Names;
use self::watched::Hold;
use crate::telemetry::Metrics;
use crate::telemetry::labels::{ConnectionRejection, Malformed};

/// How many connections may wait in the kernel to be accepted.
const BACKLOG: u32 = 1024;
/// How long the kernel waits before it asks a silent peer whether it is still there: for upgraded connections, which
/// have no other time-out.
const TCP_KEEPALIVE: Duration = Duration::from_mins(1);
/// After an accept error such as EMFILE: at first this long, then twice as long each time, up to the maximum.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// What a listener is held to. Defaults stand in `config`.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen. Port 0: any free one, see [`Listener::local_address`].
    pub address: SocketAddr,
    /// Speak TLS, as [`tls`] has set it up; else plain HTTP/1.1.
    pub tls: Option<Arc<ServerConfig>>,
    /// With TLS: the names that a peer may ask for; `None` for any, and for none.
    pub names: Option<Arc<Names>>,
    /// Every connection begins with a header of the PROXY protocol, and comes from one of these networks; those from
    /// elsewhere are closed unread. `None`: connections speak for themselves.
    pub proxy_protocol: Option<Vec<IpNet>>,
    /// How many connections there may be; those beyond are closed unread.
    pub connections_max: usize,
    /// How many of them from one source: an IPv4 address, or an IPv6 /64.
    pub connections_per_source_max: usize,
    /// How long a TLS handshake may take, and a header of the PROXY protocol before it.
    pub handshake_timeout: Duration,
    /// How long a request's head may take: the first from the connection's begin, any other from its first byte.
    pub head_timeout: Duration,
    /// How long a connection may rest between requests.
    pub idle_timeout: Duration,
    /// How long a peer may take nothing of an answer that is ready for it.
    pub answer_timeout: Duration,
    /// How large an HTTP/1.1 head may be, request line included (431 beyond).
    pub head_bytes_max: usize,
    /// How many fields it may have (431 beyond).
    pub headers_max: usize,
    /// How long its target may be (414 beyond).
    pub target_bytes_max: usize,
    /// What is told to whoever breaks HTTP/1.1; the connection is closed then.
    pub refuse: fn(Malformed) -> Response<Full<Bytes>>,
    /// What HTTP/2 connections are held to.
    pub http2: Http2,
}

/// What HTTP/2 connections are held to.
#[derive(Clone, Copy, Debug)]
pub struct Http2 {
    /// How many streams may be open at once on a connection.
    pub streams_max: u32,
    /// How large a header list may be, decoded (RFC 9113 §6.5.2).
    pub header_list_bytes_max: u32,
    /// How many streams that the peer reset may wait to be seen: beyond it is a rapid reset (CVE-2023-44487).
    pub pending_resets_max: usize,
    /// How many streams we may have to reset for the peer's errors: beyond it is "made you reset" (CVE-2025-8671).
    pub local_resets_max: usize,
    /// How many frames a second a connection may send that carry nothing of a request, such as PING, SETTINGS, PRIORITY,
    /// `RST_STREAM`, empty DATA and unknown ones: beyond it is a flood (CVE-2019-9512, 9513, 9515, 9518).
    pub idle_frames_max: u32,
    /// How much of a body a stream may hold that nobody has read yet.
    pub stream_window_bytes: u32,
    /// How much of all bodies a connection may hold.
    pub connection_window_bytes: u32,
    /// How often a PING asks whether the peer is still there …
    pub ping_interval: Duration,
    /// … and how long it may take to say so.
    pub ping_timeout: Duration,
}

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it connected from, or, with the PROXY protocol, where that is according to the balancer.
    pub address: SocketAddr,
    /// How it is protected; `None` for plain HTTP.
    pub tls: Option<TlsPeer>,
}

/// What a TLS handshake told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPeer {
    /// The name the peer asked for (SNI), in lower case.
    pub server_name: Option<String>,
    /// The version that was agreed on.
    pub version: Option<rustls::ProtocolVersion>,
}

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; hint: {hint}")]
pub struct BindError {
    /// Where it should have listened.
    pub address: SocketAddr,
    /// What to do about it.
    pub hint: String,
    /// What the operating system says.
    pub source: io::Error,
}

/// A bound socket: connections queue in the kernel until [`Listener::serve`] takes them.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local_address: SocketAddr,
    control: Control,
}

/// Changes what a listener is held to while it serves.
#[derive(Clone, Debug)]
pub struct Control {
    shared: Arc<ArcSwap<Shared>>,
    places: Arc<Places>,
}

impl Control {
    /// From now on, new connections are held to `options`, its certificates included; those that are open end as they
    /// began. The address is what it is.
    pub fn set(&self, options: Options) {
        self.places.set_limits(options.connections_max, options.connections_per_source_max);
        let shared = self.shared.load();
        let (metrics, connections) = (Arc::clone(&shared.metrics), shared.connections.clone());
        self.shared.store(Arc::new(Shared { options, metrics, connections }));
    }
}

impl Listener {
    /// Binds the address. To be called within the runtime that will serve it.
    pub fn bind(options: Options, metrics: Arc<Metrics>) -> Result<Self, BindError> {
        let address = options.address;
        let socket = bound(address).map_err(|source| BindError {
            address,
            hint: hint(address, source.kind()),
            source,
        })?;
        Ok(Self::with(socket, options, metrics))
    }

    /// Takes a socket that somebody else has bound, and that listens; the address of `options` is not looked at. To be
    /// called within the runtime that will serve it.
    pub fn on(
        socket: std::net::TcpListener,
        options: Options,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BindError> {
        let address = socket.local_addr().unwrap_or(options.address);
        let socket = taken_over(socket).map_err(|source| BindError {
            address,
            hint: "whoever handed the socket over must have bound it and listen on it".to_owned(),
            source,
        })?;
        Ok(Self::with(socket, options, metrics))
    }

    fn with(socket: TcpListener, options: Options, metrics: Arc<Metrics>) -> Self {
        let address = options.address;
        let local_address = socket.local_addr().unwrap_or(address);
        let places = Places::new(options.connections_max, options.connections_per_source_max);
        let shared = Shared { options, metrics, connections: TaskTracker::new() };
        let control = Control { shared: Arc::new(ArcSwap::from_pointee(shared)), places };
        Self { socket, local_address, control }
    }

    /// Changes its options while it serves.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Where it listens, with the port that the operating system chose if the configured one is 0.
    pub const fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Accepts connections and hands each request to `service`, until `stop`: then no connection is accepted any more,
    /// those at rest are closed, and the others after their last answer. Returns when all are gone, upgraded ones
    /// included; after `kill` none is waited for, and what they were doing is dropped.
    ///
    /// Neither an accept error nor a panic of the service ends it.
    pub async fn serve<S, F, B>(self, service: S, stop: CancellationToken, kill: CancellationToken)
    where
        S: Fn(Request<Incoming>, Arc<Peer>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { socket, control: Control { shared, places }, .. } = self;
        // All that `shared` ever holds have the same one.
        let connections = shared.load().connections.clone();
        let until = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = kill.cancelled() => {}
            }
        };
        let spread = Spread::new();
        let accepting = async {
            loop {
                let (stream, address, hold) = admitted(&socket, &shared, &places).await;
                let shared = shared.load_full();
                let (stop, kill) = (stop.child_token(), kill.child_token());
                let (worker, stream, seated) = spread.place(stream);
                let connection = Connection { stream, address, hold, seated, stop, kill };
                connections.spawn_on(connection.run(shared, service.clone()), &worker);
            }
        };
        tokio::select! {
            () = until => {}
            () = accepting => {}
        }
        drop(socket);
        connections.close();
        connections.wait().await;
    }
}

/// The next connection that there is a place for. Cancel safe: no admitted connection is lost.
async fn admitted(
    socket: &TcpListener,
    shared: &ArcSwap<Shared>,
    places: &Arc<Places>,
) -> (TcpStream, SocketAddr, Hold) {
    let (metrics, connections) = {
        let shared = shared.load();
        (Arc::clone(&shared.metrics), shared.connections.clone())
    };
    let mut pause = ACCEPT_PAUSE;
    loop {
        let (stream, address) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                pause = recover(&error, pause, &metrics).await;
                continue;
            }
        };
        pause = ACCEPT_PAUSE;
        let open = metrics.connection_accepted();
        match admit(&shared.load().options, places, address) {
            Ok(place) => {
                return (stream, address, Hold::new(place, open, connections.token()));
            }
            Err(reason) => {
                metrics.connection_rejected(reason);
                tracing::debug!(peer = %address, reason = reason.label(), "connection rejected");
            }
        }
    }
}

/// A place for a connection from `address`, which counts for it unless it will say for whom it speaks.
fn admit(
    options: &Options,
    places: &Arc<Places>,
    address: SocketAddr,
) -> Result<Place, ConnectionRejection> {
    let ip = address.ip().to_canonical();
    match &options.proxy_protocol {
        None => {
            let mut place = places.take()?;
            place.count_for(ip)?;
            Ok(place)
        }
        Some(trusted) if trusted.iter().any(|network| network.contains(&ip)) => places.take(),
        Some(_) => Err(ConnectionRejection::UntrustedProxy),
    }
}

/// Waits as an accept error demands; says how long to wait after the next one.
async fn recover(error: &io::Error, pause: Duration, metrics: &Metrics) -> Duration {
    metrics.accept_failed();
    // accept(2) passes on what became of the connection that it would have handed over: no reason to wait.
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    ) {
        return pause;
    }
    tracing::warn!(%error, "cannot accept connections; hint: if it says too many open files, raise LimitNOFILE");
    time::sleep(pause).await;
    pause.saturating_mul(2).min(ACCEPT_PAUSE_MAX)
}

fn bound(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for the TIME_WAIT of its predecessor's connections.
    socket.set_reuseaddr(true)?;
    // On Linux, connections inherit it from the socket that accepts them.
    SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn taken_over(socket: std::net::TcpListener) -> io::Result<TcpListener> {
    let reference = SockRef::from(&socket);
    if !reference.is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen"));
    }
    reference.set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

fn hint(address: SocketAddr, kind: io::ErrorKind) -> String {
    let port = address.port();
    #[expect(clippy::wildcard_enum_match_arm, reason = "io::ErrorKind is open-ended")]
    match kind {
        io::ErrorKind::AddrInUse => {
            format!(
                "another process listens there (`ss -ltnp 'sport = :{port}'` names it); stop it, or choose another port"
            )
        }
        io::ErrorKind::PermissionDenied => format!(
            "port {port} needs a privilege below 1024: choose a higher one, or give the process CAP_NET_BIND_SERVICE"
        ),
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this machine has that address; 0.0.0.0 or [::] stand for all of them"
                .to_owned()
        }
        _ => "check the address and its port".to_owned(),
    }
}

/// Small answers must not wait for an acknowledgement of the one before. A socket that refuses is already gone.
fn without_delay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
}
