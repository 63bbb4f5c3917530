//! Whether a request is a webhook that the holder of one of our secrets signed. What it says is left to
//! [`super::event`], how much of a body is read to `gateway`.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub use super::keys::{ApiKey, KeyRing, KeyRingError, Tenant};
pub use super::refusal::Refusal;
use super::token::Token;
use crate::clock::UnixTime;

/// Checks signatures and bodies. It has no `Debug`, since it holds secrets.
pub struct Verifier {
    keys: KeyRing,
    /// What a token of an unknown API key is checked against, so that it takes no less time than a known one's.
    decoy: DecodingKey,
}

/// A token whose signature and time are right, and the digest of the body it is for.
#[derive(Clone, Debug)]
pub struct Signature {
    tenant: Tenant,
    api_key: ApiKey,
    expires: UnixTime,
    digest: [u8; 32],
}

/// A body that was signed with one of our secrets. Only [`Verifier::check_body`] makes one.
#[derive(Clone)]
pub struct Webhook {
    body: Bytes,
    signature: Signature,
}

impl Verifier {
    /// A verifier that knows these keys.
    pub fn new(keys: KeyRing) -> Self {
        Self { keys, decoy: DecodingKey::from_secret(b"no API key has this secret") }
    }

    /// Checks the value of an `Authorization` field, before the body is read.
    ///
    /// In this order: form, algorithm, key, signature, time, digest. Claims are judged only once the signature has
    /// shown who makes them (RFC 8725, 3.3); the clock is the caller's, since jsonwebtoken would read its own.
    pub fn check_token(&self, authorization: &[u8], now: UnixTime) -> Result<Signature, Refusal> {
        let token = Token::parse(authorization)?;
        let (api_key, tenant) = self.check_signature(&token)?;
        let expires = token.grants.check_time(now)?;
        let digest = token.grants.digest()?;
        Ok(Signature { tenant: tenant.clone(), api_key: api_key.clone(), expires, digest })
    }

    /// Checks who signed a token, and nothing else.
    pub fn check_signature(&self, token: &Token<'_>) -> Result<(&ApiKey, &Tenant), Refusal> {
        let issuer = token.grants.iss.as_deref().filter(|issuer| !issuer.is_empty());
        let found = self.keys.find(issuer.ok_or(Refusal::NoIssuer)?);
        let key = found.map_or(&self.decoy, |(_, key)| &key.decoding);
        let signed = jsonwebtoken::crypto::verify(
            token.signature,
            token.message.as_bytes(),
            key,
            Algorithm::HS256,
        );
        let (api_key, key) = found.ok_or(Refusal::UnknownKey)?;
        // An error is a signature that is not base64url, and therefore none.
        if signed.unwrap_or(false) {
            Ok((api_key, &key.tenant))
        } else {
            Err(Refusal::BadSignature)
        }
    }

    /// Checks that `body` is the one that was signed, in a time that does not depend on where they differ.
    pub fn check_body(&self, signature: Signature, body: Bytes) -> Result<Webhook, Refusal> {
        let digest: [u8; 32] = Sha256::digest(&body).into();
        if bool::from(digest.ct_eq(&signature.digest)) {
            Ok(Webhook { body, signature })
        } else {
            Err(Refusal::BodyMismatch)
        }
    }
}

impl Signature {
    /// Whose key signed.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The key that signed.
    pub fn api_key(&self) -> &ApiKey {
        &self.api_key
    }

    /// The token's `exp`, without leeway. As far away as the holder of the secret likes.
    pub fn expires(&self) -> UnixTime {
        self.expires
    }

    /// The SHA-256 of the body that was signed.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl Webhook {
    /// The bytes that were signed.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Their SHA-256.
    pub fn digest(&self) -> &[u8; 32] {
        &self.signature.digest
    }

    /// Whose key signed.
    pub fn tenant(&self) -> &Tenant {
        &self.signature.tenant
    }

    /// The key that signed.
    pub fn api_key(&self) -> &ApiKey {
        &self.signature.api_key
    }

    /// The token's `exp`, without leeway. As far away as the holder of the secret likes.
    pub fn expires(&self) -> UnixTime {
        self.signature.expires
    }
}

impl fmt::Debug for Webhook {
    /// Without the body: `room.turnPassword` and metadata are nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("body_bytes", &self.body.len())
            .field("signature", &self.signature)
            .finish()
    }
}

/// The claims of LiveKit's own tokens, in its order.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    exp: u64,
    nbf: u64,
    iat: u64,
    sha256: String,
}

/// Why no token could be made.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// No receiver accepts such a token.
    #[error("the API key is empty")]
    EmptyKey,
    /// Neither.
    #[error("the API secret is empty")]
    EmptySecret,
    /// Should not happen: HS256 takes any secret.
    #[error("the token could not be signed")]
    Jwt(#[source] jsonwebtoken::errors::Error),
}

/// The token that LiveKit would send with `body`: HS256, valid from `not_before` for `lifetime` (whole seconds; its own
/// is 300 s).
pub fn sign(
    api_key: &str,
    secret: &SecretString,
    body: &[u8],
    not_before: UnixTime,
    lifetime: Duration,
) -> Result<String, SignError> {
    if api_key.is_empty() {
        return Err(SignError::EmptyKey);
    }
    let secret = secret.expose_secret().as_bytes();
    if secret.is_empty() {
        return Err(SignError::EmptySecret);
    }
    let nbf = not_before.seconds();
    let claims = Claims {
        iss: api_key,
        exp: nbf.saturating_add(lifetime.as_secs()),
        nbf,
        iat: nbf,
        sha256: STANDARD.encode(Sha256::digest(body)),
    };
    let key = EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).map_err(SignError::Jwt)
}
