//! Names that peers ask for (SNI, RFC 6066 §3): which certificate they are shown, and whether they are served at all.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The names that certificates have, and the certificate for each of them and for all others.
#[derive(Debug)]
pub struct Names {
    default: Arc<CertifiedKey>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let known = hello.server_name().and_then(|asked| self.of(asked));
        Some(Arc::clone(known.unwrap_or(&self.default)))
    }
}

impl Names {
    /// By name, in lower case; `*.` stands for one label.
    pub(super) const fn new(
        default: Arc<CertifiedKey>,
        by_name: HashMap<String, Arc<CertifiedKey>>,
    ) -> Self {
        Self { default, by_name }
    }

    /// Whether a certificate has the name that a peer asks for.
    pub(in crate::listener) fn know(&self, asked: Option<&str>) -> bool {
        asked.is_some_and(|asked| self.of(asked).is_some())
    }

    fn of(&self, asked: &str) -> Option<&Arc<CertifiedKey>> {
        let asked = asked.to_ascii_lowercase();
        self.by_name.get(&asked).or_else(|| {
            // A wildcard stands for one whole label (RFC 9525 §6.3).
            let (_, parent) = asked.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        })
    }
}
