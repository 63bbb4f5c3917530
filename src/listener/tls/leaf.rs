//! What certificates say of themselves: whom they are for, and until when.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::TlsError;

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// For metrics and messages: its first name, or the path of its file if it has none; an authority's subject.
    pub name: String,
    /// The DNS names it is for, in lower case; `*.` stands for one label.
    pub names: Vec<String>,
    /// When it begins to be valid, since the epoch.
    pub not_before: Duration,
    /// When it ceases to be, since the epoch.
    pub not_after: Duration,
}

/// What the clock says of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Not valid before this long from now: or the clock is wrong.
    NotYet(Duration),
    /// For this long.
    Valid(Duration),
    /// No longer, since this long.
    Expired(Duration),
}

impl Leaf {
    /// What the certificate is worth at `now`, since the epoch.
    pub fn validity(&self, now: Duration) -> Validity {
        if let Some(early) = self.not_before.checked_sub(now).filter(|early| !early.is_zero()) {
            return Validity::NotYet(early);
        }
        match self.not_after.checked_sub(now) {
            Some(left) => Validity::Valid(left),
            None => Validity::Expired(now.saturating_sub(self.not_after)),
        }
    }
}

/// That of the first certificate of `chain`, which was read from `path`.
pub(super) fn leaf(chain: &[CertificateDer<'_>], path: &Path) -> Result<Leaf, TlsError> {
    let first = chain.first().ok_or_else(|| TlsError::NoCertificate { path: path.to_owned() })?;
    let unreadable = || TlsError::Certificate { path: path.to_owned() };
    let (_, parsed) = X509Certificate::from_der(first).map_err(|_damaged| unreadable())?;
    let mut names = Vec::new();
    let mut addresses = Vec::new();
    if let Some(alternatives) =
        parsed.subject_alternative_name().map_err(|_damaged| unreadable())?
    {
        for name in &alternatives.value.general_names {
            if let GeneralName::DNSName(name) = name {
                names.push(name.to_ascii_lowercase());
            } else if let GeneralName::IPAddress(bytes) = name {
                addresses.extend(ip_address(bytes));
            }
        }
    }
    let name = names.first().cloned().or_else(|| addresses.first().map(IpAddr::to_string));
    let name = name.unwrap_or_else(|| path.display().to_string());
    let validity = parsed.validity();
    let not_before = since_epoch(validity.not_before.timestamp());
    let not_after = since_epoch(validity.not_after.timestamp());
    Ok(Leaf { name, names, not_before, not_after })
}

/// That of an authority, which was read from `path` and is named by its subject.
pub(super) fn authority(certificate: &CertificateDer<'_>, path: &Path) -> Result<Leaf, TlsError> {
    let unreadable = |_damaged| TlsError::Certificate { path: path.to_owned() };
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(unreadable)?;
    let (name, validity) = (parsed.subject().to_string(), parsed.validity());
    let not_before = since_epoch(validity.not_before.timestamp());
    let not_after = since_epoch(validity.not_after.timestamp());
    Ok(Leaf { name, names: Vec::new(), not_before, not_after })
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// Before the epoch there were no certificates.
pub(super) fn since_epoch(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
