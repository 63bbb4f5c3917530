//! What comes before HTTP on a connection: the TLS handshake, within its time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use super::connection::Shared;
use super::tls::{self, Names};
use crate::telemetry::labels::TlsFailure;

/// The fatal alert `unrecognized_name` in a record of its own (RFC 8446 §5.1 and §6, RFC 6066 §3). rustls has a resolver
/// without a certificate end in `access_denied`, which tells a sender's operator nothing.
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// Shakes hands. What goes wrong is counted; then there is nothing.
pub(super) async fn tls(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    shared: &Shared,
    address: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    let options = &shared.options;
    let shaking = shake(stream, config, options.names.as_deref());
    let failure = match time::timeout(options.handshake_timeout, shaking).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(Refused { failure, error })) => {
            tracing::debug!(peer = %address, error, reason = failure.label(), "no TLS handshake");
            failure
        }
        Err(_elapsed) => TlsFailure::Timeout,
    };
    shared.metrics.tls_failed(failure);
    None
}

/// Why there is no handshake, and the words for it.
struct Refused {
    failure: TlsFailure,
    error: String,
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self { failure: tls::failure(&error), error: error.to_string() }
    }
}

async fn shake(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    names: Option<&Names>,
) -> Result<TlsStream<TcpStream>, Refused> {
    let Some(names) = names else { return Ok(TlsAcceptor::from(config).accept(stream).await?) };
    let mut start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    if names.know(start.client_hello().server_name()) {
        return Ok(start.into_stream(config).await?);
    }
    start.io.write_all(&UNRECOGNIZED_NAME).await?;
    // So that the alert is read before the end: a close alone may become a reset.
    start.io.shutdown().await?;
    let error = "the name is that of no certificate, or there is none".to_owned();
    Err(Refused { failure: TlsFailure::UnknownName, error })
}
