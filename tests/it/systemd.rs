//! What oncehook tells a service manager and takes from it: a datagram socket and a parent that bound the port stand for
//! systemd. And the units that are shipped are what they claim to be.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oncehook::webhook::event::EventKind;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::backend::{Action, Backend};
use crate::support::gateway::{Gateway, Surroundings};
use crate::support::process;
use crate::support::sender::{Sender, event};

/// How long any message may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Messages that are not waited for may come in between, but not for ever.
const MESSAGES_MAX: usize = 1_000;

/// Stands for systemd.
struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, folder }
    }

    fn surroundings(&self, more: &[(&str, &str)]) -> Surroundings {
        let path = self.folder.path().join("notify").to_str().unwrap().to_owned();
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let variables = std::iter::once(("NOTIFY_SOCKET".to_owned(), path)).chain(more).collect();
        Surroundings { variables, ..Surroundings::default() }
    }

    /// The next message, as its assignments.
    fn message(&self) -> Vec<(String, String)> {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("a message comes");
        let text = std::str::from_utf8(&bytes[..length]).unwrap();
        let pairs = text.lines().map(|line| line.split_once('=').unwrap());
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// The next message that has this name, whatever comes before.
    fn wait_for(&self, name: &str) -> Vec<(String, String)> {
        for _ in 0..MESSAGES_MAX {
            let message = self.message();
            if message.iter().any(|(said, _)| said == name) {
                return message;
            }
        }
        panic!("{name} does not come")
    }
}

fn value<'a>(message: &'a [(String, String)], name: &str) -> &'a str {
    let found = message.iter().find(|(said, _)| said == name);
    found.map_or_else(|| panic!("no {name} in {message:?}"), |(_, value)| value.as_str())
}

fn configuration(backend: &Backend) -> String {
    format!(
        "tls.enabled = false\nshutdown.drain_delay = \"0s\"\nupstream.backend = \"{}/hook\"\n[[route]]\npath = \"/webhook\"\n",
        backend.url()
    )
}

#[test]
fn readiness_reloads_and_the_end_are_told() {
    let (manager, backend) = (Manager::new(), Backend::always(Action::status(200)));
    let mut gateway = Gateway::start_in(&manager.surroundings(&[]), &configuration(&backend));
    let ready = manager.message();
    assert_eq!(value(&ready, "READY"), "1");
    assert_eq!(value(&ready, "STATUS"), format!("listening on {}", gateway.address()));

    // The time is CLOCK_MONOTONIC, which is std's, too.
    let before = Instant::now();
    let [first, second] = [(); 2].map(|()| {
        gateway.signal("HUP");
        let reloading = manager.message();
        assert_eq!(value(&reloading, "RELOADING"), "1");
        assert_eq!(value(&manager.message(), "READY"), "1");
        value(&reloading, "MONOTONIC_USEC").parse::<u128>().unwrap()
    });
    let passed = before.elapsed().as_micros();
    assert!(first < second && second - first <= passed, "{first} {second} {passed}");

    std::fs::write(gateway.file(), "broken").unwrap();
    gateway.signal("HUP");
    manager.wait_for("RELOADING");
    // One for the signal, and perhaps one for the file.
    let told = manager.wait_for("READY");
    assert!(value(&told, "STATUS").ends_with("; the last reload was rejected"), "{told:?}");

    gateway.signal("TERM");
    manager.wait_for("STOPPING");
    assert!(gateway.wait().success());
}

#[test]
fn the_watchdog_is_fed_for_as_long_as_the_gateway_runs() {
    let (manager, backend) = (Manager::new(), Backend::always(Action::status(200)));
    let watched = manager.surroundings(&[("WATCHDOG_USEC", "200000")]);
    let gateway = Gateway::start_in(&watched, &configuration(&backend));
    for _ in 0..5 {
        assert_eq!(value(&manager.wait_for("WATCHDOG"), "WATCHDOG"), "1");
    }
    // A process that stands still feeds nobody. What it had sent before is taken first.
    gateway.signal("STOP");
    manager.socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let until = Instant::now() + PATIENCE;
    while manager.socket.recv(&mut [0; 64]).is_ok() {
        assert!(Instant::now() < until, "it is fed by a process that stands still");
    }
    gateway.signal("CONT");
    manager.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    manager.wait_for("WATCHDOG");
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let (manager, backend) = (Manager::new(), Backend::always(Action::status(200)));
    let watched = manager.surroundings(&[("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")]);
    let gateway = Gateway::start_in(&watched, &configuration(&backend));
    assert_eq!(value(&manager.message(), "READY"), "1");
    gateway.signal("HUP");
    assert_eq!(value(&manager.message(), "RELOADING"), "1", "nothing comes in between");
}

#[test]
fn nobody_to_tell_is_no_error() {
    let surroundings = Surroundings {
        variables: vec![("NOTIFY_SOCKET".to_owned(), "/nowhere/notify".to_owned())],
        ..Surroundings::default()
    };
    let backend = Backend::always(Action::status(200));
    let mut gateway = Gateway::start_in(&surroundings, &configuration(&backend));
    gateway.wait_for_line("the service manager cannot be told");
}

fn on(socket: &Arc<TcpListener>) -> Surroundings {
    Surroundings { socket: Some(Arc::clone(socket)), ..Surroundings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_the_parent_has_bound_outlives_the_gateway() {
    let backend = Backend::always(Action::status(200));
    let socket = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let address = socket.local_addr().unwrap();
    let url = format!("http://{address}/webhook");
    // Another address than the socket's.
    let text = format!("listen.address = \"127.0.0.1:1\"\n{}", configuration(&backend));
    let mut first = Gateway::start_in(&on(&socket), &text);
    assert_eq!(first.address(), address);
    assert_eq!(Sender::to(&url).post(&event(EventKind::RoomStarted, 1, "EV_1")).await.status, 200);
    first.signal("TERM");
    assert!(first.wait().success());

    // Nobody serves, and nobody is refused: the connection waits in the kernel.
    let mut waiting = TcpStream::connect(address).await.unwrap();
    waiting
        .write_all(b"GET /nothing HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let _second = Gateway::start_in(&on(&socket), &text);
    let mut answer = String::new();
    timeout(PATIENCE, waiting.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

/// `oncehook run` with standard input, and if there are two sockets standard output, as its sockets; its exit code and
/// what it says.
fn handed(sockets: usize, first: OwnedFd) -> (Option<i32>, String) {
    let shell = "export LISTEN_PID=$$ LISTEN_FDS=$0; exec \"$@\" 3<&0 4<&0 0</dev/null";
    let gateway = process::oncehook(&["run", "--dev", "--listen", "127.0.0.1:0"]);
    let output = Command::new("sh")
        .args(["-c", shell, &sockets.to_string()])
        .arg(gateway.get_program())
        .args(gateway.get_args())
        .stdin(Stdio::from(first))
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn other_sockets_than_one_that_listens_are_refused() {
    let listening = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let (code, told) = handed(2, listening());
    assert_eq!(code, Some(78), "{told}");
    assert!(told.contains("handed over 2 sockets\nhint: oncehook takes one"), "{told}");

    let (code, told) = handed(1, UdpSocket::bind("127.0.0.1:0").unwrap().into());
    assert_eq!(code, Some(78), "{told}");
    assert!(told.contains("handed over no TCP socket"), "{told}");

    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let (code, told) = handed(1, socket.into());
    assert_ne!(code, Some(0), "{told}");
    assert!(told.contains("the socket does not listen"), "{told}");
}

/// One section of a unit: names and values, in order.
fn unit(name: &str) -> Vec<(String, String)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/systemd").join(name);
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn has(unit: &[(String, String)], name: &str, value: &str) {
    let said: Vec<_> =
        unit.iter().filter(|(said, _)| said == name).map(|(_, value)| value).collect();
    assert!(said.iter().any(|said| *said == value), "{name} is {said:?}, not {value}");
}

#[test]
fn the_units_ask_for_what_oncehook_does() {
    let service = unit("oncehook.service");
    for (name, value) in [
        ("Type", "notify-reload"),
        ("NotifyAccess", "main"),
        ("DynamicUser", "yes"),
        ("ProtectSystem", "strict"),
        ("NoNewPrivileges", "yes"),
        ("Restart", "on-failure"),
    ] {
        has(&service, name, value);
    }
    assert!(service.iter().any(|(name, _)| name == "WatchdogSec"));
    assert!(service.iter().any(|(name, _)| name == "LoadCredential"));
    let socket = unit("oncehook.socket");
    assert_eq!(socket.iter().filter(|(name, _)| name == "ListenStream").count(), 1);
}

/// The tool of systemd judges the unit: at most 1.5 of 10. It is not everywhere; where it is missing, nothing is claimed.
#[test]
fn systemd_finds_little_that_the_service_may_do() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/systemd/oncehook.service");
    let run = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", "--threshold=15"])
        .arg(&file)
        .output();
    let Ok(output) = run else {
        eprintln!("NOT TESTED: systemd-analyze is not there");
        return;
    };
    let told = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    // From systemd 250 on it judges files.
    if told.contains("unrecognized option") {
        eprintln!("NOT TESTED: this systemd-analyze judges no files");
        return;
    }
    assert!(output.status.success(), "more than 1.5:\n{told}");
    assert!(told.contains("Overall exposure level"), "{told}");
}
