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

#[test]
fn every_refusal_has_its_message() {
    let hs256 = r#"{"alg":"HS256","typ":"JWT"}"#;
    let sum = sha256();
    let claims = |more: &str| format!(r#"{{"iss":"devkey","nbf":{NOW},"sha256":"{sum}"{more}}}"#);
    let exp = format!(r#","exp":{}"#, NOW + 300);
    let good = claims(&exp);
    let with_header = |header: &str| token(header, &good, "secret");
    let with_claims = |claims: &str| token(hs256, claims, "secret");
    let hs512 = jsonwebtoken::encode(
        &Header::new(Algorithm::HS512),
        &BTreeMap::from([("iss", "devkey")]),
        &EncodingKey::from_secret(b"secret"),
    );
    let bare = token(hs256, &good, "secret");
    assert!(devkey().check_token(bare.as_bytes(), at(NOW)).is_ok());
    let join =
        format!(r#"{{"iss":"devkey","nbf":{NOW}{exp},"sub":"p","video":{{"roomJoin":true}}}}"#);
    let mut cases = vec![
        (String::new(), "there is no token in the authorization"),
        ("a".repeat(8193), "the token is longer than 8192 bytes"),
        (format!("bearer {bare}"), "the token has a Bearer prefix, which LiveKit never sends"),
        (format!("Basic {bare}"), "the authorization is not a JSON web token"),
        ("a.b".to_owned(), "the authorization is not a JSON web token"),
        (format!("{bare}.x"), "the authorization is not a JSON web token"),
        (format!(" {bare}"), "the authorization is not a JSON web token"),
        (hs512.unwrap(), "the token's algorithm is not HS256"),
        (with_header(r#"["HS256"]"#), "the token's header cannot be read"),
        (with_header("{}"), "the token's header cannot be read"),
        (with_header(r#"{"alg":"HS256","alg":"HS256"}"#), "the token's header cannot be read"),
        (with_header(r#"{"alg":"HS256","crit":["exp"]}"#), "the token's header demands extensions"),
        (with_header(r#"{"alg":"HS256","crit":null}"#), "the token's header demands extensions"),
        (format!("{}x", bare), "the token's signature does not match its API key's secret"),
        (
            bare.rsplit_once('.').unwrap().0.to_owned() + ".",
            "the token's signature does not match its API key's secret",
        ),
        (
            token(hs256, &good, "Secret"),
            "the token's signature does not match its API key's secret",
        ),
        (
            token(hs256, &good, "another secret"),
            "the token's signature does not match its API key's secret",
        ),
        (with_claims(&good.replace("devkey", "nokey")), "the token's API key is not one of ours"),
        // Neither an expired nor a join token says so to somebody without the secret.
        (
            token(hs256, &claims(r#","exp":1"#), "x"),
            "the token's signature does not match its API key's secret",
        ),
        (token(hs256, &join, "x"), "the token's signature does not match its API key's secret"),
        (
            with_claims(&join),
            "the token signs no body: it is for joining a room or calling the API",
        ),
        (with_claims(&good.replace("devkey", "")), "the token names no API key"),
        (with_claims(&format!(r#"{{"sha256":"{sum}"{exp}}}"#)), "the token names no API key"),
        (with_claims(&claims("")), "the token does not say when it expires"),
        (with_claims(&claims(&format!(r#","exp":{}"#, NOW - 60))), "the token expired 60 s ago"),
        (
            with_claims(&good.replace(&NOW.to_string(), &(NOW + 61).to_string())),
            "the token is not valid for another 61 s",
        ),
    ];
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":""}"#,
    ] {
        cases.push((with_header(header), "the token's algorithm is not HS256"));
    }
    for more in [
        r#","exp":"1795575195""#,
        r#","exp":1795575195.0"#,
        r#","exp":-1"#,
        r#","exp":1,"exp":1795575195"#,
        r#","exp":1e999"#,
        r#","exp":1795575195,"iss":"devkey""#,
    ] {
        cases.push((with_claims(&claims(more)), "the token's claims cannot be read"));
    }
    for claims in [r#"["devkey",1795575195,1,"x"]"#, "null", "", r#"{"iss":7}"#] {
        cases.push((with_claims(claims), "the token's claims cannot be read"));
    }
    let canonical = "the token's sha256 is not the base64 of 32 bytes";
    for wrong in [sum.trim_end_matches('='), "AA==", "****", &sum.replace('=', "==")] {
        cases.push((with_claims(&good.replace(&sum, wrong)), canonical));
    }
    for (authorization, message) in &cases {
        let refusal = devkey().check_token(authorization.as_bytes(), at(NOW)).unwrap_err();
        assert_eq!(refusal.to_string(), *message, "{authorization}");
    }
    assert_eq!(devkey().check_token(b"\xff.\xff.\xff", at(NOW)).unwrap_err(), Refusal::NotAToken);
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
