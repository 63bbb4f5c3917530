//! Which certificates a simulated node trusts.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme};
use thiserror::Error;

/// Which certificates are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those that the operating system trusts, as LiveKit does.
    Native,
    /// Those that an authority in this PEM file has signed.
    Authority(PathBuf),
    /// All of them. For a self-signed certificate on one's own machine, and for nothing else.
    Anything,
}

/// Why no trust could be built.
#[derive(Debug, Error)]
pub enum TrustError {
    /// The file could not be read, or it is no PEM.
    #[error("cannot read certificates from {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// There is no certificate that could be trusted.
    #[error("no usable certificate in {0}")]
    Empty(String),
    /// rustls refused the settings.
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
}

impl Trust {
    /// The settings for TLS, without ALPN and without a client certificate.
    pub fn client_config(&self) -> Result<ClientConfig, TrustError> {
        Ok(self.trusting()?.with_no_client_auth())
    }

    /// The same, before it is settled what is shown to a server that asks for a client certificate.
    pub fn trusting(&self) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TrustError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        Ok(match self {
            Self::Native => builder.with_root_certificates(native()?),
            Self::Authority(path) => builder.with_root_certificates(authority(path)?),
            Self::Anything => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Undemanding { provider })),
        })
    }
}

fn native() -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    // Some files of a system's store are often unreadable or old; what can be used is enough.
    let (usable, _) =
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if usable == 0 { Err(TrustError::Empty("the system's store".to_owned())) } else { Ok(roots) }
}

fn authority(path: &PathBuf) -> Result<RootCertStore, TrustError> {
    let unreadable = |source| TrustError::Unreadable { path: path.clone(), source };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?)?;
    }
    if roots.is_empty() { Err(TrustError::Empty(path.display().to_string())) } else { Ok(roots) }
}

/// Accepts every certificate, and still checks that the peer holds its key.
#[derive(Debug)]
struct Undemanding {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Undemanding {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
