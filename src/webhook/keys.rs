//! Who may sign: API keys, their secrets, and the tenants they belong to. Where they are read from is left to `config`.

use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};
use jsonwebtoken::DecodingKey;
use secrecy::{ExposeSecret, SecretString};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// As it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<S: AsRef<str>> From<S> for $name {
            fn from(text: S) -> Self {
                Self(text.as_ref().into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A group of API keys whose events are one namespace.
    Tenant
}
name! {
    /// An API key: the public half of LiveKit's pair, a token's `iss`. Cheap to clone; no secret.
    ApiKey
}

/// The API keys that may sign, each with its secret and its tenant. It has no `Debug`, since it holds secrets.
pub struct KeyRing {
    keys: HashMap<ApiKey, Key>,
}

/// What the ring holds for an API key. The secret is wiped when it is dropped (jsonwebtoken does that).
pub(super) struct Key {
    pub(super) tenant: Tenant,
    pub(super) decoding: DecodingKey,
}

/// Why keys make no ring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// The API key is empty.
    #[error("an API key of tenant `{0}` is empty")]
    EmptyKey(Tenant),
    /// The secret is empty: anybody could sign.
    #[error("the secret of API key `{0}` is empty")]
    EmptySecret(ApiKey),
    /// A key has one secret and one tenant.
    #[error("API key `{0}` is there twice")]
    Twice(ApiKey),
}

impl KeyRing {
    /// A ring of these keys. An empty one refuses every token.
    pub fn new(
        keys: impl IntoIterator<Item = (Tenant, String, SecretString)>,
    ) -> Result<Self, KeyRingError> {
        let mut ring = HashMap::new();
        for (tenant, api_key, secret) in keys {
            if api_key.is_empty() {
                return Err(KeyRingError::EmptyKey(tenant));
            }
            let api_key = ApiKey::from(api_key);
            let secret = secret.expose_secret().as_bytes();
            if secret.is_empty() {
                return Err(KeyRingError::EmptySecret(api_key));
            }
            match ring.entry(api_key) {
                Entry::Occupied(entry) => return Err(KeyRingError::Twice(entry.key().clone())),
                Entry::Vacant(entry) => {
                    entry.insert(Key { tenant, decoding: DecodingKey::from_secret(secret) });
                }
            }
        }
        Ok(Self { keys: ring })
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn find(&self, api_key: &str) -> Option<(&ApiKey, &Key)> {
        self.keys.get_key_value(api_key)
    }
}

impl std::borrow::Borrow<str> for ApiKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}
