//! One attacker's connection, to its end: which is the gateway's doing, or the end of the time.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::attack::Counted;
use crate::frames::{Flood, Stand};
use crate::support::h2::{
    Frame, Frames, GOAWAY, HEADERS, PREFACE, SETTINGS, connect, connector, field, hello, setting,
};

const DRIP: Duration = Duration::from_secs(1);

/// Whom they attack.
pub(crate) struct Target {
    address: SocketAddr,
    connector: TlsConnector,
}

type Halves = (ReadHalf<TlsStream<TcpStream>>, WriteHalf<TlsStream<TcpStream>>);

impl Target {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, connector: connector() }
    }

    /// A connection that has shaken hands; `None` if the gateway took none.
    async fn tls(&self, source: IpAddr, counted: &Counted) -> Option<Halves> {
        let stream = connect(&self.connector, source, self.address).await.ok()?;
        one_more(&counted.connections);
        Some(tokio::io::split(stream))
    }

    async fn tcp(&self, source: IpAddr, counted: &Counted) -> Option<TcpStream> {
        let socket = TcpSocket::new_v4().ok()?;
        socket.bind(SocketAddr::new(source, 0)).ok()?;
        let stream = socket.connect(self.address).await.ok()?;
        one_more(&counted.connections);
        Some(stream)
    }
}

fn one_more(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Reads until the other side closes.
async fn closed(stream: &mut (impl AsyncRead + Unpin), counted: &Counted) {
    let mut buffer = [0; 1024];
    while let Ok(1..) = stream.read(&mut buffer).await {}
    one_more(&counted.closed);
}

/// The same, and what it says at last.
async fn sent_away(mut from: ReadHalf<TlsStream<TcpStream>>, counted: &Counted) {
    let mut frames = Frames::default();
    while let Some(frame) = frames.next(&mut from).await {
        if frame.kind == GOAWAY && frame.code() != Some("NO_ERROR") {
            one_more(&counted.goaways);
        }
    }
    one_more(&counted.closed);
}

pub(crate) async fn frames(target: &Target, source: IpAddr, (flood, counted): (Flood, &Counted)) {
    let Some((from, mut to)) = target.tls(source, counted).await else { return };
    let writing = async {
        let mut stand = Stand::default();
        drop(to.write_all(&hello()).await);
        loop {
            let (bytes, frames) = flood(&mut stand);
            if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
                break;
            }
            counted.frames.fetch_add(frames, Ordering::Relaxed);
        }
        // What the gateway said before it closed is still to be read.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = sent_away(from, counted) => {}
        () = writing => {}
    }
}

pub(crate) async fn silence(target: &Target, source: IpAddr, (number, counted): (usize, &Counted)) {
    if number.is_multiple_of(2) {
        let Some(mut stream) = target.tcp(source, counted).await else { return };
        closed(&mut stream, counted).await;
    } else {
        let Some((mut from, _to)) = target.tls(source, counted).await else { return };
        closed(&mut from, counted).await;
    }
}

pub(crate) async fn drip(target: &Target, source: IpAddr, counted: &Counted) {
    let Some((mut from, mut to)) = target.tls(source, counted).await else { return };
    let writing = async {
        drop(to.write_all(&hello()).await);
        let head = Frame::new(HEADERS, 0, 1, field(b"x-drip", &[b'.'; 1_000])).bytes();
        for byte in head {
            if to.write_all(&[byte]).await.is_err() || to.flush().await.is_err() {
                break;
            }
            one_more(&counted.frames);
            sleep(DRIP).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = closed(&mut from, counted) => {}
        () = writing => {}
    }
}

pub(crate) async fn slow_reading(target: &Target, source: IpAddr, counted: &Counted) {
    let Some((mut from, mut to)) = target.tls(source, counted).await else { return };
    let mut bytes = PREFACE.to_vec();
    // No window at all for any answer's body.
    bytes.extend(Frame::new(SETTINGS, 0, 0, setting(4, 0)).bytes());
    let fields =
        [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/slow")];
    let block: Vec<u8> = fields
        .into_iter()
        .flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes()))
        .collect();
    for stream in (0..8).map(|number| 2 * number + 1) {
        bytes.extend(Frame::new(HEADERS, 0x5, stream, block.clone()).bytes());
        one_more(&counted.frames);
    }
    drop(to.write_all(&bytes).await);
    drop(to.flush().await);
    closed(&mut from, counted).await;
}

pub(crate) async fn bad_tls(target: &Target, source: IpAddr, (number, counted): (usize, &Counted)) {
    let Some(mut stream) = target.tcp(source, counted).await else { return };
    // No TLS at all; a record of a kind that there is not; a hello that breaks off, and the half of one.
    let said: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nhost: gateway\r\n\r\n",
        &[0xff; 64],
        &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0xff],
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
    ];
    one_more(&counted.frames);
    drop(stream.write_all(said[number % said.len()]).await);
    closed(&mut stream, counted).await;
}
