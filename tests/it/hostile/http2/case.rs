//! A case of `tests/data/http2`, read; `README.md` there explains the format.

use std::path::Path;

use crate::support::h2::{CODES, Frame, KINDS, PREFACE, field, hello, setting};
use crate::support::sender::Signed;

/// One file.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) expect: Vec<Expected>,
    pub(super) backend: u64,
    pub(super) store: u64,
    /// The gateway with short time-outs is meant.
    pub(super) hasty: bool,
    steps: Vec<String>,
}

/// What must come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// The stream is answered so.
    Status(u32, u16),
    /// It is reset with this code.
    Reset(u32, &'static str),
    /// The connection is ended with this code, and closed.
    Goaway(&'static str),
    /// It is closed.
    Closed,
    /// It is still there.
    Alive,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Write(Vec<u8>),
    /// Until the stream is answered to its end, or reset.
    Await(u32),
}

/// All cases, in the order of their names.
pub(super) fn all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/http2");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|end| end == "frames")).collect();
    files.sort();
    files.iter().map(|file| Case::read(file)).collect()
}

impl Case {
    fn read(file: &Path) -> Self {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(file).unwrap();
        let (keys, steps) = text.split_once("\n\n").unwrap_or_else(|| panic!("{name}: no steps"));
        let steps = steps.lines().map(str::to_owned).collect();
        let (expect, hasty) = (Vec::new(), false);
        let mut case = Self { name, expect, backend: 0, store: 0, hasty, steps };
        let (mut about, mut source) = ("", "");
        for line in keys.lines() {
            match line.split_once(": ") {
                Some(("about", text)) => about = text,
                Some(("source", text)) => source = text,
                Some(("expect", text)) => case.expect.push(expected(text)),
                Some(("backend", count)) => case.backend = count.parse().unwrap(),
                Some(("store", count)) => case.store = count.parse().unwrap(),
                Some(("gateway", "hasty")) => case.hasty = true,
                _ => panic!("{}: this is no key: {line}", case.name),
            }
        }
        assert!(!about.is_empty() && !source.is_empty(), "{}: of what, and whence?", case.name);
        assert!(!case.expect.is_empty(), "{} expects nothing", case.name);
        case
    }

    /// What to do, with `signed` in the place of the names.
    pub(super) fn steps(&self, signed: &Signed) -> Vec<Step> {
        let mut reading = Reading { case: self, signed, stream: 0, steps: Vec::new() };
        reading.all(&self.steps);
        reading.steps
    }
}

fn expected(text: &str) -> Expected {
    let words: Vec<_> = text.split(' ').collect();
    let code = |word: &str| {
        CODES.into_iter().find(|code| *code == word).unwrap_or_else(|| panic!("no code: {word}"))
    };
    match words[..] {
        ["status", stream, status] => {
            Expected::Status(stream.parse().unwrap(), status.parse().unwrap())
        }
        ["reset", stream, word] => Expected::Reset(stream.parse().unwrap(), code(word)),
        ["goaway", word] => Expected::Goaway(code(word)),
        ["closed"] => Expected::Closed,
        ["alive"] => Expected::Alive,
        _ => panic!("nothing can be expected of {text}"),
    }
}

struct Reading<'a> {
    case: &'a Case,
    signed: &'a Signed,
    stream: u32,
    steps: Vec<Step>,
}

impl Reading<'_> {
    fn all(&mut self, lines: &[String]) {
        let mut at = 0;
        while at < lines.len() {
            let indented = |line: &&String| line.starts_with("  ");
            let payload = lines[at + 1..].iter().take_while(indented).count();
            let (step, of_step) = (&lines[at], &lines[at + 1..][..payload]);
            at += 1 + payload;
            if step.is_empty() || step.starts_with('#') {
                continue;
            }
            let Some(times) = step.strip_prefix("repeat ") else {
                self.one(step, of_step);
                continue;
            };
            let end = lines[at..].iter().position(|line| line == "end").expect("an end to repeat");
            for _ in 0..times.parse::<usize>().unwrap() {
                self.all(&lines[at..at + end]);
            }
            at += end + 1;
        }
    }

    fn one(&mut self, step: &str, lines: &[String]) {
        let payload: Vec<u8> =
            lines.iter().flat_map(|line| self.payload(line.trim_start())).collect();
        let words: Vec<_> = step.split(' ').collect();
        match words[..] {
            ["hello"] => self.write(hello()),
            ["preface"] => self.write(PREFACE.to_vec()),
            ["raw"] => self.write(payload),
            ["await", stream] => {
                let stream = self.stream(stream);
                self.steps.push(Step::Await(stream));
            }
            [kind, stream, flags] => {
                let frame =
                    Frame::new(kind_of(kind), flags_of(flags), self.stream(stream), payload);
                self.write(frame.bytes());
            }
            [kind, stream, flags, length] => {
                let frame =
                    Frame::new(kind_of(kind), flags_of(flags), self.stream(stream), payload);
                let length = length.strip_prefix("length=").expect("a length");
                self.write(frame.bytes_of_length(length.parse().unwrap()));
            }
            _ => panic!("{}: this is no step: {step}", self.case.name),
        }
    }

    /// What stands together is sent together.
    fn write(&mut self, bytes: Vec<u8>) {
        if let Some(Step::Write(before)) = self.steps.last_mut() {
            before.extend(bytes);
        } else {
            self.steps.push(Step::Write(bytes));
        }
    }

    fn stream(&mut self, word: &str) -> u32 {
        self.stream = match word {
            "next" if self.stream == 0 => 1,
            "next" => self.stream + 2,
            "same" => self.stream,
            // The connection's own frames are on no stream that could be the next one's neighbour.
            "0" => return 0,
            number => number.parse().unwrap(),
        };
        self.stream
    }

    fn payload(&self, line: &str) -> Vec<u8> {
        if let Some(hex) = line.strip_prefix("hex ") {
            return bytes_of(hex);
        }
        if let Some(text) = line.strip_prefix("text ") {
            return self.filled(text);
        }
        if let Some((id, value)) = line.strip_prefix("set ").and_then(|line| line.split_once(' ')) {
            return setting(id.parse().unwrap(), value.parse().unwrap());
        }
        let field_of = line.split_once(": ").or_else(|| Some((line.strip_suffix(':')?, "")));
        let (name, value) = field_of.unwrap_or_else(|| panic!("this is no field: {line}"));
        field(&self.filled(name), &self.filled(value))
    }

    fn filled(&self, text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').expect("a closing brace");
            bytes.extend(before.as_bytes());
            match name {
                "token" => bytes.extend(self.signed.token.as_bytes()),
                "body" => bytes.extend(&self.signed.body),
                "length" => bytes.extend(self.signed.body.len().to_string().as_bytes()),
                hex => bytes.extend(bytes_of(hex.strip_prefix("hex:").expect("a known name"))),
            }
            rest = after;
        }
        bytes.extend(rest.as_bytes());
        bytes
    }
}

/// `fffe`, or `5b*1000`; blanks in between are for the reader.
fn bytes_of(hex: &str) -> Vec<u8> {
    let mut all = Vec::new();
    for part in hex.split(' ') {
        let (pairs, times) = part.split_once('*').unwrap_or((part, "1"));
        let once: Vec<u8> = (0..pairs.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&pairs[at..at + 2], 16).expect("hexadecimal digits"))
            .collect();
        all.extend(once.repeat(times.parse().unwrap()));
    }
    all
}

fn kind_of(word: &str) -> u8 {
    match KINDS.iter().position(|kind| *kind == word) {
        Some(kind) => kind as u8,
        None => number_of(word),
    }
}

fn flags_of(word: &str) -> u8 {
    let flags = word.split('+').map(|flag| match flag {
        "-" => 0,
        "end_stream" | "ack" => 0x1,
        "end_headers" => 0x4,
        "padded" => 0x8,
        "priority" => 0x20,
        number => number_of(number),
    });
    flags.fold(0, |all, flag| all | flag)
}

fn number_of(word: &str) -> u8 {
    let hex = word.strip_prefix("0x").unwrap_or_else(|| panic!("neither a name nor 0x…: {word}"));
    u8::from_str_radix(hex, 16).unwrap()
}
