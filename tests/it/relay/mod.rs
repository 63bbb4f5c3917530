//! The relay against real sockets: a raw client, a raw backend, and hyper's server in between as the listener runs it.

mod faults;
mod passing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use oncehook::relay::{Options, Relay};
use oncehook::upstream::{self, HostPolicy, PathPolicy, Peer, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

const LIMIT: Duration = Duration::from_secs(20);

/// Which of hyper's servers a gateway runs; the listener chooses by ALPN.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// A relay behind a listener. Ends when it is dropped.
struct Gateway {
    address: SocketAddr,
    tunnels: TaskTracker,
    stop: CancellationToken,
    upstream: Upstream,
    _end: DropGuard,
}

impl Gateway {
    async fn start(backend: &str) -> Self {
        Self::start_with(backend, Protocol::Http1, |_, _| {}).await
    }

    async fn start_with(
        backend: &str,
        protocol: Protocol,
        change: impl FnOnce(&mut upstream::Options, &mut Options),
    ) -> Self {
        let mut to_backend = upstream::Options {
            target: backend.parse().unwrap(),
            path: PathPolicy::Sender,
            host: HostPolicy::Keep,
            tls: None,
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_millis(1500),
            connections_max: 64,
            refused: Vec::new(),
            via: "oncehook".to_owned(),
        };
        let mut options =
            Options { head_timeout: LIMIT, idle_timeout: LIMIT, tunnel_idle_timeout: LIMIT };
        change(&mut to_backend, &mut options);
        let (tunnels, stop, end) =
            (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
        let upstream = Upstream::new(&to_backend, TaskTracker::new()).unwrap();
        let relay = Arc::new(Relay::new(upstream.clone(), options, tunnels.clone(), stop.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        TaskTracker::new()
            .spawn(end.clone().run_until_cancelled_owned(accept(listener, relay, protocol)));
        Self { address, tunnels, stop, upstream, _end: end.drop_guard() }
    }

    async fn connect(&self) -> Client {
        Client { socket: TcpStream::connect(self.address).await.unwrap(), buffer: Vec::new() }
    }

    /// Sends one request on a connection of its own, and reads the answer to the end of the connection.
    async fn ask(&self, request: &str) -> String {
        let mut client = self.connect().await;
        client.send(request).await;
        client.rest().await
    }
}

async fn accept(listener: TcpListener, relay: Arc<Relay>, protocol: Protocol) {
    let tracker = TaskTracker::new();
    while let Ok((socket, address)) = listener.accept().await {
        let relay = Arc::clone(&relay);
        let service = service_fn(move |request: Request<Incoming>| {
            let relay = Arc::clone(&relay);
            let peer = Peer { address, client: address.ip(), tls: false, trusted: false };
            async move { Ok::<_, std::convert::Infallible>(relay.serve(request, &peer, "req-1").await) }
        });
        tracker.spawn(async move {
            let io = TokioIo::new(socket);
            let served = match protocol {
                Protocol::Http1 => {
                    let mut server = hyper::server::conn::http1::Builder::new();
                    server
                        .timer(TokioTimer::new())
                        .serve_connection(io, service)
                        .with_upgrades()
                        .await
                }
                Protocol::Http2 => {
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(io, service)
                        .await
                }
            };
            // Fails whenever a body does, as some here must.
            served.ok();
        });
    }
}

/// A client that sends and reads bytes.
struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads until `end` has come, and returns all up to and with it.
    async fn until(&mut self, end: &str) -> String {
        let (socket, buffer) = (&mut self.socket, &mut self.buffer);
        let found =
            |buffer: &[u8]| buffer.windows(end.len()).position(|window| window == end.as_bytes());
        while found(buffer).is_none() {
            let read = tokio::time::timeout(LIMIT, socket.read_buf(buffer)).await.expect(end);
            assert!(
                read.unwrap() > 0,
                "ended before {end:?}: {:?}",
                String::from_utf8_lossy(buffer)
            );
        }
        let taken: Vec<u8> = buffer.drain(..found(buffer).unwrap() + end.len()).collect();
        String::from_utf8(taken).unwrap()
    }

    async fn rest(mut self) -> String {
        let read = self.socket.read_to_end(&mut self.buffer);
        tokio::time::timeout(LIMIT, read).await.expect("the connection ends").ok();
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}

const GET: &str =
    "GET /api/rooms?x=%20y HTTP/1.1\r\nhost: public.example\r\nconnection: close\r\n\r\n";
