//! A scripted backend: raw TCP on a free port, its own threads, every request recorded, every answer byte for byte as
//! the script says, up to the ways in which real backends break.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::SockRef;

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

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

struct Connection {
    socket: TcpStream,
    stream: Box<dyn Stream>,
    number: usize,
    buffer: Vec<u8>,
}

impl Connection {
    fn new(socket: TcpStream, number: usize, shared: &Shared) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(LIMIT))?;
        let stream: Box<dyn Stream> = match &shared.tls {
            None => Box::new(socket.try_clone()?),
            Some(config) => {
                let connection =
                    ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(connection, socket.try_clone()?))
            }
        };
        Ok(Self { socket, stream, number, buffer: Vec::new() })
    }

    fn serve(&mut self, shared: &Shared) -> io::Result<()> {
        loop {
            let number = shared.asked.fetch_add(1, Ordering::SeqCst);
            let action = (shared.script)(number);
            self.perform(&action, shared)?;
            match action.then {
                Then::Keep => {}
                Then::Close => return self.socket.shutdown(Shutdown::Both),
                Then::Reset => return SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)),
                Then::Hang => return self.until_closed(shared),
                Then::Echo => return self.echo(),
            }
            if self.buffer.is_empty() && self.more(shared)? == 0 {
                return Ok(());
            }
        }
    }

    fn perform(&mut self, action: &Action, shared: &Shared) -> io::Result<()> {
        if action.read != Reading::Nothing {
            let head = self.read_head(shared)?;
            if action.read == Reading::Whole {
                let (body, trailers) = self.read_body(&head, shared)?;
                let recorded = Recorded { connection: self.number, head, body, trailers };
                shared.recorded.lock().unwrap().push(recorded);
            }
        }
        for piece in &action.pieces {
            match piece {
                Piece::Bytes(bytes) => {
                    self.stream.write_all(bytes)?;
                    self.stream.flush()?;
                }
                Piece::Pause(pause) => self.pause(*pause)?,
                Piece::Gate(gate) => gate.pass(),
            }
        }
        Ok(())
    }

    /// Waits, or less if the other side closes.
    fn pause(&mut self, pause: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(pause))?;
        let result = self.socket.peek(&mut [0]);
        self.socket.set_read_timeout(Some(LIMIT))?;
        match result {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn until_closed(&mut self, shared: &Shared) -> io::Result<()> {
        while self.more(shared)? > 0 {
            self.buffer.clear();
        }
        Ok(())
    }

    fn echo(&mut self) -> io::Result<()> {
        let mut bytes = std::mem::take(&mut self.buffer);
        loop {
            self.stream.write_all(&bytes)?;
            self.stream.flush()?;
            bytes.resize(4096, 0);
            let length = self.stream.read(&mut bytes)?;
            bytes.truncate(length);
            if length == 0 {
                return self.socket.shutdown(Shutdown::Both);
            }
        }
    }

    fn more(&mut self, shared: &Shared) -> io::Result<usize> {
        let mut bytes = [0; 16 * 1024];
        let length = self.stream.read(&mut bytes)?;
        shared.received.fetch_add(length, Ordering::SeqCst);
        self.buffer.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    /// Takes what comes up to and with `end`.
    fn read_until(&mut self, end: &[u8], shared: &Shared) -> io::Result<Vec<u8>> {
        loop {
            if let Some(start) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Ok(self.buffer.drain(..start + end.len()).collect());
            }
            if self.more(shared)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn read_exact(&mut self, length: usize, shared: &Shared) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            if self.more(shared)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn read_head(&mut self, shared: &Shared) -> io::Result<String> {
        let head = self.read_until(b"\r\n\r\n", shared)?;
        Ok(String::from_utf8_lossy(&head).into_owned())
    }

    fn read_body(&mut self, head: &str, shared: &Shared) -> io::Result<(Vec<u8>, String)> {
        let lower = head.to_ascii_lowercase();
        let field = |name: &str| {
            lower.lines().find_map(|line| line.strip_prefix(name).map(|v| v.trim().to_owned()))
        };
        if field("transfer-encoding:").is_some_and(|coding| coding == "chunked") {
            return self.read_chunks(shared);
        }
        let length = field("content-length:").map_or(0, |length| length.parse().unwrap());
        Ok((self.read_exact(length, shared)?, String::new()))
    }

    fn read_chunks(&mut self, shared: &Shared) -> io::Result<(Vec<u8>, String)> {
        let mut body = Vec::new();
        loop {
            let line = self.read_until(b"\r\n", shared)?;
            let length = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16)
                .map_err(io::Error::other)?;
            if length == 0 {
                break;
            }
            body.extend(self.read_exact(length, shared)?);
            self.read_exact(2, shared)?;
        }
        let mut trailers = String::new();
        loop {
            let line = self.read_until(b"\r\n", shared)?;
            if line == b"\r\n" {
                return Ok((body, trailers));
            }
            trailers.push_str(&String::from_utf8_lossy(&line));
        }
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
