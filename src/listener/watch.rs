//! What a connection is doing, so that it is held to the right patience.
//!
//! hyper's `header_read_timeout` runs while a connection rests between two requests, too: with it, a head that may take
//! 5 s would mean a connection that may rest for 5 s, and DESIGN R7 wants 120. So the connection is watched from both
//! of its ends: bytes that come in ([`Watched`]) and exchanges that run ([`Exchanging`]). What happens when patience
//! ends is left to `connection`.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::limit::Place;
use crate::telemetry::labels::Malformed;
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
    state: Mutex<State>,
    heads: Heads,
    changed: Notify,
    upgraded: AtomicBool,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// A part of the next head has come, maybe while the request before it is being answered.
    head_begun: bool,
    /// Which request's body has begun to come and is not at its end.
    body_due: Option<u64>,
    /// How many exchanges have begun, and ended.
    begun: u64,
    ended: u64,
    /// Which request was refused for its form; none comes after it.
    refused: Option<(u64, Malformed)>,
    /// An answer was 101 (Switching Protocols).
    switched: bool,
    /// Who waits for an exchange to end.
    waiting: Option<Waker>,
}

impl Watch {
    /// Of a connection that was just accepted.
    pub(super) fn new(heads: Heads) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                phase: Phase::Head,
                head_begun: false,
                body_due: None,
                begun: 0,
                ended: 0,
                refused: None,
                switched: false,
                waiting: None,
            }),
            heads,
            changed: Notify::new(),
            upgraded: AtomicBool::new(false),
        })
    }

    pub(super) fn phase(&self) -> Phase {
        self.lock().phase
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
        self.change(|state| {
            state.begun = state.begun.saturating_add(1);
            match state.phase {
                Phase::Head | Phase::Idle => Phase::Busy(1),
                Phase::Busy(running) => Phase::Busy(running.saturating_add(1)),
            }
        });
        Exchanging(Arc::clone(self))
    }

    /// Why the exchange that has begun last is none: its request was refused for its form.
    pub(super) fn refusal(&self) -> Option<Malformed> {
        let state = self.lock();
        state.refused.filter(|(nth, _)| *nth == state.begun).map(|(_, malformed)| malformed)
    }

    /// The `nth` request of this connection is refused for its form.
    pub(super) fn refuse(&self, nth: u64, malformed: Malformed) {
        self.lock().refused = Some((nth, malformed));
    }

    /// Whether a part of a head has come, and not all of it; or of the body of which request.
    pub(super) fn begun(&self, head_begun: bool, body_due: Option<u64>) {
        let mut state = self.lock();
        (state.head_begun, state.body_due) = (head_begun, body_due);
    }

    /// Until `nth` exchanges have ended, or the protocol has changed.
    pub(super) fn poll_answered(&self, nth: u64, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.switched || state.ended >= nth {
            return Poll::Ready(());
        }
        state.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether the protocol has changed.
    pub(super) fn is_switched(&self) -> bool {
        self.lock().switched
    }

    fn end(&self) {
        self.change(|state| {
            state.ended = state.ended.saturating_add(1);
            match state.phase {
                Phase::Busy(running) if running > 1 => Phase::Busy(running - 1),
                Phase::Head | Phase::Idle | Phase::Busy(_) if state.head_begun => Phase::Head,
                Phase::Head | Phase::Idle | Phase::Busy(_) => Phase::Idle,
            }
        });
        self.wake();
    }

    fn switch(&self) {
        self.lock().switched = true;
        self.wake();
    }

    fn wake(&self) {
        let waiting = self.lock().waiting.take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    fn bytes_came(&self) {
        if self.heads == Heads::FollowIdle {
            self.change(|state| match state.phase {
                Phase::Idle => Phase::Head,
                phase @ (Phase::Head | Phase::Busy(_)) => phase,
            });
        }
    }

    fn change(&self, to: impl FnOnce(&mut State) -> Phase) {
        let mut state = self.lock();
        let before = state.phase;
        state.phase = to(&mut state);
        let other_patience =
            std::mem::discriminant(&before) != std::mem::discriminant(&state.phase);
        drop(state);
        if other_patience {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each field is one value: a panic elsewhere cannot have left one half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One exchange that runs: from its head to the end of its answer, or until either is dropped.
#[derive(Debug)]
pub(super) struct Exchanging(Arc<Watch>);

impl Exchanging {
    /// Whether its body has not come to its end.
    pub(super) fn body_is_due(&self) -> bool {
        let state = self.0.lock();
        // Requests are answered one after the other: it is the one that has begun last.
        state.body_due == Some(state.begun)
    }

    /// Its answer changes the protocol.
    pub(super) fn switch(&self) {
        self.0.switch();
    }
}

impl Drop for Exchanging {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What a connection occupies as long as any part of it lives; after an upgrade that is longer than its task.
#[derive(Debug)]
pub(super) struct Hold {
    _place: Place,
    _open: Occupied,
    _tracked: TaskTrackerToken,
}

impl Hold {
    pub(super) const fn new(place: Place, open: Occupied, tracked: TaskTrackerToken) -> Self {
        Self { _place: place, _open: open, _tracked: tracked }
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
