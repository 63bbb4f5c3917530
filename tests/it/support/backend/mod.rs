//! A scripted backend: raw TCP on a free port, its own threads, every request recorded, every answer byte for byte as
//! the script says, up to the ways in which real backends break.

mod connection;

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use connection::Connection;
use rustls::ServerConfig;

use super::traced;

/// How long anything here waits for anything.
const LIMIT: Duration = Duration::from_secs(20);

/// What to do with one request.
#[derive(Clone)]
pub(crate) struct Action {
    read: Reading,
    pieces: Vec<Piece>,
    then: Then,
}

/// How much of the request is read before the answer starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    Nothing,
    Head,
    Whole,
}

/// A part of the answer.
#[derive(Clone)]
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    /// Waits; drips are made of these.
    Pause(Duration),
    /// Waits for the test.
    Gate(Arc<Gate>),
}

/// What becomes of the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Keep,
    Close,
    /// RST rather than FIN.
    Reset,
    /// Says nothing more until the other side closes.
    Hang,
    /// Sends back whatever comes.
    Echo,
}

impl Action {
    /// A complete answer without a body, on a connection that stays open.
    pub(crate) fn status(status: u16) -> Self {
        Self::raw(format!("HTTP/1.1 {status} Scripted\r\ncontent-length: 0\r\n\r\n"))
    }

    /// A complete answer with one field and no body.
    pub(crate) fn status_with(status: u16, field: &str) -> Self {
        Self::raw(format!("HTTP/1.1 {status} Scripted\r\ncontent-length: 0\r\n{field}\r\n\r\n"))
    }

    /// These bytes.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { read: Reading::Whole, pieces: vec![Piece::Bytes(bytes.into())], then: Then::Keep }
    }

    /// Reads the request, answers nothing.
    pub(crate) fn silent(then: Then) -> Self {
        Self { read: Reading::Whole, pieces: Vec::new(), then }
    }

    pub(crate) fn reading(mut self, read: Reading) -> Self {
        self.read = read;
        self
    }

    pub(crate) fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }

    pub(crate) fn and(mut self, piece: Piece) -> Self {
        self.pieces.push(piece);
        self
    }

    pub(crate) fn and_bytes(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.and(Piece::Bytes(bytes.into()))
    }
}

/// Holds an answer back until it is opened.
#[derive(Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(crate) fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let open = self.open.lock().unwrap();
        let (_open, result) = self.opened.wait_timeout_while(open, LIMIT, |open| !*open).unwrap();
        assert!(!result.timed_out(), "nobody opened the gate");
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// Which connection it came on, from 0.
    pub(crate) connection: usize,
    /// Request line and fields, byte for byte, with the empty line.
    pub(crate) head: String,
    /// Decoded if it was chunked.
    pub(crate) body: Vec<u8>,
    /// After the last chunk, byte for byte.
    pub(crate) trailers: String,
}

impl Recorded {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// All values of a field, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    /// The value of a field that is there once.
    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} is there {} times", all.len());
        all.first().copied()
    }
}

type Script = dyn Fn(usize) -> Action + Send + Sync;

struct Shared {
    script: Box<Script>,
    tls: Option<Arc<ServerConfig>>,
    asked: AtomicUsize,
    accepted: AtomicUsize,
    received: AtomicUsize,
    recorded: Mutex<Vec<Recorded>>,
    open: Mutex<HashMap<usize, TcpStream>>,
    stop: AtomicBool,
}

/// A scripted backend. Ends, with all its connections, when it is dropped.
pub(crate) struct Backend {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

impl Backend {
    /// Answers the n-th request, from 0, with `script(n)`.
    ///
    /// A new connection takes its number when it is accepted, a later request on it when its first byte arrives.
    pub(crate) fn start(script: impl Fn(usize) -> Action + Send + Sync + 'static) -> Self {
        Self::launch(TcpListener::bind("127.0.0.1:0").unwrap(), Box::new(script), None)
    }

    /// The same at a given address.
    pub(crate) fn start_at(
        address: SocketAddr,
        script: impl Fn(usize) -> Action + Send + Sync + 'static,
    ) -> Self {
        Self::launch(TcpListener::bind(address).unwrap(), Box::new(script), None)
    }

    /// The same over TLS.
    pub(crate) fn start_tls(
        script: impl Fn(usize) -> Action + Send + Sync + 'static,
        tls: Arc<ServerConfig>,
    ) -> Self {
        Self::launch(TcpListener::bind("127.0.0.1:0").unwrap(), Box::new(script), Some(tls))
    }

    /// Answers every request in the same way.
    pub(crate) fn always(action: Action) -> Self {
        Self::start(move |_| action.clone())
    }

    /// Answers with these in turn, and with the last ever after.
    pub(crate) fn in_turn(actions: Vec<Action>) -> Self {
        Self::start(move |n| actions[n.min(actions.len() - 1)].clone())
    }

    fn launch(listener: TcpListener, script: Box<Script>, tls: Option<Arc<ServerConfig>>) -> Self {
        traced::here();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script,
            tls,
            asked: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            received: AtomicUsize::new(0),
            recorded: Mutex::default(),
            open: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&listener, &theirs));
        Self { shared, address, acceptor: Some(acceptor) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has arrived whole so far, in order.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.shared.recorded.lock().unwrap().clone()
    }

    /// The only request so far.
    pub(crate) fn only(&self) -> Recorded {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "one request, no more");
        requests.into_iter().next().unwrap()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are open now.
    pub(crate) fn open_connections(&self) -> usize {
        self.shared.open.lock().unwrap().len()
    }

    /// How many bytes have arrived so far, those of incomplete requests included.
    pub(crate) fn received_bytes(&self) -> usize {
        self.shared.received.load(Ordering::SeqCst)
    }

    /// Closes every open connection at once.
    pub(crate) fn hang_up(&self) {
        for (_, socket) in self.shared.open.lock().unwrap().drain() {
            socket.shutdown(Shutdown::Both).ok();
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        TcpStream::connect(self.address).ok();
        self.hang_up();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().ok();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for socket in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(socket) = socket else { continue };
        let connection = shared.accepted.fetch_add(1, Ordering::SeqCst);
        shared.open.lock().unwrap().insert(connection, socket.try_clone().unwrap());
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            if let Ok(mut serving) = Connection::new(socket, connection, &shared) {
                // Ends in an error whenever the other side does what it may.
                serving.serve(&shared).ok();
                // Before the socket is dropped: only the last handle closes it, or resets it.
                shared.open.lock().unwrap().remove(&connection);
            }
        });
    }
}

/// Waits until something is so; fails the test if it does not become so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let poll = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, poll).await.is_ok(), "{what}");
}
