//! What a failed handshake is counted as.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use crate::telemetry::labels::TlsFailure;

/// Why this handshake failed.
pub(in crate::listener) fn failure(error: &io::Error) -> TlsFailure {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return TlsFailure::Closed;
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls' errors are open-ended")]
    match error {
        Error::AlertReceived(alert) if is_distrust(*alert) => TlsFailure::Untrusted,
        Error::NoCertificatesPresented => TlsFailure::NoClientCertificate,
        Error::InvalidCertificate(error) => of_client(error),
        Error::InvalidCertRevocationList(_) => TlsFailure::RevocationUnknown,
        Error::PeerIncompatible(_) => TlsFailure::Incompatible,
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => TlsFailure::NotTls,
        _ => TlsFailure::Protocol,
    }
}

const fn is_distrust(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::UnsupportedCertificate
    )
}

/// What is wrong with a peer's certificate.
fn of_client(error: &CertificateError) -> TlsFailure {
    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls' errors are open-ended")]
    match error {
        CertificateError::Revoked => TlsFailure::ClientRevoked,
        CertificateError::UnknownRevocationStatus
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => TlsFailure::RevocationUnknown,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            TlsFailure::ClientExpired
        }
        _ => TlsFailure::ClientUntrusted,
    }
}
