//! The system calls that a request costs the whole program, as strace sees them: over one kept HTTP/1.1 connection with
//! TLS, by the store and by what the request is.
//!
//! The gateway has the settings that it is shipped with, its log included. A connection belongs to one of its threads, and
//! requests come one after the other, so that their number hardly moves; what it does besides, by its clocks, only ever
//! adds, and falls out with all but the cheapest batch. It is no measure of a busy gateway, which makes fewer calls for
//! each request.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use tempfile::{NamedTempFile, TempDir};

use super::support::dial;
use super::support::redis::RedisServer;
use super::{API_KEY, API_SECRET, BATCH, ByKind, DUPLICATE, FORWARDED, Sender};

/// Requests before anything is counted: connections to backend and Redis are there by then.
const WARM_UP: usize = 100;
const BATCHES: usize = 3;
/// More lines than a gateway logs before it listens.
const LINES_MAX: usize = 1_000;

/// How often each system call was made, by its name.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(transparent)]
pub(super) struct Calls(BTreeMap<String, usize>);

impl Calls {
    /// All of them.
    pub(super) fn total(&self) -> usize {
        self.0.values().sum()
    }

    fn of(&self, name: &str) -> usize {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// These beside the budget, the largest difference first.
    pub(super) fn beside(&self, budget: &Self) -> String {
        let mut names: Vec<_> = self.0.keys().chain(budget.0.keys()).collect();
        names.sort();
        names.dedup();
        names.sort_by_key(|name| Reverse(self.of(name).abs_diff(budget.of(name))));
        let rows = names.iter().map(|name| {
            let note = if budget.0.contains_key(*name) { "" } else { "  new" };
            format!("  {name:20} {:8} {:8}{note}\n", self.of(name), budget.of(name))
        });
        let head = format!("  {:20} {:>8} {:>8}\n", "system call", "counted", "budget");
        std::iter::once(head).chain(rows).collect()
    }
}

/// What a batch of requests costs, by what they are and the store.
pub(super) fn measure(backend: SocketAddr) -> ByKind {
    let requests: Vec<_> = (0..WARM_UP + BATCHES * BATCH).map(super::request).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let redis = runtime.expect("a runtime").block_on(RedisServer::start());
    let stores = [
        ("memory", String::new()),
        ("redis", format!("store.kind = \"redis\"\nstore.redis.url = \"{}\"\n", redis.url())),
    ];
    let mut found = BTreeMap::new();
    for (store, settings) in stores {
        let mut gateway = Traced::start(backend, &settings);
        let mut sender = gateway.connect();
        for (kind, word) in [("fresh", FORWARDED), ("duplicate", DUPLICATE)] {
            let calls = cheapest(&mut gateway, &mut sender, &requests, word);
            found.insert(format!("{kind}_{store}"), calls);
        }
    }
    found
}

/// The cheapest batch of `requests`, each of which is answered with `word`.
fn cheapest(
    gateway: &mut Traced,
    sender: &mut Sender<StreamOwned<ClientConnection, TcpStream>>,
    requests: &[Vec<u8>],
    word: &[u8],
) -> Calls {
    let (warm_up, counted) = requests.split_at(WARM_UP);
    for request in warm_up {
        sender.send(request, word);
    }
    gateway.calls();
    let batches = counted.chunks(BATCH).map(|batch| {
        for request in batch {
            sender.send(request, word);
        }
        // Calls that follow the last answer may be the next batch's: as many came from the one before.
        gateway.calls()
    });
    let cheapest = batches.min_by_key(Calls::total).expect("there are batches");
    let least = 2 * BATCH;
    assert!(
        cheapest.total() >= least,
        "strace saw less than a read and a write each: {cheapest:?}"
    );
    cheapest
}

/// A gateway under strace. It ends when this is dropped.
struct Traced {
    /// strace, whose child is the gateway.
    strace: Child,
    trace: NamedTempFile,
    address: SocketAddr,
    certificate_pem: String,
    /// Its configuration and certificate.
    _folder: TempDir,
}

impl Traced {
    fn start(backend: SocketAddr, settings: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        let made = made.expect("a certificate");
        let certificate_pem = made.cert.pem();
        let configuration = format!(
            "{settings}[[tls.certificate]]\ncertificate_file = \"localhost.pem\"\n\
             key_file = \"localhost.key\"\n[[route]]\npath = \"/webhook\"\n\
             backend = \"http://{backend}/webhook\"\n"
        );
        for (name, text) in [
            ("localhost.pem", &certificate_pem),
            ("localhost.key", &made.signing_key.serialize_pem()),
            ("oncehook.toml", &configuration),
        ] {
            std::fs::write(path(name), text).expect("the folder can be written");
        }
        // Not in the folder: the gateway watches that, and each line would wake it.
        let trace = NamedTempFile::new().expect("a file for the trace");
        // `raw`: arguments as numbers, which takes less time, and shows nobody what they point to.
        let mut strace = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=all", "-e", "raw=all", "-e", "signal=none", "-o"])
            .arg(trace.path())
            .args([env!("CARGO_BIN_EXE_oncehook"), "run", "--config"])
            .arg(path("oncehook.toml"))
            .env("LIVEKIT_API_KEY", API_KEY)
            .env("LIVEKIT_API_SECRET", API_SECRET)
            .env("ONCEHOOK_LISTEN__ADDRESS", "127.0.0.1:0")
            .env("ONCEHOOK_ADMIN__ADDRESS", "127.0.0.1:0")
            .env("ONCEHOOK_LOG__FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is missing; install it: apt-get install -y strace");
        let stderr = strace.stderr.take().expect("stderr is piped");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut traced = Self { strace, trace, address, certificate_pem, _folder: folder };
        traced.address = listening(stderr);
        traced
    }

    fn connect(&self) -> Sender<StreamOwned<ClientConnection, TcpStream>> {
        let client = Arc::new(dial::client(&self.certificate_pem));
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(client, name).expect("a session");
        Sender::over(StreamOwned::new(session, super::connect(self.address)))
    }

    /// What was called since this was last asked.
    fn calls(&mut self) -> Calls {
        let mut text = Vec::new();
        self.trace.read_to_end(&mut text).expect("the trace can be read");
        let text = String::from_utf8_lossy(&text);
        let mut calls = Calls::default();
        for name in text.lines().filter_map(name) {
            *calls.0.entry(name.to_owned()).or_default() += 1;
        }
        calls
    }

    /// The gateway's process, which the trace begins with.
    fn gateway(&mut self) -> Option<u32> {
        self.trace.seek(SeekFrom::Start(0)).ok()?;
        let mut line = String::new();
        BufReader::new(&mut self.trace).read_line(&mut line).ok()?;
        line.split(' ').next()?.parse().ok()
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let running = matches!(self.strace.try_wait(), Ok(None));
        // strace ends with what it traces; if it were ended itself, the gateway would go on.
        let ended = self
            .gateway()
            .filter(|_| running)
            .map(|pid| Command::new("kill").arg("-KILL").arg(pid.to_string()).status());
        if ended.is_none() {
            drop(self.strace.kill());
        }
        drop(self.strace.wait());
    }
}

/// The system call that a line of the trace begins with: `123 read(0x9, …`; none where one goes on.
fn name(line: &str) -> Option<&str> {
    let (pid, rest) = line.split_once(' ')?;
    pid.parse::<u32>().ok()?;
    let (name, _) = rest.trim_start().split_once('(')?;
    let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (!name.is_empty() && name.bytes().all(named)).then_some(name)
}

/// Where the gateway that logs to `stderr` listens. What it logs from then on is read, and thrown away.
fn listening(stderr: ChildStderr) -> SocketAddr {
    let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
    let mut said = Vec::new();
    let address = lines.by_ref().take(LINES_MAX).find_map(|line| {
        let fields: Option<serde_json::Value> = serde_json::from_str(&line).ok();
        said.push(line);
        let fields = fields.filter(|_| said.iter().any(|line| line.contains("\"listening\"")))?;
        fields["address"].as_str()?.parse().ok()
    });
    std::thread::spawn(move || lines.for_each(drop));
    address.unwrap_or_else(|| {
        panic!(
            "the gateway does not listen, or strace may not trace it (a container needs SYS_PTRACE):\n{}",
            said.join("\n")
        )
    })
}
