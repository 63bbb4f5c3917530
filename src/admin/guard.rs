//! Who may see what: the pages that probes ask are for everyone who can connect, all others for the operator.
//!
//! An operator shows a token, or a client certificate, or both: whatever is configured. Where nothing is, the address
//! has to be a loopback one.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use rustls::ServerConfig;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::telemetry::labels::AdminRefusal;

/// What `/livez` and `/readyz` say is no secret, and a kubelet's probes can show nothing.
const FOR_EVERYONE: [&str; 2] = ["/livez", "/readyz"];

/// What is asked of whoever connects. Made anew when the configuration changes.
#[derive(Clone, Default)]
pub struct Guard {
    /// The token that the operator has.
    pub token: Option<Token>,
    /// Speak TLS.
    pub tls: Option<Arc<ServerConfig>>,
    /// With TLS: the operator shows a client certificate, which `tls` has to check where one is shown.
    pub client_certificate: Demand,
}

/// Whether the operator shows a client certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Demand {
    /// No.
    #[default]
    None,
    /// Yes.
    Required,
}

/// A token, as its digest: it cannot be read back, and takes the same time to compare whatever it is compared with.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// Of the token itself.
    pub fn new(token: &SecretString) -> Self {
        Self(Sha256::digest(token.expose_secret()).into())
    }

    fn is(&self, shown: &[u8]) -> bool {
        let shown: [u8; 32] = Sha256::digest(shown).into();
        self.0.ct_eq(&shown).into()
    }
}

impl Guard {
    /// Whether whoever can connect may see everything.
    pub const fn is_open(&self) -> bool {
        self.token.is_none() && matches!(self.client_certificate, Demand::None)
    }

    /// Whether whoever asks for `path` may see it, having shown a client certificate or not.
    pub(super) fn admit(
        &self,
        path: &str,
        headers: &HeaderMap,
        certificate: Shown,
    ) -> Result<(), AdminRefusal> {
        if FOR_EVERYONE.contains(&path) {
            return Ok(());
        }
        if self.client_certificate == Demand::Required && certificate == Shown::No {
            return Err(AdminRefusal::NoClientCertificate);
        }
        match (&self.token, bearer(headers)) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(AdminRefusal::NoToken),
            (Some(token), Some(shown)) if token.is(shown) => Ok(()),
            (Some(_), Some(_)) => Err(AdminRefusal::WrongToken),
        }
    }
}

/// Whether a connection has shown a client certificate that is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    No,
    Yes,
}

/// The one token (RFC 6750 §2.1), whose scheme is in any case (RFC 9110 §11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (fields.next(), fields.next()) else { return None };
    let (scheme, token) = only.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// What those are told who may not see a page.
pub(super) fn refused(reason: AdminRefusal) -> Response<Full<Bytes>> {
    let (status, text) = match reason {
        AdminRefusal::NoToken => {
            (StatusCode::UNAUTHORIZED, "this page asks for a token: Authorization: Bearer …\n")
        }
        AdminRefusal::WrongToken => (StatusCode::UNAUTHORIZED, "this is not the token\n"),
        AdminRefusal::NoClientCertificate | AdminRefusal::Handshake => {
            (StatusCode::FORBIDDEN, "this page asks for a client certificate\n")
        }
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"oncehook\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn asked(fields: &[&str]) -> Result<(), AdminRefusal> {
        let token = Some(Token::new(&SecretString::from(TOKEN)));
        let guard = Guard { token, ..Guard::default() };
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(AUTHORIZATION, HeaderValue::from_str(field).unwrap());
        }
        guard.admit("/metrics", &headers, Shown::No)
    }

    #[test]
    fn only_the_token_opens() {
        for good in [format!("Bearer {TOKEN}"), format!("bearer  {TOKEN} ")] {
            assert_eq!(asked(&[&good]), Ok(()), "{good}");
        }
        let twice = format!("Bearer {TOKEN}");
        assert_eq!(asked(&[&twice, &twice]), Err(AdminRefusal::NoToken));
        assert_eq!(asked(&[]), Err(AdminRefusal::NoToken));
        for none in [TOKEN.to_owned(), format!("Basic {TOKEN}"), String::new(), "Bear".to_owned()] {
            assert_eq!(asked(&[&none]), Err(AdminRefusal::NoToken), "{none}");
        }
        for wrong in ["", "0", &TOKEN[1..], &TOKEN.to_uppercase(), &format!("{TOKEN}0")] {
            let wrong = format!("Bearer {wrong}");
            assert_eq!(asked(&[&wrong]), Err(AdminRefusal::WrongToken), "{wrong}");
        }
    }

    #[test]
    fn all_that_is_configured_is_asked_for_and_probes_are_asked_for_nothing() {
        let token = Some(Token::new(&SecretString::from(TOKEN)));
        let both = Guard { token, tls: None, client_certificate: Demand::Required };
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {TOKEN}").parse().unwrap());
        let nothing = HeaderMap::new();
        assert_eq!(both.admit("/status", &headers, Shown::Yes), Ok(()));
        let without = AdminRefusal::NoClientCertificate;
        assert_eq!(both.admit("/status", &headers, Shown::No), Err(without));
        assert_eq!(both.admit("/status", &nothing, Shown::Yes), Err(AdminRefusal::NoToken));
        for open in FOR_EVERYONE {
            assert_eq!(both.admit(open, &nothing, Shown::No), Ok(()));
        }
        assert!(!both.is_open() && Guard::default().is_open());
        assert_eq!(Guard::default().admit("/status", &nothing, Shown::No), Ok(()));
    }
}
