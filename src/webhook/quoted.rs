//! Where a JSON string ends (RFC 8259, 7), found by words of eight bytes and, if it is long, by blocks of 64. What it says
//! is left to [`super::json`].

/// How much is looked at in one step of a long string: a few of the widest registers that every CPU has.
pub(super) const BLOCK: usize = 64;

/// The start of some text that needs no second look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plain {
    /// How long it is.
    pub(super) bytes: usize,
    /// Whether all of it is ASCII.
    pub(super) ascii: bool,
}

/// What comes before the first quote, backslash or control character, or before the end. Of eight bytes at a time the
/// one to stop at is found by which of them borrow (Mycroft's test); a byte after it may be taken for one, never one
/// before it.
#[inline]
pub(super) fn plain(text: &[u8]) -> Plain {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let (words, tail) = text.as_chunks::<8>();
    let mut seen = 0;
    let mut bytes: usize = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        // Control characters and the quote, once its lowest bits are another's, are all below 0x21.
        let below = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
        let backslash = (word ^ (ONES * 0x5c)).wrapping_sub(ONES);
        let stop = (below | backslash) & !word & HIGH;
        if stop != 0 {
            // The bits below the lowest that is set: those of the bytes before.
            seen |= word & (stop.wrapping_sub(1) & !stop);
            // At most seven.
            let before = usize::try_from(stop.trailing_zeros() / 8).unwrap_or(0);
            return Plain { bytes: bytes.wrapping_add(before), ascii: seen & HIGH == 0 };
        }
        seen |= word;
        bytes = bytes.wrapping_add(8);
    }
    for byte in tail {
        if matches!(byte, b'"' | b'\\' | 0..0x20) {
            break;
        }
        seen |= u64::from(*byte);
        bytes = bytes.wrapping_add(1);
    }
    Plain { bytes, ascii: seen & HIGH == 0 }
}

/// The length, with both quotes, of the string that `text` begins with, which need not be UTF-8; `None` if that is no
/// string. Its first `at` bytes are known to be the opening quote and plain text.
#[inline(never)]
pub(super) fn quoted_bytes(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at = quotes_escaped(text, at);
        if let Some(bytes) = letters_escaped(text, at) {
            at = at.wrapping_add(bytes);
            continue;
        }
        let end = at.wrapping_add(BLOCK);
        // Blocks must not begin behind an escaped backslash: they would take it for one that escapes.
        while at < end || text.get(at.wrapping_sub(1)) == Some(&b'\\') {
            let rest = text.get(at..)?;
            let plain = plain(rest.get(..BLOCK).unwrap_or(rest)).bytes;
            at = at.wrapping_add(plain);
            match rest.get(plain..)? {
                [b'"', ..] => return Some(at.wrapping_add(1)),
                [b'\\', escape @ ..] => {
                    at = at.wrapping_add(1).wrapping_add(escape_bytes(escape)?);
                }
                // A control character, or the end.
                [0..0x20, ..] | [] => return None,
                [_, ..] => {}
            }
        }
    }
}

/// Passes over blocks, from `at` on, in which nothing but quotes is escaped, and the string does not end: long strings are
/// JSON, most of them. Before `at` there is no backslash, and a byte; so it is where this stops.
///
/// Such a block has no control character, and a quote where a backslash comes before, and nowhere else. No two backslashes
/// follow each other, then, so that each begins an escape. An escape that begins with the last byte is left to the next
/// block. Apart from the others, so that the compiler keeps what it compares with, sixteen bytes at a time, in registers.
#[inline(never)]
#[expect(
    clippy::needless_bitwise_bool,
    reason = "a branch would keep it from comparing many at once"
)]
fn quotes_escaped(text: &[u8], mut at: usize) -> usize {
    while let (Some(before), Some(block)) = (block(text, at.wrapping_sub(1)), block(text, at)) {
        let odd = before.iter().zip(block).fold(false, |odd, (before, byte)| {
            odd | ((*byte == b'"') ^ (*before == b'\\')) | (*byte < b' ')
        });
        if odd {
            break;
        }
        let backslash = block.last() == Some(&b'\\');
        at = at.wrapping_add(BLOCK).wrapping_sub(usize::from(backslash));
    }
    at
}

/// How much may be passed over of one block at `at` that is less simple: no escape in it is longer than two bytes, and no
/// more than three backslashes follow each other (JSON in JSON in JSON). A byte is escaped if one or three of them come
/// right before it.
#[inline(never)]
#[expect(
    clippy::needless_bitwise_bool,
    reason = "a branch would keep it from comparing many at once"
)]
fn letters_escaped(text: &[u8], at: usize) -> Option<usize> {
    let third = block(text, at.checked_sub(3)?)?;
    let second = block(text, at.wrapping_sub(2))?;
    let first = block(text, at.wrapping_sub(1))?;
    let block = block(text, at)?;
    let bytes = first.iter().zip(second).zip(third).zip(block);
    let odd = bytes.fold(false, |odd, (((first, second), third), byte)| {
        let (first, second, third) = (*first == b'\\', *second == b'\\', *third == b'\\');
        let byte = *byte;
        let (backslash, quote) = (byte == b'\\', byte == b'"');
        let letter =
            (byte == b'b') | (byte == b'f') | (byte == b'n') | (byte == b'r') | (byte == b't');
        let may_be_escaped = backslash | quote | letter | (byte == b'/');
        let escaped = first & (!second | third);
        let too_many = first & second & third & backslash;
        odd | (escaped & !may_be_escaped) | (quote & !escaped) | too_many | (byte < b' ')
    });
    let backslashes = block.iter().rev().take_while(|byte| **byte == b'\\').count();
    (!odd).then_some(BLOCK.wrapping_sub(backslashes))
}

fn block(text: &[u8], at: usize) -> Option<&[u8; BLOCK]> {
    text.get(at..)?.first_chunk()
}

/// The length of what follows a backslash.
fn escape_bytes(escape: &[u8]) -> Option<usize> {
    match escape {
        [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => Some(1),
        [b'u', digits @ ..] => {
            digits.first_chunk::<4>()?.iter().all(u8::is_ascii_hexdigit).then_some(5)
        }
        _ => None,
    }
}
