//! What a request may cost, counted and not timed, against the budget in `budget.toml`: allocations of the assembled
//! gateway and system calls of the program, for each fresh event and for each known duplicate.
//!
//! ```text
//! cargo test --test budget                 fails if a request costs more than the budget
//! cargo test --test budget -- --record     writes what it measures into budget.toml, to be committed
//! ```
//!
//! For the allocations the gateway runs in this process with the memory store, over plain HTTP/1.1 and one kept
//! connection, without log lines. Sender and backend are plain threads whose buffers are there beforehand: what is
//! allocated meanwhile is the gateway's. For the system calls, see `system_calls`. Of several batches the cheapest counts,
//! because timers and other housekeeping only ever add. Optimised builds leave some allocations out, so that a release
//! build only prints its figures. How many commands an event costs Redis is held by `tests/it/store_redis.rs`.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that meets what it did not expect should stop and say so"
)]

#[path = "../it/support/mod.rs"]
#[expect(dead_code, reason = "shared with the integration tests, which use the rest")]
mod support;
mod system_calls;

use std::alloc::System;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use oncehook::webhook::event::EventKind;
use oncehook::webhook::sample::{self, Subject};
use oncehook::webhook::verify::sign;
use oncehook::{app, clock, config};
use secrecy::SecretString;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use system_calls::Calls;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Requests before anything is counted: pools and maps have grown by then.
const WARM_UP: usize = 200;
const BATCHES: usize = 8;
const BATCH: usize = 100;
/// How much more than the budget is no regression yet: half an allocation for each request. Ten runs on a loaded machine
/// differed by a tenth of one.
const SLACK: usize = BATCH / 2;
/// The same for system calls: one for every fifth request. Runs on a loaded machine differed by three of a hundred requests.
const CALLS_SLACK: usize = BATCH / 5;
/// What the gateway says of an event that it has forwarded, and of one that it knows.
const FORWARDED: &[u8] = b"oncehook-status: forwarded\r\n";
const DUPLICATE: &[u8] = b"oncehook-status: duplicate\r\n";
const RECORD: &str = "cargo test --test budget -- --record";
/// The key of `--dev`.
const API_KEY: &str = "devkey";
const API_SECRET: &str = "secret";
/// More than any message here has.
const MESSAGE_BYTES_MAX: usize = 8192;
/// How long an answer may take before this gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// System calls by the kind of request: `fresh_memory`, `duplicate_redis`.
type ByKind = BTreeMap<String, Calls>;

/// What a hundred requests cost.
#[derive(Debug, serde::Deserialize, serde::Serialize)]
struct Budget {
    allocations: Allocations,
    system_calls: ByKind,
}

#[derive(Debug, serde::Deserialize, serde::Serialize)]
struct Allocations {
    fresh: usize,
    duplicate: usize,
}

fn main() -> ExitCode {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/budget/budget.toml");
    let text = std::fs::read_to_string(&path).expect("the budget can be read");
    let budget: Budget = toml::from_str(&text).expect("the budget is as --record writes it");
    let backend = start_backend();
    let measured = Budget {
        allocations: allocations(backend),
        system_calls: system_calls(backend, &budget.system_calls),
    };
    print(&measured);
    if std::env::args().any(|argument| argument == "--record") {
        let text = toml::to_string(&measured).expect("figures can be written");
        let head = format!(
            "# What {BATCH} requests cost; written by `cargo test --test budget -- --record`.\n\n"
        );
        std::fs::write(path, head + &text).expect("the budget can be written");
        return ExitCode::SUCCESS;
    }
    if !cfg!(debug_assertions) {
        println!("not judged: the budget is that of a debug build");
        return ExitCode::SUCCESS;
    }
    if judge(&measured, &budget) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(measured: &Budget) {
    println!("allocations of {BATCH} requests: {:?}", measured.allocations);
    for (kind, calls) in &measured.system_calls {
        println!("system calls of {BATCH} requests, {kind}: {} {calls:?}", calls.total());
    }
}

/// The system calls of each kind of request; what was `budgeted` where there is no strace to count them.
fn system_calls(backend: SocketAddr, budgeted: &ByKind) -> ByKind {
    if cfg!(target_os = "linux") {
        return system_calls::measure(backend);
    }
    println!("system calls were not counted: strace is Linux's");
    budgeted.clone()
}

/// Whether all is within the budget; says of all of it what is not, or has become much better.
fn judge(measured: &Budget, budget: &Budget) -> bool {
    let judgements = [
        ("fresh event", measured.allocations.fresh, budget.allocations.fresh),
        ("known duplicate", measured.allocations.duplicate, budget.allocations.duplicate),
    ]
    .map(|(kind, measured, budget)| within(kind, "allocations", [measured, budget, SLACK]));
    let mut good = judgements == [true; 2];
    for (kind, calls) in &measured.system_calls {
        let Some(budget) = budget.system_calls.get(kind) else {
            eprintln!("WRONG: there is no budget for the system calls of {kind}; {RECORD}");
            good = false;
            continue;
        };
        if !within(kind, "system calls", [calls.total(), budget.total(), CALLS_SLACK]) {
            eprint!("{}", calls.beside(budget));
            good = false;
        }
    }
    good
}

/// Whether the first figure is no larger than the second with the third for slack.
fn within(kind: &str, what: &str, [measured, budget, slack]: [usize; 3]) -> bool {
    if measured > budget + slack {
        eprintln!(
            "WRONG: {BATCH} requests ({kind}) cost {measured} {what}; the budget is {budget} + {slack}\n\
             hint: find what is new; if it is worth its price: {RECORD}"
        );
        return false;
    }
    if measured + slack < budget {
        println!(
            "hint: {kind} costs {measured} {what} where {budget} were allowed; to hold that: {RECORD}"
        );
    }
    true
}

fn allocations(backend: SocketAddr) -> Allocations {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let running = runtime.block_on(app::start(settings(backend))).expect("the gateway starts");
    let requests: Vec<_> = (0..WARM_UP + BATCHES * BATCH).map(request).collect();
    let mut sender = Sender::over(connect(running.address()));
    let mut cheapest = |word: &[u8]| {
        let (warm_up, counted) = requests.split_at(WARM_UP);
        for request in warm_up {
            sender.send(request, word);
        }
        let batch = |requests: &[Vec<u8>]| {
            let region = Region::new(ALLOCATOR);
            for request in requests {
                sender.send(request, word);
            }
            let change = region.change();
            change.allocations + change.reallocations
        };
        counted.chunks(BATCH).map(batch).min().expect("there are batches")
    };
    let found = Allocations { fresh: cheapest(FORWARDED), duplicate: cheapest(DUPLICATE) };
    drop(sender);
    runtime.block_on(running.stop());
    found
}

fn settings(backend: SocketAddr) -> config::Config {
    let environment = [
        ("ONCEHOOK_ADMIN__ADDRESS", "127.0.0.1:0"),
        ("ONCEHOOK_LOG__LEVEL", "error"),
        ("ONCEHOOK_SHUTDOWN__DRAIN_DELAY", "0s"),
    ];
    let environment =
        environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let overrides = config::Overrides {
        listen: Some("127.0.0.1:0".to_owned()),
        backend: Some(format!("http://{backend}/webhook")),
        store: None,
        dev: true,
    };
    let sources = config::Sources { file: None, environment, overrides };
    config::load(&sources).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A signed event of its own for each number, ready to be written.
fn request(number: usize) -> Vec<u8> {
    let number = u64::try_from(number).expect("a number is small");
    let now = clock::unix();
    let subject = Subject::numbered(number, now);
    let id = format!("EV_{number:012}");
    let body = sample::body(EventKind::ParticipantJoined, &subject, &id, now.seconds());
    let secret = SecretString::from(API_SECRET);
    let token = sign(API_KEY, &secret, &body, now, Duration::from_mins(5)).expect("it is signed");
    let mut request = format!(
        "POST /webhook HTTP/1.1\r\nhost: localhost\r\nuser-agent: Go-http-client/1.1\r\n\
         content-length: {}\r\nauthorization: {token}\r\n\
         content-type: application/webhook+json\r\naccept-encoding: gzip\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend(body);
    request
}

/// A connection to the gateway.
fn connect(gateway: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(gateway).expect("the gateway accepts");
    stream.set_nodelay(true).expect("a socket option");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    stream
}

/// One connection, and a buffer that is there beforehand.
struct Sender<S> {
    stream: S,
    buffer: Box<[u8; MESSAGE_BYTES_MAX]>,
}

impl<S: Read + Write> Sender<S> {
    fn over(stream: S) -> Self {
        Self { stream, buffer: Box::new([0; MESSAGE_BYTES_MAX]) }
    }

    /// Sends a request, and reads an answer that carries `field`.
    fn send(&mut self, request: &[u8], field: &[u8]) {
        self.stream.write_all(request).expect("the request is written");
        let length = message(&mut self.stream, &mut self.buffer[..]);
        let answer = &self.buffer[..length];
        if !answer.windows(field.len()).any(|part| part.eq_ignore_ascii_case(field)) {
            let wanted = String::from_utf8_lossy(field);
            panic!("not {wanted:?}: {}", String::from_utf8_lossy(answer));
        }
    }
}

/// A backend that answers 200 to whatever comes, and allocates for a new connection alone.
fn start_backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("the gateway connects");
            std::thread::spawn(move || accept_all(stream));
        }
    });
    address
}

/// Answers 200 to each request on a connection, until it ends.
fn accept_all(mut stream: TcpStream) {
    let mut buffer = [0; MESSAGE_BYTES_MAX];
    while message(&mut stream, &mut buffer) > 0 {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).expect("the answer is written");
    }
}

/// Reads one message with a `Content-Length`, and says how long it is: 0 at the end of the connection. Allocates nothing.
fn message(stream: &mut impl Read, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).expect("the message can be read");
        if read == 0 {
            return 0;
        }
        filled += read;
        if whole(&buffer[..filled]) == Some(filled) {
            return filled;
        }
    }
}

/// How long the message that begins here will be, once its head is there.
fn whole(bytes: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"\r\ncontent-length: ";
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let at = bytes[..head].windows(NAME.len()).position(|name| name.eq_ignore_ascii_case(NAME))?;
    let digits = bytes[at + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    let length = digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    Some(head + 4 + length)
}
