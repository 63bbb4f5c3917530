//! Why a backend could not be set up, and why a forward brought no answer.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::claim::exchange::Outcome;

/// Why [`Upstream::new`](super::Upstream::new) refused its options.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The target is not one that can be connected to.
    #[error(
        "backend `{target}`: {problem}\nhint: write it as http://host:port or https://host:port/path"
    )]
    Target {
        /// As it was written.
        target: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// TLS settings on an `http` target: nothing would be encrypted.
    #[error(
        "backend `{target}` has TLS settings but is not https\nhint: write https://, or take the settings out"
    )]
    TlsUnused {
        /// As it was written.
        target: String,
    },
    /// A status that cannot mean "refused for good".
    #[error(
        "{status} cannot mean that an event is refused for good\nhint: list 4xx statuses other than 429"
    )]
    RefusedStatus {
        /// The status.
        status: u16,
    },
    /// The name is no token.
    #[error("`{name}` cannot stand in Via\nhint: letters, digits, `-`, `.` and `_` can")]
    Via {
        /// The name.
        name: String,
    },
    /// A limit that would let nothing through.
    #[error("connections_max is {given}\nhint: at least 1, at most {most}")]
    ConnectionsMax {
        /// What was given.
        given: usize,
        /// The most that can be counted.
        most: usize,
    },
    /// The name to check the backend's certificate for is no DNS name or IP address.
    #[error(
        "`{name}` is no name that a certificate can carry\nhint: set server_name to a DNS name or an IP address"
    )]
    ServerName {
        /// The name.
        name: String,
    },
    /// A PEM file could not be used.
    #[error("{}: {problem}\nhint: {hint}", .file.display())]
    Pem {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        hint: &'static str,
    },
    /// The system has no roots that could be read.
    #[error(
        "no root certificates found on this system\nhint: install ca-certificates, or name a private CA file"
    )]
    NoRoots,
    /// The TLS library refused the settings.
    #[error("TLS settings for the backend were refused")]
    Tls(#[source] rustls::Error),
}

/// Why a forward brought no answer, or one that is none: for the log.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The lease left no time to write.
    #[error("deadline passed before the first byte")]
    DeadlinePassed,
    /// Every connection was in use for as long as the forward could wait.
    #[error("all connections to the backend stayed in use")]
    Exhausted,
    /// The name of the backend could not be resolved.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The backend did not accept the connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// The last address that was tried.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No connection stood within the budget.
    #[error("no connection to the backend in time")]
    ConnectTimedOut,
    /// The TLS handshake failed.
    #[error("TLS handshake with {address} failed")]
    Handshake {
        /// With whom.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The backend refused this gateway's certificate, or the lack of one: after the handshake, where TLS 1.3 does
    /// that, but before it read anything.
    #[error("{address} refused the client certificate")]
    CertificateRefused {
        /// By whom.
        address: SocketAddr,
        /// The alert.
        source: hyper::Error,
    },
    /// The connection ended before a byte was written.
    #[error("connection to {address} closed before the first byte")]
    Unwritten {
        /// To whom.
        address: SocketAddr,
        /// Why.
        source: hyper::Error,
    },
    /// The request was handed to a connection, and time ended before it could write a byte.
    #[error("{address} took no byte in time")]
    WriteTimedOut {
        /// By whom.
        address: SocketAddr,
    },
    /// The connection ended after the first byte was written, and without an answer.
    #[error("connection to {address} ended without an answer")]
    Unanswered {
        /// To whom.
        address: SocketAddr,
        /// Why.
        source: hyper::Error,
    },
    /// No answer came in time.
    #[error("no answer from {address} in time")]
    AnswerTimedOut {
        /// From whom.
        address: SocketAddr,
    },
    /// What came is not HTTP/1, or its head is too large.
    #[error("answer of {address} is not HTTP")]
    Unparsable {
        /// Of whom.
        address: SocketAddr,
        /// Why.
        source: hyper::Error,
    },
    /// The connection ended after interim answers (1xx), without a final one.
    #[error("{address} gave interim answers only")]
    InterimOnly {
        /// Who.
        address: SocketAddr,
        /// Why.
        source: hyper::Error,
    },
}

impl ForwardError {
    /// What it means to the claim protocol (DESIGN.md §5, "Outcome of a forward").
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::DeadlinePassed
            | Self::Exhausted
            | Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::ConnectTimedOut
            | Self::Handshake { .. }
            | Self::CertificateRefused { .. }
            | Self::Unwritten { .. }
            | Self::WriteTimedOut { .. } => Outcome::Unreached,
            Self::Unanswered { .. } | Self::AnswerTimedOut { .. } => Outcome::Ambiguous,
            Self::Unparsable { .. } | Self::InterimOnly { .. } => Outcome::Failed(None),
        }
    }
}
