//! Why a request is no webhook of ours. What the sender is told (nothing but 401) is left to `gateway::answer`.

use std::time::Duration;

/// Why a request is no webhook of ours.
///
/// For the log, the metrics and `oncehook verify` alone: to the sender all of them look the same. What a token claims
/// is judged only after its signature, so that nobody without a secret can learn from a variant, or fill the log with
/// one of his choice beyond the first seven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// No `Authorization`, or an empty one.
    #[error("there is no token in the authorization")]
    NoToken,
    /// Longer than [`super::token::TOKEN_BYTES_MAX`].
    #[error("the token is longer than 8192 bytes")]
    TokenTooLong,
    /// `Bearer …`: LiveKit sends the bare token, and its official receivers refuse this form.
    #[error("the token has a Bearer prefix, which LiveKit never sends")]
    BearerScheme,
    /// Not three base64url parts (RFC 7515, 3.1).
    #[error("the authorization is not a JSON web token")]
    NotAToken,
    /// The header or the claims are no JSON object, say something twice, or have a wrong type in one that matters.
    #[error("the token's {0} cannot be read")]
    Unreadable(Part),
    /// Another `alg` than HS256 (RFC 8725, 3.1).
    #[error("the token's algorithm is not HS256")]
    Algorithm,
    /// The header names extensions that must be understood (RFC 7515, 4.1.11), or uses one that no JWT may (RFC 7797, 7);
    /// none is.
    #[error("the token's header demands extensions")]
    Critical,
    /// No `iss`.
    #[error("the token names no API key")]
    NoIssuer,
    /// `iss` is none of the ring's keys.
    #[error("the token's API key is not one of ours")]
    UnknownKey,
    /// The signature was made with another secret, or over other bytes.
    #[error("the token's signature does not match its API key's secret")]
    BadSignature,
    /// No `exp`.
    #[error("the token does not say when it expires")]
    NoExpiry,
    /// `exp` passed, the leeway included.
    #[error("the token expired {} s ago", .0.as_secs())]
    Expired(Duration),
    /// `nbf` is yet to come, the leeway included.
    #[error("the token is not valid for another {} s", .0.as_secs())]
    NotYetValid(Duration),
    /// No `sha256`: what a browser joins a room with is signed by the same secret.
    #[error("the token signs no body: it is for joining a room or calling the API")]
    NoDigest,
    /// `sha256` is not the standard base64 of 32 bytes.
    #[error("the token's sha256 is not the base64 of 32 bytes")]
    DigestUnreadable,
    /// The body's SHA-256 is not the one that was signed.
    #[error("the body is not the one that was signed")]
    BodyMismatch,
}

/// A part of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The first.
    Header,
    /// The second.
    Claims,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Claims => "claims",
        })
    }
}

impl Refusal {
    /// Its name in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::TokenTooLong => "token_too_long",
            Self::BearerScheme => "bearer_scheme",
            Self::NotAToken => "not_a_token",
            Self::Unreadable(Part::Header) => "header_unreadable",
            Self::Unreadable(Part::Claims) => "claims_unreadable",
            Self::Algorithm => "algorithm",
            Self::Critical => "critical",
            Self::NoIssuer => "no_issuer",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::NoExpiry => "no_expiry",
            Self::Expired(_) => "expired",
            Self::NotYetValid(_) => "not_yet_valid",
            Self::NoDigest => "no_digest",
            Self::DigestUnreadable => "digest_unreadable",
            Self::BodyMismatch => "body_mismatch",
        }
    }
}
