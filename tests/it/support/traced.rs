//! A traced run. With `TRACED_RUN=FOLDER` in the environment every gateway of the tests, and the rooms that tests use
//! within their own process, log all they can; the folder keeps what gateways write, their pages, and in `canaries`
//! what must not be in any of that. `./test --traced` makes such a run and looks.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, OnceLock};
use std::time::Duration;

use oncehook::telemetry::log;

/// How long a page of a gateway that is about to end may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Shorter ones would be found in what is harmless.
const CANARY_BYTES_MIN: usize = 8;

/// Where a traced run keeps what it finds; `None` in every other run.
pub(crate) fn folder() -> Option<PathBuf> {
    std::env::var_os("TRACED_RUN").map(PathBuf::from)
}

/// The variable that makes a gateway log all it can, in a traced run.
pub(crate) fn level() -> Option<(&'static str, &'static str)> {
    folder().map(|_| ("ONCEHOOK_LOG__LEVEL", "trace"))
}

/// A new file of a traced run; nothing in every other run.
pub(crate) struct Sink(Option<File>);

impl Sink {
    pub(crate) fn new(kind: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let named =
            |folder: PathBuf| folder.join(format!("{kind}-{}-{number}.log", std::process::id()));
        let created = |file| File::create(file).expect("the folder of a traced run can be written");
        Self(folder().map(named).map(created))
    }

    /// One that keeps nothing.
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    pub(crate) fn line(&mut self, line: &str) {
        if let Some(file) = &mut self.0 {
            writeln!(file, "{line}").expect("the folder of a traced run can be written");
        }
    }
}

/// Takes note of what no line, page or metric may show.
pub(crate) fn canary(text: &str) {
    static CANARIES: OnceLock<Option<Mutex<File>>> = OnceLock::new();
    let file = CANARIES.get_or_init(|| {
        let file = folder()?.join(format!("canaries-{}", std::process::id()));
        let opened = OpenOptions::new().create(true).append(true).open(file);
        Some(Mutex::new(opened.expect("the folder of a traced run can be written")))
    });
    if let Some(file) = file
        && text.len() >= CANARY_BYTES_MIN
    {
        let line = format!("{text}\n");
        let mut file = file.lock().expect("nobody panics with the canaries");
        file.write_all(line.as_bytes()).expect("the canaries can be written");
    }
}

/// Lets the rooms of this process log all they can, to its standard error.
pub(crate) fn here() {
    static SET_UP: Once = Once::new();
    SET_UP.call_once(|| {
        if folder().is_some() {
            let options = log::Options { format: log::Format::Json, level: tracing::Level::TRACE };
            log::init(options).expect("nobody else sets up the log of the tests");
        }
    });
}

/// Keeps the pages that a gateway shows before it is ended.
pub(crate) fn pages(admin: SocketAddr) {
    if folder().is_none() {
        return;
    }
    let mut sink = Sink::new("pages");
    for page in ["/metrics", "/status", "/readyz", "/nothing"] {
        let request = format!("GET {page} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        let read = || -> std::io::Result<String> {
            let mut socket = TcpStream::connect_timeout(&admin, PATIENCE)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.write_all(request.as_bytes())?;
            let mut text = String::new();
            socket.read_to_string(&mut text)?;
            Ok(text)
        };
        // It may have ended already, or be frozen.
        let Ok(text) = read() else { return };
        sink.line(&text);
    }
}
