//! A case of `tests/data/http1`: its file, and the bytes that it stands for. The format is told in its README.md.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use oncehook::clock;
use oncehook::webhook::event::EventKind;
use oncehook::webhook::verify::sign;
use secrecy::SecretString;

use crate::support::gateway::{API_KEY, API_SECRET};
use crate::support::sender::{Signed, event};

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Kept,
    Closed,
}

/// One file.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) source: String,
    /// Statuses, in order; those of interim answers are left out.
    pub(super) answers: Vec<u16>,
    /// Requests that reach the route's backend, and the relay's.
    pub(super) backend: usize,
    pub(super) relayed: usize,
    /// Whether the store is asked.
    pub(super) store: bool,
    pub(super) ending: Ending,
    /// Played over TCP alone, or over TLS alone.
    pub(super) over: Option<String>,
    /// Which refusal is counted.
    pub(super) reason: Option<String>,
    /// What the request that reaches a backend has, and has not; in small letters.
    pub(super) sees: Vec<String>,
    pub(super) lacks: Vec<String>,
    request: String,
}

/// A step of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Send(Vec<u8>),
    /// Waits for 100 (Continue).
    AwaitContinue,
    /// Ends the sending half.
    End,
}

impl Case {
    pub(super) fn read(file: &Path) -> Self {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(file).unwrap();
        let (head, request) = text.split_once("\n---\n").expect(&name);
        let mut case = Self {
            name,
            source: String::new(),
            answers: Vec::new(),
            backend: 0,
            relayed: 0,
            store: false,
            ending: Ending::Kept,
            over: None,
            reason: None,
            sees: Vec::new(),
            lacks: Vec::new(),
            request: request.to_owned(),
        };
        for line in head.lines().filter(|line| !line.starts_with('#')) {
            case.set(line);
        }
        assert!(!case.source.is_empty(), "{} does not name its source", case.name);
        case
    }

    fn set(&mut self, line: &str) {
        let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
        let number = || value.parse().unwrap_or_else(|_| panic!("{}: {line}", self.name));
        match (key, value) {
            ("source", _) => value.clone_into(&mut self.source),
            ("answers", "none") => {}
            ("answers", _) => {
                self.answers = value.split(' ').map(|code| code.parse().expect(line)).collect();
            }
            ("backend", _) => self.backend = number(),
            ("relayed", _) => self.relayed = number(),
            ("store", "0" | "n") => self.store = value == "n",
            ("connection", "kept") => self.ending = Ending::Kept,
            ("connection", "closed") => self.ending = Ending::Closed,
            ("over", "tcp" | "tls") => self.over = Some(value.to_owned()),
            ("reason", _) => self.reason = Some(value.to_owned()),
            ("sees", _) => self.sees.push(value.to_lowercase()),
            ("lacks", _) => self.lacks.push(value.to_lowercase()),
            _ => panic!("{}: {line}", self.name),
        }
    }

    /// What is sent, and the webhook that is in it: the event of `number`, which no other case has.
    pub(super) fn steps(&self, number: u64) -> (Vec<Step>, Signed) {
        let signed = event(EventKind::RoomStarted, number, &format!("EV_{}_{number}", self.name));
        let mut steps = Vec::new();
        let mut bytes = Vec::new();
        // Ends of lines are for the reader; those of the request are written out.
        let text = self.request.replace('\n', "");
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("{{") {
            unescape(before, &mut bytes);
            let (word, after) = after.split_once("}}").expect(&self.name);
            match word {
                "continue" | "end" => {
                    steps.push(Step::Send(std::mem::take(&mut bytes)));
                    steps.push(if word == "end" { Step::End } else { Step::AwaitContinue });
                }
                _ => self.fill(word, &signed, &mut bytes),
            }
            rest = after;
        }
        unescape(rest, &mut bytes);
        steps.push(Step::Send(bytes));
        (steps, signed)
    }

    fn fill(&self, word: &str, signed: &Signed, into: &mut Vec<u8>) {
        let (name, argument) = word.split_once(' ').unwrap_or((word, ""));
        match name {
            "token" => into.extend_from_slice(signed.token.as_bytes()),
            "foreign" => into.extend_from_slice(foreign(&signed.body).as_bytes()),
            "stale" => into.extend_from_slice(stale(&signed.body).as_bytes()),
            "body" => into.extend_from_slice(&signed.body),
            "length" => {
                let more: usize = argument.parse().unwrap_or(0);
                into.extend_from_slice((signed.body.len() + more).to_string().as_bytes());
            }
            "hex" => into.extend_from_slice(format!("{:x}", signed.body.len()).as_bytes()),
            "chunks" => {
                for chunk in signed.body.chunks(100) {
                    into.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    into.extend_from_slice(chunk);
                    into.extend_from_slice(b"\r\n");
                }
            }
            "repeat" => {
                let (times, what) = argument.split_once(' ').expect(&self.name);
                let mut one = Vec::new();
                unescape(what, &mut one);
                into.extend(one.repeat(times.parse().expect(&self.name)));
            }
            _ => panic!("{}: {word}", self.name),
        }
    }
}

/// Signed with a secret that the gateway does not have.
fn foreign(body: &Bytes) -> String {
    Signed::by(API_KEY, "another-secret-of-thirty-two-characters", body.clone()).token
}

/// Expired for ten minutes.
fn stale(body: &Bytes) -> String {
    let then = clock::unix().since_epoch().saturating_sub(Duration::from_mins(15));
    let then = clock::UnixTime::from_epoch(then);
    sign(API_KEY, &SecretString::from(API_SECRET), body, then, Duration::from_mins(5)).unwrap()
}

/// `\r`, `\n`, `\t`, `\0`, `\\`, `\xHH`; all else stands for itself.
fn unescape(text: &str, into: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        into.extend_from_slice(before.as_bytes());
        let (letter, after) = after.split_at(1);
        let (byte, after) = match letter {
            "r" => (b'\r', after),
            "n" => (b'\n', after),
            "t" => (b'\t', after),
            "0" => (0, after),
            "\\" => (b'\\', after),
            "x" => (u8::from_str_radix(&after[..2], 16).unwrap(), &after[2..]),
            _ => panic!("\\{letter} stands for nothing"),
        };
        into.push(byte);
        rest = after;
    }
    into.extend_from_slice(rest.as_bytes());
}
