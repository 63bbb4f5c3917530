//! The line that a webhook gets, as one JSON object: the same to the byte as the log's usual way through tracing would
//! write it (a test holds that), at a third of its cost. The names of its fields are known, and so is what most of its
//! values can be.

use std::fmt::{self, Write as _};

use tracing::Level;

use super::json::{Escaped, push_time};
use super::log::WebhookLine;
use crate::clock::UnixTime;
use crate::text;
use crate::webhook::event::EventKind;

/// A member whose value is put into quotation marks as it is: a word of ours, a number, an address.
macro_rules! word {
    ($out:ident, $name:literal, $value:expr) => {
        if let Some(value) = $value {
            $out.push_str(concat!(",\"", $name, "\":\""));
            $out.push_str(value);
            $out.push('"');
        }
    };
}

/// A member whose value may be any text.
macro_rules! any {
    ($out:ident, $name:literal, $value:expr) => {
        if let Some(value) = $value {
            $out.push_str(concat!(",\"", $name, "\":\""));
            Escaped($out).write_str(value)?;
            $out.push('"');
        }
    };
}

/// A member whose value is a number or a truth.
macro_rules! bare {
    ($out:ident, $name:literal, $value:expr) => {
        if let Some(value) = $value {
            $out.push_str(concat!(",\"", $name, "\":"));
            $out.push_str(value);
        }
    };
}

/// Writes the line, with its end.
pub(super) fn write(
    out: &mut String,
    level: Level,
    time: UnixTime,
    line: &WebhookLine<'_>,
) -> fmt::Result {
    out.push_str("{\"timestamp\":\"");
    push_time(out, time);
    out.push_str("\",\"level\":\"");
    out.push_str(level.as_str());
    out.push_str("\",\"message\":\"webhook\"");
    word!(out, "result", Some(line.result.label()));
    any!(out, "route", Some(line.route.as_str()));
    word!(out, "event", line.event.map(EventKind::name));
    any!(out, "id", line.id);
    let mut room = [0; 32];
    word!(out, "key", line.key.map(|key| text::hex(&key.0, &mut room)));
    word!(out, "basis", line.basis);
    let mut number = itoa::Buffer::new();
    bare!(out, "attempt", line.attempt.map(|attempt| number.format(attempt)));
    let truth = |it| if it { "true" } else { "false" };
    bare!(out, "possible_duplicate", line.possible_duplicate.map(truth));
    bare!(out, "status", Some(number.format(line.status)));
    out.push_str(",\"duration_ms\":");
    push_milliseconds(out, line.micros());
    if let Some(peer) = line.peer {
        out.push_str(",\"peer\":\"");
        text::push_socket(out, peer);
        out.push('"');
    }
    any!(out, "request_id", line.request_id);
    word!(out, "reason", line.reason);
    any!(out, "hint", line.hint);
    out.push_str("}\n");
    Ok(())
}

/// As the shortest number that is read as the same one: with one decimal at least, and three at most.
fn push_milliseconds(out: &mut String, micros: u64) {
    out.push_str(itoa::Buffer::new().format(micros / 1000));
    let thousandths = (micros % 1000).saturating_add(1000);
    let mut number = itoa::Buffer::new();
    let decimals = number.format(thousandths).get(1..).unwrap_or_default();
    let short = decimals.trim_end_matches('0');
    out.push('.');
    out.push_str(if short.is_empty() { "0" } else { short });
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tracing_subscriber::fmt::Layer;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::json::JsonLine;
    use super::super::labels::AnswerResult;
    use super::super::{Route, log};
    use super::*;
    use crate::claim::Key;
    use crate::clock;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<String>>);

    impl io::Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push_str(std::str::from_utf8(line).unwrap());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn traced(level: Level, line: &WebhookLine<'_>) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = Layer::new().with_target(false).with_ansi(false).event_format(JsonLine);
        let layer = layer.with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || log::trace(level, line));
        lines.0.lock().unwrap().clone()
    }

    fn timeless(line: &str) -> &str {
        let rest = line.strip_prefix("{\"timestamp\":\"").unwrap();
        rest.get("2026-11-25T16:26:58.782772Z".len()..).unwrap()
    }

    fn compare(line: &WebhookLine<'_>) {
        for level in [Level::ERROR, Level::WARN, Level::INFO] {
            let mut straight = String::new();
            write(&mut straight, level, clock::unix(), line).unwrap();
            assert_eq!(timeless(&straight), timeless(&traced(level, line)));
        }
    }

    /// With nothing known but what always is.
    fn bare(route: &Route) -> WebhookLine<'_> {
        WebhookLine {
            result: AnswerResult::Refused,
            route,
            event: None,
            id: None,
            key: None,
            basis: None,
            attempt: None,
            possible_duplicate: None,
            status: 401,
            duration: Duration::ZERO,
            peer: None,
            request_id: None,
            reason: None,
            hint: None,
        }
    }

    #[test]
    fn a_line_is_the_same_on_either_way() {
        let route = Route::new("/a\"b");
        compare(&bare(&route));
        for result in AnswerResult::ALL.iter().copied() {
            compare(&WebhookLine { result, ..bare(&route) });
        }
        let mut line = WebhookLine {
            event: Some(EventKind::EgressEnded),
            id: Some("EV_\n\u{1b}[31m\\\"é\u{7f}"),
            key: Some(Key([0xa0; 16])),
            basis: Some("event"),
            attempt: Some(u32::MAX),
            possible_duplicate: Some(true),
            peer: Some("192.0.2.1:65535".parse().unwrap()),
            request_id: Some("a\"b\\c"),
            reason: Some("no_token"),
            hint: Some("mend \"it\""),
            ..bare(&route)
        };
        compare(&line);
        line.possible_duplicate = Some(false);
        line.peer = Some("[2001:db8::1]:443".parse().unwrap());
        compare(&line);
    }

    #[test]
    fn a_duration_is_the_same_on_either_way() {
        let route = Route::new("/webhook");
        let odd = (0..2000).map(|nth| nth * 499_979).chain([86_400_000_000_123, 999_500, 999_499]);
        for nanos in odd {
            let duration = Duration::from_nanos(nanos);
            let line = WebhookLine { duration, ..bare(&route) };
            let mut straight = String::new();
            write(&mut straight, Level::INFO, clock::unix(), &line).unwrap();
            assert_eq!(timeless(&straight), timeless(&traced(Level::INFO, &line)), "{duration:?}");
        }
    }
}
