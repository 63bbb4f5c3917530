//! A digest of what the copies of an event should agree on: 64 bits that a settled record holds, so that one key with two
//! contents is noticed (`key_conflict`). It decides nothing; a copy with another digest is a copy all the same.
//!
//! Each scalar is hashed with its path, and the hashes are added up: white space and the order of members make no
//! difference at any depth. What reads a body tells a [`Content`] of it on the way; what is no JSON has a pass of its own,
//! which checks no grammar. Left out is what each emission mints anew (`id`, `createdAt`), and what counts other things
//! than the event (`numDropped`, `room.numParticipants`, `room.numPublishers`).
//!
//! Limits: spelling counts but for quotes (`"1"` and `1` are one, `"\u0041"` and `"A"` or both names of a field are
//! not); the hash is quick and not cryptographic, so a tenant can make two of its own contents collide; a document nested
//! deeper than [`DEPTH_MAX`] is taken as its bytes.

use super::json::Witness;
use super::quoted::{BLOCK, plain};
use crate::claim::Digest;

/// The deepest nesting that is told apart; LiveKit's bodies have seven levels.
const DEPTH_MAX: usize = 64;
/// As deep as they usually are.
const DEPTH_USUAL: usize = 8;
/// How many words of a long text are hashed at the same time.
const LANES: usize = 4;
/// From so many bytes on a text is long. Short ones are as quickly hashed one word after the other.
const LANES_MIN: usize = 256;

/// The digest of a body whose SHA-256 is known. Total, and of what is JSON the one that [`Content`] comes to.
#[cold]
pub(super) fn digest(body: &[u8], sha256: &[u8; 32]) -> Digest {
    let mut content = Content::default();
    let mut rest = body;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b' ' | b'\t' | b'\n' | b'\r' => after,
            b'{' | b'[' | b'}' | b']' | b',' | b':' => {
                content.structure(byte, rest);
                after
            }
            b'"' => {
                let bytes = string_bytes(after);
                if content.top.place == Place::Name {
                    content.name(after, bytes);
                } else {
                    content.scalar(after, bytes);
                }
                after.get(bytes.wrapping_add(1)..).unwrap_or_default()
            }
            _ => {
                let end = rest.iter().position(|byte| ends_scalar(*byte));
                let bytes = end.unwrap_or(rest.len());
                content.scalar(rest, bytes);
                rest.get(bytes..).unwrap_or_default()
            }
        };
    }
    content.digest().unwrap_or_else(|| {
        let (words, _) = sha256.as_chunks::<8>();
        Digest(words.first().map_or(0, |word| u64::from_be_bytes(*word)))
    })
}

/// An object or array that is open, or what is around all of them.
struct Level {
    /// What leads to it.
    path: u64,
    /// What leads to its current member or item.
    here: u64,
    /// The place of the current item.
    item: u64,
    place: Place,
    /// Whose members these are.
    owner: Owner,
    /// Whether the current member is left out.
    skip: bool,
    /// Whether all of them are.
    skip_all: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    /// In an object, before a member's name.
    Name,
    /// In an object, after it.
    Value,
    /// In an array.
    Item,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Webhook,
    /// The same, while its member `room` is the current one.
    WebhookAtRoom,
    Room,
    Other,
}

impl Owner {
    /// Members that copies need not agree on, under both names.
    fn leaves_out(self, name: &[u8]) -> bool {
        match self {
            Self::Webhook | Self::WebhookAtRoom => matches!(
                name,
                b"id" | b"createdAt" | b"created_at" | b"numDropped" | b"num_dropped"
            ),
            Self::Room => matches!(
                name,
                b"numParticipants" | b"num_participants" | b"numPublishers" | b"num_publishers"
            ),
            Self::Other => false,
        }
    }
}

impl Level {
    const OUTSIDE: Self = Self {
        path: 0,
        here: 0,
        item: 0,
        place: Place::Outside,
        owner: Owner::Other,
        skip: false,
        skip_all: false,
    };
}

/// What was told of a body so far.
pub(super) struct Content {
    top: Level,
    outer: Vec<Level>,
    sum: u64,
    too_deep: bool,
}

impl Default for Content {
    fn default() -> Self {
        let outer = Vec::with_capacity(DEPTH_USUAL);
        Self { top: Level::OUTSIDE, outer, sum: 0, too_deep: false }
    }
}

impl Witness for Content {
    fn open(&mut self, text: &[u8]) {
        if self.outer.len() == DEPTH_MAX {
            self.too_deep = true;
            return;
        }
        // An empty object is not the same as none.
        self.scalar(text, 1);
        let (here, skip) = (self.top.here, self.top.skip);
        let owner = match (self.top.place, self.top.owner) {
            (Place::Outside, _) => Owner::Webhook,
            (_, Owner::WebhookAtRoom) => Owner::Room,
            (_, Owner::Webhook | Owner::Room | Owner::Other) => Owner::Other,
        };
        let place = if text.first() == Some(&b'{') { Place::Name } else { Place::Item };
        let level = Level { path: here, here, item: 0, place, owner, skip, skip_all: skip };
        self.outer.push(std::mem::replace(&mut self.top, level));
    }

    fn close(&mut self) {
        if let Some(level) = self.outer.pop() {
            self.top = level;
        }
    }

    fn comma(&mut self) {
        let top = &mut self.top;
        match top.place {
            Place::Outside => {}
            Place::Name | Place::Value => top.place = Place::Name,
            Place::Item => {
                top.item = top.item.wrapping_add(1);
                top.here = hash(top.path, &top.item.to_le_bytes(), size_of::<u64>());
            }
        }
    }

    fn name(&mut self, text: &[u8], bytes: usize) {
        let top = &mut self.top;
        top.here = hash(top.path, text, bytes);
        if top.owner == Owner::Other {
            return;
        }
        let name = text.get(..bytes).unwrap_or_default();
        top.skip = top.skip_all || top.owner.leaves_out(name);
        if top.owner != Owner::Room {
            top.owner = if name == b"room" { Owner::WebhookAtRoom } else { Owner::Webhook };
        }
    }

    #[inline]
    fn scalar(&mut self, text: &[u8], bytes: usize) {
        if !self.top.skip {
            self.sum = self.sum.wrapping_add(hash(self.top.here, text, bytes));
        }
    }
}

impl Content {
    /// What it comes to; `None` if it was nested too deep.
    pub(super) fn digest(&self) -> Option<Digest> {
        (!self.too_deep).then_some(Digest(self.sum))
    }

    /// What `text` begins with, which is `byte`, wherever it stands.
    fn structure(&mut self, byte: u8, text: &[u8]) {
        match byte {
            b'{' | b'[' => self.open(text),
            b'}' | b']' => self.close(),
            b',' => self.comma(),
            // A value follows, and no name, whether or not there was one.
            _ if self.top.place == Place::Name => self.top.place = Place::Value,
            _ => {}
        }
    }
}

fn ends_scalar(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'{' | b'}' | b'[' | b']' | b',' | b':' | b'"')
}

/// The length of a string whose opening quote has been read: without the closing one, or to the end.
fn string_bytes(text: &[u8]) -> usize {
    let mut end = plain(text.get(..BLOCK).unwrap_or(text)).bytes;
    while let Some(byte) = text.get(end) {
        let skip = match byte {
            b'"' => return end,
            b'\\' => 2,
            // What was not looked at, or a control character, which JSON would not have here.
            _ => 1,
        };
        end = end.wrapping_add(skip);
        end = end.wrapping_add(plain(text.get(end..).unwrap_or_default()).bytes);
    }
    text.len()
}

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Of the first bytes of `text`: eight bytes a step, multiply, fold. The length goes in first, so that padding changes
/// nothing.
#[inline]
fn hash(seed: u64, text: &[u8], bytes: usize) -> u64 {
    let state = fold(seed.wrapping_add(ODD), u64::try_from(bytes).unwrap_or(u64::MAX));
    if bytes >= LANES_MIN { lanes(state, text, bytes) } else { chain(state, text, bytes) }
}

#[inline]
fn chain(mut state: u64, text: &[u8], bytes: usize) -> u64 {
    let (words, rest) = text.as_chunks::<8>();
    let (whole, tail) = (bytes / 8, bytes % 8);
    for word in words.iter().take(whole) {
        state = fold(state, u64::from_le_bytes(*word));
    }
    let tail = match words.get(whole) {
        // What follows the text is masked.
        Some(word) => u64::from_le_bytes(*word) & !(u64::MAX << (tail * 8)),
        None => rest.iter().take(tail).rev().fold(0, |word, byte| (word << 8) | u64::from(*byte)),
    };
    fold(fold(state, tail), ODD)
}

/// The same of a long text. Every fourth word goes into a state of its own, since a step that need not wait for the one
/// before takes a quarter of the time.
#[inline(never)]
fn lanes(seed: u64, text: &[u8], bytes: usize) -> u64 {
    let text = text.get(..bytes).unwrap_or(text);
    let (rows, rest) = text.as_chunks::<{ 8 * LANES }>();
    let mut states = [1, 2, 3, 4].map(|lane| fold(seed, lane));
    for row in rows {
        let (words, _) = row.as_chunks::<8>();
        for (state, word) in states.iter_mut().zip(words) {
            *state = fold(*state, u64::from_le_bytes(*word));
        }
    }
    chain(states.into_iter().fold(seed, fold), rest, rest.len())
}

#[inline]
fn fold(state: u64, word: u64) -> u64 {
    let product = (state ^ word).wrapping_mul(ODD);
    product ^ (product >> 32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(body: &str) -> u64 {
        digest(body.as_bytes(), &[7; 32]).0
    }

    #[test]
    fn order_space_and_minted_members_make_no_difference() {
        let one = r#"{"event":"e","id":"EV_a","createdAt":"1","room":{"sid":"R","numParticipants":2},"a":[1,{"b":"2","c":{}}]}"#;
        let other = r#" { "a": [ "1", {"c" : {}, "b":2} ], "room": {"num_publishers":9, "sid":"R"}, "event":"e", "num_dropped":{"id":[1]} } "#;
        assert_eq!(of(one), of(other));
    }

    #[test]
    fn everything_else_does() {
        let bodies = [
            r#"{"a":["b","c"]}"#,
            r#"{"a":["c","b"]}"#,
            r#"{"a":["bc"]}"#,
            r#"{"a":["b"],"c":[]}"#,
            r#"{"a":["b",["c"]]}"#,
            r#"{"a":{"b":"c"}}"#,
            r#"{"b":{"a":"c"}}"#,
            r#"{"a":{"b":"c","id":"x"}}"#,
            r#"{"a":{"b":"c","id":"y"}}"#,
            r#"{"a":{"b":"c"},"room":{}}"#,
            r#"{"a":{"b":"c","numParticipants":1}}"#,
            r#"{"a":{"b":"c","numParticipants":2}}"#,
            r#"{"a":"b\"c"}"#,
            r#"{"a":"b\\"}"#,
            r#"{"a":"\u0000"}"#,
            r#"{"a":""}"#,
            "{}",
            "",
        ];
        for (place, body) in bodies.iter().enumerate() {
            let earlier = bodies[..place].iter().find(|earlier| of(earlier) == of(body));
            assert_eq!(earlier, None, "{body}");
        }
    }

    /// Records outlive a version of the gateway: another digest of the same body would be a false `key_conflict`.
    #[test]
    fn a_digest_stays_what_it_was() {
        let digests = [
            (
                r#"{"event":"e","id":"EV_a","createdAt":"1","room":{"sid":"RM_1","numParticipants":2},"a":[1,{"b":"2","c":{}}]}"#,
                0x8f3c_3df5_2085_c2e5,
            ),
            (
                r#"{"metadata":"{\"role\":\"guest\"}", "eight":"12345678", "name":"参加者", "more than eight":-1.5e3}"#,
                0xdde8_656f_661c_841f,
            ),
            (r#"[[],[{}],"",null, true]"#, 0xd3fe_4a02_6300_f381),
            ("{\"a\":\"b\tc\\", 0x658d_6602_c45e_f250),
            ("7", 0xa2fb_12fe_807b_a398),
            ("", 0),
        ];
        for (body, digest) in digests {
            assert_eq!(of(body), digest, "{body}");
        }
        let long = [
            (255, 0x01d6_cb6d_be3e_b100),
            (256, 0x04e2_8248_cefa_67ee),
            (287, 0xdcf5_f217_44de_e908),
            (1000, 0x9218_eb2f_c9ac_73b3),
        ];
        for (bytes, digest) in long {
            let text: String =
                ('0'..='z').filter(char::is_ascii_alphanumeric).cycle().take(bytes).collect();
            assert_eq!(of(&format!("[\"{text}\"]")), digest, "{bytes}");
        }
    }

    #[test]
    fn every_byte_of_a_long_text_counts() {
        let texts = (0..1000).map(|at| format!("\"{}b{}\"", "a".repeat(at), "a".repeat(999 - at)));
        let digests: std::collections::HashSet<_> = texts.map(|text| of(&text)).collect();
        assert_eq!(digests.len(), 1000);
    }

    #[test]
    fn what_is_nested_too_deep_is_taken_as_its_bytes() {
        let nested = |levels: usize| "[".repeat(levels);
        let bytes = u64::from_be_bytes([7; 8]);
        assert_ne!(of(&nested(DEPTH_MAX)), bytes);
        assert_eq!(of(&nested(DEPTH_MAX + 1)), bytes);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_hash_does_not_see_what_follows(text: Vec<u8>, times in 1..4_usize, more: Vec<u8>, seed: u64) {
            let text = text.repeat(times);
            let both = [text.as_slice(), &more].concat();
            prop_assert_eq!(hash(seed, &both, text.len()), hash(seed, &text, text.len()));
        }

        #[test]
        fn any_bytes_have_a_digest(body in r#"[\[\]{},:"\\a 1]{0,64}"#, bytes: Vec<u8>) {
            prop_assert_eq!(of(&body), of(&body));
            digest(&bytes, &[0; 32]);
        }
    }
}
