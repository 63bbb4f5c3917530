//! A log line as one JSON object, the same to the byte as tracing-subscriber's own (a test holds that), at a part of its
//! cost: nothing is serialized that can be written as it stands.

use std::cell::RefCell;
use std::fmt::{self, Debug, Write};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock::{self, UnixTime};

/// Longer than most lines, in bytes.
pub(super) const LINE: usize = 512;

/// Time, level, and then the event's own fields; no target, no spans.
#[derive(Clone, Copy, Debug)]
pub(super) struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut into: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // Every write to `into` is a dynamic call, so there is one.
        let mut line = String::with_capacity(LINE);
        line.write_str("{\"timestamp\":\"")?;
        push_time(&mut line, clock::unix());
        line.write_str("\",\"level\":\"")?;
        line.write_str(event.metadata().level().as_str())?;
        line.write_str("\"")?;
        let mut members = Members { line, result: Ok(()) };
        event.record(&mut members);
        members.result?;
        members.line.write_str("}\n")?;
        into.write_str(&members.line)
    }
}

/// Writes each field as a member of the object; stops at the first error.
struct Members {
    line: String,
    result: fmt::Result,
}

impl Members {
    fn member(&mut self, field: &Field, write: impl FnOnce(&mut String) -> fmt::Result) {
        if self.result.is_ok() {
            self.result = name(&mut self.line, field).and_then(|()| write(&mut self.line));
        }
    }
}

impl Visit for Members {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.member(field, |line| line.write_str(&json(&value)?));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, |line| line.write_str(itoa::Buffer::new().format(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |line| line.write_str(itoa::Buffer::new().format(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, |line| line.write_str(if value { "true" } else { "false" }));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, |line| {
            line.write_char('"')?;
            Escaped(line).write_str(value)?;
            line.write_char('"')
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.member(field, |line| {
            line.write_char('"')?;
            write!(Escaped(line), "{value:?}")?;
            line.write_char('"')
        });
    }
}

/// Writes `time` to the microsecond (RFC 3339). Lines come many a second, so the second's own text is kept.
pub(super) fn push_time(line: &mut String, time: UnixTime) {
    thread_local! {
        static LAST: RefCell<(u64, String)> = RefCell::default();
    }
    LAST.with_borrow_mut(|(second, text)| {
        if *second != time.seconds() || text.is_empty() {
            *text = time.rfc3339();
            *second = time.seconds();
        }
        line.push_str(text.trim_end_matches('Z'));
    });
    line.push('.');
    let micros = time.since_epoch().subsec_micros();
    let padded = micros.saturating_add(1_000_000);
    line.push_str(itoa::Buffer::new().format(padded).get(1..).unwrap_or_default());
    line.push('Z');
}

fn name(line: &mut String, field: &Field) -> fmt::Result {
    line.write_str(",\"")?;
    Escaped(line).write_str(field.name())?;
    line.write_str("\":")
}

/// Writes what stands within a JSON string's quotation marks.
pub(super) struct Escaped<'a>(pub(super) &'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        // RFC 8259 §7: these and no others must be. All are looked at, for that takes no branch.
        let marked = |byte| byte < b' ' || byte == b'"' || byte == b'\\';
        if !piece.bytes().fold(false, |found, byte| found | marked(byte)) {
            return self.0.write_str(piece);
        }
        let quoted = json(piece)?;
        let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        self.0.write_str(inner.unwrap_or_default())
    }
}

fn json(value: &(impl Serialize + ?Sized)) -> Result<String, fmt::Error> {
    serde_json::to_string(value).map_err(|_| fmt::Error)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use tracing_subscriber::fmt::{Layer, MakeWriter};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    impl Lines {
        /// All but the time, which must have its form.
        fn timeless(&self) -> Vec<String> {
            let lines = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            let cut = |line: &str| {
                let time = line.strip_prefix("{\"timestamp\":\"").unwrap();
                let (time, rest) = time.split_at("2026-11-25T16:26:58.782772Z".len());
                assert!(time.ends_with('Z') && rest.starts_with("\","), "{line}");
                rest.to_owned()
            };
            lines.split_inclusive('\n').map(cut).collect()
        }
    }

    #[test]
    fn lines_are_those_of_the_library() {
        let (ours, theirs) = (Lines::default(), Lines::default());
        let lines = Layer::new().with_target(false).with_ansi(false);
        let library = Layer::new().with_target(false).with_ansi(false).json().flatten_event(true);
        let library = library.with_current_span(false).with_span_list(false);
        let subscriber = tracing_subscriber::registry()
            .with(lines.event_format(JsonLine).with_writer(ours.clone()))
            .with(library.with_writer(theirs.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let all: String = (0..=0x2_FFFF).filter_map(char::from_u32).collect();
            tracing::info!(text = all.as_str(), shown = %all, debug = ?all, none = None::<&str>, "{all}");
            for float in [0.0, -0.0, 1.5, 2.0, 0.001, 1e-7, 123_456_789.123, 1e16, 1e300, f64::MIN]
            {
                tracing::warn!(float, "float");
            }
            tracing::error!(
                nan = f64::NAN,
                infinite = f64::INFINITY,
                small = 1.1_f32,
                "not finite"
            );
            tracing::debug!(u = u64::MAX, i = i64::MIN, wide = u128::MAX, yes = true, no = false);
            let error = io::Error::other("a \"quoted\"\nerror");
            let error: &dyn std::error::Error = &error;
            tracing::trace!(error, list = ?["a\\b"], "dotted.name" = 1);
        });
        let (ours, theirs) = (ours.timeless(), theirs.timeless());
        assert_eq!(ours.len(), 14);
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs);
        }
        assert_eq!(ours.len(), theirs.len());
    }
}
