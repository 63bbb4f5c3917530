//! What the gateway would make of a request, step by step. Reading the request and printing this is left to `verify`.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::clock::UnixTime;
use crate::webhook::event::{Event, EventKind, Field};
use crate::webhook::key::{Basis, Identity, Keyed, identify};
use crate::webhook::refusal::Refusal;
use crate::webhook::token::{Grants, LEEWAY, Token};
use crate::webhook::verify::Verifier;

/// What the request is judged by.
pub(super) struct Setting<'a> {
    pub(super) now: UnixTime,
    pub(super) route: &'a str,
    pub(super) identity: &'a Identity,
}

/// What the gateway would make of a request.
#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    /// The label of the first check that failed: the reason the gateway would log.
    pub(super) refusal: Option<&'static str>,
    /// The event's kind.
    pub(super) event: &'static str,
    /// The event's `id`.
    pub(super) id: Option<String>,
    /// What the key is made of.
    pub(super) basis: Option<&'static str>,
    /// The key.
    pub(super) key: Option<String>,
    /// All steps, in the gateway's order.
    pub(super) steps: Vec<Step>,
}

/// One step.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    #[serde(rename = "step")]
    pub(super) name: &'static str,
    pub(super) result: Passed,
    pub(super) detail: String,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Passed {
    /// The check holds.
    Ok,
    /// It does not.
    Fail,
    /// It is no check, or could not be made.
    Note,
}

impl Passed {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Fail => "FAIL",
            Self::Note => "-",
        }
    }
}

/// Goes on behind a check that fails, as far as the rest still means something; the gateway would stop there.
pub(super) fn explain(
    verifier: &Verifier,
    setting: &Setting<'_>,
    authorization: &str,
    body: &Bytes,
) -> Explanation {
    let event = Event::parse(body);
    let mut explanation = Explanation {
        refusal: None,
        event: event.kind().name(),
        id: event.id().map(ToString::to_string),
        basis: None,
        key: None,
        steps: Vec::new(),
    };
    match Token::parse(authorization.as_bytes()) {
        Err(refusal) => explanation.fail("token", refusal, ""),
        Ok(token) => {
            explanation.ok("token", format!("HS256, {} bytes", authorization.len()));
            explanation.check_token(verifier, setting, &token);
            explanation.check_body(&token.grants, body);
        }
    }
    explanation.describe(&event);
    // The clock aside, a token that is right has a key.
    let sent = UnixTime::from_epoch(Duration::from_secs(nbf_of(authorization)));
    let webhook = verifier
        .check_token(authorization.as_bytes(), setting.now)
        .or_else(|_| verifier.check_token(authorization.as_bytes(), sent))
        .and_then(|signature| verifier.check_body(signature, body.clone()));
    match webhook {
        Ok(webhook) => {
            explanation.key(setting, &event, &identify(&webhook, setting.route, setting.identity));
        }
        Err(_) => explanation.note("key", "none: only what was signed has one".to_owned()),
    }
    explanation
}

fn nbf_of(authorization: &str) -> u64 {
    Token::parse(authorization.as_bytes()).ok().and_then(|token| token.grants.nbf).unwrap_or(0)
}

impl Explanation {
    fn ok(&mut self, name: &'static str, detail: String) {
        self.steps.push(Step { name, result: Passed::Ok, detail });
    }

    fn note(&mut self, name: &'static str, detail: String) {
        self.steps.push(Step { name, result: Passed::Note, detail });
    }

    fn fail(&mut self, name: &'static str, refusal: Refusal, detail: &str) {
        self.refusal = self.refusal.or(Some(refusal.label()));
        let detail = format!("{refusal}{detail}");
        self.steps.push(Step { name, result: Passed::Fail, detail });
    }

    fn check_token(&mut self, verifier: &Verifier, setting: &Setting<'_>, token: &Token<'_>) {
        let issuer = token.grants.iss.as_deref().unwrap_or_default();
        match verifier.check_signature(token) {
            Ok((api_key, tenant)) => {
                self.ok("signature", format!("made with the secret of {api_key}, tenant {tenant}"));
            }
            Err(refusal) => self.fail("signature", refusal, &format!(" (iss {issuer:?})")),
        }
        let at = times(&token.grants, setting.now);
        match token.grants.check_time(setting.now) {
            Ok(_) => self.ok("time", at),
            Err(refusal) => self.fail("time", refusal, &format!(": {at}")),
        }
    }

    fn check_body(&mut self, grants: &Grants, body: &Bytes) {
        let actual = Sha256::digest(body);
        let sum = STANDARD.encode(actual);
        match grants.digest() {
            Ok(signed) if actual[..] == signed => {
                self.ok("body", format!("{} bytes, sha256 {sum} as signed", body.len()));
            }
            Ok(signed) => {
                let signed = STANDARD.encode(signed);
                let detail =
                    format!(": {} bytes, sha256 {sum}, but {signed} was signed", body.len());
                self.fail("body", Refusal::BodyMismatch, &detail);
            }
            Err(refusal) => self.fail("body", refusal, ""),
        }
    }

    fn describe(&mut self, event: &Event<'_>) {
        // Whoever signed chose these texts: none of them may steer a terminal.
        let name = event.value(Field::Event).map(|name| name.to_string()).unwrap_or_default();
        let known = if event.kind() == EventKind::Other { " (not one we know)" } else { "" };
        let id = event.id().map_or_else(|| "no id".to_owned(), |id| format!("id {id:?}"));
        self.note("event", format!("{name:?}{known}, {id}"));
    }

    fn key(&mut self, setting: &Setting<'_>, event: &Event<'_>, keyed: &Keyed<'_>) {
        let wanted = match setting.identity {
            Identity::Event => event.kind().fields(),
            Identity::Id => &[Field::Id],
            Identity::Template(template) => template.fields(),
        };
        let values: Vec<_> = wanted
            .iter()
            .map(|field| match event.value(*field) {
                Some(value) => {
                    format!("{}={}", field.path(), value.to_string().escape_debug())
                }
                None => format!("{} missing", field.path()),
            })
            .collect();
        if !values.is_empty() {
            self.note("fields", values.join(", "));
        }
        let why = match keyed.basis {
            Basis::Event => "event: what happened",
            Basis::Template => "template: the fields above",
            Basis::Id => "id: the emission; another node's copy has another one",
            Basis::Body => "body: its sha256; only equal bytes are copies",
        };
        self.note("identity", why.to_owned());
        self.note("key", format!("{} (content {:016x})", keyed.key, keyed.digest.0));
        self.basis = Some(keyed.basis.label());
        self.key = Some(keyed.key.to_string());
    }
}

/// Where `now` stands between the token's times.
fn times(grants: &Grants, now: UnixTime) -> String {
    let now = now.seconds();
    let distance = |time: u64| {
        if time >= now { format!("in {} s", time - now) } else { format!("{} s ago", now - time) }
    };
    let part = |name: &str, time: Option<u64>| {
        time.map_or_else(
            || format!("no {name}"),
            |time| format!("{name} {time} ({})", distance(time)),
        )
    };
    let (nbf, exp) = (part("nbf", grants.nbf), part("exp", grants.exp));
    format!("{nbf}, {exp}, judged at {now} with {} s leeway", LEEWAY.as_secs())
}
