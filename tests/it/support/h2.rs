//! HTTP/2 frame by frame (RFC 9113 §4), as no client would send them, and what came back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use oncehook::listener::tls::ALPN_HTTP2;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt as _, ReadHalf};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
/// For TCP and TLS, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// Kinds of frames.
pub(crate) const KINDS: [&str; 10] = [
    "data",
    "headers",
    "priority",
    "rst_stream",
    "settings",
    "push_promise",
    "ping",
    "goaway",
    "window_update",
    "continuation",
];
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;

/// Codes of errors, by number (RFC 9113 §7).
pub(crate) const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// A frame.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes_of_length(self.payload.len())
    }

    /// With another length in its head.
    pub(crate) fn bytes_of_length(&self, length: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(length).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The code of an `RST_STREAM` or a GOAWAY.
    pub(crate) fn code(&self) -> Option<&'static str> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        let code = self.payload.get(at..at + 4)?.try_into().ok()?;
        Some(CODES.get(u32::from_be_bytes(code) as usize).copied().unwrap_or("of its own"))
    }

    /// The status of an answer's head. The peer was told to keep no table, so it stands there itself.
    pub(crate) fn status(&self) -> Option<u16> {
        if self.kind != HEADERS {
            return None;
        }
        // Table sizes come first (RFC 7541 §6.3), then pseudo-headers.
        let start = self.payload.iter().position(|byte| byte & 0xe0 != 0x20)?;
        match self.payload[start] {
            indexed @ 0x88..=0x8e => {
                Some([200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)])
            }
            0x48 | 0x08 | 0x18 => {
                let length = self.payload[start + 1];
                let value = &self.payload[start + 2..][..usize::from(length & 0x7f)];
                let text = if length & 0x80 == 0 { value.to_vec() } else { digits(value) };
                std::str::from_utf8(&text).ok()?.parse().ok()
            }
            _ => None,
        }
    }
}

/// Digits in Huffman's code (RFC 7541, appendix B): five bits for 0 to 2, six for the others.
fn digits(coded: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> =
        coded.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0, |number, bit| number << 1 | bit);
    let mut digits = Vec::new();
    let mut rest = &bits[..];
    while rest.len() >= 5 {
        let taken = if number(&rest[..5]) < 3 { 5 } else { 6 };
        if rest.len() < taken {
            break;
        }
        match (taken, number(&rest[..taken])) {
            (5, digit) => digits.push(b'0' + digit),
            (_, code @ 0x19..=0x1f) => digits.push(b'3' + code - 0x19),
            _ => break,
        }
        rest = &rest[taken..];
    }
    digits
}

/// A field as it stands in a header block: a literal, in no table, not compressed (RFC 7541 §6.2.2).
pub(crate) fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        bytes.extend(integer(text.len()));
        bytes.extend(text);
    }
    bytes
}

/// With a prefix of seven bits, of which none is taken (RFC 7541 §5.1).
fn integer(number: usize) -> Vec<u8> {
    let byte = |number: usize| u8::try_from(number).unwrap();
    let Some(mut rest) = number.checked_sub(127) else { return vec![byte(number)] };
    let mut bytes = vec![127];
    while rest >= 128 {
        bytes.push(byte(rest % 128 + 128));
        rest /= 128;
    }
    bytes.push(byte(rest));
    bytes
}

/// What a client says first: the preface, and that it keeps no table, so that answers can be read as they are.
pub(crate) fn hello() -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(Frame::new(SETTINGS, 0, 0, setting(1, 0)).bytes());
    bytes
}

/// One setting.
pub(crate) fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// Finds frames in what comes.
#[derive(Default)]
pub(crate) struct Frames {
    buffer: Vec<u8>,
}

impl Frames {
    /// The next frame; `None` when the other side has closed, or broken off.
    pub(crate) async fn next(
        &mut self,
        stream: &mut ReadHalf<TlsStream<tokio::net::TcpStream>>,
    ) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            if let Err(_) | Ok(0) = stream.read_buf(&mut self.buffer).await {
                return None;
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let head: [u8; HEAD_BYTES] = self.buffer.get(..HEAD_BYTES)?.try_into().ok()?;
        // Three bytes of length, and the kind in the fourth.
        let [first, second, third, kind, flags, stream @ ..] = head;
        let length = u32::from_be_bytes([0, first, second, third]) as usize;
        let payload = self.buffer.get(HEAD_BYTES..HEAD_BYTES + length)?.to_vec();
        self.buffer.drain(..HEAD_BYTES + length);
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff, payload })
    }
}

/// A TLS client that offers HTTP/2 alone and trusts anybody.
pub(crate) fn connector() -> TlsConnector {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// Connects from `source` (a loopback address) to `address`.
pub(crate) async fn connect(
    connector: &TlsConnector,
    source: std::net::IpAddr,
    address: SocketAddr,
) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    let connecting = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(source, 0))?;
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
    };
    timeout(PATIENCE, connecting).await.map_err(|_| std::io::ErrorKind::TimedOut)?
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
