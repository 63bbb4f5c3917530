//! `tests/data/bodies`: whatever is signed is forwarded, byte for byte, and what it is taken for never makes two events
//! one.
//!
//! Each case is one or more copies that are sent in turn. `key` names the key that a copy has; over the whole corpus two
//! names are two keys, and one name (within a file) is one key.

use std::collections::HashMap;

use serde::Deserialize;

use super::stage::{Effect, Stage};
use crate::support::corpus::{self, Values};
use crate::support::sender::Signed;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    source: String,
    says: String,
    copy: Vec<Copy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Copy {
    body: String,
    /// What the token signs, if it is not the body.
    signed: Option<String>,
    #[serde(default = "livekits_fields")]
    fields: Vec<String>,
    /// The size of the chunks; without, the length is announced.
    chunk: Option<usize>,
    #[serde(default)]
    key: String,
    /// `event`, `id` or `body`: the step of identification that it falls to.
    basis: Option<String>,
    /// Which event the log says it is.
    event: Option<String>,
    /// `Oncehook-Status`.
    word: String,
    status: u16,
    reason: Option<String>,
    backend: u64,
    store: u64,
}

impl Copy {
    fn effect(&self) -> Effect {
        let Self { status, backend, store, .. } = *self;
        Effect { status, reason: self.reason.clone(), backend, store }
    }
}

fn livekits_fields() -> Vec<String> {
    vec!["content-type: application/webhook+json".to_owned()]
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_signed_is_forwarded_as_it_is_and_never_taken_for_another_event() {
    let cases: Vec<(String, Case)> = corpus::read("bodies", 70);
    let mut stage = Stage::start("").await;
    let mut keys = Keys::default();
    for (name, case) in &cases {
        assert!(
            !case.source.is_empty() && !case.says.is_empty(),
            "{name} says not why it is there"
        );
        for (number, copy) in case.copy.iter().enumerate() {
            let id = format!("{name}.{number}");
            let values = Values::of(name);
            let body = values.fill(&copy.body);
            let request = compose(&id, copy, &values, &body);
            let told = stage.send(&id, &request, &body, &copy.effect()).await;
            let word = told.field("oncehook-status");
            stage.same(&id, "Oncehook-Status", &word, &copy.word.as_str());
            if copy.basis.is_some() && told.status == copy.status {
                identified(&mut stage, &mut keys, &id, (name, copy)).await;
            }
        }
    }
    assert!(keys.of_names.len() >= 70, "{} keys are too few to tell anything", keys.of_names.len());
    stage.end().await;
}

/// Which key each name stands for, and the other way round.
#[derive(Default)]
struct Keys {
    of_names: HashMap<String, String>,
    names: HashMap<String, String>,
}

/// Holds what the log says of a copy against what the case expects.
async fn identified(stage: &mut Stage, keys: &mut Keys, id: &str, (name, copy): (&str, &Copy)) {
    let line = stage.line(id).await;
    let field = |name: &str| line[name].as_str().map(str::to_owned);
    stage.same(id, "basis", &field("basis"), &copy.basis);
    if copy.event.is_some() {
        stage.same(id, "event", &field("event"), &copy.event);
    }
    let key = field("key").unwrap_or_default();
    let named = format!("{name}/{}", copy.key);
    let first = keys.of_names.entry(named.clone()).or_insert_with(|| key.clone());
    stage.same(id, "key", &key, first);
    let first = keys.names.entry(key.clone()).or_insert_with(|| named.clone());
    stage.same(id, "event under this key", &named, first);
    if copy.backend > 0 {
        let sent = stage.last();
        stage.same(id, "Idempotency-Key", &sent.one("idempotency-key"), &Some(key.as_str()));
        for field in copy.fields.iter().filter_map(|field| field.split_once(": ")) {
            stage.same(id, field.0, &sent.one(field.0), &Some(field.1));
        }
    }
}

fn compose(id: &str, copy: &Copy, values: &Values, body: &[u8]) -> Vec<u8> {
    let signed = copy.signed.as_ref().map_or_else(|| body.to_vec(), |text| values.fill(text));
    let token = Signed::new(signed).token;
    let mut request = format!(
        "POST /webhook HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\nx-request-id: {id}\r\n\
         authorization: {token}\r\n"
    )
    .into_bytes();
    for field in &copy.fields {
        request.extend(field.as_bytes());
        request.extend(b"\r\n");
    }
    let Some(size) = copy.chunk else {
        request.extend(format!("content-length: {}\r\n\r\n", body.len()).into_bytes());
        request.extend(body);
        return request;
    };
    request.extend(b"transfer-encoding: chunked\r\n\r\n");
    for chunk in body.chunks(size) {
        request.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        request.extend(chunk);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    request
}
