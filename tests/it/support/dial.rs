//! A listener under test, and ways to connect to it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use oncehook::listener::tls::{self, ALPN_HTTP2, SelfSigned, Terms};
use oncehook::listener::{Http2, Listener, Options, Peer};
use oncehook::telemetry::Metrics;
use rustls::client::WantsClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::traced;

/// More than anything here should take, on a machine that has other things to do.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// The answer that most tests give.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Options with long time-outs: a test shortens the one it is about.
pub(crate) fn options() -> Options {
    Options {
        address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        tls: None,
        names: None,
        proxy_protocol: None,
        connections_max: 100,
        connections_per_source_max: 100,
        handshake_timeout: LONG,
        head_timeout: LONG,
        idle_timeout: LONG,
        answer_timeout: LONG,
        head_bytes_max: 16 * 1024,
        headers_max: 64,
        target_bytes_max: 8 * 1024,
        refuse: oncehook::gateway::malformed_http1,
        http2: Http2 {
            streams_max: 64,
            header_list_bytes_max: 16 * 1024,
            pending_resets_max: 20,
            local_resets_max: 128,
            idle_frames_max: 500,
            stream_window_bytes: 64 * 1024,
            connection_window_bytes: 256 * 1024,
            ping_interval: LONG,
            ping_timeout: LONG,
        },
    }
}

/// A listener that serves.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: CancellationToken,
    pub(crate) kill: CancellationToken,
    ended: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start<S, F>(options: Options, service: S) -> Self
    where
        S: Fn(Request<Incoming>, Arc<Peer>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        traced::here();
        let metrics = Metrics::new();
        let listener = Listener::bind(options, Arc::clone(&metrics)).expect("a free port");
        let address = listener.local_address();
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let ended = tokio::spawn(listener.serve(service, stop.clone(), kill.clone()));
        Self { address, metrics, stop, kill, ended }
    }

    pub(crate) fn hello(options: Options) -> Self {
        Self::start(options, |_request, _peer| async { answer("hello") })
    }

    /// Until `serve` has returned.
    pub(crate) async fn ended(self) {
        timeout(LONG, self.ended)
            .await
            .expect("the listener should have ended")
            .expect("without a panic");
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the listener should accept")
    }

    /// Until the sample `name` (with its labels) stands at `value`.
    pub(crate) async fn counted(&self, name: &str, value: u64) {
        let line = format!("{name} {value}");
        let waiting = async {
            while !self.metrics.encode().unwrap().lines().any(|each| each == line) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let family = name.split('{').next().unwrap_or(name);
        timeout(LONG, waiting).await.unwrap_or_else(|_| {
            let text = self.metrics.encode().unwrap();
            let stands =
                text.lines().filter(|line| line.starts_with(family)).collect::<Vec<_>>().join("\n");
            panic!("this should have come true: {line}; it stands at\n{stands}")
        });
    }
}

pub(crate) fn answer(text: &'static str) -> Answer {
    Response::new(Full::new(Bytes::from_static(text.as_bytes())))
}

/// Waits until `holds`, and says what did not.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("this should have come true: {what}"));
}

/// Reads until the peer closes; a reset is an end too.
pub(crate) async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    let reading = async {
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            all.extend_from_slice(&buffer[..read]);
        }
    };
    timeout(LONG, reading).await.expect("the connection should have been closed");
    all
}

/// Sends raw HTTP/1.1 and reads one answer with a body of known length.
pub(crate) async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &str,
) -> String {
    stream.write_all(request.as_bytes()).await.expect("the connection should be open");
    read_answer(stream).await
}

pub(crate) async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    let reading = async {
        while !is_complete(&text) {
            let byte = stream.read_u8().await.expect("an answer before the end");
            text.push(char::from(byte));
        }
    };
    timeout(LONG, reading).await.expect("an answer should have come");
    text
}

fn is_complete(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// TLS with a fresh certificate, and it.
pub(crate) fn self_signed(names: &[&str]) -> SelfSigned {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    tls::self_signed(&names, &Terms::default()).expect("a certificate")
}

/// A TLS client that trusts `certificate_pem` alone, and has no certificate.
pub(crate) fn client(certificate_pem: &str) -> ClientConfig {
    trusting(certificate_pem).with_no_client_auth()
}

/// The same, without having chosen what to show.
pub(crate) fn trusting(certificate_pem: &str) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate_pem.as_bytes()).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
}

/// A TLS connection that trusts `certificate_pem` alone, asks for `name` and offers `alpn`.
pub(crate) async fn shake_hands(
    address: SocketAddr,
    certificate_pem: &str,
    name: &str,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = client(certificate_pem);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    shake_hands_on(stream, config, name).await
}

/// TLS on a connection, as `config` says.
pub(crate) async fn shake_hands_on(
    stream: TcpStream,
    config: ClientConfig,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    timeout(LONG, TlsConnector::from(Arc::new(config)).connect(name, stream))
        .await
        .expect("a handshake in time")
}

/// An HTTP/2 client on a stream.
pub(crate) async fn http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> http2::SendRequest<Empty<Bytes>> {
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// HTTP/2 to a listener with this certificate.
pub(crate) async fn http2_to(
    address: SocketAddr,
    certificate_pem: &str,
) -> http2::SendRequest<Empty<Bytes>> {
    let stream = shake_hands(address, certificate_pem, "localhost", &[ALPN_HTTP2])
        .await
        .expect("a handshake");
    http2(stream).await
}

pub(crate) fn request(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://localhost{path}"))
        .header("host", "localhost")
        .body(Empty::new())
        .unwrap()
}
