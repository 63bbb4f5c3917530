//! What comes before HTTP on a connection: a balancer's word for whom it speaks, and the TLS handshake, each within its
//! time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use super::ahead::Ahead;
use super::connection::Shared;
use super::proxy_protocol::{self, HEADER_BYTES_MAX};
use super::tls::{self, Names};
use super::watched::Hold;
use crate::telemetry::labels::{ConnectionRejection, TlsFailure};

/// The fatal alert `unrecognized_name` in a record of its own (RFC 8446 §5.1 and §6, RFC 6066 §3). rustls has a resolver
/// without a certificate end in `access_denied`, which tells a sender's operator nothing.
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// Whom a connection is from: `address`, or, with the PROXY protocol, whom that one speaks for; there is a place for it.
/// What goes wrong is counted; then there is nothing.
pub(super) async fn origin(
    stream: &mut TcpStream,
    hold: &mut Hold,
    shared: &Shared,
    address: SocketAddr,
) -> Option<SocketAddr> {
    let options = &shared.options;
    if options.proxy_protocol.is_none() {
        return Some(address);
    }
    // Its patience is the handshake's: it is the same kind of wait, for a few bytes that should come at once.
    let announced = time::timeout(options.handshake_timeout, announced(stream));
    let outcome = match announced.await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err((ConnectionRejection::ProxyTimeout, String::new())),
    };
    let admitted = outcome.and_then(|source| {
        let source = source.unwrap_or(address);
        hold.count_for(source.ip()).map_err(|reason| (reason, source.to_string()))?;
        Ok(source)
    });
    match admitted {
        Ok(source) => Some(source),
        Err((reason, error)) => {
            shared.metrics.connection_rejected(reason);
            let reason = reason.label();
            tracing::debug!(peer = %address, error, reason, "connection rejected");
            None
        }
    }
}

/// Reads the header, and not one byte more.
async fn announced(
    stream: &mut TcpStream,
) -> Result<Option<SocketAddr>, (ConnectionRejection, String)> {
    let broken = |error: io::Error| (ConnectionRejection::ProxyClosed, error.to_string());
    let mut bytes = vec![0; HEADER_BYTES_MAX];
    let mut taken = 0;
    // Each turn takes at least a byte, and a header has no more than the buffer.
    loop {
        let free = bytes.get_mut(taken..).unwrap_or_default();
        let seen = taken + stream.peek(free).await.map_err(broken)?;
        if seen == taken {
            return Err((ConnectionRejection::ProxyClosed, "closed".to_owned()));
        }
        let header = proxy_protocol::parse(bytes.get(..seen).unwrap_or_default())
            .map_err(|error| (ConnectionRejection::ProxyHeader, error.to_string()))?;
        let upto = header.map_or(seen, |header| header.length);
        let taking = bytes.get_mut(taken..upto).unwrap_or_default();
        taken += stream.read_exact(taking).await.map_err(broken)?;
        if let Some(header) = header {
            return Ok(header.source);
        }
    }
}

/// Shakes hands. What goes wrong is counted; then there is nothing.
pub(super) async fn tls(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    shared: &Shared,
    address: SocketAddr,
) -> Option<TlsStream<Ahead<TcpStream>>> {
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
) -> Result<TlsStream<Ahead<TcpStream>>, Refused> {
    let stream = Ahead::new(stream);
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
