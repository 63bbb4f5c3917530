//! TLS to the backend: whose certificates are believed, and which one is shown.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::BuildError;

/// How an `https` backend is checked, and what it is shown.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// A PEM file of the roots that are believed, instead of the system's.
    pub ca: Option<PathBuf>,
    /// What the backend is shown when it asks.
    pub client: Option<ClientCertificate>,
    /// The name that the backend's certificate must carry, if it is not the target's host. Sent as SNI too.
    pub server_name: Option<String>,
    /// Where the system's roots are kept, for the backends that believe them.
    pub system_roots: SystemRoots,
}

/// The system's roots. They are read when the first backend believes them, which takes milliseconds, and kept once for
/// all backends that are made with a clone of this.
#[derive(Clone, Debug, Default)]
pub struct SystemRoots(Arc<OnceLock<Arc<RootCertStore>>>);

impl SystemRoots {
    fn read(&self) -> Result<Arc<RootCertStore>, BuildError> {
        if let Some(known) = self.0.get() {
            return Ok(Arc::clone(known));
        }
        // Some of a system's roots are always unreadable to somebody; none at all is a fault.
        let native = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(native.certs);
        if added == 0 {
            return Err(BuildError::NoRoots);
        }
        Ok(Arc::clone(self.0.get_or_init(|| Arc::new(roots))))
    }
}

/// A client certificate.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// A PEM file: the certificate, then those that lead to the root.
    pub chain: PathBuf,
    /// A PEM file: its private key.
    pub key: PathBuf,
}

/// The connector for a backend at `host`, and the name that its certificate must carry.
pub(super) fn connector(
    options: &TlsOptions,
    host: &str,
) -> Result<(TlsConnector, ServerName<'static>), BuildError> {
    let name = options.server_name.as_deref().unwrap_or(host);
    let server_name = ServerName::try_from(name.to_owned())
        .map_err(|_| BuildError::ServerName { name: name.to_owned() })?;
    let roots = match &options.ca {
        None => options.system_roots.read()?,
        Some(file) => roots(file)?,
    };
    // The provider is named, because a process-wide default could be another one, or none.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(BuildError::Tls)?
        .with_root_certificates(roots);
    let mut config = match &options.client {
        None => builder.with_no_client_auth(),
        Some(client) => builder
            .with_client_auth_cert(certificates(&client.chain)?, private_key(&client.key)?)
            .map_err(|error| BuildError::Pem {
                file: client.key.clone(),
                problem: format!("cannot be used with {}: {error}", client.chain.display()),
                hint: "the key must belong to the first certificate of the chain",
            })?,
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((TlsConnector::from(Arc::new(config)), server_name))
}

fn roots(file: &Path) -> Result<Arc<RootCertStore>, BuildError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| BuildError::Pem {
            file: file.to_owned(),
            problem: format!("cannot be used as a root: {error}"),
            hint: "name the certificate of the CA that signed the backend's",
        })?;
    }
    Ok(Arc::new(roots))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, BuildError> {
    let unreadable = |error: rustls::pki_types::pem::Error| BuildError::Pem {
        file: file.to_owned(),
        problem: error.to_string(),
        hint: "it must be readable, and hold certificates as PEM (BEGIN CERTIFICATE)",
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if found.is_empty() {
        Err(unreadable(rustls::pki_types::pem::Error::NoItemsFound))
    } else {
        Ok(found)
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, BuildError> {
    let fault = |problem: String| BuildError::Pem {
        file: file.to_owned(),
        problem,
        hint: "it must be readable, and hold a private key as PEM without a passphrase (BEGIN PRIVATE KEY)",
    };
    let pem = Zeroizing::new(std::fs::read(file).map_err(|error| fault(error.to_string()))?);
    // What the parser says is not passed on: it may quote the file.
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_absent| fault("no private key in it can be read".to_owned()))
}
