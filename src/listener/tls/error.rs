//! Why TLS could not be set up.

use std::io;
use std::path::PathBuf;

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
    #[error("{} is larger than {mib_max} MiB; hint: it should hold certificates, a key or revocation lists as PEM", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// How large it may be.
        mib_max: u64,
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
    /// No authority in it.
    #[error("{} holds no certificate; hint: it should have the -----BEGIN CERTIFICATE----- lines of the authorities that sign client certificates", path.display())]
    NoAuthority {
        /// Which.
        path: PathBuf,
    },
    /// No list in it.
    #[error("{} holds no list of revoked certificates; hint: it should have -----BEGIN X509 CRL----- lines (`openssl crl -inform DER -in FILE` converts)", path.display())]
    NoRevocationList {
        /// Which.
        path: PathBuf,
    },
    /// A list that is none.
    #[error("{} holds a list of revoked certificates that cannot be used; hint: it must be of version 2 and complete (no delta), and say when the next one comes: `openssl crl -in FILE -text` shows it", path.display())]
    RevocationList {
        /// Which.
        path: PathBuf,
        /// What rustls says, if it came that far.
        source: Option<rustls::Error>,
    },
    /// No pair was configured.
    #[error("no certificate is configured; hint: TLS needs at least one certificate and its key")]
    None,
    /// The provider and the versions do not go together, or no certificate could be made.
    #[error("TLS cannot be set up")]
    Provider(#[source] Box<dyn std::error::Error + Send + Sync>),
}
