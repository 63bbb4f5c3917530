//! What a connection is doing, so that it is held to the right patience.
//!
//! hyper's `header_read_timeout` runs while a connection rests between two requests, too: with it, a head that may take
//! 5 s would mean a connection that may rest for 5 s, and DESIGN R7 wants 120. So the connection is watched from both
//! of its ends: bytes that come in ([`Watched`]) and exchanges that run ([`Exchanging`]). What happens when patience
//! ends is left to `connection`.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::limit::Place;
use crate::telemetry::labels::ConnectionRejection;
use crate::telemetry::metrics::Occupied;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A head is due: nothing has come since it was accepted, or a head's first byte has.
    Head,
    /// Nothing is asked of us.
    Idle,
    /// Requests are being answered, this many. How long that may take is the service's affair.
    Busy(usize),
}

/// When the first byte of a new head can be told from other traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heads {
    /// HTTP/1.1: whatever comes while nothing is asked of us begins a head.
    FollowIdle,
    /// HTTP/2: it may as well be a PING, a SETTINGS or a `WINDOW_UPDATE`, which are no reason for haste.
    AmongFrames,
}

/// What one connection is doing, and a bell for whoever times it.
#[derive(Debug)]
pub(super) struct Watch {
    phase: Mutex<Phase>,
    heads: Heads,
    changed: Notify,
    upgraded: AtomicBool,
}

impl Watch {
    /// Of a connection that was just accepted.
    pub(super) fn new(heads: Heads) -> Arc<Self> {
        Arc::new(Self {
            phase: Mutex::new(Phase::Head),
            heads,
            changed: Notify::new(),
            upgraded: AtomicBool::new(false),
        })
    }

    pub(super) fn phase(&self) -> Phase {
        *self.lock()
    }

    /// Until the phase has changed since this was last awaited. Cancel safe: a change is not forgotten.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// HTTP is over here: what is left of the connection, if anything, belongs to whoever it was upgraded for.
    pub(super) fn http_is_over(&self) {
        self.upgraded.store(true, Ordering::Release);
    }

    /// A request's head is complete, and its exchange runs until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Exchanging {
        self.change(|phase| match phase {
            Phase::Head | Phase::Idle => Phase::Busy(1),
            Phase::Busy(running) => Phase::Busy(running.saturating_add(1)),
        });
        Exchanging(Arc::clone(self))
    }

    fn end(&self) {
        self.change(|phase| match phase {
            Phase::Busy(running) if running > 1 => Phase::Busy(running - 1),
            Phase::Head | Phase::Idle | Phase::Busy(_) => Phase::Idle,
        });
    }

    fn bytes_came(&self) {
        if self.heads == Heads::FollowIdle {
            self.change(|phase| if phase == Phase::Idle { Phase::Head } else { phase });
        }
    }

    fn change(&self, to: impl FnOnce(Phase) -> Phase) {
        let mut phase = self.lock();
        let before = *phase;
        *phase = to(before);
        let other_patience = std::mem::discriminant(&before) != std::mem::discriminant(&*phase);
        drop(phase);
        if other_patience {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        // A phase is one value: a panic elsewhere cannot have left it half written.
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One exchange that runs: from its head to the end of its answer, or until either is dropped.
#[derive(Debug)]
pub(super) struct Exchanging(Arc<Watch>);

impl Drop for Exchanging {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What a connection occupies as long as any part of it lives; after an upgrade that is longer than its task.
#[derive(Debug)]
pub(super) struct Hold {
    place: Place,
    _open: Occupied,
    _tracked: TaskTrackerToken,
}

impl Hold {
    pub(super) const fn new(place: Place, open: Occupied, tracked: TaskTrackerToken) -> Self {
        Self { place, _open: open, _tracked: tracked }
    }

    /// Whom the connection is from, which was not known when it was accepted.
    pub(super) fn count_for(&mut self, address: IpAddr) -> Result<(), ConnectionRejection> {
        self.place.count_for(address)
    }
}

/// A stream that tells its [`Watch`] of the bytes that come, and holds the connection's place.
pub(super) struct Watched<T> {
    inner: T,
    watch: Arc<Watch>,
    kill: CancellationToken,
    killed: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _hold: Hold,
}

impl<T> Watched<T> {
    pub(super) fn new(inner: T, watch: Arc<Watch>, kill: CancellationToken, hold: Hold) -> Self {
        Self { inner, watch, kill, killed: None, _hold: hold }
    }

    /// While HTTP is spoken, the connection's task sees to the kill; after an upgrade nobody else does.
    fn poll_killed(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.watch.upgraded.load(Ordering::Acquire) {
            return Ok(());
        }
        let kill = &self.kill;
        let killed = self.killed.get_or_insert_with(|| Box::pin(kill.clone().cancelled_owned()));
        match killed.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "shutting down"))
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_killed(cx)?;
        let before = into.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, into);
        if into.filled().len() > before {
            self.watch.bytes_came();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_killed(cx)?;
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_killed(cx)?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
