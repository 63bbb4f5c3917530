//! What the targets share: keys, tokens made without the gateway's own code, and JSON taken apart by hand.

pub mod reading;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use oncehook::clock::UnixTime;
use oncehook::webhook::verify::{KeyRing, Verifier};
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

/// Tenant, API key and secret of everyone who may sign.
pub const KEYS: [(&str, &str, &str); 2] = [
    ("default", "APIfuzz", "a-secret-of-at-least-thirty-two-characters"),
    ("staging", "APIstaging", "the-secret-of-staging-of-thirty-two-characters"),
];

/// Seconds since the epoch, while tokens are judged.
pub const NOW: u64 = 1_800_000_000;

/// [`NOW`] as the gateway takes it.
pub fn now() -> UnixTime {
    UnixTime::from_epoch(std::time::Duration::from_secs(NOW))
}

/// A verifier of [`KEYS`].
pub fn verifier() -> Verifier {
    let keys = KEYS.map(|(tenant, key, secret)| (tenant.into(), key.to_owned(), secret.into()));
    let keys = keys.map(|(tenant, key, secret): (_, _, SecretString)| (tenant, key, secret));
    Verifier::new(KeyRing::new(keys).expect("the keys differ"))
}

/// RFC 2104 over SHA-256, by another crate than the gateway's.
pub fn hmac(secret: &str, message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length will do");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// `header.claims.signature` in base64url.
pub fn token(header: &[u8], claims: &[u8], secret: &str) -> String {
    let (header, claims) = (URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let message = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(hmac(secret, message.as_bytes()));
    format!("{message}.{signature}")
}

/// A token that the first of [`KEYS`] makes for `body`, valid until the year 2100. Its length does not depend on `body`.
pub fn webhook_token(body: &[u8]) -> String {
    webhook_token_of(body, 4_102_444_800, KEYS[0].2)
}

/// The same until `expires`, in seconds since the epoch, and made with `secret`.
pub fn webhook_token_of(body: &[u8], expires: u64, secret: &str) -> String {
    let (_, key, _) = KEYS[0];
    let sha256 = STANDARD.encode(Sha256::digest(body));
    let claims =
        format!(r#"{{"iss":"{key}","exp":{expires},"nbf":1700000000,"sha256":"{sha256}"}}"#);
    token(br#"{"alg":"HS256","typ":"JWT"}"#, claims.as_bytes(), secret)
}

/// The same document with white space wherever RFC 8259 allows some. `json` must be a document.
pub fn spread(json: &[u8], space: &[u8]) -> Vec<u8> {
    let mut out = space.to_vec();
    let mut text = Text::default();
    for &byte in json {
        let structural = !text.step(byte) && b"{}[]:,".contains(&byte);
        if structural {
            out.extend_from_slice(space);
        }
        out.push(byte);
        if structural {
            out.extend_from_slice(space);
        }
    }
    out.extend_from_slice(space);
    out
}

/// The same object with its members in the opposite order; `None` for anything but an object. `json` must be a document.
pub fn reversed(json: &[u8]) -> Option<Vec<u8>> {
    let trimmed = json.trim_ascii();
    let inner = trimmed.strip_prefix(b"{")?.strip_suffix(b"}")?;
    let (mut members, mut begin, mut depth, mut text) = (Vec::new(), 0, 0_usize, Text::default());
    for (at, &byte) in inner.iter().enumerate() {
        if text.step(byte) {
            continue;
        }
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => {
                members.push(&inner[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    members.push(&inner[begin..]);
    members.reverse();
    Some([b"{".as_slice(), &members.join(&b","[..]), b"}"].concat())
}

/// How deep a document is nested.
pub fn depth(json: &[u8]) -> usize {
    let (mut depth, mut most, mut text) = (0_usize, 0, Text::default());
    for &byte in json {
        match byte {
            _ if text.step(byte) => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        most = most.max(depth);
    }
    most
}

/// Whether a byte of a document stands within a string, its quotes included.
#[derive(Default)]
struct Text {
    within: bool,
    escaped: bool,
}

impl Text {
    fn step(&mut self, byte: u8) -> bool {
        let was = self.within;
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.within => self.escaped = true,
            b'"' => self.within = !self.within,
            _ => {}
        }
        was || self.within
    }
}
