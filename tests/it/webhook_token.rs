//! Signatures: what is refused, with which words, and what is not.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use oncehook::webhook::verify::{KeyRing, Refusal, sign};
use secrecy::SecretString;
use sha2::{Digest, Sha256};

use crate::webhook::{BODY, NOW, at, devkey};

/// A token with this header and these claims, signed with `secret` whatever the header says.
fn token(header: &str, claims: &str, secret: &str) -> String {
    let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn sha256() -> String {
    base64::engine::general_purpose::STANDARD.encode(Sha256::digest(BODY))
}

const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const NOT_SIGNED: &str = "the token's signature does not match its API key's secret";
const JOIN: &str = r#"{"iss":"devkey","exp":1795575195,"sub":"p","video":{"roomJoin":true}}"#;

/// The claims of a webhook's token, with `exp` and more as given.
fn claims(more: &str) -> String {
    format!(r#"{{"iss":"devkey","nbf":{NOW},"sha256":"{}"{more}}}"#, sha256())
}

fn good() -> String {
    claims(r#","exp":1795575195"#)
}

fn refused(cases: impl IntoIterator<Item = (String, &'static str)>) {
    let mut count = 0;
    for (authorization, message) in cases {
        let refusal = devkey().check_token(authorization.as_bytes(), at(NOW)).unwrap_err();
        assert_eq!(refusal.to_string(), message, "{authorization}");
        count += 1;
    }
    assert_ne!(count, 0);
}

#[test]
fn what_is_no_bare_token_is_refused() {
    let bare = token(HS256, &good(), "secret");
    assert!(devkey().check_token(bare.as_bytes(), at(NOW)).is_ok());
    let no_token = "the authorization is not a JSON web token";
    refused([
        (String::new(), "there is no token in the authorization"),
        ("a".repeat(8193), "the token is longer than 8192 bytes"),
        ("a".repeat(8192), no_token),
        (format!("bearer {bare}"), "the token has a Bearer prefix, which LiveKit never sends"),
        (format!("Basic {bare}"), no_token),
        ("a.b".to_owned(), no_token),
        (format!("{bare}.x"), no_token),
        (format!(" {bare}"), no_token),
    ]);
    assert_eq!(devkey().check_token(b"\xff.\xff.\xff", at(NOW)).unwrap_err(), Refusal::NotAToken);
}

#[test]
fn a_header_that_says_anything_but_hs256_is_refused() {
    let with = |header: &str| token(header, &good(), "secret");
    let unreadable = "the token's header cannot be read";
    for header in [r#"["HS256"]"#, "{}", r#"{"alg":"HS256","alg":"HS256"}"#, r#"{"alg":1}"#, ""] {
        refused([(with(header), unreadable)]);
    }
    for crit in [r#"["exp"]"#, "null", "[]"] {
        let header = format!(r#"{{"alg":"HS256","crit":{crit}}}"#);
        refused([(with(&header), "the token's header demands extensions")]);
    }
    for algorithm in ["none", "RS256", "HS512", "hs256", ""] {
        let header = format!(r#"{{"alg":"{algorithm}"}}"#);
        refused([(with(&header), "the token's algorithm is not HS256")]);
    }
    let hs512 = jsonwebtoken::encode(
        &Header::new(Algorithm::HS512),
        &BTreeMap::from([("iss", "devkey")]),
        &EncodingKey::from_secret(b"secret"),
    );
    refused([(hs512.unwrap(), "the token's algorithm is not HS256")]);
}

#[test]
fn a_signature_of_another_secret_is_refused_before_anything_is_said_of_the_claims() {
    let bare = token(HS256, &good(), "secret");
    let unsigned = format!("{}.", bare.rsplit_once('.').unwrap().0);
    refused([
        (format!("{bare}x"), NOT_SIGNED),
        (unsigned, NOT_SIGNED),
        (token(HS256, &good(), "Secret"), NOT_SIGNED),
        // The secret of another key of the ring.
        (token(HS256, &good(), "another secret"), NOT_SIGNED),
        (token(HS256, &claims(r#","exp":1"#), "x"), NOT_SIGNED),
        (token(HS256, &claims(""), "x"), NOT_SIGNED),
        (token(HS256, JOIN, "x"), NOT_SIGNED),
    ]);
    let unknown = "the token's API key is not one of ours";
    refused([
        (token(HS256, &good().replace("devkey", "nokey"), "secret"), unknown),
        (token(HS256, &JOIN.replace("devkey", "nokey"), "secret"), unknown),
    ]);
}

#[test]
fn claims_that_are_no_webhooks_are_refused() {
    let with = |claims: &str| token(HS256, claims, "secret");
    let [early, late] = [NOW + 61, NOW - 60];
    let later = good().replace(&format!(r#""nbf":{NOW}"#), &format!(r#""nbf":{early}"#));
    refused([
        (with(JOIN), "the token signs no body: it is for joining a room or calling the API"),
        (with(&good().replace("devkey", "")), "the token names no API key"),
        (with(r#"{"exp":1795575195}"#), "the token names no API key"),
        (with(&claims("")), "the token does not say when it expires"),
        (with(&claims(r#","exp":null"#)), "the token does not say when it expires"),
        (with(&claims(&format!(r#","exp":{late}"#))), "the token expired 60 s ago"),
        (with(&later), "the token is not valid for another 61 s"),
    ]);
    for more in [
        r#","exp":"1795575195""#,
        r#","exp":1795575195.0"#,
        r#","exp":-1"#,
        r#","exp":1e999"#,
        r#","exp":1,"exp":1795575195"#,
        r#","exp":1795575195,"iss":"devkey""#,
    ] {
        refused([(with(&claims(more)), "the token's claims cannot be read")]);
    }
    for claims in [r#"["devkey",1795575195,1,"x"]"#, "null", "", r#"{"iss":7}"#] {
        refused([(with(claims), "the token's claims cannot be read")]);
    }
    let sum = sha256();
    for wrong in [sum.trim_end_matches('='), "AA==", "****", &sum.replace('=', "==")] {
        let claims = good().replace(&sum, wrong);
        refused([(with(&claims), "the token's sha256 is not the base64 of 32 bytes")]);
    }
}

#[test]
fn the_clocks_may_be_a_minute_apart() {
    let secret = SecretString::from("secret");
    let token = sign("devkey", &secret, BODY, at(NOW), Duration::from_mins(5)).unwrap();
    let label = |seconds| {
        let checked = devkey().check_token(token.as_bytes(), at(seconds));
        checked.map_or_else(Refusal::label, |_| "ok")
    };
    assert_eq!(label(NOW - 61), "not_yet_valid");
    assert_eq!(label(NOW - 60), "ok");
    assert_eq!(label(NOW + 359), "ok");
    assert_eq!(label(NOW + 360), "expired");
    assert_eq!(label(u64::MAX), "expired");
}

#[test]
fn an_altered_body_is_refused() {
    let secret = SecretString::from("secret");
    let token = sign("devkey", &secret, BODY, at(NOW), Duration::from_mins(5)).unwrap();
    let verifier = devkey();
    for place in 0..BODY.len() {
        let mut body = BODY.to_vec();
        body[place] ^= 1;
        let signature = verifier.check_token(token.as_bytes(), at(NOW)).unwrap();
        assert_eq!(verifier.check_body(signature, body.into()).unwrap_err(), Refusal::BodyMismatch);
    }
    let signature = verifier.check_token(token.as_bytes(), at(NOW)).unwrap();
    let webhook = verifier.check_body(signature, Bytes::from_static(BODY)).unwrap();
    assert_eq!(webhook.body(), BODY);
    assert!(!format!("{webhook:?}").contains("RM_a"), "a body is never logged");
}

#[test]
fn keys_that_make_no_ring_say_why() {
    let ring = |keys: &[(&str, &str)]| {
        let keys = keys
            .iter()
            .map(|(key, secret)| ("t".into(), (*key).to_owned(), SecretString::from(*secret)));
        KeyRing::new(keys).map(|ring| ring.len()).map_err(|error| error.to_string())
    };
    assert_eq!(ring(&[("a", "x"), ("b", "x")]), Ok(2));
    assert_eq!(ring(&[]), Ok(0));
    assert_eq!(ring(&[("", "x")]), Err("an API key of tenant `t` is empty".to_owned()));
    assert_eq!(ring(&[("a", "")]), Err("the secret of API key `a` is empty".to_owned()));
    assert_eq!(ring(&[("a", "x"), ("a", "y")]), Err("API key `a` is there twice".to_owned()));
}
