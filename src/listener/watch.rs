//! What a connection is doing, so that it is held to the right patience.
//!
//! hyper's `header_read_timeout` runs while a connection rests between two requests, too: with it, a head that may take
//! 5 s would mean a connection that may rest for 5 s, and DESIGN R7 wants 120. So the connection is watched from both
//! of its ends: bytes that come in (`watched`) and exchanges that run ([`Exchanging`]). What happens when patience
//! ends is left to `connection`; what the bytes are, on HTTP/2, to `frames`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::telemetry::labels::Malformed;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A head is due: nothing has come since it was accepted, or a head's first byte has.
    Head,
    /// Nothing is asked of us.
    Idle,
    /// Requests are being answered. How long that may take is the service's affair.
    Busy,
    /// All that is left to do is for the peer to take its answers.
    Answered,
}

/// How the first byte of a new head is told from other traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heads {
    /// HTTP/1.1: whatever comes while nothing is asked of us begins a head.
    FollowIdle,
    /// HTTP/2: it may as well be a PING, a SETTINGS or a `WINDOW_UPDATE`, which are no reason for haste. The frames
    /// say when one begins.
    AmongFrames,
}

/// What is known of a connection.
#[derive(Debug, Default)]
struct State {
    /// A head has begun, and is not complete.
    head: bool,
    /// There was a request.
    greeted: bool,
    /// Requests that are being answered …
    running: usize,
    /// … and those of them whose answer waits for the peer to take it.
    untaken: usize,
    /// HTTP/1.1: what is known of the bytes beyond the exchange that runs.
    ahead: Ahead,
    /// How many exchanges have begun, and ended.
    begun: u64,
    ended: u64,
    /// An answer was 101 (Switching Protocols).
    switched: bool,
    /// Who waits for an exchange to end.
    waiting: Option<Waker>,
    timekeeper: Timekeeper,
}

/// Who times the phases.
#[derive(Debug, Default)]
struct Timekeeper {
    /// How often the phase has changed.
    changes: u64,
    task: Option<Waker>,
    /// The task runs, and is going to look.
    attends: bool,
}

/// What has been read of a connection that is further than its exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ahead {
    /// A part of the next head has come, maybe while the request before it is being answered.
    pub(super) head_begun: bool,
    /// Which request's body has not come to its end.
    pub(super) body_due: Option<u64>,
    /// Which request was refused for its form; none comes after it.
    pub(super) refused: Option<(u64, Malformed)>,
}

impl State {
    const fn phase(&self) -> Phase {
        match (self.running, self.untaken) {
            (0, _) if self.head || !self.greeted => Phase::Head,
            (0, _) => Phase::Idle,
            (running, untaken) if running == untaken => Phase::Answered,
            (_, _) => Phase::Busy,
        }
    }
}

/// What one connection is doing; whoever times it is woken when that changes.
#[derive(Debug)]
pub(super) struct Watch {
    state: Mutex<State>,
    heads: Heads,
    upgraded: AtomicBool,
    flooded: AtomicBool,
}

impl Watch {
    /// Of a connection that was just accepted.
    pub(super) fn new(heads: Heads) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            heads,
            upgraded: AtomicBool::new(false),
            flooded: AtomicBool::new(false),
        })
    }

    /// The task that calls [`observe`](Self::observe) is about to, and need not be woken.
    pub(super) fn attend(&self) {
        self.lock().timekeeper.attends = true;
    }

    /// The phase, and how often it has changed. The task is woken when that happens again elsewhere than between
    /// [`attend`](Self::attend) and this.
    pub(super) fn observe(&self, cx: &Context<'_>) -> (Phase, u64) {
        let mut state = self.lock();
        let timekeeper = &mut state.timekeeper;
        timekeeper.attends = false;
        if !timekeeper.task.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            timekeeper.task = Some(cx.waker().clone());
        }
        let changes = timekeeper.changes;
        (state.phase(), changes)
    }

    /// Whether the peer sent more frames than it may.
    pub(super) fn flooded(&self) -> bool {
        self.flooded.load(Ordering::Acquire)
    }

    /// Its peer floods.
    pub(super) fn flood(&self) {
        self.flooded.store(true, Ordering::Release);
    }

    /// Whether HTTP is over here.
    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Acquire)
    }

    /// HTTP is over here: what is left of the connection, if anything, belongs to whoever it was upgraded for.
    pub(super) fn http_is_over(&self) {
        self.upgraded.store(true, Ordering::Release);
    }

    /// A request's head is complete, and its exchange runs until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Exchanging {
        self.change(|state| {
            state.greeted = true;
            state.begun = state.begun.saturating_add(1);
            state.running = state.running.saturating_add(1);
            // HTTP/2 says itself what else is under way.
            state.head = match self.heads {
                Heads::FollowIdle => state.ahead.head_begun,
                Heads::AmongFrames => state.head,
            };
        });
        Exchanging { watch: Arc::clone(self), untaken: false }
    }

    /// Why the exchange that has begun last is none: its request was refused for its form.
    pub(super) fn refusal(&self) -> Option<Malformed> {
        let state = self.lock();
        let (nth, malformed) = state.ahead.refused?;
        (nth == state.begun).then_some(malformed)
    }

    /// What has been read.
    pub(super) fn ahead(&self, ahead: Ahead) {
        self.change(|state| {
            state.ahead = ahead;
            state.head = state.head || ahead.head_begun;
        });
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

    fn wake(&self) {
        let waiting = self.lock().waiting.take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    pub(super) fn bytes_came(&self) {
        if self.heads == Heads::FollowIdle {
            self.change(|state| state.head = state.head || state.running == 0);
        }
    }

    pub(super) fn head_open(&self, open: bool) {
        self.change(|state| state.head = open);
    }

    fn change(&self, how: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        let before = state.phase();
        how(&mut state);
        if before == state.phase() {
            return;
        }
        let timekeeper = &mut state.timekeeper;
        timekeeper.changes = timekeeper.changes.wrapping_add(1);
        let task = if timekeeper.attends { None } else { timekeeper.task.take() };
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is a few plain stores: a panic elsewhere cannot have left it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One exchange that runs: from its head to the end of its answer, or until either is dropped.
#[derive(Debug)]
pub(super) struct Exchanging {
    watch: Arc<Watch>,
    untaken: bool,
}

impl Exchanging {
    /// Whether its body has not come to its end.
    pub(super) fn body_is_due(&self) -> bool {
        let state = self.watch.lock();
        // Requests are answered one after the other: it is the one that has begun last.
        state.ahead.body_due == Some(state.begun)
    }

    /// Its answer changes the protocol.
    pub(super) fn switch(&self) {
        self.watch.lock().switched = true;
        self.watch.wake();
    }

    /// A piece of the answer is ready, and hyper asks for the next one only when the peer has taken enough.
    pub(super) fn waits_for_peer(&mut self) {
        if !std::mem::replace(&mut self.untaken, true) {
            self.watch.change(|state| state.untaken = state.untaken.saturating_add(1));
        }
    }

    /// It has.
    pub(super) fn goes_on(&mut self) {
        if std::mem::replace(&mut self.untaken, false) {
            self.watch.change(|state| state.untaken = state.untaken.saturating_sub(1));
        }
    }
}

impl Drop for Exchanging {
    fn drop(&mut self) {
        self.watch.change(|state| {
            state.ended = state.ended.saturating_add(1);
            state.running = state.running.saturating_sub(1);
            state.untaken = state.untaken.saturating_sub(usize::from(self.untaken));
        });
        self.watch.wake();
    }
}
