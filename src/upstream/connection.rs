//! One connection to the backend: how it is made, and whether anything was written on it.
//!
//! Whether a forward that failed may have reached the backend hangs on one fact: did a byte of it leave? [`Wire`]
//! answers that for certain, also while the connection is being driven on another thread. When a connection may be used
//! again is left to `pool`.

use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::options::Options;
use super::tls::{self, TlsOptions};
use super::{BuildError, ForwardError};

/// How many addresses of one name are tried.
const ADDRESSES_MAX: usize = 8;

/// How much is read at once, in bytes, unless the last read brought as much.
const READ: usize = 2048;

/// How a connection to one backend is made.
pub(super) struct Connector {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// For one address, and as long again for the TLS handshake.
    timeout: Duration,
}

impl Connector {
    /// Reads the target; connects to nothing.
    pub(super) fn new(options: &Options) -> Result<Self, BuildError> {
        let target = &options.target;
        let fault = |problem| BuildError::Target { target: target.to_string(), problem };
        let authority = target.authority().ok_or_else(|| fault("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(fault("names a user, which would go nowhere"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(fault("has no host"));
        }
        if authority.port_u16() == Some(0) {
            return Err(fault("has port 0"));
        }
        let (default_port, tls) = match target.scheme_str() {
            Some("http") if options.tls.is_some() => {
                return Err(BuildError::TlsUnused { target: target.to_string() });
            }
            Some("http") => (80, None),
            Some("https") => {
                let system = TlsOptions::default();
                (443, Some(tls::connector(options.tls.as_ref().unwrap_or(&system), &host)?))
            }
            _ => return Err(fault("is neither http nor https")),
        };
        let port = authority.port_u16().unwrap_or(default_port);
        Ok(Self { host, port, tls, timeout: options.connect_timeout })
    }

    /// Connects to the first address that accepts.
    pub(super) async fn connect(&self) -> Result<(Link, SocketAddr), ForwardError> {
        let (socket, address) = self.dial().await?;
        // A webhook is one small write: waiting to fill a segment would only delay it. A refusal costs no more.
        drop(socket.set_nodelay(true));
        let socket = Arc::new(socket);
        let wire = Arc::new(Wire { state: AtomicU8::new(IDLE), socket: Arc::downgrade(&socket) });
        let stream = match &self.tls {
            None => Stream::Plain(Socket::new(socket)),
            Some((connector, name)) => {
                let handshake = connector.connect(name.clone(), Socket::new(socket));
                let stream = match timeout(self.timeout, handshake).await {
                    Ok(stream) => stream,
                    Err(_) => Err(io::ErrorKind::TimedOut.into()),
                };
                let stream =
                    stream.map_err(|source| ForwardError::Handshake { address, source })?;
                Stream::Tls(Box::new(stream))
            }
        };
        Ok((Link { stream, wire }, address))
    }

    async fn dial(&self) -> Result<(TcpStream, SocketAddr), ForwardError> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return self.dial_one(SocketAddr::new(address, self.port)).await;
        }
        let unresolved = |source| ForwardError::Resolve { host: self.host.clone(), source };
        let addresses =
            tokio::net::lookup_host((self.host.as_str(), self.port)).await.map_err(unresolved)?;
        let mut failure = None;
        for address in addresses.take(ADDRESSES_MAX) {
            match self.dial_one(address).await {
                Ok(dialled) => return Ok(dialled),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| unresolved(io::ErrorKind::NotFound.into())))
    }

    async fn dial_one(&self, address: SocketAddr) -> Result<(TcpStream, SocketAddr), ForwardError> {
        let connected = match timeout(self.timeout, TcpStream::connect(address)).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        match connected {
            Ok(socket) => Ok((socket, address)),
            Err(source) => Err(ForwardError::Connect { address, source }),
        }
    }
}

const IDLE: u8 = 0;
const ARMED: u8 = 1;
const WRITTEN: u8 = 2;
const SEALED: u8 = 3;

/// Whether a byte of the present request was written on a connection; and a way to make sure that none will be.
#[derive(Debug)]
pub(super) struct Wire {
    state: AtomicU8,
    /// Weak, so that the socket closes when the connection's task ends, whoever still asks about it.
    socket: Weak<TcpStream>,
}

impl Wire {
    /// From here on the first byte counts. Called with no request on the connection.
    pub(super) fn arm(&self) {
        self.state.store(ARMED, Ordering::Release);
    }

    /// Says whether a byte was written since [`Self::arm`]; if none was, none will be.
    ///
    /// A compare-and-swap against the one in [`Self::admit`], so that "nothing was written" stays true: the task that
    /// drives the connection may be about to write at this very moment.
    pub(super) fn seal(&self) -> bool {
        self.state.compare_exchange(ARMED, SEALED, Ordering::AcqRel, Ordering::Acquire)
            == Err(WRITTEN)
    }

    /// Whether bytes may pass to the socket, and whether they are the first.
    fn admit(&self) -> io::Result<Position> {
        match self.state.compare_exchange(ARMED, WRITTEN, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(Position::First),
            Err(SEALED) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Ok(Position::Later),
        }
    }

    /// Takes [`Self::admit`] back if the kernel took none of the first bytes after all.
    fn account(&self, position: Position, written: &Poll<io::Result<usize>>) {
        if position == Position::First && !matches!(written, Poll::Ready(Ok(1..))) {
            // Whoever sealed in between was told that a byte may have been written, and errs on the safe side.
            self.state.compare_exchange(WRITTEN, ARMED, Ordering::AcqRel, Ordering::Acquire).ok();
        }
    }

    /// Whether the connection is as quiet as an unused one must be: neither closed nor sent anything.
    ///
    /// The connection's own task would notice too, but only when it runs next. This asks the kernel, now.
    pub(super) fn is_quiet(&self) -> bool {
        let Some(socket) = self.socket.upgrade() else { return false };
        let mut byte = [MaybeUninit::uninit()];
        match SockRef::from(&*socket).peek(&mut byte) {
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

/// Where in a request the bytes of one write stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    First,
    Later,
}

/// A connection's bytes, before they go into HTTP.
pub(super) struct Link {
    stream: Stream,
    wire: Arc<Wire>,
}

enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Link {
    pub(super) fn wire(&self) -> Arc<Wire> {
        Arc::clone(&self.wire)
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Link {
    // A byte is accounted for before it is written, not after: there is no moment in which one is on its way unseen.
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let position = self.wire.admit()?;
        let written = match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            // Not taken back if it fails: it may have sent a part of its record.
            Stream::Tls(stream) => return Pin::new(stream).poll_write(context, bytes),
        };
        self.wire.account(position, &written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let position = self.wire.admit()?;
        let written = match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_write_vectored(context, slices),
            // Not taken back if it fails: it may have sent a part of its record.
            Stream::Tls(stream) => return Pin::new(stream).poll_write_vectored(context, slices),
        };
        self.wire.account(position, &written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(socket) => socket.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Up to so many bytes, head and body are copied side by side: that costs less than what writev(2) does more than
/// send(2). Most requests are half as long.
const WHOLE: usize = 4 * 1024;

/// A socket that [`Wire::is_quiet`] can look at while it is being driven.
struct Socket {
    stream: Arc<TcpStream>,
    /// The last read brought as much as it could.
    more: bool,
    /// Where the pieces of a small request are put together.
    whole: Vec<u8>,
}

impl Socket {
    fn new(stream: Arc<TcpStream>) -> Self {
        Self { stream, more: false, whole: Vec::new() }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // An answer that somebody waits for is short, and needs no large room that has to be zeroed first.
        let room = if self.more { buffer.remaining() } else { buffer.remaining().min(READ) };
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            let mut taken = 0;
            let into = buffer.initialize_unfilled_to(room);
            let stream = &self.stream;
            let read = stream.try_io(Interest::READABLE, || read_some(stream, into, &mut taken));
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && taken == 0 => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                Ok(()) | Err(_) => {
                    buffer.advance(taken);
                    self.more = taken == room;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

/// Reads what there is. If that was all, it says that the next read would block: so tokio knows it without asking the
/// kernel.
fn read_some(socket: &TcpStream, into: &mut [u8], taken: &mut usize) -> io::Result<()> {
    *taken = (&*SockRef::from(socket)).read(into)?;
    let emptied = *taken > 0 && *taken < into.len();
    if emptied { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = slices {
            return self.poll_write(context, only);
        }
        let bytes = slices.iter().fold(0_usize, |bytes, slice| bytes.saturating_add(slice.len()));
        if bytes <= WHOLE {
            let mut whole = std::mem::take(&mut self.whole);
            whole.clear();
            whole.reserve(bytes);
            for slice in slices {
                whole.extend_from_slice(slice);
            }
            let written = self.as_mut().poll_write(context, &whole);
            self.whole = whole;
            return written;
        }
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write))
    }
}
