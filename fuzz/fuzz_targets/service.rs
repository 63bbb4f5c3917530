//! The assembled service over a pipe: any bytes in any pieces, as HTTP/1.1 or as HTTP/2. Nothing panics, every connection
//! ends when its peer has closed, the backend gets nothing that is not signed and no event twice, and the relay nothing
//! that could be meant for the webhook path.
//!
//! The first byte chooses the protocol and what the backend answers, the second the pieces; the rest is sent. In it,
//! [`body`] and its token stand for an event that no earlier input had.

#![no_main]

use std::cell::Cell;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use libfuzzer_sys::{Corpus, fuzz_target};
use oncehook::app::fuzzing::Assembled;
use oncehook::config::load::{Sources, load};
use oncehook::listener::fuzzing::Protocol;
use oncehook::listener::{Peer, TlsPeer};
use oncehook::telemetry::labels::ConnectionEnd;
use oncehook_fuzz::{KEYS, hmac, webhook_token};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// Longer than anything takes whose peer has closed, and longer than every time-out that may be at work.
const LONG: Duration = Duration::from_secs(20);
const STATUSES: [u16; 4] = [200, 200, 422, 500];
/// From here on the second byte says that the peer closes without waiting for what it asked for.
const LEAVES_AT_ONCE: u8 = 200;
/// Fields that a backend acts on.
const KNOWN: [&str; 10] = [
    "authorization",
    "content-length",
    "content-type",
    "host",
    "idempotency-key",
    "oncehook-attempt",
    "oncehook-possible-duplicate",
    "transfer-encoding",
    "x-forwarded-for",
    "x-request-id",
];
/// Where the event's number stands in its body.
const NUMBER: &str = "0000000000000000";

struct World {
    runtime: Runtime,
    gateway: Assembled,
    backend: Arc<Backend>,
    template: String,
}

/// The service behind the webhook path.
#[derive(Default)]
struct Backend {
    answers: AtomicU16,
    delivered: AtomicU64,
}

static WORLD: LazyLock<World> = LazyLock::new(World::new);
/// `FUZZ_TELL=1` shows what came of each input.
static TELL: LazyLock<bool> = LazyLock::new(|| std::env::var_os("FUZZ_TELL").is_some());
static EVENTS: AtomicU64 = AtomicU64::new(0);

fn body(number: &str) -> String {
    format!(r#"{{"event":"room_started","room":{{"sid":"RM_{number}"}},"id":"EV_{number}"}}"#)
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some(([choice, pieces], bytes)) = data.split_first_chunk::<2>() else {
        return Corpus::Reject;
    };
    let world = &*WORLD;
    let number = format!("{:016}", EVENTS.fetch_add(1, Ordering::Relaxed) + 1);
    let token = webhook_token(body(&number).as_bytes());
    let bytes = replaced(bytes, world.template.as_bytes(), token.as_bytes());
    let bytes = replaced(&bytes, NUMBER.as_bytes(), number.as_bytes());
    world.backend.answers.store(STATUSES[usize::from(choice >> 1) % 4], Ordering::Relaxed);
    world.backend.delivered.store(0, Ordering::Relaxed);

    let protocol = if choice & 1 == 0 { Protocol::One } else { Protocol::Two };
    let (end, answer) = world.runtime.block_on(world.play(protocol, &bytes, *pieces));
    let delivered = world.backend.delivered.load(Ordering::Relaxed);
    if *TELL {
        eprintln!("{end:?}, {delivered} delivered, {:?}", String::from_utf8_lossy(&answer));
    }
    assert_ne!(end, ConnectionEnd::Panic);
    if protocol == Protocol::One {
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "no answer begins so");
        let broken = answer.windows(13).any(|part| part == b"HTTP/1.1 500 ");
        assert!(!broken, "an exchange broke");
    }
    assert!(delivered <= 1, "an event came twice");
    Corpus::Keep
});

impl World {
    fn new() -> Self {
        // Whatever came over a socket is looked at in every turn.
        let runtime = Builder::new_current_thread().enable_all().event_interval(1).build();
        let runtime = runtime.expect("a runtime");
        let backend = Arc::new(Backend::default());
        let gateway = runtime.block_on(async {
            let judging = Arc::clone(&backend);
            let webhooks = serve(move |head, body| judging.judge(&head, &body)).await;
            let others = serve(|head, _| relayed(&head)).await;
            let (_, key, secret) = KEYS[0];
            let variables = [
                ("ONCEHOOK_TLS__ENABLED", "false".to_owned()),
                ("ONCEHOOK_UPSTREAM__BACKEND", format!("http://{webhooks}/webhook")),
                ("ONCEHOOK_RELAY__BACKEND", format!("http://{others}")),
                ("ONCEHOOK_LIMITS__REFUSALS_PER_SOURCE_PER_MINUTE", "0".to_owned()),
                ("ONCEHOOK_LIMITS__BODY_BYTES_MAX", "16KiB".to_owned()),
                ("ONCEHOOK_LISTEN__TRUSTED_PROXIES", "192.0.2.0/24".to_owned()),
                ("LIVEKIT_KEYS", format!("{key}: {secret}")),
            ];
            let environment =
                variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let config = load(&Sources { environment, ..Sources::default() });
            let config = config.unwrap_or_else(|error| panic!("{error}"));
            Assembled::new(&config).unwrap_or_else(|error| panic!("{error:?}"))
        });
        let template = webhook_token(body(NUMBER).as_bytes());
        Self { runtime, gateway, backend, template }
    }

    /// Everything that a connection comes to, to its end.
    async fn play(&self, protocol: Protocol, bytes: &[u8], pieces: u8) -> (ConnectionEnd, Vec<u8>) {
        let (ours, theirs) = duplex(4096);
        let tls = TlsPeer { server_name: Some("gateway".to_owned()), version: None };
        let address = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 1234));
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
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

impl Backend {
    fn judge(&self, head: &Request<()>, body: &Bytes) -> Response<Full<Bytes>> {
        let fields: Vec<_> = head.headers().get_all("authorization").iter().collect();
        let [authorization] = fields[..] else { panic!("{} tokens", fields.len()) };
        assert!(signed(authorization.as_bytes(), body), "nobody signed {body:?}");
        assert_eq!(head.uri().path(), "/webhook");
        assert_eq!(head.method(), "POST");
        for name in head.headers().keys() {
            let read = name.as_str().replace('_', "-");
            let twin = read != name.as_str() && KNOWN.contains(&read.as_str());
            assert!(!twin, "{name} could be taken for {read}");
        }
        let status = self.answers.load(Ordering::Relaxed);
        if status == 200 {
            self.delivered.fetch_add(1, Ordering::Relaxed);
        }
        let mut answer = Response::new(Full::new(Bytes::new()));
        *answer.status_mut() = status.try_into().expect("a status");
        answer
    }
}

/// Whether one of us signed `body`, found out without the gateway's code.
fn signed(authorization: &[u8], body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(authorization) else { return false };
    let Some((message, signature)) = text.rsplit_once('.') else { return false };
    let Some((_, claims)) = message.split_once('.') else { return false };
    let expected = hmac(KEYS[0].2, message.as_bytes());
    let Ok(claims) = URL_SAFE_NO_PAD.decode(claims) else { return false };
    let said: serde_json::Value = serde_json::from_slice(&claims).unwrap_or_default();
    let digest = STANDARD.encode(Sha256::digest(body));
    URL_SAFE_NO_PAD.decode(signature).is_ok_and(|given| given == expected)
        && said["sha256"] == digest
}

/// What is relayed goes to another path, however a backend may read it.
fn relayed(head: &Request<()>) -> Response<Full<Bytes>> {
    let path = plain(head.uri().path());
    assert_ne!(path, b"/webhook", "{} was relayed", head.uri());
    assert!(head.headers().get_all("host").iter().count() == 1, "not one host");
    Response::new(Full::new(Bytes::from_static(b"relayed")))
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
