//! Bytes as JSON (RFC 8259), one value at a time and only as far as somebody asks: what bodies and tokens are read with.
//! What is of no interest is passed over. Where a string ends is left to [`super::quoted`], what the values mean to
//! [`super::protojson`] and [`super::token`].
//!
//! Neither looser nor stricter than `serde_json`, which it stands in for at three fifths of the instructions: a document
//! that one of them refuses the other refuses (`json_tests`). What is rare is handed to it: strings with escapes, and numbers
//! that are no short integers.

use std::borrow::Cow;

use serde_json::Number;

use super::quoted::{BLOCK, plain, quoted_bytes};

/// The document is no JSON. Where does not matter: nobody would be told.
#[derive(Debug)]
pub(super) struct Malformed;

type Read<T> = Result<T, Malformed>;

/// Digits that surely are a `u64`.
const SHORT_INTEGER_BYTES_MAX: usize = 19;

/// A value that has been read; of an object only the brace.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Null,
    Bool,
    Number(Number),
    Text(Cow<'a, str>),
    /// Passed over as by [`Reader::skip`].
    Array,
    /// Its members wait for [`Reader::member`].
    Object,
}

/// Is told of all that a reader comes by, in the document's order, what is passed over included. A text is given by where
/// it begins and its length in bytes, so that its last ones can be read as a word.
pub(super) trait Witness {
    /// An object or an array begins.
    fn open(&mut self, text: &[u8]);
    /// The innermost one has ended.
    fn close(&mut self);
    /// Its next member or item follows.
    fn comma(&mut self);
    /// A member's name, between its quotes, as it is written.
    fn name(&mut self, text: &[u8], bytes: usize);
    /// A value that has no parts, as it is written; a string's quotes are left out.
    fn scalar(&mut self, text: &[u8], bytes: usize);
}

/// Nobody.
impl Witness for () {
    fn open(&mut self, _: &[u8]) {}
    fn close(&mut self) {}
    fn comma(&mut self) {}
    fn name(&mut self, _: &[u8], _: usize) {}
    fn scalar(&mut self, _: &[u8], _: usize) {}
}

/// What is left of a document.
pub(super) struct Reader<'a, W = ()> {
    rest: &'a [u8],
    witness: W,
}

impl<'a, W: Witness> Reader<'a, W> {
    pub(super) fn new(json: &'a [u8], witness: W) -> Self {
        Self { rest: json, witness }
    }

    /// The witness of a document of which nothing but white space is left.
    pub(super) fn end(mut self) -> Read<W> {
        if self.peek().is_none() { Ok(self.witness) } else { Err(Malformed) }
    }

    /// Reads a value, all of whose text is UTF-8 and whose number a float could hold.
    pub(super) fn value(&mut self) -> Read<Value<'a>> {
        match self.peek() {
            Some(b'"') => self.text().map(Value::Text),
            Some(b'{') => {
                self.open();
                Ok(Value::Object)
            }
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Number),
            Some(b'n') => self.word(b"null").map(|()| Value::Null),
            Some(b't') => self.word(b"true").map(|()| Value::Bool),
            Some(b'f') => self.word(b"false").map(|()| Value::Bool),
            Some(b'[') => self.skip().map(|()| Value::Array),
            Some(_) | None => Err(Malformed),
        }
    }

    /// The name of an object's next member, whose value must be read then; `None` after the last one. `first` is to be
    /// true at an object's first call.
    pub(super) fn member(&mut self, first: &mut bool) -> Read<Option<Cow<'a, [u8]>>> {
        match self.peek() {
            Some(b'}') => {
                self.close();
                return Ok(None);
            }
            Some(b',') if !*first => self.comma(),
            Some(b'"') if *first => *first = false,
            Some(_) | None => return Err(Malformed),
        }
        if self.peek() != Some(b'"') {
            return Err(Malformed);
        }
        let name = match self.string(W::name)? {
            Raw::Ascii(name) => Cow::Borrowed(name),
            Raw::Bytes(name) => Cow::Borrowed(utf8(name)?.as_bytes()),
            Raw::Quoted(name) => match unquoted(name)? {
                Cow::Borrowed(name) => Cow::Borrowed(name.as_bytes()),
                Cow::Owned(name) => Cow::Owned(name.into_bytes()),
            },
        };
        self.byte(b':')?;
        Ok(Some(name))
    }

    /// Passes over a value of any depth. Its strings need not be UTF-8, nor its numbers in the range of any type.
    pub(super) fn skip(&mut self) -> Read<()> {
        let mut open = Nesting::default();
        loop {
            if !self.skip_start(&mut open)? && self.skip_ends(&mut open)? {
                return Ok(());
            }
        }
    }

    /// Passes over a scalar or over what opens. Whether a value must follow that is inside.
    fn skip_start(&mut self, open: &mut Nesting) -> Read<bool> {
        match self.peek() {
            Some(b'"') => self.string(W::scalar).map(|_| ())?,
            Some(b'-' | b'0'..=b'9') => self.scalar(number_bytes(self.rest)?),
            Some(b'n') => self.word(b"null")?,
            Some(b't') => self.word(b"true")?,
            Some(b'f') => self.word(b"false")?,
            Some(byte @ (b'[' | b'{')) => {
                self.open();
                open.push(byte == b'{');
                if self.peek() != open.closing() {
                    return self.skip_name(open).map(|()| true);
                }
            }
            Some(_) | None => return Err(Malformed),
        }
        Ok(false)
    }

    /// Closes what ends after a value. Whether that was all; else another value must follow.
    fn skip_ends(&mut self, open: &mut Nesting) -> Read<bool> {
        while let Some(closing) = open.closing() {
            match self.peek() {
                Some(b',') => {
                    self.comma();
                    return self.skip_name(open).map(|()| false);
                }
                Some(byte) if byte == closing => {
                    self.close();
                    open.pop();
                }
                Some(_) | None => return Err(Malformed),
            }
        }
        Ok(true)
    }

    /// In an object, passes over a member's name.
    fn skip_name(&mut self, open: &Nesting) -> Read<()> {
        if open.closing() != Some(b'}') {
            return Ok(());
        }
        if self.peek() != Some(b'"') {
            return Err(Malformed);
        }
        self.string(W::name)?;
        self.byte(b':')
    }

    fn text(&mut self) -> Read<Cow<'a, str>> {
        match self.string(W::scalar)? {
            Raw::Ascii(text) | Raw::Bytes(text) => utf8(text).map(Cow::Borrowed),
            Raw::Quoted(text) => unquoted(text),
        }
    }

    fn number(&mut self) -> Read<Number> {
        let bytes = number_bytes(self.rest)?;
        let text = self.rest.get(..bytes).ok_or(Malformed)?;
        self.scalar(bytes);
        if text.len() <= SHORT_INTEGER_BYTES_MAX && text.iter().all(u8::is_ascii_digit) {
            let digit = |byte: &u8| u64::from(byte.wrapping_sub(b'0'));
            let number = |sum: u64, byte| sum.wrapping_mul(10).wrapping_add(digit(byte));
            return Ok(text.iter().fold(0, number).into());
        }
        serde_json::from_slice(text).map_err(|_| Malformed)
    }

    /// The next byte that is no white space; it is the first of what is left then.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        match self.rest {
            [byte, ..] if *byte > b' ' => Some(*byte),
            [..] => self.peek_behind_space(),
        }
    }

    fn peek_behind_space(&mut self) -> Option<u8> {
        loop {
            match self.rest {
                [b' ' | b'\n' | b'\t' | b'\r', after @ ..] => self.rest = after,
                [byte, ..] => return Some(*byte),
                [] => return None,
            }
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn open(&mut self) {
        self.witness.open(self.rest);
        self.advance(1);
    }

    fn close(&mut self) {
        self.witness.close();
        self.advance(1);
    }

    fn comma(&mut self) {
        self.witness.comma();
        self.advance(1);
    }

    fn scalar(&mut self, bytes: usize) {
        self.witness.scalar(self.rest, bytes);
        self.advance(bytes);
    }

    fn byte(&mut self, byte: u8) -> Read<()> {
        if self.peek() != Some(byte) {
            return Err(Malformed);
        }
        self.advance(1);
        Ok(())
    }

    fn word(&mut self, word: &[u8]) -> Read<()> {
        if !self.rest.starts_with(word) {
            return Err(Malformed);
        }
        self.scalar(word.len());
        Ok(())
    }

    /// The string that begins here, of which the witness is told.
    #[inline]
    fn string(&mut self, tell: impl FnOnce(&mut W, &[u8], usize)) -> Read<Raw<'a>> {
        let inside = self.rest.get(1..).unwrap_or_default();
        let plain = plain(inside.get(..BLOCK).unwrap_or(inside));
        if let Some((text, [b'"', after @ ..])) = inside.split_at_checked(plain.bytes) {
            self.rest = after;
            tell(&mut self.witness, inside, plain.bytes);
            return Ok(if plain.ascii { Raw::Ascii(text) } else { Raw::Bytes(text) });
        }
        let quoted = self.odd_string(plain.bytes.wrapping_add(1))?;
        tell(&mut self.witness, inside, quoted.len().wrapping_sub(2));
        Ok(Raw::Quoted(quoted))
    }

    /// The same, if it is longer than a block or does not end where it stops being plain.
    #[inline(never)]
    fn odd_string(&mut self, plain: usize) -> Read<&'a [u8]> {
        let bytes = quoted_bytes(self.rest, plain).ok_or(Malformed)?;
        let (quoted, after) = self.rest.split_at_checked(bytes).ok_or(Malformed)?;
        self.rest = after;
        Ok(quoted)
    }
}

/// A string as it stands in the document, and what must be done to have its text.
enum Raw<'a> {
    /// Nothing.
    Ascii(&'a [u8]),
    /// It may be no UTF-8.
    Bytes(&'a [u8]),
    /// With its quotes: it may have escapes, each of which is one by itself; halves of surrogate pairs may stand alone.
    Quoted(&'a [u8]),
}

fn utf8(text: &[u8]) -> Read<&str> {
    std::str::from_utf8(text).map_err(|_| Malformed)
}

#[cold]
fn unquoted(quoted: &[u8]) -> Read<Cow<'_, str>> {
    match quoted {
        [b'"', text @ .., b'"'] if !text.contains(&b'\\') => utf8(text).map(Cow::Borrowed),
        _ => serde_json::from_slice(quoted).map(Cow::Owned).map_err(|_| Malformed),
    }
}

/// The length of the number that begins here (RFC 8259, 6).
fn number_bytes(text: &[u8]) -> Read<usize> {
    let rest = text.strip_prefix(b"-").unwrap_or(text);
    let rest = match rest {
        [b'0', b'0'..=b'9', ..] => return Err(Malformed),
        [b'0'..=b'9', ..] => digits(rest)?,
        _ => return Err(Malformed),
    };
    let rest = match rest {
        [b'.', fraction @ ..] => digits(fraction)?,
        _ => rest,
    };
    let rest = match rest {
        [b'e' | b'E', b'+' | b'-', exponent @ ..] | [b'e' | b'E', exponent @ ..] => {
            digits(exponent)?
        }
        _ => rest,
    };
    Ok(text.len().wrapping_sub(rest.len()))
}

/// What follows one digit or more.
fn digits(mut text: &[u8]) -> Read<&[u8]> {
    let all = text.len();
    while let [b'0'..=b'9', after @ ..] = text {
        text = after;
    }
    if text.len() == all { Err(Malformed) } else { Ok(text) }
}

/// The objects and arrays that are open: a bit for each, since nobody limits their depth.
#[derive(Default)]
struct Nesting {
    /// The innermost ones; the lowest bit is set if the last one is an object.
    bits: u64,
    depth: u64,
    /// Those around them, by 64.
    outer: Vec<u64>,
}

impl Nesting {
    fn push(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.bits);
        }
        self.bits = (self.bits << 1) | u64::from(is_object);
        self.depth = self.depth.wrapping_add(1);
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.bits >>= 1;
        if self.depth.is_multiple_of(64)
            && let Some(bits) = self.outer.pop()
        {
            self.bits = bits;
        }
    }

    /// What the innermost one ends with.
    fn closing(&self) -> Option<u8> {
        match (self.depth, self.bits & 1) {
            (0, _) => None,
            (_, 0) => Some(b']'),
            (_, _) => Some(b'}'),
        }
    }
}
