//! `oncehook` as a process: short ones with a limit, long ones with their output line by line, ended by their pid.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use super::traced::{self, Sink};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lines that nobody has asked for yet.
const LINES_MAX: usize = 4096;

/// `oncehook` with these arguments, and nothing of the environment that would change what it does.
pub(crate) fn oncehook(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncehook"));
    command.args(arguments).env("COLUMNS", "100").env("NO_COLOR", "1").stdin(Stdio::null());
    for (name, _) in std::env::vars() {
        if ["ONCEHOOK_", "LIVEKIT_", "WEBHOOK_", "REDIS_"].iter().any(|p| name.starts_with(p)) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs `oncehook` to its end, within a limit.
pub(crate) fn run(arguments: &[&str]) -> assert_cmd::assert::Assert {
    assert_cmd::Command::from_std(oncehook(arguments)).timeout(PATIENCE).assert()
}

/// The exit code and both outputs of an `oncehook` that ran to its end.
pub(crate) fn output(arguments: &[&str]) -> (i32, String, String) {
    let assert = run(arguments);
    let output = assert.get_output();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the output is UTF-8");
    let code = output.status.code().expect("it ended by itself");
    (code, text(&output.stdout), text(&output.stderr))
}

/// An `oncehook` that runs until it is told to end.
pub(crate) struct Process {
    child: Child,
    out: Receiver<String>,
    talk: Receiver<String>,
}

impl Process {
    /// Starts one.
    pub(crate) fn start(mut command: Command) -> Self {
        // What `run` writes is for operators; the other commands show what they are asked for.
        let traced = command.get_args().any(|argument| argument == "run");
        if traced {
            command.envs(traced::level());
        }
        let kept = |kind| if traced { Sink::new(kind) } else { Sink::none() };
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("oncehook starts");
        let out = lines(child.stdout.take().expect("stdout is piped"), kept("out"));
        let talk = lines(child.stderr.take().expect("stderr is piped"), kept("talk"));
        Self { child, out, talk }
    }

    /// The next line of stdout.
    pub(crate) fn out_line(&self) -> String {
        self.out.recv_timeout(PATIENCE).expect("a line on stdout")
    }

    /// What is left of stdout, to its end.
    pub(crate) fn rest(&self) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        let left = || until.saturating_duration_since(Instant::now());
        std::iter::from_fn(|| self.out.recv_timeout(left()).ok()).collect()
    }

    /// The first word that begins with `prefix` in what it says on stderr.
    pub(crate) fn said(&self, prefix: &str) -> String {
        let mut said = Vec::new();
        while let Ok(line) = self.talk.recv_timeout(PATIENCE) {
            if let Some(word) = line.split_whitespace().find(|word| word.starts_with(prefix)) {
                return word.to_owned();
            }
            said.push(line);
        }
        panic!("nothing that begins with {prefix} in\n{}", said.join("\n"));
    }

    /// Sends a signal, by the name that `kill` takes.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.expect("kill runs").success(), "the signal {name} was not sent");
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it did not end within {PATIENCE:?}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn lines(stream: impl Read + Send + 'static, mut kept: Sink) -> Receiver<String> {
    let (sender, receiver) = sync_channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            kept.line(&line);
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
