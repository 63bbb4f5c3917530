//! One head of HTTP/1.1, read strictly: what hyper would accept and another reader might read otherwise is refused.
//!
//! Pure. Lines are judged as they come, so that nonsense is answered at once and not after the head's time. What the
//! head asks for is left to hyper and the service.

use http::Uri;
use memchr::memchr;

use crate::telemetry::labels::Malformed;

/// What a head may take at the most.
#[derive(Clone, Copy, Debug)]
pub(in crate::listener) struct Limits {
    /// Bytes of all of it, empty lines before it included.
    pub(in crate::listener) head_bytes: usize,
    /// How many fields.
    pub(in crate::listener) fields: usize,
    /// Bytes of the request's target.
    pub(in crate::listener) target_bytes: usize,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// A head that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// How long it was.
    pub(super) bytes: usize,
    /// What follows.
    pub(super) body: Body,
    /// Whether it asks for another protocol: then what comes after it may be no HTTP.
    pub(super) upgrade: bool,
}

/// A head as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Where the first line begins that is not judged yet.
    line_start: usize,
    /// How far that line has been searched for its end.
    searched: usize,
    version: Option<Version>,
    fields: usize,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

impl Head {
    /// Reads on. `bytes` are all of the head that has come so far, and maybe more than the head; `None`: there must
    /// come more.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<Option<Ended>, Malformed> {
        // What begins so is no HTTP, and may never send the end of a line.
        if bytes.first().is_some_and(|first| !is_token(*first) && !b"\r\n".contains(first)) {
            return Err(Malformed::RequestLine);
        }
        loop {
            let line = bytes.get(self.line_start..).unwrap_or_default();
            let unsearched = line.get(self.searched..).unwrap_or_default();
            let Some(found) = memchr(b'\n', unsearched) else {
                self.searched = line.len();
                return self.within(bytes.len(), limits).map(|()| None);
            };
            let length = self.searched + found;
            self.within(self.line_start + length + 1, limits)?;
            let line = line.get(..length).unwrap_or_default();
            let line = line.strip_suffix(b"\r").ok_or(Malformed::BareLineFeed)?;
            self.line_start += length + 1;
            self.searched = 0;
            match self.version {
                // Empty lines before a request are to be ignored (RFC 9112, §2.2).
                None if line.is_empty() => {}
                None => self.version = Some(request_line(line, limits)?),
                Some(version) if line.is_empty() => return self.end(version).map(Some),
                Some(_) => self.field(line, limits)?,
            }
        }
    }

    fn within(&self, bytes: usize, limits: &Limits) -> Result<(), Malformed> {
        match (bytes > limits.head_bytes, self.version) {
            (false, _) => Ok(()),
            (true, None) => Err(Malformed::TargetTooLong),
            (true, Some(_)) => Err(Malformed::HeadTooLarge),
        }
    }

    fn field(&mut self, line: &[u8], limits: &Limits) -> Result<(), Malformed> {
        self.fields += 1;
        if self.fields > limits.fields {
            return Err(Malformed::TooManyFields);
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Malformed::FoldedField);
        }
        // What ends a name is its colon, or wrong in it.
        let end = line.iter().position(|byte| !is_token(*byte)).filter(|end| *end > 0);
        let (name, value) = line.split_at(end.ok_or(Malformed::FieldName)?);
        let value = value.strip_prefix(b":").ok_or(Malformed::FieldName)?;
        // Without a way out in the middle: so it is done many bytes at once.
        if value.iter().fold(false, |bad, byte| bad | is_control(*byte)) {
            return Err(Malformed::FieldValue);
        }
        // The lengths come first because they rule out nearly all names.
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                self.content_length(trimmed(value))
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.transfer_encoding(trimmed(value))
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// One number in its shortest form. The RFC lets a recipient take a list of equal ones; nobody sends it in good faith.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let plain = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        if self.length.is_some() || !plain || (value.len() > 1 && value.starts_with(b"0")) {
            return Err(Malformed::ContentLength);
        }
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        self.length = Some(number.ok_or(Malformed::ContentLength)?);
        Ok(())
    }

    /// `chunked`, once: no other coding is ever decoded here (RFC 9112, §6.1).
    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Malformed> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Malformed::TransferEncoding);
        }
        self.chunked = true;
        Ok(())
    }

    fn end(&self, version: Version) -> Result<Ended, Malformed> {
        let body = match (self.length, self.chunked) {
            (Some(_), true) => return Err(Malformed::LengthAndEncoding),
            (None, true) if version == Version::Http10 => return Err(Malformed::TransferEncoding),
            (None, true) => Body::Chunked,
            (length, false) => Body::Length(length.unwrap_or(0)),
        };
        Ok(Ended { bytes: self.line_start, body, upgrade: self.upgrade })
    }
}

/// Method, target and version, one space between them (RFC 9112, §3).
fn request_line(line: &[u8], limits: &Limits) -> Result<Version, Malformed> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (method, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if method.is_empty() || target.is_empty() || !method.iter().copied().all(is_token) {
        return Err(Malformed::RequestLine);
    }
    let version = match parts.next() {
        Some(b"HTTP/1.1") => Version::Http11,
        Some(b"HTTP/1.0") => Version::Http10,
        // HTTP/0.9 names none.
        None => return Err(Malformed::Version),
        Some(other) if other.starts_with(b"HTTP/") => return Err(Malformed::Version),
        Some(_) => return Err(Malformed::RequestLine),
    };
    if target.len() > limits.target_bytes {
        return Err(Malformed::TargetTooLong);
    }
    if is_target(target) { Ok(version) } else { Err(Malformed::Target) }
}

/// Whether hyper will take a target for one. A fragment it would drop in silence; a target has none.
fn is_target(target: &[u8]) -> bool {
    if target.starts_with(b"/") && target.iter().copied().all(is_common) {
        return true;
    }
    let visible = target.iter().all(u8::is_ascii_graphic) && !target.contains(&b'#');
    visible && Uri::try_from(target).is_ok()
}

/// What paths and queries are made of (RFC 3986, §3.3 and §3.4).
const fn is_common(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'/' | b'-'
                | b'_'
                | b'.'
                | b'~'
                | b'?'
                | b'='
                | b'&'
                | b'%'
                | b'!'
                | b'$'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b':'
                | b'@'
        )
}

/// What no value has (RFC 9110, §5.5).
const fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

/// RFC 9110, §5.6.2.
fn is_token(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).is_some_and(|token| *token)
}

/// [`may_be_in_token`] of each byte: every byte of every name is asked for.
#[expect(
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "in a constant nothing else will do"
)]
const TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let mut byte = u8::MIN;
    // The last byte there is may not.
    while byte < u8::MAX {
        token[byte as usize] = may_be_in_token(byte);
        byte += 1;
    }
    token
};

const fn may_be_in_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'_'
                | b'!'
                | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'.'
                | b'^'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Without the optional white space around it (RFC 9110, §5.5).
fn trimmed(value: &[u8]) -> &[u8] {
    // Only blanks and tabs are left by now.
    value.trim_ascii()
}
