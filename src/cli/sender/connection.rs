//! A simulated node's connections: one HTTP/2 connection where TLS offers it, a small pool of HTTP/1.1 ones elsewhere.
//!
//! What Go's `net/http` transport does, as far as a receiver can tell. What is sent, and what an answer means, is left
//! to the node.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

use super::trust::{Trust, TrustError};

/// Idle HTTP/1.1 connections that a node keeps: `GOMAXPROCS` + 1 on a machine of two cores.
const IDLE_MAX: usize = 3;

/// How much of an answer's body is read; the rest is let go with its connection.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where webhooks are sent: an absolute `http` or `https` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    uri: Uri,
    host: String,
    port: u16,
    scheme: Scheme,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// Why a text is no target.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TargetError {
    /// It is no URL, or it carries a user's name.
    #[error("not a URL that can be posted to")]
    Malformed,
    /// It is not `http` or `https`.
    #[error("a URL that begins with http:// or https:// is needed")]
    Scheme,
}

impl Target {
    /// The URL.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Whether TLS is spoken there.
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::Https
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let uri: Uri = text.parse().map_err(|_| TargetError::Malformed)?;
        let (scheme, usual_port) = match uri.scheme_str() {
            Some("http") => (Scheme::Http, 80),
            Some("https") => (Scheme::Https, 443),
            _ => return Err(TargetError::Scheme),
        };
        let host = uri.host().filter(|_| !text.contains('@')).ok_or(TargetError::Malformed)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(usual_port);
        Ok(Self { uri, host, port, scheme })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(formatter)
    }
}

/// Which HTTP a node speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 where ALPN offers it over TLS, HTTP/1.1 elsewhere, as LiveKit does.
    Negotiated,
    /// HTTP/1.1, as LiveKit behind a proxy that offers nothing else.
    Http1,
}

/// Why no answer came.
#[derive(Debug, Error)]
pub enum PostError {
    /// No connection.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// No TLS on the connection.
    #[error("TLS handshake failed")]
    Tls(#[source] io::Error),
    /// The host's name cannot be written into a TLS handshake.
    #[error("not a name for TLS")]
    Name(#[from] InvalidDnsNameError),
    /// The connection broke, or what came is no HTTP.
    #[error("no answer")]
    Http(#[from] hyper::Error),
    /// The answer did not come in time. LiveKit itself would wait for ever.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
}

impl PostError {
    /// Whether the peer's certificate is not trusted: the one connection error that LiveKit does not retry.
    pub fn is_certificate(&self) -> bool {
        match self {
            Self::Tls(error) => error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                .is_some_and(|inner| matches!(inner, rustls::Error::InvalidCertificate(_))),
            Self::Connect(_) | Self::Name(_) | Self::Http(_) | Self::Timeout(_) => false,
        }
    }
}

/// One node's connections to its target.
pub struct Client {
    target: Target,
    tls: Option<TlsConnector>,
    timeout: Duration,
    /// The one connection that all streams share. The lock is held while dialling, on purpose: whoever comes
    /// meanwhile waits for that connection instead of opening a second.
    shared: tokio::sync::Mutex<Shared>,
    idle: Mutex<Vec<http1::SendRequest<Full<Bytes>>>>,
    /// The connections' own work; each ends when its last request is done and its handle is dropped.
    drivers: TaskTracker,
}

enum Shared {
    NotYet,
    Http2(http2::SendRequest<Full<Bytes>>),
    Http1,
}

enum Link {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Client {
    /// A client that has not connected yet and waits at most `timeout` for each answer.
    pub fn new(
        target: Target,
        trust: &Trust,
        protocol: Protocol,
        timeout: Duration,
    ) -> Result<Self, TrustError> {
        let tls = if target.is_tls() { Some(connector(trust, protocol)?) } else { None };
        let shared = match (&tls, protocol) {
            (Some(_), Protocol::Negotiated) => Shared::NotYet,
            (None, _) | (Some(_), Protocol::Http1) => Shared::Http1,
        };
        let (shared, idle) = (tokio::sync::Mutex::new(shared), Mutex::new(Vec::new()));
        Ok(Self { target, tls, timeout, shared, idle, drivers: TaskTracker::new() })
    }

    /// Where it sends.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Sends one request and reads the answer to its end.
    ///
    /// Dropped in between, it closes the stream, and under HTTP/1.1 the connection.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, HeaderMap), PostError> {
        tokio::time::timeout(self.timeout, self.send_unbounded(request))
            .await
            .unwrap_or(Err(PostError::Timeout(self.timeout)))
    }

    async fn send_unbounded(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, HeaderMap), PostError> {
        // A kept connection may have ended unnoticed. A request that never reached it goes out once more on a new one;
        // Go does the same.
        let unsent = match self.kept().await {
            Some(link) => match self.send_on(link, request).await {
                Err(TrySend::Unsent(request)) => *request,
                Err(TrySend::Failed(error)) => return Err(error),
                Ok(answer) => return Ok(answer),
            },
            None => request,
        };
        let link = self.new_link().await?;
        match self.send_on(link, unsent).await {
            Ok(answer) => Ok(answer),
            Err(TrySend::Failed(error)) => Err(error),
            Err(TrySend::Unsent(_)) => {
                Err(PostError::Connect(io::ErrorKind::ConnectionReset.into()))
            }
        }
    }

    /// A connection that is open already.
    async fn kept(&self) -> Option<Link> {
        match &*self.shared.lock().await {
            Shared::Http2(sender) if !sender.is_closed() => {
                return Some(Link::Http2(sender.clone()));
            }
            Shared::Http2(_) | Shared::NotYet => return None,
            Shared::Http1 => {}
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(http1::SendRequest::is_ready);
        idle.pop().map(Link::Http1)
    }

    /// A new connection; where HTTP/2 is spoken, the first who comes opens it and the others share it.
    async fn new_link(&self) -> Result<Link, PostError> {
        let mut shared = self.shared.lock().await;
        match &*shared {
            Shared::Http2(sender) if !sender.is_closed() => return Ok(Link::Http2(sender.clone())),
            Shared::Http2(_) | Shared::NotYet => {}
            Shared::Http1 => {
                drop(shared);
                return self.dial().await;
            }
        }
        let link = self.dial().await?;
        *shared = match &link {
            Link::Http2(sender) => Shared::Http2(sender.clone()),
            Link::Http1(_) => Shared::Http1,
        };
        Ok(link)
    }

    async fn dial(&self) -> Result<Link, PostError> {
        let stream = TcpStream::connect((self.target.host.as_str(), self.target.port))
            .await
            .map_err(PostError::Connect)?;
        stream.set_nodelay(true).map_err(PostError::Connect)?;
        let Some(tls) = &self.tls else { return self.http1(stream).await };
        let name = ServerName::try_from(self.target.host.clone())?;
        let stream = tls.connect(name, stream).await.map_err(PostError::Tls)?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return self.http1(stream).await;
        }
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        self.drivers.spawn(connection);
        Ok(Link::Http2(sender))
    }

    async fn http1<S>(&self, stream: S) -> Result<Link, PostError>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        self.drivers.spawn(connection);
        Ok(Link::Http1(sender))
    }

    async fn send_on(
        &self,
        link: Link,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, HeaderMap), TrySend> {
        match link {
            Link::Http2(mut sender) => {
                let response = sender.try_send_request(request).await.map_err(TrySend::from)?;
                Ok(read_to_end(response).await?)
            }
            Link::Http1(mut sender) => {
                let response =
                    sender.try_send_request(origin_form(request)).await.map_err(TrySend::from)?;
                let answer = read_to_end(response).await?;
                self.keep(sender);
                Ok(answer)
            }
        }
    }

    fn keep(&self, sender: http1::SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && !sender.is_closed() {
            idle.push(sender);
        }
    }
}

enum TrySend {
    /// Nothing of it was written; here it is again.
    Unsent(Box<Request<Full<Bytes>>>),
    Failed(PostError),
}

impl From<TrySendError<Request<Full<Bytes>>>> for TrySend {
    fn from(mut error: TrySendError<Request<Full<Bytes>>>) -> Self {
        match error.take_message() {
            Some(request) => Self::Unsent(Box::new(request)),
            None => Self::Failed(error.into_error().into()),
        }
    }
}

impl From<hyper::Error> for TrySend {
    fn from(error: hyper::Error) -> Self {
        Self::Failed(error.into())
    }
}

fn connector(trust: &Trust, protocol: Protocol) -> Result<TlsConnector, TrustError> {
    let mut config: ClientConfig = trust.client_config()?;
    config.alpn_protocols = match protocol {
        Protocol::Negotiated => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// HTTP/1.1 asks for a path and names the host in a header; HTTP/2 carries the whole URL.
fn origin_form(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    let authority =
        request.uri().authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    if let Some(Ok(authority)) = authority {
        request.headers_mut().insert(HOST, authority);
    }
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    if let Ok(path) = Uri::from_str(path) {
        *request.uri_mut() = path;
    }
    request
}

async fn read_to_end(
    response: Response<Incoming>,
) -> Result<(StatusCode, HeaderMap), hyper::Error> {
    let (head, mut body) = response.into_parts();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame?.data_ref().map_or(0, Bytes::len);
        if read > ANSWER_BYTES_MAX {
            break;
        }
    }
    Ok((head.status, head.headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_absolute_url() {
        let target: Target = "https://[::1]:7443/webhook?x=1".parse().unwrap();
        assert_eq!((target.host.as_str(), target.port, target.is_tls()), ("::1", 7443, true));
        let target: Target = "http://backend.test/webhook".parse().unwrap();
        assert_eq!(
            (target.host.as_str(), target.port, target.is_tls()),
            ("backend.test", 80, false)
        );
        assert_eq!("/webhook".parse::<Target>(), Err(TargetError::Scheme));
        assert_eq!("ws://x/".parse::<Target>(), Err(TargetError::Scheme));
        assert_eq!("https://".parse::<Target>(), Err(TargetError::Malformed));
    }
}
