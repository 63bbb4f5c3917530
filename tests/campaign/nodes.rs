//! LiveKit's nodes as LiveKit wrote them: `tests/interop/go` posts through livekit/protocol's `ResourceURLNotifier` and
//! go-retryablehttp, one process for each node. How a copy ended is what the notifier itself says of it.
//!
//! What each attempt came to is recorded by `front`.

use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use oncehook::clock;
use tokio::time::sleep;

use crate::front::Front;
use crate::history::{Attempt, End, Recorder, Told};
use crate::senders::Load;
use crate::support::gateway::{API_KEY, API_SECRET};

/// How long the first build may take: all of livekit/protocol is compiled.
const BUILD_MAX: Duration = Duration::from_mins(10);

/// How long a node may take for its last copies, once the last event has happened.
const SEND_MAX: Duration = Duration::from_mins(2);

/// How much earlier it gives up by itself, and says so.
const EARLIER: Duration = Duration::from_secs(5);

/// What to do where there is no Go.
pub(crate) const HINT: &str = "hint: put target/tools/bin into PATH after ./test --install, or see \
    https://go.dev/doc/install";

/// The sender, if it could be built.
pub(crate) enum Program {
    Built(PathBuf),
    /// There is no `go`.
    NoGo,
}

impl Program {
    /// Builds it; the second time Go finds that nothing has changed.
    pub(crate) async fn build() -> Self {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("campaign-go-sender");
        let mut go = Command::new("go");
        go.args(["build", "-trimpath", "-o"]).arg(&program).arg(".");
        go.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/go"));
        match Running::start(go) {
            Ok(build) => {
                let built = build.output(BUILD_MAX).await;
                assert!(built.is_ok(), "go build in tests/interop/go: {}", built.unwrap_err());
                Self::Built(program)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Self::NoGo,
            Err(error) => panic!("go does not start: {error}"),
        }
    }
}

/// When the first event happens, in seconds since 1970: late enough that all nodes have started.
pub(crate) fn soon() -> u64 {
    clock::unix().seconds() + 2
}

/// One node.
pub(crate) struct Node {
    /// From 0; also that of its copies.
    pub(crate) number: u32,
    pub(crate) seed: u64,
    /// See [`soon`]; the same for all nodes, as the events are.
    pub(crate) begin: u64,
    pub(crate) load: Load,
}

impl Node {
    /// Sends its copies to `front`, and records how they ended.
    pub(crate) async fn send(self, program: PathBuf, front: Front, recorder: Arc<Recorder>) {
        let sender = Running::start(self.command(&program, &front.url()));
        let limit = self.limit() + EARLIER;
        let lines = match sender.expect("the sender starts").output(limit).await {
            Ok(lines) => lines,
            Err(problem) => {
                return recorder.complain(format!("node {}: {problem}", self.number));
            }
        };
        let mut ends = 0;
        for line in lines.lines() {
            self.record(&recorder, &serde_json::from_str(line).expect("a line is JSON"));
            ends += 1;
        }
        let Self { number, load: Load { events, .. }, .. } = self;
        if ends != events {
            recorder.complain(format!("node {number} tells of {ends} copies, not of {events}"));
        }
    }

    fn per_second(&self) -> u64 {
        self.load.per_second.expect("these nodes have a pace")
    }

    fn limit(&self) -> Duration {
        SEND_MAX + Duration::from_secs(self.load.events / self.per_second())
    }

    fn command(&self, program: &Path, url: &str) -> Command {
        let Self { number, seed, begin, load } = self;
        let (per_second, timeout) = (self.per_second(), self.limit().as_secs());
        let mut command = Command::new(program);
        command.args(["pace", "--url", url, "--key", API_KEY, "--secret", API_SECRET]);
        command.args([
            format!("--node={number}"),
            format!("--events={}", load.events),
            format!("--per-second={per_second}"),
            format!("--spread={}ms", load.spread),
            format!("--seed={seed}"),
            format!("--begin={begin}"),
            format!("--pace={}", load.pace),
            format!("--timeout={timeout}s"),
        ]);
        command
    }

    /// What the notifier says of one copy.
    fn record(&self, recorder: &Recorder, copy: &serde_json::Value) {
        let id = copy["id"].as_str().expect("a copy has an id");
        let event = id.split('_').nth(1).and_then(|event| event.parse().ok());
        let which = (event.expect("its id has a number"), self.number);
        let end = match (copy["dropped"].as_bool(), copy["status"].as_u64()) {
            // Too old, or behind too many others: nobody stayed to post it.
            (Some(true), _) => End::Gone,
            (_, Some(200..=299)) => End::Acknowledged,
            (_, Some(0)) => End::GivenUp,
            (_, _) => End::Dismissed,
        };
        let mut history = recorder.write();
        let told = |Attempt { event, copy, told, .. }: &Attempt| {
            (*event, *copy) == which && matches!(told, Told::Status(200..=299))
        };
        if end == End::Acknowledged && !history.attempts.iter().any(told) {
            let (event, node) = which;
            let complaint = format!("event {event}: node {node} has a 2xx that no gateway gave");
            history.complaints.push(complaint);
        }
        history.ends.insert(which, end);
    }
}

/// A process, and what it says.
struct Running {
    child: Mortal,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
}

/// Ends with the value.
struct Mortal(Child);

impl Drop for Mortal {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Running {
    fn start(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stdout = text(child.stdout.take().expect("stdout is piped"));
        let stderr = text(child.stderr.take().expect("stderr is piped"));
        Ok(Self { child: Mortal(child), stdout, stderr })
    }

    /// Its stdout, once it has ended well; or what else became of it.
    async fn output(mut self, limit: Duration) -> Result<String, String> {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.0.try_wait().expect("the child can be asked") {
                break status;
            }
            if began.elapsed() > limit {
                return Err(format!("it does not end within {} s", limit.as_secs()));
            }
            sleep(Duration::from_millis(20)).await;
        };
        if status.success() {
            return Ok(self.stdout.join().expect("its output is UTF-8"));
        }
        Err(format!("{status}: {}", self.stderr.join().expect("what it says is UTF-8")))
    }
}

fn text(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("a process writes UTF-8");
        text
    })
}
