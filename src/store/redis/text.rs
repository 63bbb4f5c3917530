//! How the parts of a record are written down, as `record.lua` documents it; the record itself is `command`'s and the
//! scripts'.

use crate::claim::record::Operation;
use crate::claim::{Digest, Owner, Verdict};
use crate::store::{millis, remembered};
use crate::text;

/// The longest expiry that is asked for, ten years: beyond it Redis refuses the number.
const EXPIRY_MS_MAX: u64 = 10 * 366 * 24 * 60 * 60 * 1000;

/// For how long Redis is to keep the record that `operation` writes, in milliseconds.
pub(super) fn expiry_ms(operation: &Operation) -> u64 {
    millis(remembered(operation)).clamp(1, EXPIRY_MS_MAX)
}

/// An owner in hexadecimal.
pub(super) fn owner(owner: Owner) -> [u8; 32] {
    let mut room = [0; 32];
    text::hex(&owner.0.to_be_bytes(), &mut room);
    room
}

/// A verdict: its letter, then its status.
pub(super) fn verdict(verdict: Verdict) -> [u8; 4] {
    let (letter, status) = match verdict {
        Verdict::Delivered(status) => (b'D', status),
        Verdict::Refused(status) => (b'R', status),
        Verdict::Unknown => (b'U', 0),
    };
    let digit = |part: u16| b'0' + u8::try_from(part % 10).unwrap_or_default();
    [letter, digit(status / 100), digit(status / 10), digit(status)]
}

/// Reads a verdict; `None` if it is none.
pub(super) fn read_verdict(text: &[u8]) -> Option<Verdict> {
    let &[letter, hundreds, tens, ones] = text else { return None };
    let mut status = 0;
    for digit in [hundreds, tens, ones] {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        status = status * 10 + u16::from(digit);
    }
    let verdict = match (letter, status) {
        (b'D', _) => Verdict::Delivered(status),
        (b'R', _) => Verdict::Refused(status),
        (b'U', 0) => Verdict::Unknown,
        _ => return None,
    };
    verdict.checked()
}

/// Reads a digest; `None` if it is none.
pub(super) fn read_digest(bytes: &[u8]) -> Option<Digest> {
    Some(Digest(u64::from_be_bytes(bytes.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_has_three_digits() {
        for right in [Verdict::Delivered(200), Verdict::Refused(409), Verdict::Unknown] {
            assert_eq!(read_verdict(&verdict(right)), Some(right));
        }
        assert_eq!(&verdict(Verdict::Delivered(204)), b"D204");
        for wrong in [
            "D20", "D+20", "D2000", "D65535", "U200", "X200", "200", "", "D", "D302", "R429",
            "R200",
        ] {
            assert_eq!(read_verdict(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn an_owner_has_all_its_digits() {
        for number in [0, 1, u128::MAX, u128::MAX / 3, 0x0123_4567_89ab_cdef << 60] {
            assert_eq!(owner(Owner(number)), format!("{number:032x}").as_bytes());
        }
    }
}
