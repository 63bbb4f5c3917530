//! Certificates, and how TLS is spoken: 1.2 and 1.3, by aws-lc-rs, without early data (which could be replayed).
//!
//! This file puts it together; `leaf` reads what certificates say of themselves, `clients` checks those of peers,
//! `names` chooses by the name that is asked for, `failure` says what a failed handshake is counted as. What the clock
//! says of a certificate's validity is left to `app`, which has one.

mod clients;
mod error;
mod failure;
mod leaf;
mod names;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CipherSuite, InconsistentKeys, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
};
use zeroize::Zeroizing;

use self::clients::Checked;
pub use self::clients::{Clients, Demand, RevocationList};
pub use self::error::TlsError;
pub(super) use self::failure::failure;
pub use self::leaf::{Leaf, Validity};
pub use self::names::Names;

/// What ALPN calls HTTP/2 over TLS (RFC 9113 §3.2).
pub const ALPN_HTTP2: &[u8] = b"h2";
/// What it calls HTTP/1.1 (RFC 7301 §6).
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// The largest file of certificates or keys that is read, in MiB: far more than any chain, far less than a mistake such
/// as a disk image.
const FILE_MIB_MAX: u64 = 1;

/// The versions that are spoken, the newest first.
static FROM_TLS12: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
static FROM_TLS13: &[&SupportedProtocolVersion] = &[&TLS13];

/// A certificate chain and its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// What every handshake is held to. By default: TLS 1.2 or 1.3, for whatever name, without client certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The oldest version that is spoken.
    pub oldest: Version,
    /// What becomes of peers that ask for a name that no certificate has, or for none.
    pub unknown_names: UnknownNames,
    /// Which certificates peers have to show; `None`: they are not asked for any.
    pub clients: Option<Clients>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// 1.2 (RFC 5246): with rustls' suites only, which are all ECDHE and AEAD.
    #[default]
    Tls12,
    /// 1.3 (RFC 8446).
    Tls13,
}

/// What becomes of peers that ask for a name that no certificate has, or for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownNames {
    /// They are shown the first certificate.
    #[default]
    Default,
    /// Their handshake ends with the alert `unrecognized_name` (RFC 6066 §3).
    Refuse,
}

/// TLS, set up.
#[derive(Clone, Debug)]
pub struct Tls {
    /// For `listener::Options`.
    pub server: Arc<ServerConfig>,
    /// Likewise: the only names that peers may ask for, with [`UnknownNames::Refuse`].
    pub names: Option<Arc<Names>>,
    /// The server's own certificates, in the order of the configuration.
    pub leaves: Vec<Leaf>,
    /// The authorities of client certificates.
    pub authorities: Vec<Leaf>,
    /// What they have revoked.
    pub lists: Vec<RevocationList>,
}

/// Sets TLS up from PEM files. The peer chooses among several by the name it asks for (SNI); the first is for peers
/// that ask for none, or for one that no certificate has, unless `terms` refuse them.
pub fn server_config(pairs: &[Files], terms: &Terms) -> Result<Tls, TlsError> {
    let provider = Arc::new(provider());
    let mut loaded = Vec::with_capacity(pairs.len());
    for files in pairs {
        loaded.push(load(files, &provider)?);
    }
    assemble(loaded, terms, &provider)
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
pub fn self_signed(names: &[String], terms: &Terms) -> Result<SelfSigned, TlsError> {
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| TlsError::Provider(error.into()))?;
    let provider = Arc::new(provider());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let chain = vec![made.cert.der().clone()];
    let path = PathBuf::from("the self-signed certificate");
    let leaf = leaf::leaf(&chain, &path)?;
    let certified = CertifiedKey::from_der(chain, key, &provider)
        .map_err(|source| TlsError::Key { path, source })?;
    let tls = assemble(vec![(leaf, Arc::new(certified))], terms, &provider)?;
    Ok(SelfSigned { tls, certificate_pem: made.cert.pem() })
}

/// rustls' own, in another order: AES-128 before AES-256, as nginx and LiveKit's senders would have it, for it is the
/// cheaper one and no weaker in practice.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let is_aes128 = |suite: &SupportedCipherSuite| {
        matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    };
    // Stable: within each version the rest stays as it is.
    provider.cipher_suites.sort_by_key(|suite| (suite.tls13().is_none(), !is_aes128(suite)));
    provider
}

type Loaded = (Leaf, Arc<CertifiedKey>);

fn load(files: &Files, provider: &CryptoProvider) -> Result<Loaded, TlsError> {
    let path = &files.certificate;
    let pem = read(path, FILE_MIB_MAX)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_damaged| TlsError::Certificate { path: path.clone() })?;
    let leaf = leaf::leaf(&chain, path)?;
    // What the parser says is not passed on: it may quote the file.
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key, FILE_MIB_MAX)?)
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
fn read(path: &Path, mib_max: u64) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let read = || {
        let size = fs::metadata(path)?.len();
        if size > mib_max << 20 { Ok(None) } else { fs::read(path).map(Zeroizing::new).map(Some) }
    };
    read()
        .map_err(|source| TlsError::Read { path: path.to_owned(), source })?
        .ok_or_else(|| TlsError::TooLarge { path: path.to_owned(), mib_max })
}

fn assemble(
    loaded: Vec<Loaded>,
    terms: &Terms,
    provider: &Arc<CryptoProvider>,
) -> Result<Tls, TlsError> {
    let default = loaded.first().map(|(_, key)| Arc::clone(key)).ok_or(TlsError::None)?;
    let mut by_name = HashMap::new();
    for (leaf, key) in &loaded {
        for name in &leaf.names {
            // The first that has the name keeps it, as the first of all is the default.
            by_name.entry(name.clone()).or_insert_with(|| Arc::clone(key));
        }
    }
    let names = Arc::new(Names::new(default, by_name));
    let checked = terms.clients.as_ref().map(|clients| clients::check(clients, provider));
    let Checked { verifier, authorities, lists } =
        checked.transpose()?.unwrap_or_else(|| Checked {
            verifier: WebPkiClientVerifier::no_client_auth(),
            authorities: Vec::new(),
            lists: Vec::new(),
        });
    let mut server = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(terms.oldest.and_newer())
        .map_err(|error| TlsError::Provider(error.into()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::<Names>::clone(&names));
    server.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
    // rustls' default, said here because it must stay so: a webhook in early data could be replayed.
    server.max_early_data_size = 0;
    // All of rustls' suites are sound, so the order is no matter of safety; scanners want the server to have one.
    server.ignore_client_order = true;
    if terms.clients.is_some() {
        // Who resumes a session shows no certificate again: it may have expired or been revoked meanwhile.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    }
    let leaves = loaded.into_iter().map(|(leaf, _)| leaf).collect();
    let names = match terms.unknown_names {
        UnknownNames::Default => None,
        UnknownNames::Refuse => Some(names),
    };
    Ok(Tls { server: Arc::new(server), names, leaves, authorities, lists })
}

impl Version {
    /// What is spoken if this is the oldest; the newest first.
    fn and_newer(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls12 => FROM_TLS12,
            Self::Tls13 => FROM_TLS13,
        }
    }
}
