//! The assembled service over a pipe: any bytes in any pieces, as HTTP/1.1 or as HTTP/2. Nothing panics, every connection
//! ends when its peer has closed, and:
//!
//! - the backend gets nothing that is not signed for its very body, no event twice, and the relay nothing that could be
//!   meant for the webhook path;
//! - neither gets a request that a strict reader does not find in what was sent (a bare LF, two lengths …);
//! - what a peer says of itself (`Forwarded`, `X-Forwarded-*`, `X-Real-IP`, `Oncehook-*`, `Idempotency-Key`, their twins with
//!   underscores) counts only if it is a trusted proxy;
//! - 200 is answered only if the backend accepted the event, 206 only if the relay's backend said so;
//! - behind a 101, which nobody gets who did not ask for it, the bytes go both ways as they are.
//!
//! The first byte chooses the protocol and what the backends do (see [`Choice`]), the second the pieces; the rest is sent.
//! In it, [`body`] and its [`tokens`] stand for an event that no earlier input had.
//!
//! `README.md` says which faults were planted to see that this target finds them.

#![no_main]

use std::cell::Cell;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use libfuzzer_sys::{Corpus, fuzz_target};
use oncehook::app::fuzzing::Assembled;
use oncehook::config::load::{Sources, load};
use oncehook::listener::fuzzing::Protocol;
use oncehook::listener::{Peer, TlsPeer};
use oncehook::telemetry::labels::ConnectionEnd;
use oncehook_fuzz::reading::{Asked, answered, asked, streams, successes};
use oncehook_fuzz::{KEYS, hmac, webhook_token, webhook_token_of};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// Longer than anything takes whose peer has closed, and longer than every time-out that may be at work.
const LONG: Duration = Duration::from_secs(20);
const STATUSES: [u16; 4] = [200, 200, 422, 500];
/// For clocks that differ, in seconds.
const LEEWAY: u64 = 60;
/// What the relay's backend answers, and nobody else.
const RELAYED: u16 = 206;
/// From here on the second byte says that the peer closes without waiting for what it asked for.
const LEAVES_AT_ONCE: u8 = 200;
/// Fields that the gateway answers for, towards either backend.
const WRITTEN: [&str; 9] = [
    "content-length",
    "forwarded",
    "host",
    "transfer-encoding",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];
/// Others that the backend of webhooks acts on.
const KNOWN: [&str; 5] = [
    "authorization",
    "content-type",
    "idempotency-key",
    "oncehook-attempt",
    "oncehook-possible-duplicate",
];
/// Where the event's number stands in its body.
const NUMBER: &str = "0000000000000000";
/// The first number of a peer's address, if it is anybody, and if it is a trusted proxy. The other three are the input's.
const STRANGER: u8 = 10;
const TRUSTED: u8 = 11;
/// What the relay's backend says first in a tunnel. Then it says each byte that comes again, plus one.
const GREETING: &[u8] = b"HTTP/1.1 200 tunnel\r\n\r\n";

struct World {
    runtime: Runtime,
    gateway: Assembled,
    backends: Arc<Mutex<Backends>>,
    /// The tokens in the inputs.
    templates: [String; 3],
}

/// What an input's first byte says.
#[derive(Clone, Copy, Default)]
struct Choice(u8);

impl Choice {
    fn protocol(self) -> Protocol {
        if self.0 & 1 == 0 { Protocol::One } else { Protocol::Two }
    }

    /// What the backend answers.
    fn status(self) -> u16 {
        STATUSES[usize::from(self.0 >> 1) % 4]
    }

    /// The relay's backend grants a wish for another protocol.
    fn switches(self) -> bool {
        self.0 & 8 != 0
    }

    /// It changes the protocol unasked.
    fn switches_unasked(self) -> bool {
        self.0 & 16 != 0
    }

    fn peer(self, number: u64) -> Ipv4Addr {
        let [.., a, b, c] = number.to_be_bytes();
        Ipv4Addr::new(if self.0 & 32 == 0 { STRANGER } else { TRUSTED }, a, b, c)
    }

    /// It closes a tunnel after its first bytes.
    fn is_short(self) -> bool {
        self.0 & 64 != 0
    }
}

/// The services behind the gateway, and what has come to them from the peer of this input.
#[derive(Default)]
struct Backends {
    choice: Choice,
    peer: Option<Ipv4Addr>,
    webhooks: usize,
    delivered: usize,
    relayed: usize,
    /// What came through a tunnel.
    tunnelled: Vec<u8>,
}

static WORLD: LazyLock<World> = LazyLock::new(World::new);
/// `FUZZ_TELL=1` shows what came of each input.
static TELL: LazyLock<bool> = LazyLock::new(|| std::env::var_os("FUZZ_TELL").is_some());
static EVENTS: AtomicU64 = AtomicU64::new(0);

fn body(number: &str) -> String {
    format!(r#"{{"event":"room_started","room":{{"sid":"RM_{number}"}},"id":"EV_{number}"}}"#)
}

/// The token of an event, one that is out of time, and one of somebody who has no key: all for the right body.
fn tokens(number: &str) -> [String; 3] {
    let body = body(number);
    let stale = webhook_token_of(body.as_bytes(), 1_700_000_600, KEYS[0].2);
    let foreign =
        webhook_token_of(body.as_bytes(), 4_102_444_800, "another-secret-of-thirty-two-characters");
    [webhook_token(body.as_bytes()), stale, foreign]
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some(([choice, pieces], bytes)) = data.split_first_chunk::<2>() else {
        return Corpus::Reject;
    };
    let world = &*WORLD;
    let choice = Choice(*choice);
    let event = EVENTS.fetch_add(1, Ordering::Relaxed) + 1;
    let number = format!("{event:016}");
    let tokens = tokens(&number);
    let mut bytes = replaced(bytes, NUMBER.as_bytes(), number.as_bytes());
    for (template, token) in world.templates.iter().zip(&tokens) {
        bytes = replaced(&bytes, template.as_bytes(), token.as_bytes());
    }
    let peer = choice.peer(event);
    *world.backends() = Backends { choice, peer: Some(peer), ..Backends::default() };

    let (end, answer) =
        world.runtime.block_on(world.play(choice.protocol(), peer, &bytes, *pieces));
    let seen = world.backends();
    if *TELL {
        eprintln!(
            "{end:?}, {} webhooks, {} delivered, {} relayed, {} bytes tunnelled, {:?}",
            seen.webhooks,
            seen.delivered,
            seen.relayed,
            seen.tunnelled.len(),
            String::from_utf8_lossy(&answer)
        );
    }
    assert_ne!(end, ConnectionEnd::Panic);
    assert!(seen.delivered <= 1, "an event came twice");
    assert!(seen.webhooks <= 1 || choice.status() == 500, "an event came again after a verdict");
    match choice.protocol() {
        Protocol::One => check_one(&seen, &asked(&bytes), &bytes, &answer),
        Protocol::Two => check_two(&seen, &bytes, &answer),
    }
    Corpus::Keep
});

/// What came to the backends and back, against what was sent over HTTP/1.1.
fn check_one(seen: &Backends, asked: &[Asked], bytes: &[u8], answer: &[u8]) {
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "no answer begins so");
    let came = seen.webhooks + seen.relayed;
    assert!(came <= asked.len(), "{came} requests came of {} that are plain", asked.len());
    let answered = answered(answer);
    let count = |status| answered.statuses.iter().filter(|given| **given == status).count();
    assert_eq!(count(500), 0, "an exchange broke");
    let successes = answered.statuses.iter().filter(|status| **status < 300).count();
    assert_eq!(successes, count(200) + count(RELAYED), "who says so? {:?}", answered.statuses);
    check_successes(seen, count(200), count(RELAYED));

    let Some(tunnel) = answered.tunnel else {
        assert!(seen.tunnelled.is_empty(), "a tunnel that nobody was told of");
        return;
    };
    let request = asked.get(answered.statuses.len()).expect("a request that was answered with 101");
    assert!(
        request.upgrade && seen.choice.switches(),
        "a change of protocol that nobody asked for"
    );
    let echo = seen.tunnelled.iter().map(|byte| byte.wrapping_add(1));
    let back: Vec<_> = GREETING.iter().copied().chain(echo).collect();
    let (sent, came) = (&bytes[request.end..], &answer[tunnel..]);
    assert!(sent.starts_with(&seen.tunnelled), "other bytes came through the tunnel");
    assert!(back.starts_with(came), "other bytes came back through the tunnel");
    // Neither side has broken it off, so all of it must have come.
    if !seen.choice.is_short() {
        assert_eq!(seen.tunnelled.len(), sent.len(), "the tunnel lost bytes");
        assert_eq!(came.len(), back.len(), "the tunnel lost bytes on their way back");
    }
}

/// The same for HTTP/2.
fn check_two(seen: &Backends, bytes: &[u8], answer: &[u8]) {
    let came = seen.webhooks + seen.relayed;
    assert!(came <= streams(bytes), "more requests came than there were streams");
    assert!(seen.tunnelled.is_empty(), "a tunnel in HTTP/2");
    let (of_backend, of_relay) = successes(answer);
    check_successes(seen, of_backend, of_relay);
}

fn check_successes(seen: &Backends, of_backend: usize, of_relay: usize) {
    assert!(of_backend == 0 || seen.delivered > 0, "200, and the backend has nothing");
    assert!(of_relay <= seen.relayed, "more answers than requests");
}

impl World {
    fn new() -> Self {
        // Whatever came over a socket is looked at in every turn.
        let runtime = Builder::new_current_thread().enable_all().event_interval(1).build();
        let runtime = runtime.expect("a runtime");
        let backends = Arc::new(Mutex::new(Backends::default()));
        let gateway = runtime.block_on(async {
            let (behind, aside) = (Arc::clone(&backends), Arc::clone(&backends));
            let webhooks =
                serve(move |head: Request<()>, body| locked(&behind).webhook(&head, &body)).await;
            let others = serve(move |head: Request<()>, _| {
                let (answer, short) = locked(&aside).relayed(&head);
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    tokio::spawn(tunnel(hyper::upgrade::on(head), Arc::clone(&aside), short));
                }
                answer
            })
            .await;
            let (_, key, secret) = KEYS[0];
            let variables = [
                ("ONCEHOOK_TLS__ENABLED", "false".to_owned()),
                ("ONCEHOOK_UPSTREAM__BACKEND", format!("http://{webhooks}/webhook")),
                ("ONCEHOOK_RELAY__BACKEND", format!("http://{others}")),
                ("ONCEHOOK_LIMITS__REFUSALS_PER_SOURCE_PER_MINUTE", "0".to_owned()),
                ("ONCEHOOK_LIMITS__BODY_BYTES_MAX", "16KiB".to_owned()),
                ("ONCEHOOK_LISTEN__TRUSTED_PROXIES", format!("{TRUSTED}.0.0.0/8")),
                ("LIVEKIT_KEYS", format!("{key}: {secret}")),
            ];
            let environment =
                variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let config = load(&Sources { environment, ..Sources::default() });
            let config = config.unwrap_or_else(|error| panic!("{error}"));
            Assembled::new(&config).unwrap_or_else(|error| panic!("{error:?}"))
        });
        Self { runtime, gateway, backends, templates: tokens(NUMBER) }
    }

    fn backends(&self) -> MutexGuard<'_, Backends> {
        locked(&self.backends)
    }

    /// Everything that a connection comes to, to its end.
    async fn play(
        &self,
        protocol: Protocol,
        peer: Ipv4Addr,
        bytes: &[u8],
        pieces: u8,
    ) -> (ConnectionEnd, Vec<u8>) {
        let (ours, theirs) = duplex(4096);
        let tls = TlsPeer { server_name: Some("gateway".to_owned()), version: None };
        let address = SocketAddr::from((peer, 1234));
        let peer = Peer { address, tls: (protocol == Protocol::Two).then_some(tls) };
        let serving = self.gateway.serve(ours, peer, protocol);
        let all = async { tokio::join!(serving, talk(theirs, bytes, pieces)) };
        timeout(LONG, all).await.expect("the connection ends when its peer has closed")
    }
}

/// Sends everything in pieces, closes, and takes whatever comes.
async fn talk(stream: DuplexStream, bytes: &[u8], pieces: u8) -> Vec<u8> {
    let (mut from, mut to) = tokio::io::split(stream);
    let taken = Cell::new(0);
    let sending = async {
        let mut state = u32::from(pieces);
        let mut rest = bytes;
        while !rest.is_empty() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let most = 1 + usize::try_from(state >> 16).unwrap_or(0) % (1 << (1 + pieces % 12));
            let (piece, after) =
                rest.split_at(if pieces == 0 { rest.len() } else { most.min(rest.len()) });
            if to.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
            rest = after;
        }
        if pieces < LEAVES_AT_ONCE {
            quiet(&taken).await;
        }
        let _ = to.shutdown().await;
    };
    let taking = async {
        let (mut all, mut piece) = (Vec::new(), [0; 4096]);
        while let Ok(bytes) = from.read(&mut piece).await {
            if bytes == 0 {
                break;
            }
            all.extend_from_slice(&piece[..bytes]);
            taken.set(all.len());
        }
        all
    };
    tokio::join!(sending, taking).1
}

/// Waits until nothing has come for so many turns: all that is awaited runs on this thread, or is this machine's.
async fn quiet(taken: &Cell<usize>) {
    const TURNS: u32 = 150;
    const TURNS_MAX: u32 = 3000;
    let (mut last, mut still) = (taken.get(), 0);
    for _ in 0..TURNS_MAX {
        tokio::task::yield_now().await;
        still = if taken.get() == last { still + 1 } else { 0 };
        last = taken.get();
        if still > TURNS {
            break;
        }
    }
}

fn replaced(bytes: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(what) {
            out.extend_from_slice(with);
            rest = after;
        } else {
            out.push(*first);
            rest = after;
        }
    }
    out
}

/// An HTTP/1.1 server on a free port of this machine, for as long as the process lives.
async fn serve<H>(handle: H) -> SocketAddr
where
    H: Fn(Request<()>, Bytes) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
{
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = socket.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let handle = handle.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let handle = handle.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.map(|body| body.to_bytes());
                    let answer = body.map(|body| handle(Request::from_parts(head, ()), body));
                    // A sender that leaves in the middle is nobody's fault.
                    Ok::<_, Infallible>(answer.unwrap_or_default())
                }
            });
            let builder = hyper::server::conn::http1::Builder::new();
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    address
}

fn locked(backends: &Mutex<Backends>) -> MutexGuard<'_, Backends> {
    backends.lock().expect("whoever panics ends the process")
}

impl Backends {
    /// Whether a request is of this input. One that its sender did not wait for may come while the next is played.
    fn is_of(&self, peer: Ipv4Addr) -> bool {
        self.peer == Some(peer)
    }

    fn webhook(&mut self, head: &Request<()>, body: &Bytes) -> Response<Full<Bytes>> {
        let authorization = only(head.headers(), "authorization");
        assert!(signed(authorization.as_bytes(), body), "nobody signed {body:?}");
        assert_eq!(head.uri().path(), "/webhook");
        assert_eq!(head.method(), "POST");
        let key = only(head.headers(), "idempotency-key").as_bytes();
        assert!(key.len() == 32 && key.iter().all(u8::is_ascii_hexdigit), "whose key is that?");
        let attempt = only(head.headers(), "oncehook-attempt").to_str().map(str::parse::<u32>);
        assert!(matches!(attempt, Ok(Ok(1..))), "which attempt?");
        for name in ["connection", "transfer-encoding", "te", "trailer", "upgrade", "expect"] {
            assert!(!head.headers().contains_key(name), "{name} came to the backend");
        }
        check_names(head.headers(), &KNOWN);
        let peer = forwarded(head.headers());
        if self.is_of(peer) {
            self.webhooks += 1;
        }
        let status = self.choice.status();
        if status == 200 && self.is_of(peer) {
            self.delivered += 1;
        }
        let mut answer = Response::new(Full::new(Bytes::new()));
        *answer.status_mut() = status.try_into().expect("a status");
        answer
    }

    /// What is relayed goes to another path, however a backend may read it. Says whether a tunnel shall be a short one,
    /// too.
    fn relayed(&mut self, head: &Request<()>) -> (Response<Full<Bytes>>, bool) {
        let path = plain(head.uri().path());
        assert_ne!(path, b"/webhook", "{} was relayed", head.uri());
        only(head.headers(), "host");
        let ours = head.headers().keys().find(|name| name.as_str().starts_with("oncehook-"));
        assert_eq!(ours, None, "who says so?");
        check_names(head.headers(), &[]);
        let peer = forwarded(head.headers());
        let is_ours = self.is_of(peer);
        if is_ours {
            self.relayed += 1;
        }
        let mut answer = Response::new(Full::new(Bytes::from_static(b"relayed")));
        *answer.status_mut() = RELAYED.try_into().expect("a status");
        let wish = head.headers().get(UPGRADE);
        let switches = match wish {
            Some(_) => self.choice.switches(),
            None => self.choice.switches_unasked(),
        };
        if is_ours && switches {
            *answer.body_mut() = Full::default();
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let protocol = wish.cloned().unwrap_or(HeaderValue::from_static("unasked"));
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
            answer.headers_mut().insert(UPGRADE, protocol);
        }
        (answer, self.choice.is_short())
    }
}

/// The relay's backend after a change of protocol.
async fn tunnel(
    upgraded: impl Future<Output = hyper::Result<Upgraded>>,
    backends: Arc<Mutex<Backends>>,
    short: bool,
) {
    let Ok(upgraded) = upgraded.await else { return };
    let mut stream = TokioIo::new(upgraded);
    let mut piece = [0; 1024];
    if stream.write_all(GREETING).await.is_err() {
        return;
    }
    while let Ok(bytes @ 1..) = stream.read(&mut piece).await {
        let came = &mut piece[..bytes];
        locked(&backends).tunnelled.extend_from_slice(came);
        for byte in came.iter_mut() {
            *byte = byte.wrapping_add(1);
        }
        if stream.write_all(came).await.is_err() || short {
            break;
        }
    }
    let _ = stream.shutdown().await;
}

/// The one value of a field that there must be.
fn only<'a>(head: &'a HeaderMap, name: &str) -> &'a HeaderValue {
    let fields: Vec<_> = head.get_all(name).iter().collect();
    let [value] = fields[..] else { panic!("{} fields {name}", fields.len()) };
    value
}

/// No field can be taken for one of `known`, or for another that is there, where `_` and `-` are one.
fn check_names(head: &HeaderMap, known: &[&str]) {
    for name in head.keys().map(HeaderName::as_str) {
        let read = name.replace('_', "-");
        let counts = known.contains(&read.as_str())
            || WRITTEN.contains(&read.as_str())
            || head.contains_key(&read);
        assert!(read == name || !counts, "{name} could be taken for {read}");
    }
}

/// The peer of a request as the backend is told of it, which must be a peer of this target; and if it is no trusted proxy,
/// nothing else is said of where the request comes from.
fn forwarded(head: &HeaderMap) -> Ipv4Addr {
    let text = |name| String::from_utf8_lossy(only(head, name).as_bytes()).into_owned();
    let (list, elements) = (text("x-forwarded-for"), text("forwarded"));
    let last = list.rsplit(',').next().unwrap_or_default().trim();
    let peer: Ipv4Addr = last.parse().unwrap_or_else(|_| panic!("{last} is nobody"));
    let element = elements.rsplit(',').next().unwrap_or_default().trim();
    assert!(element.starts_with(&format!("for={peer};")), "{elements} beside {list}");
    match peer.octets()[0] {
        TRUSTED => return peer,
        STRANGER => {}
        _ => panic!("{peer} is not the peer"),
    }
    let proto = text("x-forwarded-proto");
    assert!(list == last && elements == element, "{list} and {elements} are believed");
    assert!(element.ends_with(&format!(";proto={proto}")), "{proto} beside {element}");
    if head.contains_key("x-forwarded-host") {
        let host = text("x-forwarded-host");
        assert!(element.contains(&format!(";host=\"{host}\";")), "{host} beside {element}");
    }
    for name in head.keys().map(HeaderName::as_str) {
        let own = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"].contains(&name);
        let believed = name == "x-real-ip" || (name.starts_with("x-forwarded-") && !own);
        assert!(!believed, "{name} of a stranger is believed");
    }
    peer
}

/// Whether one of us signed `body` and it still counts, found out without the gateway's code.
fn signed(authorization: &[u8], body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(authorization) else { return false };
    let Some((message, signature)) = text.rsplit_once('.') else { return false };
    let Some((_, claims)) = message.split_once('.') else { return false };
    let expected = hmac(KEYS[0].2, message.as_bytes());
    let Ok(claims) = URL_SAFE_NO_PAD.decode(claims) else { return false };
    let said: serde_json::Value = serde_json::from_slice(&claims).unwrap_or_default();
    let digest = STANDARD.encode(Sha256::digest(body));
    let expires = said["exp"].as_u64().unwrap_or_default() + LEEWAY;
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    URL_SAFE_NO_PAD.decode(signature).is_ok_and(|given| given == expected)
        && said["sha256"] == digest
        && now < expires
}

/// A path as a lax server may read it.
fn plain(path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *byte == b'%');
        let decoded = digits
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(match decoded.unwrap_or(*byte) {
            b'\\' => b'/',
            other => other,
        });
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in bytes.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    [b"/".as_slice(), &segments.join(&b'/')].concat()
}
