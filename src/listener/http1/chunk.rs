//! A chunked body, read strictly (RFC 9112, §7.1): where it ends. What is in it is left to hyper.

use crate::telemetry::labels::Malformed;

/// Chunk extensions and trailers of one body: nobody reads them, so nobody may send many (CVE-2023-39326).
const EXTRA_BYTES_MAX: usize = 16 * 1024;

/// More digits than any size has.
const DIGITS_MAX: u8 = 16;

/// How far a chunked body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunked {
    due: Due,
    /// Of [`EXTRA_BYTES_MAX`].
    extra_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// A digit of a size, or what ends it.
    Size {
        size: u64,
        digits: u8,
    },
    /// After blanks behind a size: an extension's semicolon (the RFC's bad white space).
    Semicolon(u64),
    /// More of an extension.
    Extension(u64),
    /// The line feed behind a size.
    SizeEnd(u64),
    /// So much of a chunk.
    Data(u64),
    /// The end of line behind a chunk.
    DataReturn,
    DataEnd,
    /// A trailer, or the end.
    Trailer,
    /// More of a trailer.
    TrailerRest,
    TrailerEnd,
    /// The line feed that ends it all.
    End,
    /// It is over.
    Nothing,
}

const SIZE: Due = Due::Size { size: 0, digits: 0 };

impl Chunked {
    pub(super) const fn new() -> Self {
        Self { due: SIZE, extra_bytes: 0 }
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.due == Due::Nothing
    }

    /// Reads on; how many of `bytes` belong to it.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        while let (Some(byte), false) = (bytes.get(at), self.is_over()) {
            if let Due::Data(left) = self.due {
                let take = at_most(left, bytes.len() - at);
                at += take;
                self.due = match left - u64::try_from(take).unwrap_or(left) {
                    0 => Due::DataReturn,
                    left => Due::Data(left),
                };
            } else {
                self.due = self.after(*byte).ok_or(Malformed::Chunk)?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// What is due after a byte that is no data.
    fn after(&mut self, byte: u8) -> Option<Due> {
        match (self.due, byte) {
            (Due::Size { size, digits: 1.. } | Due::Extension(size), b'\r') => {
                Some(Due::SizeEnd(size))
            }
            (Due::Size { size, digits: 1.. } | Due::Semicolon(size), b';') => {
                Some(Due::Extension(size))
            }
            (Due::Size { size, digits: 1.. } | Due::Semicolon(size), b' ' | b'\t') => {
                self.extra(Due::Semicolon(size))
            }
            (Due::Size { size, digits }, _) if digits < DIGITS_MAX => {
                let digit = char::from(byte).to_digit(16)?;
                let size = size.checked_mul(16)?.checked_add(u64::from(digit))?;
                Some(Due::Size { size, digits: digits + 1 })
            }
            (Due::SizeEnd(0) | Due::TrailerEnd, b'\n') => Some(Due::Trailer),
            (Due::SizeEnd(size), b'\n') => Some(Due::Data(size)),
            (Due::DataReturn, b'\r') => Some(Due::DataEnd),
            (Due::DataEnd, b'\n') => Some(SIZE),
            (Due::Trailer, b'\r') => Some(Due::End),
            (Due::TrailerRest, b'\r') => Some(Due::TrailerEnd),
            (Due::Trailer, _) if byte.is_ascii_graphic() && byte != b':' => {
                self.extra(Due::TrailerRest)
            }
            (due @ (Due::Extension(_) | Due::TrailerRest), _) if is_text(byte) => self.extra(due),
            (Due::End, b'\n') => Some(Due::Nothing),
            (
                Due::Size { .. }
                | Due::Semicolon(_)
                | Due::Extension(_)
                | Due::SizeEnd(_)
                | Due::Data(_)
                | Due::DataReturn
                | Due::DataEnd
                | Due::Trailer
                | Due::TrailerRest
                | Due::TrailerEnd
                | Due::End
                | Due::Nothing,
                _,
            ) => None,
        }
    }

    fn extra(&mut self, due: Due) -> Option<Due> {
        self.extra_bytes += 1;
        (self.extra_bytes <= EXTRA_BYTES_MAX).then_some(due)
    }
}

/// `left` of what is there: what does not fit into memory is more than there is.
pub(super) fn at_most(left: u64, there: usize) -> usize {
    usize::try_from(left).map_or(there, |left| left.min(there))
}

const fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
