//! How connections are secured: TLS of senders, and what the operator shows.

use std::net::SocketAddr;
use std::path::PathBuf;

use secrecy::SecretString;

/// How connections of senders are secured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Plain HTTP/1.1, for a sidecar or behind a balancer that ends TLS.
    Off,
    /// A certificate made at the start, for trials.
    SelfSigned,
    /// Certificates from files, at least one; the first is for senders that name no or an unknown server.
    Certificates(Vec<Certificate>),
}

/// A certificate chain and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// PEM, the leaf first.
    pub certificate_file: PathBuf,
    /// PEM.
    pub key_file: PathBuf,
}

/// What TLS handshakes of senders are held to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Refuse peers that ask for a name that no certificate has, or for none.
    pub strict_sni: bool,
    /// Which client certificates are asked for, if any.
    pub clients: Option<TlsClients>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// `1.2`
    Tls12,
    /// `1.3`
    Tls13,
}

/// Client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsClients {
    /// PEM; the authorities that may have signed them.
    pub ca_file: PathBuf,
    /// PEM; what these have revoked.
    pub crl_file: Option<PathBuf>,
    /// Whether a sender may do without.
    pub mode: ClientMode,
}

/// Whether a sender may do without a client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientMode {
    /// It may not.
    Require,
    /// It may; one that is no good is refused all the same.
    Optional,
}

/// Where an operator connects, and what it shows. Unless the address is a loopback one, there is a token, or a
/// certificate authority.
#[derive(Clone)]
pub struct Admin {
    /// The address of health and metrics; port 0 lets the system choose.
    pub address: SocketAddr,
    /// What is shown as `Authorization: Bearer` for all but the pages of probes.
    pub token: Option<SecretString>,
    /// `None`: plain HTTP.
    pub tls: Option<AdminTls>,
}

/// TLS of the operator's connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminTls {
    /// What the listener shows.
    pub certificate: Certificate,
    /// PEM; the authorities that may have signed what the operator shows, for all but the pages of probes.
    pub client_ca_file: Option<PathBuf>,
}
