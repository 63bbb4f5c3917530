//! `tests/data/tokens`: what is no token of ours touches neither Redis nor the backend, whatever it says of itself.
//!
//! Each refused body is then sent once more, signed as LiveKit does: it must still be new.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::PublicKeyData as _;
use serde::Deserialize;
use sha2::{Digest as _, Sha256, Sha512};

use super::stage::{Effect, Stage};
use crate::support::corpus::{self, Values};
use crate::support::gateway::{API_KEY, API_SECRET};

/// The other tenant's, whose key may sign on `/both` only.
const STAGING_KEY: &str = "APIstaging";
const STAGING_SECRET: &str = "the-secret-of-staging-of-thirty-two-characters";
/// What somebody signs with who has no secret.
const ATTACKER_SECRET: &str = "a-secret-that-an-attacker-made-up-for-himself";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Case {
    source: String,
    says: String,
    header: String,
    claims: String,
    message: String,
    algorithm: String,
    secret: String,
    token: String,
    fields: Vec<String>,
    trailers: Vec<String>,
    path: String,
    body: String,
    expect: Effect,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            source: String::new(),
            says: String::new(),
            header: r#"{"alg":"HS256","typ":"JWT"}"#.to_owned(),
            claims: r#"{"iss":"${key}","exp":${now+300},"nbf":${now},"sha256":"${sha256}"}"#
                .to_owned(),
            message: "${header}.${claims}".to_owned(),
            algorithm: "HS256".to_owned(),
            secret: "${secret}".to_owned(),
            token: "${message}.${signature}".to_owned(),
            fields: vec!["authorization: ${token}".to_owned()],
            trailers: Vec::new(),
            path: "/webhook".to_owned(),
            body: r#"{"event":"room_started","room":{"sid":"RM_${case}"},"id":"EV_${case}"}"#
                .to_owned(),
            expect: Effect::default(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_count_only_if_one_of_our_keys_made_them_for_this_body() {
    let cases: Vec<(String, Case)> = corpus::read("tokens", 110);
    let route = format!(
        "[[tenant]]\nname = \"staging\"\nkeys = {{ {STAGING_KEY} = \"{STAGING_SECRET}\" }}\n"
    );
    let mut stage = Stage::start(&route).await;
    let mut accepted = 0;
    for (name, case) in &cases {
        assert!(
            !case.source.is_empty() && !case.says.is_empty(),
            "{name} says not why it is there"
        );
        let (request, body) = compose(name, case);
        let told = stage.send(name, &request, &body, &case.expect).await;
        accepted += case.expect.backend;
        if told.status == 401 {
            stage.same(name, "told why", &told.body.contains("detail"), &false);
        }
        if case.expect.backend == 0 {
            stage.still_new(name, &body).await;
        }
    }
    assert!(accepted >= 10, "{accepted} tokens that are in order are too few to tell anything");
    stage.end().await;
}

/// The whole request, and its body.
fn compose(name: &str, case: &Case) -> (Vec<u8>, Vec<u8>) {
    let mut values = Values::of(name);
    for (name, value) in [
        ("key", API_KEY),
        ("secret", API_SECRET),
        ("staging-key", STAGING_KEY),
        ("staging-secret", STAGING_SECRET),
        ("attacker-secret", ATTACKER_SECRET),
    ] {
        values.set(name, value);
    }
    let body = values.fill(&case.body);
    set_digests(&mut values, &body);
    let pair = rcgen::KeyPair::generate().unwrap();
    set_jwk(&mut values, &pair);
    let good = Case::default();
    set_token(&mut values, &good, &pair);
    values.set("good", values.fill("${token}"));
    set_token(&mut values, case, &pair);

    let mut request = format!("POST {} HTTP/1.1\r\nhost: gateway\r\n", case.path).into_bytes();
    request.extend(format!("x-request-id: {name}\r\nconnection: close\r\n").into_bytes());
    for field in &case.fields {
        request.extend(values.fill(field));
        request.extend(b"\r\n");
    }
    if case.trailers.is_empty() {
        request.extend(format!("content-length: {}\r\n\r\n", body.len()).into_bytes());
        request.extend(&body);
        return (request, body);
    }
    request.extend(b"transfer-encoding: chunked\r\n\r\n");
    request.extend(format!("{:x}\r\n", body.len()).into_bytes());
    request.extend(&body);
    request.extend(b"\r\n0\r\n");
    for field in &case.trailers {
        request.extend(values.fill(field));
        request.extend(b"\r\n");
    }
    request.extend(b"\r\n");
    (request, body)
}

fn set_digests(values: &mut Values, body: &[u8]) {
    let sha256 = Sha256::digest(body);
    values.set("sha256", STANDARD.encode(sha256));
    values.set("sha256-loose", loose(&STANDARD.encode(sha256)));
    values.set("sha256-unpadded", STANDARD_NO_PAD.encode(sha256));
    values.set("sha256-url", URL_SAFE.encode(sha256));
    values.set("sha256-hex", hex(&sha256));
    values.set("sha256-hex-upper", hex(&sha256).to_ascii_uppercase());
    values.set("sha256-hex-in-base64", STANDARD.encode(hex(&sha256)));
    values.set("sha256-of-nothing", STANDARD.encode(Sha256::digest(b"")));
    values.set("sha256-of-another", STANDARD.encode(Sha256::digest([body, b"\n"].concat())));
    values.set("sha256-twice", STANDARD.encode(Sha256::digest(sha256)));
    values.set("sha256-cut", STANDARD.encode(&sha256[..31]));
    values.set("sha512", STANDARD.encode(Sha512::digest(body)));
}

/// The attacker's public key.
fn set_jwk(values: &mut Values, pair: &rcgen::KeyPair) {
    // An uncompressed point (SEC 1, 2.3.3): 4, x, y.
    let point = pair.der_bytes();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
    values.set("jwk-ec", format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#));
    values.set("pem", pair.public_key_pem().replace('\n', "\\n"));
    let k = URL_SAFE_NO_PAD.encode(ATTACKER_SECRET);
    values.set("jwk-oct", format!(r#"{{"kty":"oct","alg":"HS256","k":"{k}"}}"#));
}

/// Header, claims, message, signature and token, each with the variants that a lax reader takes for the same.
fn set_token(values: &mut Values, case: &Case, pair: &rcgen::KeyPair) {
    let (header, claims) = (values.fill(&case.header), values.fill(&case.claims));
    for (part, names) in [
        (header, ["header", "header-padded", "header-standard", "header-loose"]),
        (claims, ["claims", "claims-padded", "claims-standard", "claims-loose"]),
    ] {
        values.set(names[0], URL_SAFE_NO_PAD.encode(&part));
        values.set(names[1], URL_SAFE.encode(&part));
        values.set(names[2], STANDARD_NO_PAD.encode(&part));
        values.set(names[3], loose(&URL_SAFE_NO_PAD.encode(&part)));
    }
    let message = values.fill(&case.message);
    values.set("message", message.clone());
    let signature = sign(&case.algorithm, &values.fill(&case.secret), &message, pair);
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let encoded = URL_SAFE_NO_PAD.encode(&signature);
    let mut flipped = signature.clone();
    if let Some(first) = flipped.first_mut() {
        *first ^= 1;
    }
    values.set("signature", encoded.clone());
    values.set("signature-padded", URL_SAFE.encode(&signature));
    values.set("signature-standard", STANDARD_NO_PAD.encode(&signature));
    values.set("signature-loose", loose(&encoded));
    values.set("signature-flipped", URL_SAFE_NO_PAD.encode(flipped));
    values.set("signature-cut", URL_SAFE_NO_PAD.encode(&signature[..signature.len() / 2]));
    values.set("signature-longer", URL_SAFE_NO_PAD.encode([&signature[..], &[0]].concat()));
    values.set("signature-twice", URL_SAFE_NO_PAD.encode(signature.repeat(2)));
    values.set("signature-zero", URL_SAFE_NO_PAD.encode(vec![0; signature.len()]));
    values.set("signature-hex", hex(&signature));
    let token = values.fill(&case.token);
    values.set("token", token);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The same bytes to a reader that does not look at the last character's unused bits (RFC 4648, 3.5).
fn loose(encoded: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let text = encoded.trim_end_matches('=');
    let Some(last) = text.bytes().last().filter(|_| !text.len().is_multiple_of(4)) else {
        return encoded.to_owned();
    };
    // The lowest bit is unused wherever a character is not the last of four; without one there is nothing to vary.
    let at = ALPHABET.iter().position(|letter| *letter == last).unwrap();
    let end = &encoded[text.len()..];
    format!("{}{}{end}", &text[..text.len() - 1], char::from(ALPHABET[at + 1]))
}

fn sign(algorithm: &str, secret: &[u8], message: &[u8], pair: &rcgen::KeyPair) -> String {
    let hmac = EncodingKey::from_secret(secret);
    let (key, algorithm) = match algorithm {
        "none" => return String::new(),
        "HS256" => (hmac, Algorithm::HS256),
        "HS384" => (hmac, Algorithm::HS384),
        "HS512" => (hmac, Algorithm::HS512),
        "ES256" => (EncodingKey::from_ec_der(pair.serialized_der()), Algorithm::ES256),
        other => panic!("{other} is none of the algorithms that a case may sign with"),
    };
    jsonwebtoken::crypto::sign(message, &key, algorithm).unwrap()
}
