//! What a token says, before anybody has checked who says it: RFC 7515's compact form and RFC 7519's claims, as far as
//! LiveKit uses them. Signature, key and body are left to [`super::verify`].

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};

use super::protojson::Name;
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Grants {
    /// The API key.
    #[serde(default)]
    pub iss: Option<String>,
    /// From when on it is expired, in seconds since the epoch.
    #[serde(default)]
    pub exp: Option<u64>,
    /// From when on it is valid, in seconds since the epoch.
    #[serde(default)]
    pub nbf: Option<u64>,
    /// The standard base64 of the body's SHA-256; tokens that join rooms have none.
    #[serde(default)]
    pub sha256: Option<String>,
    /// When it was made. Nobody judges that, but it must be a number (RFC 7519, 4.1.6): a token that is none to the
    /// backend's receiver (Go, Python) is none here.
    #[serde(default, rename = "iat")]
    _issued: Option<Number>,
}

/// What matters of a header. `typ`, `kid`, `jku` and the like do not: they must never choose a key (RFC 8725, 3.10).
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(default)]
    crit: Presence,
    /// An extension that needs `crit`, and that no JWT may use (RFC 7797, 6 and 7): who obeys it reads other claims.
    #[serde(default)]
    b64: Presence,
}

/// Any number, whatever its value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Number;

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(|_| Self)
    }
}

/// Whether a member is there, whatever its value.
#[derive(Default)]
struct Presence(bool);

impl<'de> Deserialize<'de> for Presence {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

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
        check_header(&decode(header)?)?;
        let grants = read(&decode(claims)?, Part::Claims)?;
        Ok(Self { message, signature, grants })
    }
}

impl Grants {
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

fn decode(part: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::NotAToken)
}

/// Reads an object. All of it must be UTF-8 (RFC 8259, 8.1), and no name may be there twice (RFC 7515, 4; RFC 7519, 4):
/// `serde_json` looks at that only in the members that are used, and the backend may use others.
fn read<'a, T: Deserialize<'a>>(json: &'a [u8], part: Part) -> Result<T, Refusal> {
    let unreadable = Refusal::Unreadable(part);
    let text = std::str::from_utf8(json).map_err(|_| unreadable)?;
    serde_json::from_str::<Distinct>(text).map_err(|_| unreadable)?;
    serde_json::from_str(text).map_err(|_| unreadable)
}

/// An object whose members have names of their own; serde's derive would take an array of values for one, too.
struct Distinct;

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for Distinct {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object without a name that is there twice")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        // Bounded by the token's length.
        let mut names = HashSet::new();
        while let Some((name, IgnoredAny)) = members.next_entry::<Name<'de>, _>()? {
            if !names.insert(name.0) {
                return Err(A::Error::custom("a name is there twice"));
            }
        }
        Ok(self)
    }
}

fn check_header(json: &[u8]) -> Result<(), Refusal> {
    let header: Header<'_> = read(json, Part::Header)?;
    if header.crit.0 || header.b64.0 {
        return Err(Refusal::Critical);
    }
    if header.alg == "HS256" { Ok(()) } else { Err(Refusal::Algorithm) }
}
