//! Log lines: how they are set up, and the one line that every webhook gets.
//!
//! What is told of a webhook is chosen here, field by field, so that no secret, token, metadata or attribute has a way
//! into the log.
//!
//! Lines are kept until the thread that wrote them has nothing else to do, so that many of them are one write; how, and
//! what happens if nobody takes them, is left to `sink`.

use std::cell::RefCell;
use std::io::{self, IsTerminal as _, Stderr, Write};
use std::net::SocketAddr;
use std::panic;
use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{Layer, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::json::{self, JsonLine};
use super::labels::AnswerResult;
use super::series::Route;
use super::sink::{Sink, Urgency};
use super::webhook_line;
use crate::claim::Key;
use crate::clock;
use crate::text;
use crate::webhook::event::EventKind;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For eyes; in colour on a terminal, unless `NO_COLOR` is set.
    Text,
}

/// How the log is set up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How lines look.
    pub format: Format,
    /// The least severe level of oncehook's own lines.
    pub level: Level,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Set up already, in this process.
    #[error("the log has been set up already")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The least severe level of other crates' lines, whatever the level of ours: h2 and hyper trace what they read and
/// write, header fields and frames included, and a token is a header field.
const OTHERS: Level = Level::WARN;

/// A process has one standard error.
static STDERR: LazyLock<Sink<Stderr>> = LazyLock::new(|| Sink::new(io::stderr()));

/// Sends this process's log lines to standard error. Standard output is for data.
///
/// A thread whose runtime calls [`before_park`] has its lines written when it parks, when they are many, or when one of
/// them is a warning or an error; all other threads' are written at once. Call [`finish`] at the end.
pub fn init(options: Options) -> Result<(), InitError> {
    // A log that cannot be written must not end the exchange that wrote to it: the default would panic then.
    let lines = Layer::new().with_writer(ToStderr).with_target(false).log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(filter(options.level));
    match options.format {
        Format::Json => {
            registry.with(lines.with_ansi(false).event_format(JsonLine)).with(AsJson).try_init()
        }
        Format::Text if io::stderr().is_terminal() => registry.with(lines.compact()).try_init(),
        Format::Text => registry.with(lines.compact().with_ansi(false)).try_init(),
    }
    .map_err(|error| InitError::Twice(error.into()))?;
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panicked| {
        // What led to it is told before it.
        STDERR.try_flush();
        tell(panicked);
    }));
    Ok(())
}

/// Writes out what is kept. For a runtime's `on_thread_park`: the lines of a thread that calls it wait for the next call.
/// A pool's other threads (`spawn_blocking`) park without it, and keep none.
pub fn before_park() {
    tell_dropped(STDERR.parking());
}

/// Writes out what is kept, as far as standard error takes it at once.
pub fn flush() {
    tell_dropped(STDERR.flush());
}

/// Writes out what is kept, at the end of the process: waits for a reader, but not for long.
pub fn finish() {
    tell_dropped(STDERR.finish());
}

/// The lines that were dropped since the start, because standard error took none.
pub(super) fn dropped() -> Counter {
    STDERR.dropped().clone()
}

fn tell_dropped(lines: Option<u64>) {
    if let Some(lines) = lines {
        tracing::warn!(lines, "standard error took no more: log lines were dropped");
    }
}

/// Says of a log that its lines are JSON for [`STDERR`], and does nothing else.
struct AsJson;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for AsJson {}

/// Hands whole lines to [`STDERR`].
struct ToStderr;

/// The same, for lines of one urgency. `fmt::Layer` writes each line at once.
struct Entry(Urgency);

impl MakeWriter<'_> for ToStderr {
    type Writer = Entry;

    fn make_writer(&self) -> Entry {
        Entry(Urgency::Pressing)
    }

    fn make_writer_for(&self, of: &Metadata<'_>) -> Entry {
        Entry(Urgency::of(*of.level()))
    }
}

impl Urgency {
    /// Of a line of this level.
    fn of(level: Level) -> Self {
        // Of two levels, the more verbose one is the greater.
        if level <= Level::WARN { Self::Pressing } else { Self::Ordinary }
    }
}

impl Write for Entry {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        STDERR.line(line, self.0);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Longer than most addresses with their ports, in bytes.
const ADDRESS: usize = 48;

/// Ours from `level` on, all others' from [`OTHERS`] on, if that is more severe.
fn filter(level: Level) -> Targets {
    // Of two levels, the more verbose one is the greater.
    Targets::new().with_default(level.min(OTHERS)).with_target(env!("CARGO_PKG_NAME"), level)
}

/// What is told of one copy; the fields are named as in the metrics. What is not known yet when it is refused is
/// `None`, and left out.
#[derive(Clone, Copy, Debug)]
pub struct WebhookLine<'a> {
    /// How it ended; decides the level: refused and failed are warnings, all others information.
    pub result: AnswerResult,
    /// On which route.
    pub route: &'a Route,
    /// What happened, once it is verified.
    pub event: Option<EventKind>,
    /// LiveKit's id of the event, at most 256 bytes; control characters are escaped.
    pub id: Option<&'a str>,
    /// What its copies share.
    pub key: Option<Key>,
    /// What the key was made from: `webhook::key::Basis::label()`.
    pub basis: Option<&'static str>,
    /// The number of the attempt, if this copy was forwarded.
    pub attempt: Option<u32>,
    /// Whether the forward was marked.
    pub possible_duplicate: Option<bool>,
    /// What the sender was told.
    pub status: u16,
    /// From the request's head to its answer.
    pub duration: Duration,
    /// Who sent it.
    pub peer: Option<SocketAddr>,
    /// As in `X-Request-Id`.
    pub request_id: Option<&'a str>,
    /// Why it was refused or failed: the `label()` of a closed enum.
    pub reason: Option<&'static str>,
    /// What the operator should do: makes the line an error.
    pub hint: Option<&'a str>,
}

impl WebhookLine<'_> {
    /// How long it took, in whole microseconds.
    pub(super) fn micros(&self) -> u64 {
        let micros = self.duration.saturating_add(Duration::from_nanos(500)).as_micros();
        u64::try_from(micros).unwrap_or(u64::MAX)
    }
}

/// Writes the one line that a webhook gets.
pub fn webhook(line: &WebhookLine<'_>) {
    match (line.hint, line.result) {
        (Some(_), _) => write_at(Level::ERROR, line),
        (None, AnswerResult::Refused | AnswerResult::Failed) => write_at(Level::WARN, line),
        (None, AnswerResult::Forwarded | AnswerResult::Duplicate | AnswerResult::Collapsed) => {
            write_at(Level::INFO, line);
        }
    }
}

/// As all lines are written, unless it is JSON for standard error: there are many of these, and only these.
fn write_at(level: Level, line: &WebhookLine<'_>) {
    let enabled = match level {
        Level::ERROR => tracing::enabled!(Level::ERROR),
        Level::WARN => tracing::enabled!(Level::WARN),
        _ => tracing::enabled!(Level::INFO),
    };
    if !enabled {
        return;
    }
    if tracing::dispatcher::get_default(tracing::Dispatch::is::<AsJson>) {
        write_straight(level, line);
    } else {
        trace(level, line);
    }
}

fn write_straight(level: Level, line: &WebhookLine<'_>) {
    thread_local! {
        static ROOM: RefCell<String> = RefCell::new(String::with_capacity(json::LINE));
    }
    ROOM.with_borrow_mut(|room| {
        room.clear();
        // A text takes all that is written to it.
        if webhook_line::write(room, level, clock::unix(), line).is_ok() {
            STDERR.line(room.as_bytes(), Urgency::of(level));
        }
    });
}

/// The usual way.
pub(super) fn trace(level: Level, line: &WebhookLine<'_>) {
    let mut room = [0; 32];
    let key = line.key.map(|key| text::hex(&key.0, &mut room));
    let peer = line.peer.map(|address| {
        let mut text = String::with_capacity(ADDRESS);
        text::push_socket(&mut text, address);
        text
    });
    macro_rules! write_at {
        ($level:ident) => {
            tracing::$level!(
                result = line.result.label(),
                route = line.route.as_str(),
                event = line.event.map(EventKind::name),
                id = line.id,
                key,
                basis = line.basis,
                attempt = line.attempt,
                possible_duplicate = line.possible_duplicate,
                status = line.status,
                duration_ms = milliseconds(line.micros()),
                peer = peer.as_deref(),
                request_id = line.request_id,
                reason = line.reason,
                hint = line.hint,
                "webhook"
            )
        };
    }
    match level {
        Level::ERROR => write_at!(error),
        Level::WARN => write_at!(warn),
        _ => write_at!(info),
    }
}

/// Milliseconds, to the microsecond.
fn milliseconds(micros: u64) -> f64 {
    (Duration::from_micros(micros).as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_crates_do_not_trace_what_they_read() {
        let filter = filter(Level::TRACE);
        assert!(filter.would_enable("oncehook::gateway", &Level::TRACE));
        for other in ["h2::codec::framed_read", "hyper::proto::h1::role", "rustls", "redis"] {
            assert!(filter.would_enable(other, &Level::WARN), "{other}");
            assert!(!filter.would_enable(other, &Level::INFO), "{other}");
        }
    }

    #[test]
    fn other_crates_say_no_more_than_we_do() {
        let filter = filter(Level::ERROR);
        assert!(filter.would_enable("hyper", &Level::ERROR));
        assert!(!filter.would_enable("hyper", &Level::WARN));
        assert!(!filter.would_enable("oncehook::gateway", &Level::WARN));
    }
}
