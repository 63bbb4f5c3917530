//! Event identity, over any body: total, the same each time, blind to white space and to the order of members, and never
//! the same for two tenants or two routes. A key of kind `event` is of what a reader of JSON finds in the body, too.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use oncehook::webhook::event::{Event, EventKind, Value};
use oncehook::webhook::key::{Basis, Identity, Keyed, identify};
use oncehook::webhook::verify::{Verifier, Webhook};
use oncehook_fuzz::{KEYS, depth, now, reversed, spread, token, verifier};
use serde::de::IgnoredAny;
use serde_json::Value as Json;

/// Beyond it a digest is of the bytes.
const DEPTH_MAX: usize = 60;

static VERIFIER: LazyLock<Verifier> = LazyLock::new(verifier);
static IDENTITIES: LazyLock<[Identity; 4]> = LazyLock::new(|| {
    ["event", "id", "{createdAt}:{event}", "{room.name}/{participant.identity}/{event}"]
        .map(|text| text.parse().expect("an identity"))
});

fn webhook(body: &[u8], signer: usize) -> Webhook {
    use base64::Engine as _;
    use sha2::Digest as _;
    let (_, key, secret) = KEYS[signer];
    let sha256 = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(body));
    let claims = format!(r#"{{"iss":"{key}","exp":4102444800,"sha256":"{sha256}"}}"#);
    let token = token(br#"{"alg":"HS256"}"#, claims.as_bytes(), secret);
    let signature = VERIFIER.check_token(token.as_bytes(), now()).expect("it is signed");
    VERIFIER.check_body(signature, body.to_vec().into()).expect("it is the body that was signed")
}

fuzz_target!(|body: &[u8]| {
    let ours = webhook(body, 0);
    let is_json = serde_json::from_slice::<IgnoredAny>(body).is_ok();
    let variants = if is_json { variants(body) } else { Vec::new() };
    for identity in IDENTITIES.iter() {
        let keyed = identify(&ours, "/webhook", identity);
        same(&keyed, &identify(&ours, "/webhook", identity), true);
        assert_ne!(keyed.key, identify(&ours, "/other", identity).key, "two routes, one key");
        let theirs = webhook(body, 1);
        assert_ne!(keyed.key, identify(&theirs, "/webhook", identity).key, "two tenants, one key");
        if keyed.basis == Basis::Event {
            check_event(body);
        }
        if keyed.basis != Basis::Body {
            for variant in &variants {
                let webhook = webhook(variant, 0);
                same(&keyed, &identify(&webhook, "/webhook", identity), depth(body) < DEPTH_MAX);
            }
        }
    }
});

fn variants(body: &[u8]) -> Vec<Vec<u8>> {
    let spread = spread(body, b" \r\n\t");
    let reversed = reversed(body);
    [Some(spread), reversed].into_iter().flatten().collect()
}

fn same(one: &Keyed<'_>, other: &Keyed<'_>, and_digest: bool) {
    assert_eq!(one.key, other.key);
    assert_eq!(one.basis, other.basis);
    assert_eq!(one.kind, other.kind);
    assert_eq!(one.id, other.id);
    assert!(!and_digest || one.digest == other.digest, "the digest differs");
}

/// What another reader of JSON finds. It has a limit to how deep it looks, and takes the last of two members.
fn check_event(body: &[u8]) {
    let event = Event::parse(body);
    assert_ne!(event.kind(), EventKind::Other);
    let Ok(json) = serde_json::from_slice::<Json>(body) else { return };
    assert_eq!(json["event"], event.kind().name());
    for field in event.kind().fields() {
        let value = event.value(*field).expect("every field has a value");
        let found = look(&json, field.path());
        match (value, found) {
            (Value::Text(text), Some(Json::String(found))) => assert_eq!(text, found),
            // A name of an enum, a number as a string or as 1e3, or a zero that was left out.
            (Value::Number(_), Some(Json::String(_) | Json::Number(_) | Json::Null)) => {}
            (Value::Number(0), None) => {}
            (value, found) => panic!("{}: {value:?} is {found:?}", field.path()),
        }
    }
}

/// What stands at a path, each of its names in either of its two spellings.
fn look<'a>(json: &'a Json, path: &str) -> Option<&'a Json> {
    path.split('.').try_fold(json, |within, camel| {
        let mut snake = String::new();
        for letter in camel.chars() {
            if letter.is_ascii_uppercase() {
                snake.push('_');
            }
            snake.push(letter.to_ascii_lowercase());
        }
        within.get(camel).filter(|value| !value.is_null()).or_else(|| within.get(snake.as_str()))
    })
}
