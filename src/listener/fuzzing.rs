//! For `fuzz/`: one connection over any stream, from behind the handshake to its end.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Http, Shared};
use super::limit::Places;
use super::watched::Hold;
use super::{Options, Peer};
use crate::telemetry::Metrics;
use crate::telemetry::labels::ConnectionEnd;

/// What ALPN chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    One,
    /// HTTP/2.
    Two,
}

/// Serves `peer` on `stream`; returns when nothing of the connection is left, streams and tunnels included.
pub async fn serve<T, S, F, B>(
    (stream, peer): (T, Peer),
    protocol: Protocol,
    (options, metrics): (Options, Arc<Metrics>),
    service: S,
) -> ConnectionEnd
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(Request<Incoming>, Arc<Peer>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let connections = TaskTracker::new();
    let Ok(place) = Places::new(1, 1).take() else { return ConnectionEnd::Error };
    let hold = Hold::new(place, metrics.connection_accepted(), connections.token());
    let shared = Arc::new(Shared { options, metrics, connections: connections.clone() });
    let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
    let http = Http { shared, service, peer: Arc::new(peer), stop, kill };
    let end = match protocol {
        Protocol::One => http.one(stream, hold).await,
        Protocol::Two => http.two(stream, hold).await,
    };
    connections.close();
    connections.wait().await;
    end
}
