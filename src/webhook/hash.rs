//! A quick hash of texts, not cryptographic, and that of a JSON string while its end is looked for. What is hashed is left
//! to [`super::content`].

use super::quoted::stops;

/// How many words of a long text are hashed at the same time.
const LANES: usize = 4;
/// From so many bytes on a text is long. Short ones are as quickly hashed one word after the other.
const LANES_MIN: usize = 256;
/// A string that ends within so many words of eight bytes is hashed while its end is looked for.
const SHORT_WORDS: usize = 8;

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Of the first bytes of `text`: eight bytes a step, multiply, fold. The length goes in too, so that padding changes
/// nothing.
#[inline]
pub(super) fn hash(seed: u64, text: &[u8], bytes: usize) -> u64 {
    if bytes >= LANES_MIN {
        lanes(begun(seed), text, bytes)
    } else {
        chain(begun(seed), text, bytes)
    }
}

#[inline]
const fn begun(seed: u64) -> u64 {
    seed.wrapping_add(ODD)
}

/// The hash of a text from that of its whole words, the bytes that are left, and its length.
#[inline]
fn ended(state: u64, tail: u64, bytes: usize) -> u64 {
    fold(fold(state, tail), ODD.wrapping_add(u64::try_from(bytes).unwrap_or(u64::MAX)))
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
    ended(state, tail, bytes)
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
    let state = states.into_iter().fold(fold(seed, u64::try_from(bytes).unwrap_or(u64::MAX)), fold);
    chain(state, rest, rest.len())
}

#[inline]
fn fold(state: u64, word: u64) -> u64 {
    let product = (state ^ word).wrapping_mul(ODD);
    product ^ (product >> 32)
}

/// The length of a string whose opening quote has been read, and its [`hash`], if it is short and plain and not at the
/// document's very end: each word is looked at once.
#[inline]
pub(super) fn short_string(seed: u64, text: &[u8]) -> Option<(usize, u64)> {
    let (words, _) = text.as_chunks::<8>();
    let mut state = begun(seed);
    let mut bytes: usize = 0;
    for word in words.iter().take(SHORT_WORDS) {
        let word = u64::from_le_bytes(*word);
        let stop = stops(word);
        if stop != 0 {
            // The bits of the bytes before the one that stops it, and that one.
            let before = stop.wrapping_sub(1) & !stop;
            let (at, inside) = (before.trailing_ones() / 8, before >> 7);
            let end = word >> (at * 8);
            let bytes = bytes.wrapping_add(usize::try_from(at).unwrap_or(0));
            return (end & 0xff == u64::from(b'"'))
                .then(|| (bytes, ended(state, word & inside, bytes)));
        }
        state = fold(state, word);
        bytes = bytes.wrapping_add(8);
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_string_has_the_hash_of_its_text(text in r#"[^"\\\x00-\x1f]{0,80}"#, odd in r#"["\\]"#, seed: u64) {
            let found = short_string(seed, format!("{text}{odd}       ").as_bytes());
            let is_short = text.len() < 8 * SHORT_WORDS && odd == "\"";
            let expected = is_short.then(|| (text.len(), hash(seed, text.as_bytes(), text.len())));
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn a_hash_does_not_see_what_follows(text: Vec<u8>, times in 1..4_usize, more: Vec<u8>, seed: u64) {
            let text = text.repeat(times);
            let both = [text.as_slice(), &more].concat();
            prop_assert_eq!(hash(seed, &both, text.len()), hash(seed, &text, text.len()));
        }
    }
}
