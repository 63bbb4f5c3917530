//! Between the socket and hyper, for HTTP/1.1: a gate that lets through only what every reader reads in the same way.
//!
//! hyper accepts lines that end without CR, lengths beside codings, several of either, and hides what it dropped from
//! the service (hyper 1.12, `proto/h1/role.rs`). So heads and the bounds of bodies are judged here, on the bytes as they
//! come, and hyper sees whole heads only. A head that is refused is replaced by [`STAND_IN`], so that the refusal takes
//! its turn behind the answers to what was asked before; `connection` answers it, and the service never sees it.

mod chunk;
mod framing;
mod head;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use self::framing::{Framing, Walked};
pub(super) use self::head::Limits;
use super::watch::{Ahead, Watch};
use super::watched::Watched;
use crate::telemetry::Metrics;
use crate::telemetry::labels::Malformed;

/// What hyper reads in the place of a head that was refused.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// A socket that is closed with bytes unread resets the connection, and the answer may be lost with it (RFC 9112,
/// §9.6). So what still comes is thrown away for this long …
const LINGER: Duration = Duration::from_secs(2);
/// … and so many bytes.
const LINGER_BYTES_MAX: usize = 4 << 20;
/// How many at once.
const LINGER_READ_BYTES: usize = 4 << 10;

/// A stream of HTTP/1.1 that has been judged.
pub(super) struct Gate<T> {
    inner: Watched<T>,
    watch: Arc<Watch>,
    framing: Framing,
    /// What has come and was not passed on.
    held: Vec<u8>,
    /// How much of it may be.
    ready: usize,
    stand: Stand,
    linger: Option<Linger>,
    metrics: Arc<Metrics>,
    peer: SocketAddr,
}

/// Whether anything more is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Open,
    /// A head was refused: nothing after it is read.
    Refused,
    /// A body broke off into nonsense.
    Broken(Malformed),
}

struct Linger {
    until: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl<T> Gate<T> {
    pub(super) fn new(
        inner: Watched<T>,
        watch: Arc<Watch>,
        limits: Limits,
        metrics: Arc<Metrics>,
        peer: SocketAddr,
    ) -> Self {
        let framing = Framing::new(limits);
        let (held, stand) = (Vec::new(), Stand::Open);
        Self { inner, watch, framing, held, ready: 0, stand, linger: None, metrics, peer }
    }

    /// Judges what `into` has from `start` on, and takes out of it what may not be passed on (yet).
    fn judge(&mut self, into: &mut ReadBuf<'_>, start: usize) {
        let came = into.filled().get(start..).unwrap_or_default();
        if !self.held.is_empty() {
            self.held.extend_from_slice(came);
            into.set_filled(start);
            return self.judge_held();
        }
        // The usual case: nothing is copied.
        let (passed, walked) = self.framing.walk(came);
        self.held.extend_from_slice(came.get(passed..).unwrap_or_default());
        into.set_filled(start + passed);
        self.conclude(walked);
    }

    fn judge_held(&mut self) {
        let (passed, walked) = self.framing.walk(&self.held);
        self.ready = passed;
        self.conclude(walked);
    }

    /// An answer came that decides what comes next.
    fn go_on(&mut self) {
        if !self.watch.is_switched() {
            self.framing.go_on();
            self.judge_held();
        }
    }

    fn conclude(&mut self, walked: Walked) {
        let heads = self.framing.heads();
        let mut ahead = Ahead {
            head_begun: walked == Walked::HeadBegun,
            body_due: self.framing.in_body().then_some(heads),
            refused: None,
        };
        match walked {
            Walked::All | Walked::HeadBegun | Walked::AnswerDue => {}
            Walked::BadHead(malformed) => {
                ahead.refused = Some((heads + 1, malformed));
                self.held.truncate(self.ready);
                self.held.extend_from_slice(STAND_IN);
                self.ready = self.held.len();
                self.stand = Stand::Refused;
                self.report(malformed);
            }
            Walked::BadBody(malformed) => {
                self.held.truncate(self.ready);
                self.stand = Stand::Broken(malformed);
                self.report(malformed);
            }
        }
        self.watch.ahead(ahead);
    }

    /// At the level of a handshake that failed: anybody can cause it without a key, and the counter says how often.
    fn report(&self, malformed: Malformed) {
        self.metrics.malformed(malformed);
        tracing::debug!(peer = %self.peer, reason = malformed.label(), "malformed request");
    }

    fn hand_over(&mut self, into: &mut ReadBuf<'_>) {
        let some = self.ready.min(into.remaining());
        into.put_slice(self.held.get(..some).unwrap_or_default());
        self.held.drain(..some);
        self.ready -= some;
    }

    /// Whether bytes may come that nobody will read.
    fn unread(&self) -> bool {
        self.stand != Stand::Open || self.framing.in_body() || !self.held.is_empty()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Gate<T> {
    fn poll_judged(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.ready > 0 {
                self.hand_over(into);
                return Poll::Ready(Ok(()));
            }
            match self.stand {
                Stand::Open if self.framing.waits() && self.watch.is_switched() => {
                    return self.poll_raw(cx, into);
                }
                Stand::Open if self.framing.waits() => {
                    ready!(self.watch.poll_answered(self.framing.heads(), cx));
                    self.go_on();
                    continue;
                }
                Stand::Open => {}
                // Not even its end: the refusal is on its way, and closes the connection.
                Stand::Refused => return Poll::Pending,
                Stand::Broken(malformed) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, malformed)));
                }
            }
            let start = into.filled().len();
            ready!(Pin::new(&mut self.inner).poll_read(cx, into))?;
            let ended = into.filled().len() == start;
            self.judge(into, start);
            if ended || into.filled().len() > start {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// After a change of protocol: what was held, and then all that comes, as it is.
    fn poll_raw(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, into);
        }
        self.ready = self.held.len();
        self.hand_over(into);
        Poll::Ready(Ok(()))
    }

    /// Throws away what still comes, within limits.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger.get_or_insert_with(|| Linger {
            until: Box::pin(sleep(LINGER)),
            bytes_left: LINGER_BYTES_MAX,
        });
        let mut scrap = [0; LINGER_READ_BYTES];
        while linger.bytes_left > 0 && linger.until.as_mut().poll(cx).is_pending() {
            let mut into = ReadBuf::new(&mut scrap);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut into)) {
                Ok(()) if !into.filled().is_empty() => {
                    linger.bytes_left = linger.bytes_left.saturating_sub(into.filled().len());
                }
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gate<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().poll_judged(cx, into)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
        }
        if this.unread() {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
