//! Tokens: nothing panics, and what is accepted was signed, in time, for this body: all of that is found out once more,
//! without the gateway's code.
//!
//! The input's first byte says what the rest is: 0 the value of a field; else header and claims with a zero byte in
//! between, which are signed with the secret of one of the keys (1, 2) or of an attacker (3 and more).

#![no_main]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use libfuzzer_sys::{Corpus, fuzz_target};
use oncehook::webhook::refusal::Refusal;
use oncehook::webhook::token::Token;
use oncehook::webhook::verify::Verifier;
use oncehook_fuzz::{KEYS, NOW, hmac, now, token, verifier};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const LEEWAY: u64 = 60;

static VERIFIER: LazyLock<Verifier> = LazyLock::new(verifier);

/// What the token is worth, by the letter of the RFCs.
struct Judged {
    tenant: &'static str,
    expires: u64,
    digest: Vec<u8>,
}

fn judge(authorization: &[u8]) -> Option<Judged> {
    let text = std::str::from_utf8(authorization).ok()?;
    let parts: Vec<_> = text.split('.').collect();
    let [header, claims, signature] = parts[..] else { return None };
    let read = |part: &str| -> Option<Value> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
    };
    let (head, said) = (read(header)?, read(claims)?);
    if head.get("alg")?.as_str()? != "HS256" || head.get("crit").is_some() {
        return None;
    }
    let issuer = said.get("iss")?.as_str()?;
    let (tenant, _, secret) = KEYS.into_iter().find(|(_, key, _)| *key == issuer)?;
    let expected = hmac(secret, format!("{header}.{claims}").as_bytes());
    if URL_SAFE_NO_PAD.decode(signature).ok()? != expected {
        return None;
    }
    let expires = said.get("exp")?.as_u64()?;
    let begins = match said.get("nbf") {
        None | Some(Value::Null) => 0,
        Some(begins) => begins.as_u64()?,
    };
    if NOW >= expires.saturating_add(LEEWAY) || NOW + LEEWAY < begins {
        return None;
    }
    let digest = STANDARD.decode(said.get("sha256")?.as_str()?).ok()?;
    (digest.len() == 32).then_some(Judged { tenant, expires, digest })
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((&kind, rest)) = data.split_first() else { return Corpus::Reject };
    let signed = || {
        let middle = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        let (header, claims) = rest.split_at(middle);
        let claims = claims.get(1..).unwrap_or_default();
        let secret = KEYS.get(usize::from(kind) - 1).map_or("a-secret-of-an-attacker", |key| key.2);
        token(header, claims, secret).into_bytes()
    };
    let authorization = if kind == 0 { rest.to_vec() } else { signed() };

    let parsed = Token::parse(&authorization);
    let judged = judge(&authorization);
    let signature = match VERIFIER.check_token(&authorization, now()) {
        Ok(signature) => signature,
        Err(refusal) => {
            // What is refused before the signature must be refused whoever signed.
            assert_eq!(parsed.err(), before_signature(refusal), "{refusal:?}");
            return Corpus::Keep;
        }
    };
    let Some(judged) = judged else {
        assert!(is_beyond(&authorization), "nobody signed what was accepted");
        return Corpus::Keep;
    };
    assert_eq!(signature.tenant().as_str(), judged.tenant);
    assert_eq!(signature.expires().seconds(), judged.expires);
    assert_eq!(signature.digest().as_slice(), judged.digest);

    let body = if judged.digest == Sha256::digest(b"{}").as_slice() { &b"{}"[..] } else { rest };
    let is_signed = Sha256::digest(body).as_slice() == judged.digest;
    let checked = VERIFIER.check_body(signature, body.to_vec().into());
    assert_eq!(checked.is_ok(), is_signed);
    Corpus::Keep
});

/// Whether one of us signed it, and the other reader gives up: for how deep something is in it, or for a number that no
/// float can hold. To both the gateway has no objection in a claim that nobody reads, nor have LiveKit's receivers.
fn is_beyond(authorization: &[u8]) -> bool {
    let text = std::str::from_utf8(authorization).expect("a token is text");
    let (message, signature) = text.rsplit_once('.').expect("a token has parts");
    let (header, claims) = message.split_once('.').expect("and three");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("a signature is base64url");
    let gives_up = |part: &str| {
        let part = URL_SAFE_NO_PAD.decode(part).expect("and so are the others");
        let error = serde_json::from_slice::<Value>(&part).err().map(|error| error.to_string());
        error.is_some_and(|text| {
            text.contains("recursion limit") || text.contains("number out of range")
        })
    };
    (gives_up(header) || gives_up(claims))
        && KEYS.iter().any(|(_, _, secret)| hmac(secret, message.as_bytes())[..] == signature)
}

/// What parsing alone must have said.
fn before_signature(refusal: Refusal) -> Option<Refusal> {
    match refusal {
        Refusal::NoToken
        | Refusal::TokenTooLong
        | Refusal::BearerScheme
        | Refusal::NotAToken
        | Refusal::Unreadable(_)
        | Refusal::Algorithm
        | Refusal::Critical => Some(refusal),
        Refusal::NoIssuer
        | Refusal::UnknownKey
        | Refusal::BadSignature
        | Refusal::NoExpiry
        | Refusal::Expired(_)
        | Refusal::NotYetValid(_)
        | Refusal::NoDigest
        | Refusal::DigestUnreadable
        | Refusal::BodyMismatch => None,
    }
}
