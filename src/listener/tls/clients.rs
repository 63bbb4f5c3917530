//! Certificates of peers: who vouches for them, and what has been revoked (RFC 5280 §5, §6).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::leaf::{self, Leaf};
use super::{FILE_MIB_MAX, TlsError, read};

/// The largest file of lists that is read, in MiB: some authorities have revoked a few hundred thousand certificates.
const LIST_MIB_MAX: u64 = 16;

/// Which certificates peers have to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// PEM: the authorities that may have signed them.
    pub ca: PathBuf,
    /// PEM: what these, and every authority between them and a peer, have revoked. With it, a list is needed of each of
    /// them, and one whose time is over is worth none: the peer is refused, as nginx and OpenSSL do.
    pub crl: Option<PathBuf>,
    /// Whether a peer may do without.
    pub demand: Demand,
}

/// Whether a peer may do without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Without one, there is no handshake.
    Required,
    /// A peer that shows none is served; one that is no good is refused all the same.
    Optional,
}

/// A list of revoked certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    /// Whose: its issuer.
    pub name: String,
    /// From when on it is worth nothing, since the epoch: there must be a newer one.
    pub next_update: Duration,
}

/// What has been made of [`Clients`].
pub(super) struct Checked {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    pub(super) authorities: Vec<Leaf>,
    pub(super) lists: Vec<RevocationList>,
}

/// Reads the files.
pub(super) fn check(
    clients: &Clients,
    provider: &Arc<CryptoProvider>,
) -> Result<Checked, TlsError> {
    let mut roots = RootCertStore::empty();
    let mut authorities = Vec::new();
    let damaged = || TlsError::Certificate { path: clients.ca.clone() };
    for certificate in CertificateDer::pem_slice_iter(&read(&clients.ca, FILE_MIB_MAX)?) {
        let certificate = certificate.map_err(|_damaged| damaged())?;
        authorities.push(leaf::authority(&certificate, &clients.ca)?);
        roots.add(certificate).map_err(|_unusable| damaged())?;
    }
    if roots.is_empty() {
        return Err(TlsError::NoAuthority { path: clients.ca.clone() });
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let mut lists = Vec::new();
    if let Some(path) = &clients.crl {
        let ders = revocations(path)?;
        for der in &ders {
            lists.push(list(der, path)?);
        }
        builder = builder.with_crls(ders).enforce_revocation_expiration();
    }
    if clients.demand == Demand::Optional {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build().map_err(|error| match (error, &clients.crl) {
        (VerifierBuilderError::InvalidCrl(source), Some(path)) => {
            TlsError::RevocationList { path: path.clone(), source: Some(source.into()) }
        }
        (error, _) => TlsError::Provider(error.into()),
    })?;
    Ok(Checked { verifier, authorities, lists })
}

fn revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let ders: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&read(path, LIST_MIB_MAX)?)
        .collect::<Result<_, _>>()
        .map_err(|_damaged| TlsError::RevocationList { path: path.to_owned(), source: None })?;
    if ders.is_empty() {
        return Err(TlsError::NoRevocationList { path: path.to_owned() });
    }
    Ok(ders)
}

fn list(der: &CertificateRevocationListDer<'_>, path: &Path) -> Result<RevocationList, TlsError> {
    let unreadable = || TlsError::RevocationList { path: path.to_owned(), source: None };
    let (_, parsed) = CertificateRevocationList::from_der(der).map_err(|_damaged| unreadable())?;
    // RFC 5280 §5.1.2.5 wants one in every list.
    let next_update = parsed.next_update().ok_or_else(unreadable)?;
    let next_update = leaf::since_epoch(next_update.timestamp());
    Ok(RevocationList { name: parsed.issuer().to_string(), next_update })
}
