//! The reader beside `serde_json`, over documents that are JSON, nearly JSON and none: what one refuses the other refuses,
//! and what both read is the same. And what a witness makes of it beside a pass over the same bytes.

use std::borrow::Cow;
use std::fmt;

use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use super::content::{Content, digest};
use super::event::Event;
use super::json::{Malformed, Reader, Value, Witness};
use super::quoted::{Plain, plain};
use crate::claim::Digest;

/// All that a reader can find out. Arrays are passed over.
#[derive(Clone, Debug, PartialEq)]
enum Tree {
    Null,
    Bool,
    Number(Number),
    Text(String),
    Array,
    Object(Vec<(String, Tree)>),
}

fn ours(json: &[u8]) -> Option<Tree> {
    let mut reader = Reader::new(json, ());
    let tree = tree(&mut reader).ok()?;
    reader.end().ok().map(|()| tree)
}

fn tree<W: Witness>(reader: &mut Reader<'_, W>) -> Result<Tree, Malformed> {
    Ok(match reader.value()? {
        Value::Null => Tree::Null,
        Value::Bool => Tree::Bool,
        Value::Number(number) => Tree::Number(number),
        Value::Text(text) => Tree::Text(text.into_owned()),
        Value::Array => Tree::Array,
        Value::Object => {
            let mut members = Vec::new();
            let mut first = true;
            while let Some(name) = reader.member(&mut first)? {
                members.push((String::from_utf8(name.into_owned()).unwrap(), tree(reader)?));
            }
            Tree::Object(members)
        }
    })
}

fn skipped(json: &[u8]) -> bool {
    let mut reader = Reader::new(json, ());
    reader.skip().is_ok() && reader.end().is_ok()
}

/// The digests of a reader that reads all, and of one that passes over all, if it is JSON.
fn told(json: &[u8]) -> Option<[Digest; 2]> {
    let mut reads = Reader::new(json, Content::default());
    let mut skips = Reader::new(json, Content::default());
    tree(&mut reads).and_then(|_| skips.skip()).ok()?;
    let told = [reads.end().ok()?, skips.end().ok()?];
    Some(told.map(|content| content.digest().unwrap()))
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Bool)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Tree, E> {
        Ok(Tree::Number(Number::from_f64(number).unwrap()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Tree::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
        let mut all = Vec::new();
        while let Some((name, value)) = members.next_entry::<Cow<'de, str>, _>()? {
            all.push((name.into_owned(), value));
        }
        Ok(Tree::Object(all))
    }
}

const WORDS: [&[u8]; 9] =
    [b"null", b"true", b"false", b"[]", b"{}", b"nul", b"tru\xff", b"False", b"NaN"];
const NUMBERS: [&[u8]; 28] = [
    b"0",
    b"7",
    b"-1",
    b"-0",
    b"1.5",
    b"0.0",
    b"1e5",
    b"2E+5",
    b"-3.1e-5",
    b"1e999",
    b"0e9999999999",
    b"1e-9999999999",
    b"179769313486231580000e289",
    b"9999999999999999999",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"-9223372036854775809",
    b"00",
    b"012",
    b"-",
    b"-01",
    b"+1",
    b".5",
    b"1.",
    b"1.e5",
    b"1e",
    b"1e+",
];
const TEXTS: [&[u8]; 30] = [
    b"",
    b"a",
    b"sid",
    b"exactly8",
    b"rather a long text, longer than a word",
    b"\xc3\xa9t\xc3\xa9",
    b"\xf0\x9f\x8e\x99",
    b"\x7f",
    b"1234567\xc3\xa9",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xc3",
    b"a\0b",
    b"\x1f",
    b"long enough\x0b",
    b"\n",
    b"\\n\\\"\\\\\\/\\b\\f\\r\\t",
    b"\\u0041\\u00e9",
    b"\\uD83C\\uDF99",
    b"\\ud83c",
    b"\\udf99",
    b"\\ud83c\\n",
    b"\\ud83c\\ud83c\\udf99",
    b"\\ud83cx",
    b"\\u00g0",
    b"\\u12",
    b"\\x",
    b"\\\xff",
    b"quite long \\\"quoted\\\" text",
    b"\\",
];
const SPACES: [&[u8]; 8] = [b"", b"", b"", b" ", b"\n", b"\t\r ", b"\x0b", b"\xc2\xa0"];
const DAMAGE: [&[u8]; 13] =
    [b"\"", b"\\", b",", b":", b"{", b"}", b"[", b"]", b" ", b"0", b"\0", b"\xff", b"\xef\xbb\xbf"];

/// Some are longer than a block.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let text = || prop::sample::select(&TEXTS[..]);
    let times = prop_oneof![4 => Just(0), 1 => 0..40_usize];
    (text(), times, text()).prop_map(|(text, times, last)| {
        let text = if times == 0 { text.to_vec() } else { [&text.repeat(times), last].concat() };
        [b"\"", text.as_slice(), b"\""].concat()
    })
}

/// A document that is JSON as far as its parts are.
fn document() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(&WORDS[..]).prop_map(<[u8]>::to_vec);
    let numbers = prop::sample::select(&NUMBERS[..]).prop_map(<[u8]>::to_vec);
    let scalar = prop_oneof![2 => words, 3 => numbers, 4 => text()];
    let space = || prop::sample::select(&SPACES[..]);
    scalar.prop_recursive(4, 16, 4, move |inner| {
        let items = prop::collection::vec((space(), inner.clone(), space()), 0..4);
        let array = items.prop_map(|items| {
            let items =
                items.into_iter().map(|(before, item, after)| [before, &item, after].concat());
            [&b"["[..], &items.collect::<Vec<_>>().join(&b","[..]), b"]"].concat()
        });
        let members = prop::collection::vec((space(), text(), space(), inner), 0..4);
        let object = members.prop_map(|members| {
            let members = members.into_iter().map(|(space, name, other, value)| {
                [space, &name, other, b":", space, &value, other].concat()
            });
            [&b"{"[..], &members.collect::<Vec<_>>().join(&b","[..]), b"}"].concat()
        });
        prop_oneof![array, object]
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, cases: 2048, ..ProptestConfig::default()
    })]

    #[test]
    fn what_serde_json_refuses_is_refused_and_what_it_reads_is_read_alike(
        document in document(), at: prop::sample::Index, damage in prop::sample::select(&DAMAGE[..]),
        how in 0..4,
    ) {
        let mut json = document;
        let at = at.index(json.len());
        match how {
            0 => drop(json.splice(at..at, damage.iter().copied())),
            1 => drop(json.splice(at..=at, damage.iter().copied())),
            2 => json.truncate(at),
            _ => {}
        }
        prop_assert_eq!(ours(&json), serde_json::from_slice::<Tree>(&json).ok());
        prop_assert_eq!(skipped(&json), serde_json::from_slice::<IgnoredAny>(&json).is_ok());
    }

    #[test]
    fn a_witness_is_told_of_all_there_is(document in document()) {
        let mut json = document;
        if let Some(told) = told(&json) {
            prop_assert_eq!(told, [digest(&json, &[7; 32]); 2]);
        }
        json = [b"{\"room\":", json.as_slice(), b"}"].concat();
        if let Some(told) = told(&json) {
            prop_assert_eq!(told, [digest(&json, &[7; 32]); 2]);
        }
    }

    #[test]
    fn any_bytes_are_read_as_serde_json_reads_them(json: Vec<u8>) {
        prop_assert_eq!(ours(&json), serde_json::from_slice::<Tree>(&json).ok());
        prop_assert_eq!(skipped(&json), serde_json::from_slice::<IgnoredAny>(&json).is_ok());
    }

    #[test]
    fn plain_text_ends_where_a_look_at_each_byte_ends_it(
        text in prop::collection::vec(prop_oneof![
            8 => any::<u8>(), 1 => Just(b'"'), 1 => Just(b'\\'), 8 => Just(b'a'), 1 => 0x1e..0x24_u8,
        ], 0..40),
    ) {
        let stops = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
        let bytes = text.iter().position(stops).unwrap_or(text.len());
        prop_assert_eq!(plain(&text), Plain { bytes, ascii: text[..bytes].is_ascii() });
    }
}

#[test]
fn the_parts_of_the_documents_are_good_and_bad() {
    let quoted = TEXTS.map(|text| [b"\"", text, b"\""].concat());
    let parts = WORDS.iter().chain(&NUMBERS).copied().chain(quoted.iter().map(Vec::as_slice));
    let (mut good, mut bad) = (0, 0);
    for part in parts {
        let tree = serde_json::from_slice::<Tree>(part).ok();
        assert_eq!(ours(part), tree, "{}", part.escape_ascii());
        *(if tree.is_some() { &mut good } else { &mut bad }) += 1;
    }
    assert!(good > 25 && bad > 25, "{good} {bad}");
}

#[test]
fn no_depth_is_too_deep_to_pass_over() {
    for depth in [1, 63, 64, 65, 127, 128, 129, 1000, 100_000] {
        let opening: String =
            (0..depth).map(|at| if at % 3 == 0 { "{\"a\":" } else { "[" }).collect();
        let closing: String =
            (0..depth).rev().map(|at| if at % 3 == 0 { "}" } else { "]" }).collect();
        assert!(skipped(format!("{opening}1{closing}").as_bytes()), "{depth}");
        let event = Event::parse(format!("{{\"a\":{opening}1{closing}}}").as_bytes()).digest();
        assert_eq!(event.is_some(), depth < 64, "{depth}");
        assert!(!skipped(format!("{opening}1{}", &closing[1..]).as_bytes()), "{depth}");
        let wrong = closing.replacen(['}', ']'], ")", 1);
        assert!(!skipped(format!("{opening}1{wrong}").as_bytes()), "{depth}");
        let swapped = if closing.starts_with('}') { "]" } else { "}" };
        assert!(!skipped(format!("{opening}1{swapped}{}", &closing[1..]).as_bytes()), "{depth}");
    }
}
