//! Certificates, and how TLS is spoken: 1.2 and 1.3, by aws-lc-rs, without early data (which could be replayed).
//!
//! What the clock says of a certificate's validity is left to `app`, which has one.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, InconsistentKeys, ServerConfig};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::telemetry::labels::TlsFailure;

/// What ALPN calls HTTP/2 over TLS (RFC 9113 §3.2).
pub const ALPN_HTTP2: &[u8] = b"h2";
/// What it calls HTTP/1.1 (RFC 7301 §6).
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// The largest file that is read: far more than any chain, far less than a mistake such as a disk image.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A certificate chain and its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// TLS, set up.
#[derive(Clone, Debug)]
pub struct Tls {
    /// For `listener::Options`.
    pub server: Arc<ServerConfig>,
    /// The server's own certificates, in the order of the configuration.
    pub leaves: Vec<Leaf>,
}

/// What a server's own certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its first name, or the path of its file if it has none: for metrics and messages.
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

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}; hint: the path must exist and be readable by this process's user", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// It is too large to be what it should be.
    #[error("{} is larger than 1 MiB; hint: it should hold a certificate chain or a key as PEM", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// No certificate in it.
    #[error("{} holds no certificate; hint: it should have -----BEGIN CERTIFICATE----- lines, the server's own first", path.display())]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
    /// A certificate that is none.
    #[error("{} holds a certificate that cannot be read; hint: `openssl x509 -in FILE -text` shows where it is damaged", path.display())]
    Certificate {
        /// Which.
        path: PathBuf,
    },
    /// No key in it.
    #[error("{} holds no private key; hint: it should have a -----BEGIN PRIVATE KEY----- line, and not be encrypted", path.display())]
    NoKey {
        /// Which.
        path: PathBuf,
    },
    /// A key of a kind that is not supported.
    #[error("{} holds a key that cannot be used; hint: RSA of 2048 bits or more, ECDSA P-256, P-384 or P-521, or Ed25519", path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// The two do not belong together.
    #[error("the key in {} is not that of the first certificate in {}; hint: the server's own certificate comes first in the chain", key.display(), certificate.display())]
    Mismatch {
        /// The chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// No pair was configured.
    #[error("no certificate is configured; hint: TLS needs at least one certificate and its key")]
    None,
    /// The provider and the versions do not go together, or no certificate could be made.
    #[error("TLS cannot be set up")]
    Provider(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sets TLS up from PEM files. The peer chooses among several by the name it asks for (SNI); the first is for peers
/// that ask for none, or for one that no certificate has.
pub fn server_config(pairs: &[Files]) -> Result<Tls, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut loaded = Vec::with_capacity(pairs.len());
    for files in pairs {
        loaded.push(load(files, &provider)?);
    }
    assemble(loaded, provider)
}

/// A certificate that was made for this process, and vouches for itself.
#[derive(Clone, Debug)]
pub struct SelfSigned {
    /// TLS with it.
    pub tls: Tls,
    /// It as PEM, for those who shall trust it. It holds no secret.
    pub certificate_pem: String,
}

/// Makes a certificate for `names` (DNS names or IP addresses) and sets TLS up with it: for `--dev` and tests.
pub fn self_signed(names: &[String]) -> Result<SelfSigned, TlsError> {
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| TlsError::Provider(error.into()))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let chain = vec![made.cert.der().clone()];
    let path = PathBuf::from("the self-signed certificate");
    let leaf = leaf(&chain, &path)?;
    let certified = CertifiedKey::from_der(chain, key, &provider)
        .map_err(|source| TlsError::Key { path, source })?;
    let tls = assemble(vec![(leaf, Arc::new(certified))], provider)?;
    Ok(SelfSigned { tls, certificate_pem: made.cert.pem() })
}

/// What a failed handshake is counted as.
pub(super) fn failure(error: &io::Error) -> TlsFailure {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return TlsFailure::Closed;
    };
    let distrust = matches!(
        error,
        rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::UnsupportedCertificate,
        )
    );
    if distrust { TlsFailure::Untrusted } else { TlsFailure::Protocol }
}

type Loaded = (Leaf, Arc<CertifiedKey>);

fn load(files: &Files, provider: &CryptoProvider) -> Result<Loaded, TlsError> {
    let path = &files.certificate;
    let pem = read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_damaged| TlsError::Certificate { path: path.clone() })?;
    let leaf = leaf(&chain, path)?;
    // What the parser says is not passed on: it may quote the file.
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|_absent| TlsError::NoKey { path: files.key.clone() })?;
    match CertifiedKey::from_der(chain, key, provider) {
        Ok(certified) => Ok((leaf, Arc::new(certified))),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(TlsError::Mismatch { certificate: path.clone(), key: files.key.clone() })
        }
        Err(source) => Err(TlsError::Key { path: files.key.clone(), source }),
    }
}

/// What a file holds, wiped when it is dropped: it may be a key.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let read = || {
        let size = fs::metadata(path)?.len();
        if size > FILE_BYTES_MAX { Ok(None) } else { fs::read(path).map(Zeroizing::new).map(Some) }
    };
    read()
        .map_err(|source| TlsError::Read { path: path.to_owned(), source })?
        .ok_or_else(|| TlsError::TooLarge { path: path.to_owned() })
}

fn leaf(chain: &[CertificateDer<'_>], path: &Path) -> Result<Leaf, TlsError> {
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

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// Before the epoch there were no certificates.
fn since_epoch(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn assemble(loaded: Vec<Loaded>, provider: Arc<CryptoProvider>) -> Result<Tls, TlsError> {
    let default = loaded.first().map(|(_, key)| Arc::clone(key)).ok_or(TlsError::None)?;
    let mut by_name = HashMap::new();
    for (leaf, key) in &loaded {
        for name in &leaf.names {
            // The first that has the name keeps it, as the first of all is the default.
            by_name.entry(name.clone()).or_insert_with(|| Arc::clone(key));
        }
    }
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| TlsError::Provider(error.into()))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName { default, by_name }));
    server.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
    // rustls' default, said here because it must stay so: a webhook in early data could be replayed.
    server.max_early_data_size = 0;
    Ok(Tls { server: Arc::new(server), leaves: loaded.into_iter().map(|(leaf, _)| leaf).collect() })
}

/// Chooses a certificate by the name the peer asks for.
#[derive(Debug)]
struct ByName {
    default: Arc<CertifiedKey>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.choose(hello.server_name()))
    }
}

impl ByName {
    fn choose(&self, asked: Option<&str>) -> Arc<CertifiedKey> {
        let found = asked.map(str::to_ascii_lowercase).and_then(|asked| {
            self.by_name.get(&asked).or_else(|| {
                // A wildcard stands for one whole label (RFC 9525 §6.3).
                let (_, parent) = asked.split_once('.')?;
                self.by_name.get(&format!("*.{parent}"))
            })
        });
        Arc::clone(found.unwrap_or(&self.default))
    }
}
