//! The ends of strings, beside a look at each byte: what is odd at every place of a block and around it; and that who
//! reads a body and who only looks for them find the same.

use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::content::digest;
use super::event::Event;
use super::quoted::{BLOCK, plain, quoted_bytes};

/// RFC 8259, 7, letter by letter.
fn byte_by_byte(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => match text.get(at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                b'u' => {
                    let digits = text.get(at + 2..at + 6)?;
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return None;
                    }
                    at += 6;
                }
                _ => return None,
            },
            0..0x20 => return None,
            _ => at += 1,
        }
    }
}

/// `text` begins with a quote. Whether it is a string.
fn check(text: &[u8]) -> bool {
    let expected = byte_by_byte(text);
    let plain = 1 + plain(&text[1..]).bytes;
    for at in [1, plain] {
        assert_eq!(quoted_bytes(text, at), expected, "from {at}: {}", text.escape_ascii());
    }
    if let Some(bytes) = expected {
        let string = String::from_utf8_lossy(&text[..bytes]);
        assert!(serde_json::from_str::<IgnoredAny>(&string).is_ok(), "{string}");
    }
    expected.is_some()
}

/// What strings are full of, none of it odd: nothing, JSON, pretty JSON, and JSON in JSON in JSON.
const FULL: [&[u8]; 4] = [
    b"abcdefgh",
    b"\\\"key\\\":\\\"value\\\",",
    b"\\n  \\\"key\\\": \\\"val\xc3\xbce\\\",\\t",
    b"\\\\\\\"key\\\\\\\":\\\\n\\\\u00e9 \\\\",
];
const ODD: [&[u8]; 15] = [
    b"\"", b"\"\"", b"\\n", b"\\/", b"\\x", b"\\u00e9", b"\\uD83c", b"\\u00g9", b"\\u", b"\\",
    b"\x1f", b"\n", b"\0", b"\x7f", b"\xff",
];

/// At least `bytes` of what strings are full of, ending with a whole escape.
fn full(of: &[u8], bytes: usize) -> Vec<u8> {
    of.repeat(bytes.div_ceil(of.len()))
}

#[test]
fn what_is_odd_is_found_at_every_place_of_a_block() {
    let runs = (1..=20).flat_map(|run| {
        let backslashes = b"\\".repeat(run);
        [&b""[..], b"\"", b"n", b"u0041", b"x"].map(|then| [&backslashes, then].concat())
    });
    let odd: Vec<Vec<u8>> = ODD.iter().map(|odd| odd.to_vec()).chain(runs).collect();
    let behind = [
        b"\", \"next\": \"\\\"\"}".to_vec(),
        [full(b"x", 2 * BLOCK).as_slice(), b"\""].concat(),
        b"".to_vec(),
    ];
    let (mut strings, mut others) = (0, 0);
    for of in FULL {
        for lead in 0..=BLOCK + 8 {
            let head = [b"\"", full(b"x", lead).as_slice(), &full(of, 2 * BLOCK)].concat();
            let found = odd.iter().flat_map(|odd| {
                let text = [&head, odd.as_slice()].concat();
                behind.each_ref().map(|behind| check(&[&text, behind.as_slice()].concat()))
            });
            let (found, lost): (Vec<bool>, Vec<bool>) = found.partition(|found| *found);
            strings += found.len();
            others += lost.len();
        }
    }
    assert!(strings > 10_000 && others > 10_000, "{strings} {others}");
}

#[test]
fn a_string_that_ends_anywhere_ends_there() {
    for of in FULL {
        let whole = [b"\"", full(of, 4 * BLOCK).as_slice(), b"\""].concat();
        assert!(check(&whole));
        for end in 1..whole.len() {
            assert!(!check(&whole[..end]), "{end}");
            check(&[&whole[..end], b"\""].concat());
            check(&[&whole[..end], b"\"", &whole].concat());
        }
    }
}

/// Where blocks are begun with again, behind an escape that they leave to a look at each.
#[test]
fn a_quote_behind_an_escaped_backslash_ends_a_string() {
    for lead in 0..=BLOCK {
        for bytes in 0..=2 * BLOCK {
            let text =
                [b"\"", full(b"x", lead).as_slice(), b"\\u00e9", &full(b"y", bytes)].concat();
            let text = [text.as_slice(), b"\\\\\"", &full(b"z", 2 * BLOCK), b"\""].concat();
            assert!(check(&text));
        }
    }
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let runs = (0..9_usize, prop::sample::select(vec![&b"\""[..], b"n", b"u0041", b"a"]));
    prop_oneof![
        8 => prop::sample::select(&FULL[..]).prop_map(<[u8]>::to_vec),
        4 => (prop::sample::select(&FULL[..]), 0..200_usize).prop_map(|(of, bytes)| full(of, bytes)),
        2 => runs.prop_map(|(run, then)| [&b"\\\\".repeat(run), then].concat()),
        2 => (0..40_usize).prop_map(|bytes| b"y".repeat(bytes)),
        1 => prop::sample::select(&ODD[..]).prop_map(<[u8]>::to_vec),
    ]
}

/// Texts of some length, and what is around them.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let around: [&[u8]; 10] =
        [b"\",\"", b"\":\"", b"\"},{\"", b"\"]", b"[\"", b"{\"room\":\"", b",", b"1", b" ", b"}"];
    let text = prop::collection::vec(piece(), 0..8).prop_map(|pieces| pieces.concat());
    let part = prop_oneof![text, prop::sample::select(around.to_vec()).prop_map(<[u8]>::to_vec)];
    let loose = prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat());
    let texts = prop::collection::vec((piece(), piece(), piece(), 0..400_usize), 0..4);
    let whole = texts.prop_map(|texts| {
        let members = texts.into_iter().map(|(name, start, middle, fill)| {
            let text = [start, full(FULL[fill % 4], fill), middle].concat();
            [b"\"", name.as_slice(), b"\" : \"", &text, b"\""].concat()
        });
        [b"{", members.collect::<Vec<_>>().join(&b", "[..]).as_slice(), b"}"].concat()
    });
    prop_oneof![loose, whole]
}

/// Whether it is read to its end; then by its strings' ends, too.
fn reads_as_it_looks(body: &[u8]) -> bool {
    let read = Event::parse(body).digest();
    let seen = digest(body, &[7; 32]);
    assert!(read.is_none_or(|read| read == seen), "{}", body.escape_ascii());
    read.is_some()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, cases: 1024, ..ProptestConfig::default()
    })]

    #[test]
    fn a_string_ends_where_a_look_at_each_byte_ends_it(
        pieces in prop::collection::vec(piece(), 0..12), rest: Vec<u8>,
    ) {
        check(&[b"\"", pieces.concat().as_slice(), b"\"", &rest].concat());
    }

    #[test]
    fn a_body_that_is_read_has_the_digest_of_its_bytes(
        mut body in body(), at: prop::sample::Index, byte in prop::option::of(any::<u8>()),
    ) {
        reads_as_it_looks(&body);
        if let (Some(byte), false) = (byte, body.is_empty()) {
            let at = at.index(body.len());
            body[at] = byte;
            reads_as_it_looks(&body);
        }
    }
}

#[test]
fn long_strings_are_read_as_they_look() {
    let long = |of, bytes| [b"\"", full(of, bytes).as_slice(), b"\""].concat();
    let texts = [long(FULL[1], 300), long(FULL[0], 1000), long(FULL[2], 254), long(FULL[0], 240)];
    let [first, second, third, short] = &texts;
    for (end, whole) in [(&b"}}"[..], true), (b"} no JSON", false)] {
        let body =
            [b"{\"room\":{\"sid\":", &first[..], b",\"a\":", short, b",", third, b":[", second];
        let body = [body.concat().as_slice(), b"]", end].concat();
        assert_eq!(reads_as_it_looks(&body), whole);
    }
}
