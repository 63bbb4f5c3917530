//! Every case of `tests/data/http1` against a real gateway, Redis and backends, over TCP and TLS, whole and in pieces.

mod case;

use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt as _;
use oncehook::cli::sender::Trust;
use oncehook::listener::tls::ALPN_HTTP1;
use oncehook::webhook::event::EventKind;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use case::{Case, Ending, Step};

use crate::gateway::metric;
use crate::support::backend::{Action, Backend, Recorded};
use crate::support::dial::LONG;
use crate::support::gateway::Gateway;
use crate::support::redis::RedisServer;
use crate::support::sender::{Signed, event};

/// What the issue asks for.
const CASES_MIN: usize = 100;

/// How a case's bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Whole,
    /// So few at once that every line is cut somewhere.
    Pieces(usize),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

struct Stage {
    redis: RedisServer,
    backend: Backend,
    relay: Backend,
    gateway: Gateway,
    tls: bool,
    /// The next event's number.
    number: u64,
}

impl Stage {
    async fn start(tls: bool) -> Self {
        let redis = RedisServer::start().await;
        let (backend, relay) =
            (Backend::always(Action::status(200)), Backend::always(Action::status(201)));
        let gateway = Gateway::start(&format!(
            "relay.backend = \"{}\"\nshutdown.drain_delay = \"0s\"\n\
             store.kind = \"redis\"\nstore.redis.url = \"{}\"\nstore.redis.operation_timeout = \"1s\"\n\
             limits.body_bytes_max = \"64KiB\"\nlimits.body_timeout = \"3s\"\n\
             tls.{} = {tls}\n[[route]]\npath = \"/webhook\"\nbackend = \"{}/hook\"\n",
            relay.url(),
            redis.url(),
            if tls { "self_signed" } else { "enabled" },
            backend.url(),
        ));
        let mut stage = Self { redis, backend, relay, gateway, tls, number: 0 };
        // Opens the connection to Redis and loads its scripts, so that neither counts below.
        stage.good_one("the first").await;
        stage
    }

    async fn connect(&self) -> Box<dyn Stream> {
        let socket = TcpStream::connect(self.gateway.address()).await.unwrap();
        socket.set_nodelay(true).unwrap();
        if !self.tls {
            return Box::new(socket);
        }
        let mut config = Trust::Anything.client_config().unwrap();
        config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        let shaking = TlsConnector::from(Arc::new(config)).connect(name, socket);
        Box::new(timeout(LONG, shaking).await.expect("a handshake in time").unwrap())
    }

    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// A webhook as LiveKit sends it, on a connection of its own: forwarded, once.
    async fn good_one(&mut self, after: &str) {
        let mut connection = Connection::new(self.connect().await);
        self.good_one_on(&mut connection, after).await;
    }

    async fn good_one_on(&mut self, connection: &mut Connection, after: &str) {
        let number = self.next();
        let good = event(EventKind::RoomFinished, number, &format!("EV_good_{number}"));
        let before = self.backend.requests().len();
        let head = format!(
            "POST /webhook HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/webhook+json\r\n\
             Authorization: {}\r\nContent-Length: {}\r\n\r\n",
            good.token,
            good.body.len()
        );
        connection.write(&[head.as_bytes(), &good.body].concat(), Manner::Whole).await;
        assert_eq!(
            connection.answer().await.map(|it| it.0),
            Some(200),
            "the good one after {after}"
        );
        let requests = self.backend.requests();
        let its: Vec<_> = requests.iter().filter(|one| one.body == good.body).collect();
        assert_eq!(its.len(), 1, "the good one after {after} reached the backend once");
        assert_eq!(requests.len(), before + 1, "nothing else came with the good one after {after}");
    }

    async fn store_commands(&self) -> u64 {
        self.redis.store_commands().await
    }

    async fn refusals(&self, reason: &str) -> u64 {
        let malformed = format!("oncehook_requests_malformed_total{{reason=\"{reason}\"}}");
        let refused = format!("oncehook_refusals_total{{route=\"/webhook\",reason=\"{reason}\"}}");
        metric(&self.gateway, &malformed).await + metric(&self.gateway, &refused).await
    }

    /// Plays one case; says what was not as it should be.
    async fn play(&mut self, case: &Case, manner: Manner) {
        let what = format!("{} ({manner:?}, TLS: {})", case.name, self.tls);
        let commands = self.store_commands().await;
        let before = (self.backend.requests().len(), self.relay.requests().len());
        let refusals = match &case.reason {
            Some(reason) => self.refusals(reason).await,
            None => 0,
        };
        let (steps, signed) = case.steps(self.next());
        let mut connection = Connection::new(self.connect().await);
        for step in steps {
            match step {
                Step::Send(bytes) => connection.write(&bytes, manner).await,
                Step::AwaitContinue => {
                    assert_eq!(connection.head().await.map(|it| it.0), Some(100), "{what}");
                }
                Step::End => connection.end().await,
            }
        }
        let mut last = String::new();
        for expected in &case.answers {
            let answer = connection.answer().await;
            let (status, head) = answer.unwrap_or_else(|| panic!("{what}: no answer"));
            assert_eq!(status, *expected, "{what}: {head}");
            let is_ours = !head.contains("scripted");
            if status >= 400 && is_ours {
                assert!(head.contains("content-type: application/problem+json"), "{what}: {head}");
            }
            last = head;
        }
        match case.ending {
            Ending::Closed => {
                let rest = connection.rest().await;
                assert_eq!(rest, "", "{what}: more than was asked for");
                // Or somebody would send his next request into the closing (RFC 9112, §9.6).
                let told = last.contains("connection: close\r\n") || last.starts_with("http/1.0");
                assert!(told || case.answers.is_empty(), "{what}: {last}");
            }
            Ending::Kept => {}
        }
        let came = self.backend.requests()[before.0..].to_vec();
        let relayed = self.relay.requests()[before.1..].to_vec();
        assert_eq!(
            (came.len(), relayed.len()),
            (case.backend, case.relayed),
            "{what}: {came:#?} {relayed:#?}"
        );
        let asked = self.store_commands().await - commands;
        assert_eq!(asked > 0, case.store, "{what}: {asked} commands reached the store");
        if let Some(reason) = &case.reason {
            assert_eq!(
                self.refusals(reason).await,
                refusals + 1,
                "{what}: {reason} is counted once"
            );
        }
        for one in &came {
            as_built(&what, one, &signed);
        }
        for one in came.iter().chain(&relayed) {
            compare(&what, case, one);
        }
        if case.ending == Ending::Kept {
            self.good_one_on(&mut connection, &what).await;
        }
        self.good_one(&what).await;
    }
}

/// What reaches the backend is the gateway's own request with the sender's body.
fn as_built(what: &str, one: &Recorded, signed: &Signed) {
    assert_eq!(one.body, signed.body, "{what}: the body");
    assert_eq!(one.line(), "POST /hook HTTP/1.1", "{what}");
    assert_eq!(one.one("content-length"), Some(signed.body.len().to_string().as_str()), "{what}");
    assert_eq!(one.all("host").len(), 1, "{what}: {}", one.head);
    for name in ["transfer-encoding", "te", "trailer", "expect", "connection", "upgrade"] {
        assert_eq!(one.one(name), None, "{what}: {}", one.head);
    }
    assert!(one.trailers.is_empty(), "{what}: {}", one.trailers);
}

fn compare(what: &str, case: &Case, one: &Recorded) {
    let body = String::from_utf8_lossy(&one.body);
    let whole = format!("{}{body}\n{}", one.head, one.trailers).to_lowercase();
    for sees in &case.sees {
        assert!(whole.contains(sees), "{what}: {sees} is not in {whole}");
    }
    for lacks in &case.lacks {
        assert!(!whole.contains(lacks), "{what}: {lacks} is in {whole}");
    }
    let ends = one.head.matches('\n').count();
    assert_eq!(one.head.matches("\r\n").count(), ends, "{what}: {:?}", one.head);
}

/// The client's end: bytes, and what can be read in them.
struct Connection {
    stream: Box<dyn Stream>,
    came: Vec<u8>,
}

impl Connection {
    fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, came: Vec::new() }
    }

    /// What the peer does not take any more is not written: its answer may come first.
    async fn write(&mut self, bytes: &[u8], manner: Manner) {
        let size = match manner {
            Manner::Whole => bytes.len().max(1),
            Manner::Pieces(size) => size,
        };
        for piece in bytes.chunks(size) {
            let writing = async {
                self.stream.write_all(piece).await?;
                self.stream.flush().await
            };
            if timeout(LONG, writing).await.expect("the gateway takes bytes").is_err() {
                return;
            }
            if size < bytes.len() {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn end(&mut self) {
        self.stream.shutdown().await.ok();
    }

    /// More bytes; how many. A reset is an end, too.
    async fn more(&mut self) -> usize {
        let reading = self.stream.read_buf(&mut self.came);
        let read: io::Result<usize> = timeout(LONG, reading).await.expect("an answer in time");
        read.unwrap_or(0)
    }

    /// The next answer's head: its status, and all of it in small letters; `None` if the connection ends before.
    async fn head(&mut self) -> Option<(u16, String)> {
        loop {
            let end = self.came.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                let head: Vec<u8> = self.came.drain(..end + 4).collect();
                let head = String::from_utf8(head).unwrap().to_lowercase();
                return Some((head[9..12].parse().unwrap(), head));
            }
            if self.more().await == 0 {
                return None;
            }
        }
    }

    /// The next final answer.
    async fn answer(&mut self) -> Option<(u16, String)> {
        let (status, head) = loop {
            let (status, head) = self.head().await?;
            if status >= 200 || status == 101 {
                break (status, head);
            }
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        while self.came.len() < length {
            if self.more().await == 0 {
                return None;
            }
        }
        self.came.drain(..length);
        Some((status, head))
    }

    /// What comes before the end.
    async fn rest(&mut self) -> String {
        while self.more().await > 0 {}
        String::from_utf8_lossy(&self.came).into_owned()
    }
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/http1");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|it| it == "http")).collect();
    files.sort();
    assert!(files.len() >= CASES_MIN, "there are {} cases", files.len());
    files.iter().map(|file| Case::read(file)).collect()
}

async fn all_cases(tls: bool, manners: &[Manner]) {
    let cases = cases();
    let mut stage = Stage::start(tls).await;
    let start = (stage.backend.requests().len(), stage.relay.requests().len());
    let (mut backend, mut relayed) = start;
    let over = if tls { "tls" } else { "tcp" };
    // All are played, whatever becomes of the first: the list of those that failed says more than one of them.
    let mut failed = Vec::new();
    for case in cases.iter().filter(|case| case.over.as_deref().is_none_or(|it| it == over)) {
        for manner in manners {
            if AssertUnwindSafe(stage.play(case, *manner)).catch_unwind().await.is_err() {
                failed.push(case.name.as_str());
            }
            backend += case.backend + if case.ending == Ending::Kept { 2 } else { 1 };
            relayed += case.relayed;
        }
    }
    assert!(failed.is_empty(), "what failed is told above: {failed:?}");
    // Nothing came late.
    assert_eq!(stage.backend.requests().len(), backend);
    assert_eq!(stage.relay.requests().len(), relayed);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_over_tcp_has_the_status_and_the_effect_that_its_file_says() {
    all_cases(false, &[Manner::Whole, Manner::Pieces(7)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_over_tls_has_the_status_and_the_effect_that_its_file_says() {
    all_cases(true, &[Manner::Whole]).await;
}
