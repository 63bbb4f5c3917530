//! Corpora: folders of cases, one TOML file each, and the small language in which they write what TOML cannot.
//!
//! `${name}` is a value of the test, `${now}`, `${now+300}` and `${now-300}` are seconds since the epoch, `${hex:fffe}`
//! is these bytes, and `${hex:5b*1000}` a thousand times these. Nothing else begins with `${`.

use std::collections::BTreeMap;
use std::path::Path;

use oncehook::clock;
use serde::de::DeserializeOwned;

/// Reads all cases of a folder under `tests/data`, in the order of their names.
///
/// A folder with fewer than `least` has lost some, and a test that reads nothing would hold nothing.
pub(crate) fn read<T: DeserializeOwned>(folder: &str, least: usize) -> Vec<(String, T)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder);
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    assert!(files.len() >= least, "{} holds {} cases", folder.display(), files.len());
    let cases = files.into_iter().map(|file| {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let case = toml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, case)
    });
    cases.collect()
}

/// What the names in a case's texts stand for.
#[derive(Clone)]
pub(crate) struct Values {
    case: String,
    now: u64,
    named: BTreeMap<&'static str, Vec<u8>>,
}

impl Values {
    /// Those of the case `name`: `${case}`, and what is not named.
    pub(crate) fn of(name: &str) -> Self {
        let named = BTreeMap::from([("case", name.as_bytes().to_vec())]);
        Self { case: name.to_owned(), now: clock::unix().seconds(), named }
    }

    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<Vec<u8>>) {
        self.named.insert(name, value.into());
    }

    /// The bytes that `text` stands for.
    pub(crate) fn fill(&self, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.extend_from_slice(before.as_bytes());
            let (name, after) = after.split_once('}').unwrap_or_else(|| self.fail(text));
            out.extend(self.value(name));
            rest = after;
        }
        out.extend_from_slice(rest.as_bytes());
        out
    }

    fn value(&self, name: &str) -> Vec<u8> {
        if let Some(value) = self.named.get(name) {
            return value.clone();
        }
        if let Some(hex) = name.strip_prefix("hex:") {
            return bytes(hex).unwrap_or_else(|| self.fail(name));
        }
        let offset = name.strip_prefix("now").map(|offset| match offset.split_at_checked(1) {
            None => Some(0),
            Some(("+", seconds)) => seconds.parse().ok(),
            Some(("-", seconds)) => seconds.parse::<i64>().ok().map(|seconds| -seconds),
            Some(_) => None,
        });
        let offset = offset.flatten().unwrap_or_else(|| self.fail(name));
        self.now.checked_add_signed(offset).unwrap().to_string().into_bytes()
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{}: this cannot be filled in: {what}", self.case)
    }
}

/// `fffe` or `5b*1000`.
fn bytes(hex: &str) -> Option<Vec<u8>> {
    let (hex, times) = hex.split_once('*').unwrap_or((hex, "1"));
    let pairs = hex.as_bytes().chunks(2);
    let once: Option<Vec<u8>> =
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    Some(once?.repeat(times.parse().ok()?))
}

#[test]
fn texts_are_filled_in() {
    let mut values = Values::of("a-case");
    values.set("secret", *b"\xff");
    assert_eq!(values.fill("${case} ${secret}}${hex:5b0a*2}"), b"a-case \xff}[\n[\n");
    let now = values.now;
    let expected = format!("{} {now} {}", now - 60, now + 60);
    assert_eq!(values.fill("${now-60} ${now} ${now+60}"), expected.as_bytes());
}
