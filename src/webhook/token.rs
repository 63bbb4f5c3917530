//! What a token says, before anybody has checked who says it: RFC 7515's compact form and RFC 7519's claims, as far as
//! LiveKit uses them. Signature, key and body are left to [`super::verify`].

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Number;

use super::json::{Malformed, Reader, Value};
use super::refusal::{Part, Refusal};
use crate::clock::UnixTime;

/// The longest token that is looked at. LiveKit's have some 250 bytes; a longer one is not worth decoding.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// How far the clocks of a sender and of this process may be apart, as livekit/protocol's `auth/verifier.go` has it.
pub const LEEWAY: Duration = Duration::from_mins(1);

/// A token that can be read. Nothing in it has been verified. It has no `Debug`: whoever has it can sign
/// nothing, but can repeat it.
#[derive(Clone)]
pub struct Token<'a> {
    /// What was signed: header and claims as they came.
    pub(super) message: &'a str,
    /// The signature, still in base64url.
    pub(super) signature: &'a str,
    /// What the token says.
    pub grants: Grants,
}

/// What a token says: the claims that LiveKit's webhooks have (`webhook/url_notifier.go`, `auth/accesstoken.go`).
///
/// `aud`, `sub` and all others are of no concern. A claim that is `null` counts as absent. Times are whole seconds:
/// RFC 7519 would allow fractions, no LiveKit SDK writes them, and one that is none of these is refused rather than
/// rounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// The API key.
    pub iss: Option<String>,
    /// From when on it is expired, in seconds since the epoch.
    pub exp: Option<u64>,
    /// From when on it is valid, in seconds since the epoch.
    pub nbf: Option<u64>,
    /// The standard base64 of the body's SHA-256; tokens that join rooms have none.
    pub sha256: Option<String>,
}

/// The headers that senders write: livekit/protocol (go-jose) and LiveKit's other SDKs the first, jsonwebtoken the second.
/// They need no reading.
const USUAL_HEADERS: [&str; 2] = [
    // {"alg":"HS256","typ":"JWT"}
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
    // {"typ":"JWT","alg":"HS256"}
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9",
];

/// Claims of so many bytes of base64 are decoded on the stack; LiveKit's have 170.
const SHORT_PART_BYTES_MAX: usize = 512;

/// As many names are compared one by one; beyond, an attacker could make that slow.
const FEW_NAMES_MAX: usize = 16;

impl<'a> Token<'a> {
    /// Reads the value of an `Authorization` field.
    ///
    /// A `Bearer ` prefix is refused: LiveKit sends the bare token, and its receivers (Go `webhook/verifier.go`, Node,
    /// Python, Rust `webhooks.rs`) hand the value as it is to a parser that fails on the prefix. What the backend
    /// would refuse should not be acknowledged here.
    pub fn parse(authorization: &'a [u8]) -> Result<Self, Refusal> {
        if authorization.is_empty() {
            return Err(Refusal::NoToken);
        }
        if authorization.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::TokenTooLong);
        }
        if authorization.get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"bearer ")) {
            return Err(Refusal::BearerScheme);
        }
        let text = std::str::from_utf8(authorization).map_err(|_| Refusal::NotAToken)?;
        let (message, signature) = text.rsplit_once('.').ok_or(Refusal::NotAToken)?;
        let (header, claims) = message.split_once('.').ok_or(Refusal::NotAToken)?;
        if !USUAL_HEADERS.contains(&header) {
            decoded(header, check_header)?;
        }
        let grants = decoded(claims, Grants::read)?;
        Ok(Self { message, signature, grants })
    }
}

impl Grants {
    fn read(json: &[u8]) -> Result<Self, Refusal> {
        let mut grants = Self::default();
        let member = |name: &[u8], reader: &mut Reader<'_>| {
            match name {
                b"iss" => grants.iss = text(reader)?,
                b"exp" => grants.exp = seconds(reader)?,
                b"nbf" => grants.nbf = seconds(reader)?,
                b"sha256" => grants.sha256 = text(reader)?,
                // Nobody judges when it was made, but that must be a number (RFC 7519, 4.1.6): a token that is none to
                // the backend's receiver (Go, Python) is none here.
                b"iat" => number(reader).map(|_| ())?,
                _ => reader.skip()?,
            }
            Ok(())
        };
        members(json, member).map_err(|Malformed| Refusal::Unreadable(Part::Claims))?;
        Ok(grants)
    }

    /// Whether the token is valid at `now`, [`LEEWAY`] included; `exp` itself is already too late (RFC 7519, 4.1.4).
    pub fn check_time(&self, now: UnixTime) -> Result<UnixTime, Refusal> {
        let now = now.since_epoch();
        let expires = self.exp.map(Duration::from_secs).ok_or(Refusal::NoExpiry)?;
        if now >= expires.saturating_add(LEEWAY) {
            return Err(Refusal::Expired(now.saturating_sub(expires)));
        }
        let begins = self.nbf.map(Duration::from_secs).unwrap_or_default();
        if now.saturating_add(LEEWAY) < begins {
            return Err(Refusal::NotYetValid(begins.saturating_sub(now)));
        }
        Ok(UnixTime::from_epoch(expires))
    }

    /// The SHA-256 of the body that was signed. Only the canonical form is read: the official receivers compare text.
    pub fn digest(&self) -> Result<[u8; 32], Refusal> {
        let text =
            self.sha256.as_deref().filter(|text| !text.is_empty()).ok_or(Refusal::NoDigest)?;
        let bytes = STANDARD.decode(text).map_err(|_| Refusal::DigestUnreadable)?;
        bytes.try_into().map_err(|_| Refusal::DigestUnreadable)
    }
}

/// What `read` makes of a part, once it is no longer base64url.
fn decoded<T>(part: &str, read: impl FnOnce(&[u8]) -> Result<T, Refusal>) -> Result<T, Refusal> {
    let mut short = [0; SHORT_PART_BYTES_MAX];
    if part.len() <= SHORT_PART_BYTES_MAX {
        let decoded = URL_SAFE_NO_PAD.decode_slice(part, &mut short);
        let bytes = decoded.map_err(|_| Refusal::NotAToken)?;
        return read(short.get(..bytes).unwrap_or_default());
    }
    read(&URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::NotAToken)?)
}

/// Reads an object, whose values `member` must read. All of it must be UTF-8 (RFC 8259, 8.1), and no name may be there
/// twice (RFC 7515, 4; RFC 7519, 4), not even one that is of no use here: the backend may use it.
fn members<'a>(
    json: &'a [u8],
    mut member: impl FnMut(&[u8], &mut Reader<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let text = std::str::from_utf8(json).map_err(|_| Malformed)?;
    let mut reader = Reader::new(text.as_bytes(), ());
    let Value::Object = reader.value()? else { return Err(Malformed) };
    let mut names = Names::default();
    let mut first = true;
    while let Some(name) = reader.member(&mut first)? {
        member(&name, &mut reader)?;
        if !names.insert(name) {
            return Err(Malformed);
        }
    }
    reader.end()
}

/// The names that were there.
#[derive(Default)]
struct Names<'a> {
    few: [&'a [u8]; FEW_NAMES_MAX],
    count: usize,
    /// All of them, as soon as there are many, or one that was written with escapes.
    many: Option<HashSet<Cow<'a, [u8]>>>,
}

impl<'a> Names<'a> {
    /// Whether it was not there before.
    fn insert(&mut self, name: Cow<'a, [u8]>) -> bool {
        if self.many.is_none()
            && let Cow::Borrowed(name) = &name
            && !self.few().contains(name)
            && let Some(free) = self.few.get_mut(self.count)
        {
            *free = name;
            self.count = self.count.wrapping_add(1);
            return true;
        }
        let many = self.many.take();
        let few = || self.few().iter().map(|name| Cow::Borrowed(*name)).collect();
        let mut many = many.unwrap_or_else(few);
        let is_new = many.insert(name);
        self.many = Some(many);
        is_new
    }

    fn few(&self) -> &[&'a [u8]] {
        self.few.get(..self.count).unwrap_or_default()
    }
}

fn text(reader: &mut Reader<'_>) -> Result<Option<String>, Malformed> {
    match reader.value()? {
        Value::Null => Ok(None),
        Value::Text(text) => Ok(Some(text.into_owned())),
        Value::Bool | Value::Number(_) | Value::Array | Value::Object => Err(Malformed),
    }
}

fn seconds(reader: &mut Reader<'_>) -> Result<Option<u64>, Malformed> {
    number(reader)?.map(|number| number.as_u64().ok_or(Malformed)).transpose()
}

fn number(reader: &mut Reader<'_>) -> Result<Option<Number>, Malformed> {
    match reader.value()? {
        Value::Null => Ok(None),
        Value::Number(number) => Ok(Some(number)),
        Value::Bool | Value::Text(_) | Value::Array | Value::Object => Err(Malformed),
    }
}

/// `typ`, `kid`, `jku` and the like do not matter: they must never choose a key (RFC 8725, 3.10).
fn check_header(json: &[u8]) -> Result<(), Refusal> {
    let (mut algorithm, mut is_critical) = (None, false);
    let member = |name: &[u8], reader: &mut Reader<'_>| {
        match name {
            b"alg" => algorithm = text(reader)?,
            // `b64` is an extension that needs `crit`, and that no JWT may use (RFC 7797, 6 and 7): who obeys it reads
            // other claims.
            b"crit" | b"b64" => {
                is_critical = true;
                reader.skip()?;
            }
            _ => reader.skip()?,
        }
        Ok(())
    };
    let unreadable = Refusal::Unreadable(Part::Header);
    members(json, member).map_err(|Malformed| unreadable)?;
    let algorithm = algorithm.ok_or(unreadable)?;
    if is_critical {
        return Err(Refusal::Critical);
    }
    if algorithm == "HS256" { Ok(()) } else { Err(Refusal::Algorithm) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(header: &str, claims: &str) -> Result<Grants, Refusal> {
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        Token::parse(format!("{header}.{claims}.c2ln").as_bytes()).map(|token| token.grants)
    }

    #[test]
    fn usual_headers_are_what_reading_them_would_accept() {
        for header in USUAL_HEADERS {
            assert_eq!(decoded(header, check_header), Ok(()), "{header}");
        }
    }

    #[test]
    fn a_name_that_is_there_twice_is_found_among_few_and_many_and_behind_escapes() {
        for others in [0, 1, FEW_NAMES_MAX - 1, FEW_NAMES_MAX, FEW_NAMES_MAX + 1, 300] {
            let others: Vec<_> = (0..others).map(|at| format!(r#""n{at}":{at},"#)).collect();
            let others = others.concat();
            let claims = |more: &str| parsed(r#"{"alg":"HS256"}"#, &format!("{{{others}{more}}}"));
            assert!(claims(r#""iss":"k","\u006eX":1"#).is_ok(), "{others}");
            let unreadable = Err(Refusal::Unreadable(Part::Claims));
            for twice in [
                r#""iss":"k","iss":"k""#,
                r#""iss":"k","\u0069ss":"k""#,
                r#""\u0069ss":"k","iss":"k""#,
                r#""a":[],"iss":"k","b":{},"a":null"#,
                r#""":1,"":2"#,
            ] {
                assert_eq!(claims(twice), unreadable, "{others}{twice}");
            }
        }
    }

    #[test]
    fn long_claims_are_read_as_short_ones_are() {
        for bytes in [380, 384, 385, 390, 4000] {
            let claims = format!(r#"{{"iss":"{}"}}"#, "k".repeat(bytes - 10));
            let grants = parsed(r#"{"typ":"JWT","alg":"HS256"}"#, &claims).unwrap();
            assert_eq!(grants.iss.map(|issuer| issuer.len()), Some(bytes - 10));
        }
    }
}
