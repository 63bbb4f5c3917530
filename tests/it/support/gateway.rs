//! A gateway in a process of its own: started from a configuration, ended by its pid.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::traced;

/// The API key of the tests, and its secret.
pub(crate) const API_KEY: &str = "APItests";
/// As long as LiveKit wants one to be.
pub(crate) const API_SECRET: &str = "a-secret-of-at-least-thirty-two-characters";

/// How long a process may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a gateway's process finds around it, besides its configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// Variables of its environment.
    pub(crate) variables: Vec<(String, String)>,
    /// How many files it may have open.
    pub(crate) descriptors_max: Option<u32>,
    /// A write beyond the size that files may have is an error, and not its end: see [`Gateway::limit_files`].
    pub(crate) survives_full_files: bool,
    /// A socket that is handed over as systemd does.
    pub(crate) socket: Option<Arc<TcpListener>>,
}

impl Surroundings {
    fn command(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_oncehook");
        let descriptors = self.descriptors_max.map(|most| format!("ulimit -n {most} && "));
        let files = self.survives_full_files.then(|| "trap '' XFSZ && ".to_owned());
        let handed = self.socket.as_ref().map(|_| "export LISTEN_PID=$$ LISTEN_FDS=1; ".to_owned());
        let before = [descriptors, files, handed].into_iter().flatten().collect::<String>();
        let mut command = if before.is_empty() {
            Command::new(binary)
        } else {
            // `exec`, so that the pid is the gateway's own.
            let mut shell = Command::new("sh");
            // Sockets begin at 3; standard input brings one past `Command`.
            let moved = if self.socket.is_some() { " 3<&0 0</dev/null" } else { "" };
            shell.args(["-c", &format!("{before}exec \"$0\" \"$@\"{moved}"), binary]);
            shell
        };
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(match &self.socket {
            Some(socket) => {
                Stdio::from(OwnedFd::from(socket.try_clone().expect("a socket can be shared")))
            }
            None => Stdio::null(),
        });
        command
    }
}

/// A running `oncehook run`.
pub(crate) struct Gateway {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// Held for each line that is read from its log.
    reading: Arc<AsyncMutex<()>>,
    /// Ends when all that it has logged is read.
    reader: JoinHandle<()>,
    address: SocketAddr,
    admin: SocketAddr,
    file: PathBuf,
    /// Goes with the gateway.
    folder: Option<TempDir>,
}

impl Gateway {
    /// Starts one with `configuration` (TOML) besides what every test needs: free ports, plain HTTP unless it says
    /// otherwise, the key of the tests.
    pub(crate) fn start(configuration: &str) -> Self {
        Self::start_in(&Surroundings::default(), configuration)
    }

    /// The same in other surroundings.
    pub(crate) fn start_in(surroundings: &Surroundings, configuration: &str) -> Self {
        let folder = TempDir::new().expect("a folder for the configuration");
        let file = folder.path().join("oncehook.toml");
        std::fs::write(&file, configuration).expect("the configuration is written");
        let mut gateway = Self::start_from_in(surroundings, &file);
        gateway.folder = Some(folder);
        gateway
    }

    /// The same from a file that is there, in which the addresses may stand.
    pub(crate) fn start_from(file: &Path) -> Self {
        Self::start_from_in(&Surroundings::default(), file)
    }

    fn start_from_in(surroundings: &Surroundings, file: &Path) -> Self {
        let mut command = surroundings.command();
        let configuration = std::fs::read_to_string(file).expect("there is a configuration");
        for (key, variable) in [
            ("listen.address", "ONCEHOOK_LISTEN__ADDRESS"),
            ("admin.address", "ONCEHOOK_ADMIN__ADDRESS"),
        ] {
            if !configuration.contains(key) {
                command.env(variable, "127.0.0.1:0");
            }
        }
        let mut child = command
            .args(["run", "--config"])
            .arg(file)
            .envs([
                ("ONCEHOOK_LOG__FORMAT", "json"),
                ("LIVEKIT_API_KEY", API_KEY),
                ("LIVEKIT_API_SECRET", API_SECRET),
            ])
            .envs(traced::level())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the gateway starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = child.stderr.take().expect("stderr is piped");
        let lines = Arc::clone(&log);
        let reading = Arc::new(AsyncMutex::new(()));
        let each = Arc::clone(&reading);
        traced::canary(API_SECRET);
        let reader = std::thread::spawn(move || {
            let mut kept = traced::Sink::new("gateway");
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                kept.line(&line);
                drop(each.blocking_lock());
                lines.lock().expect("nobody panics with the log").push(line);
            }
        });
        let (address, admin) = (unset(), unset());
        let mut gateway =
            Self { child, log, reading, reader, address, admin, file: file.into(), folder: None };
        let started = gateway.wait_for_line("\"listening\"");
        let line: serde_json::Value = serde_json::from_str(&started).expect("a log line is JSON");
        let address_in =
            |field: &str| line[field].as_str().expect(field).parse().expect("an address");
        gateway.address = address_in("address");
        gateway.admin = address_in("admin");
        gateway
    }

    /// Its configuration file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its URL for `path`, over plain HTTP.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Where its metrics are.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().expect("nobody panics with the log").clone()
    }

    /// From now on nobody reads what it logs, until the guard is dropped.
    pub(crate) async fn leave_log_unread(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.reading).lock_owned().await
    }

    /// Waits for a log line that contains `part`, and returns it.
    pub(crate) fn wait_for_line(&mut self, part: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            // Before the lines are looked at: what it said last is read after its end.
            let ended = self.child.try_wait().expect("the child can be asked");
            let ended = ended.filter(|_| self.reader.is_finished());
            if let Some(line) = self.log().into_iter().find(|line| line.contains(part)) {
                return line;
            }
            if let Some(status) = ended {
                panic!(
                    "the gateway ended with {status} before it logged {part}:\n{}",
                    self.log().join("\n")
                );
            }
            assert!(Instant::now() < until, "no line with {part} in\n{}", self.log().join("\n"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends `signal` (a name, as `kill` takes it).
    pub(crate) fn signal(&self, signal: &str) {
        let sent =
            Command::new("kill").arg(format!("-{signal}")).arg(self.pid().to_string()).status();
        assert!(sent.expect("kill runs").success(), "the signal {signal} was not sent");
    }

    /// From now on no file of its may be larger (bytes, or "unlimited"), as on a disk that is full.
    pub(crate) fn limit_files(&self, most: &str) {
        let pid = self.pid().to_string();
        let limit = format!("--fsize={most}:unlimited");
        let done = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        assert!(done.expect("prlimit is a part of util-linux").success());
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                return status;
            }
            assert!(Instant::now() < until, "the gateway did not end:\n{}", self.log().join("\n"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        traced::pages(self.admin);
        // It may have ended by itself, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn unset() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
