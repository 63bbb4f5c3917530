//! Which event a webhook is about: the key that its copies share (DESIGN.md, 4). How long it is remembered is left to
//! `config`, who may forward it to `claim`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use super::content;
use super::event::{Event, EventKind, Field, Value};
pub use super::template::{Template, TemplateError};
use super::verify::Webhook;
use crate::claim::{Digest, Key};

/// The longest `id` that identifies; LiveKit's have 15 bytes.
pub const ID_BYTES_MAX: usize = 256;

/// What to tell events apart by: `dedup.identity`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Identity {
    /// By what happened, so that copies from several nodes are one. Falls back to the id.
    #[default]
    Event,
    /// By the `id` that its emission was given.
    Id,
    /// By the fields that the operator chose. Falls back to the id.
    Template(Template),
}

impl FromStr for Identity {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "event" => Ok(Self::Event),
            "id" => Ok(Self::Id),
            template => template.parse().map(Self::Template),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event => f.write_str("event"),
            Self::Id => f.write_str("id"),
            Self::Template(template) => template.fmt(f),
        }
    }
}

/// What a key was made of in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Basis {
    /// What happened.
    Event,
    /// The `id`.
    Id,
    /// The whole body.
    Body,
    /// The operator's choice.
    Template,
}

impl Basis {
    /// All of them, in the order of the type.
    pub const ALL: [Self; 4] = [Self::Event, Self::Id, Self::Body, Self::Template];

    /// Where it stands among them.
    #[expect(clippy::as_conversions, reason = "they are numbered as they stand")]
    pub const fn place(self) -> usize {
        self as usize
    }

    /// Its name in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Id => "id",
            Self::Body => "body",
            Self::Template => "template",
        }
    }
}

/// What is known of a webhook once it has a key.
#[derive(Clone, Debug)]
pub struct Keyed<'a> {
    /// What its copies share.
    pub key: Key,
    /// What the key was made of.
    pub basis: Basis,
    /// What its copies should agree on.
    pub digest: Digest,
    /// Which event it is.
    pub kind: EventKind,
    /// Its `id`, whether or not the key was made of it.
    pub id: Option<Cow<'a, str>>,
}

/// Tells which event a webhook on `route` is about. Total: each step that cannot be taken leads to the next, and the
/// last one, the body's own digest, takes only equal bytes for copies.
pub fn identify<'a>(webhook: &'a Webhook, route: &str, identity: &Identity) -> Keyed<'a> {
    let event = Event::parse(webhook.body());
    let scope = Scope { tenant: webhook.tenant().as_str(), route };
    let (basis, key) = scope
        .chosen(&event, identity)
        .or_else(|| scope.id(&event))
        .unwrap_or_else(|| (Basis::Body, scope.key(Basis::Body, [webhook.digest().as_slice()])));
    Keyed {
        key,
        basis,
        digest: event.digest().unwrap_or_else(|| content::digest(webhook.body(), webhook.digest())),
        kind: event.kind(),
        id: event.into_id(),
    }
}

/// The namespace of a key.
struct Scope<'a> {
    tenant: &'a str,
    route: &'a str,
}

impl Scope<'_> {
    fn chosen(&self, event: &Event<'_>, identity: &Identity) -> Option<(Basis, Key)> {
        match identity {
            Identity::Event => {
                let fields = event.kind().fields();
                let key = self.fields(Basis::Event, "", event, fields)?;
                Some((Basis::Event, key))
            }
            Identity::Id => None,
            Identity::Template(template) => {
                let fields = template.fields();
                let key = self.fields(Basis::Template, template.as_str(), event, fields)?;
                Some((Basis::Template, key))
            }
        }
    }

    fn id(&self, event: &Event<'_>) -> Option<(Basis, Key)> {
        let id = event.id().filter(|id| id.len() <= ID_BYTES_MAX)?;
        Some((Basis::Id, self.key(Basis::Id, [id.as_bytes()])))
    }

    /// A key of all these fields; none without all of them.
    fn fields(
        &self,
        basis: Basis,
        recipe: &str,
        event: &Event<'_>,
        fields: &[Field],
    ) -> Option<Key> {
        if fields.is_empty() {
            return None;
        }
        let mut hash = self.begin(basis);
        hash.part(recipe.as_bytes());
        for field in fields {
            match event.value(*field)? {
                Value::Text(text) => hash.part(b"text").part(text.as_bytes()),
                Value::Number(number) => hash.part(b"number").part(&number.to_be_bytes()),
            };
        }
        Some(hash.end())
    }

    fn key<const N: usize>(&self, basis: Basis, parts: [&[u8]; N]) -> Key {
        let mut hash = self.begin(basis);
        for part in parts {
            hash.part(part);
        }
        hash.end()
    }

    fn begin(&self, basis: Basis) -> Hash {
        let mut hash = Hash(Sha256::new());
        hash.part(b"oncehook key 1").part(self.tenant.as_bytes()).part(self.route.as_bytes());
        hash.part(basis.label().as_bytes());
        hash
    }
}

/// A hash over parts, each behind its length: no two lists of parts are the same bytes.
struct Hash(Sha256);

impl Hash {
    fn part(&mut self, part: &[u8]) -> &mut Self {
        // usize has at most 64 bits wherever this compiles.
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        self.0.update(length.to_be_bytes());
        self.0.update(part);
        self
    }

    fn end(self) -> Key {
        let digest: [u8; 32] = self.0.finalize().into();
        let [key, _] = halves(digest);
        Key(key)
    }
}

fn halves(digest: [u8; 32]) -> [[u8; 16]; 2] {
    let (halves, _) = digest.as_chunks::<16>();
    match halves {
        [first, second] => [*first, *second],
        _ => [[0; 16]; 2],
    }
}
