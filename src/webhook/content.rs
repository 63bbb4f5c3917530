//! A digest of what the copies of an event should agree on: 64 bits that a settled record holds, so that one key with two
//! contents is noticed (`key_conflict`). It decides nothing; a copy with another digest is a copy all the same.
//!
//! One pass over the bytes, which checks no grammar. Each scalar is hashed with its path, and the hashes are added up:
//! white space and the order of members make no difference at any depth. Left out is what each emission mints anew (`id`,
//! `createdAt`), and what counts other things than the event (`numDropped`, `room.numParticipants`,
//! `room.numPublishers`).
//!
//! Limits: spelling counts but for quotes (`"1"` and `1` are one, `"\u0041"` and `"A"` or both names of a field are
//! not); the hash is quick and not cryptographic, so a tenant can make two of its own contents collide; a document nested
//! deeper than [`DEPTH_MAX`] is taken as its bytes.

use crate::claim::Digest;

/// The deepest nesting that is told apart; LiveKit's bodies have seven levels.
const DEPTH_MAX: usize = 64;

/// Members of the webhook that copies need not agree on, under both names.
const WEBHOOK_LEFT_OUT: &[&[u8]] =
    &[b"id", b"createdAt", b"created_at", b"numDropped", b"num_dropped"];
/// And of its room.
const ROOM_LEFT_OUT: &[&[u8]] =
    &[b"numParticipants", b"num_participants", b"numPublishers", b"num_publishers"];

/// The digest of a body whose SHA-256 is known. Total.
pub(super) fn digest(body: &[u8], sha256: &[u8; 32]) -> Digest {
    let mut scan = Scan { levels: Vec::with_capacity(8), sum: 0 };
    let mut rest = body;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b' ' | b'\t' | b'\n' | b'\r' => after,
            b'{' | b'[' => {
                if scan.levels.len() == DEPTH_MAX {
                    let (words, _) = sha256.as_chunks::<8>();
                    return Digest(words.first().map_or(0, |word| u64::from_be_bytes(*word)));
                }
                scan.open(byte);
                after
            }
            b'}' | b']' => {
                scan.levels.pop();
                after
            }
            b',' => {
                scan.comma();
                after
            }
            b':' => {
                scan.colon();
                after
            }
            b'"' => {
                let (text, after) = split_string(after);
                scan.token(text);
                after
            }
            _ => {
                let end = rest.iter().position(|byte| ends_scalar(*byte));
                let (scalar, after) = rest.split_at(end.unwrap_or(rest.len()));
                scan.scalar(scalar);
                after
            }
        };
    }
    Digest(scan.sum)
}

/// An object or array that is open.
struct Level {
    /// What leads to it.
    path: u64,
    /// What leads to its current member or item.
    here: u64,
    /// An object before a member's name, an object after it, or an array with the place of its item.
    place: Place,
    /// Which of its members are left out.
    left_out: &'static [&'static [u8]],
    /// Whether the current one is.
    skip: bool,
    /// Whether all of them are.
    skip_all: bool,
    /// Whether the current member is the webhook's room.
    room: bool,
}

#[derive(PartialEq, Eq)]
enum Place {
    Name,
    Value,
    Item(u64),
}

struct Scan {
    levels: Vec<Level>,
    sum: u64,
}

impl Scan {
    fn open(&mut self, byte: u8) {
        // An empty object is not the same as none.
        self.scalar(&[byte]);
        let (path, skip_all, left_out) = match self.levels.last() {
            None => (0, false, WEBHOOK_LEFT_OUT),
            Some(level) if level.room => (level.here, level.skip, ROOM_LEFT_OUT),
            Some(level) => (level.here, level.skip, &[][..]),
        };
        let place = if byte == b'{' { Place::Name } else { Place::Item(0) };
        let skip = skip_all;
        self.levels.push(Level { path, here: path, place, left_out, skip, skip_all, room: false });
    }

    fn comma(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            match &mut level.place {
                Place::Name | Place::Value => level.place = Place::Name,
                Place::Item(place) => {
                    *place = place.wrapping_add(1);
                    level.here = hash(level.path, &place.to_le_bytes());
                }
            }
        }
    }

    fn colon(&mut self) {
        if let Some(level) = self.levels.last_mut()
            && level.place == Place::Name
        {
            level.place = Place::Value;
        }
    }

    /// A string: a member's name, or a scalar.
    fn token(&mut self, text: &[u8]) {
        let outermost = self.levels.len() == 1;
        match self.levels.last_mut() {
            Some(level) if level.place == Place::Name => {
                level.here = hash(level.path, text);
                level.skip = level.skip_all || level.left_out.contains(&text);
                level.room = outermost && text == b"room";
            }
            Some(_) | None => self.scalar(text),
        }
    }

    fn scalar(&mut self, text: &[u8]) {
        let (here, skip) = self.levels.last().map_or((0, false), |level| (level.here, level.skip));
        if !skip {
            self.sum = self.sum.wrapping_add(hash(here, text));
        }
    }
}

fn ends_scalar(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'{' | b'}' | b'[' | b']' | b',' | b':' | b'"')
}

/// The inside of a string whose opening quote has been read, and what follows its closing one.
fn split_string(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut from = 0;
    while let Some(rest) = bytes.get(from..)
        && let Some(found) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))
    {
        let at = from.saturating_add(found);
        if bytes.get(at) == Some(&b'"') {
            let (text, rest) = bytes.split_at(at);
            return (text, rest.get(1..).unwrap_or_default());
        }
        from = at.saturating_add(2);
    }
    (bytes, &[])
}

/// Eight bytes a step: multiply, fold. The length goes in first, so that padding changes nothing.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let fold = |state: u64, word: u64| {
        let product = (state ^ word).wrapping_mul(ODD);
        product ^ (product >> 32)
    };
    let (words, tail) = bytes.as_chunks::<8>();
    let mut state = fold(seed.wrapping_add(ODD), u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    for word in words {
        state = fold(state, u64::from_le_bytes(*word));
    }
    let tail = tail.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
    fold(fold(state, tail), ODD)
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
        fn any_bytes_have_a_digest(body in r#"[\[\]{},:"\\a 1]{0,64}"#, bytes: Vec<u8>) {
            prop_assert_eq!(of(&body), of(&body));
            digest(&bytes, &[0; 32]);
        }
    }
}
