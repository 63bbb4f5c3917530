//! Which connection a request goes out on.
//!
//! A connection is driven by a task of its own from its making to its end. It is lent to one request at a time. Given back
//! with nothing left to do it is parked at once, until somebody takes it or its time ends; else its task first reads what
//! is left of the answer. Each worker parks and takes its own.
//!
//! A request written to a connection that the backend is closing is lost without anybody knowing whether it arrived,
//! so that everything here errs on the side of a new connection.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use super::connection::{Connector, Wire};
use super::driver::{Driver, Open, Returned};
use super::keep::time_to_keep;
use super::options::Options;
use super::{BuildError, ForwardError, Outgoing};
use crate::clock::{self, Monotonic};
use crate::worker::PerWorker;

/// How large the head of an answer may be.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How many connections are used only once after the backend closed one that rested, without having said so.
const WARY_CONNECTIONS: u32 = 256;

/// The connections to one backend.
pub(super) struct Pool {
    connector: Connector,
    idle_timeout: Duration,
    connections_max: usize,
    /// Most recently used last, and taken first, so that what is not needed runs out of time.
    idle: PerWorker<Mutex<Vec<Idle>>>,
    /// How many connections there are, idle ones included.
    open: Arc<AtomicUsize>,
    /// One permit for each request on its way.
    slots: Arc<Semaphore>,
    serial: AtomicU64,
    /// How many more connections are not to be used again.
    wary: AtomicU32,
    tracker: TaskTracker,
}

/// Whether an idle connection will do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Any will.
    Reused,
    /// Only a new one.
    New,
}

/// One end of a connection; the other is its task's. Dropping it closes the connection.
pub(super) struct Held {
    serial: u64,
    pub(super) sender: SendRequest<Outgoing>,
    wire: Arc<Wire>,
    address: SocketAddr,
    /// The task ends when neither a request nor the pool holds this.
    back: mpsc::Sender<Returned>,
    /// It has outlived its rest, see `driver`.
    pub(super) rested: bool,
}

struct Idle {
    held: Held,
    until: Monotonic,
}

/// A connection that one request has to itself. Dropping it closes the connection.
pub(super) struct Lent {
    pool: Arc<Pool>,
    held: Held,
    slot: OwnedSemaphorePermit,
    /// Whether it carried an earlier request.
    reused: bool,
    /// How long the connection may be kept, by what the backend said of it.
    keep: Duration,
}

/// What has become of a connection whose time may be over.
pub(super) enum Parked {
    /// Somebody has it.
    No,
    /// It has some time left.
    For(Duration),
    /// It was taken out.
    Over,
}

impl Pool {
    pub(super) fn new(options: &Options, tracker: TaskTracker) -> Result<Self, BuildError> {
        let given = options.connections_max;
        if given == 0 || given > Semaphore::MAX_PERMITS {
            return Err(BuildError::ConnectionsMax { given, most: Semaphore::MAX_PERMITS });
        }
        Ok(Self {
            connector: Connector::new(options)?,
            idle_timeout: options.idle_timeout,
            connections_max: given,
            idle: PerWorker::default(),
            open: Arc::default(),
            slots: Arc::new(Semaphore::new(given)),
            serial: AtomicU64::new(0),
            wary: AtomicU32::new(0),
            tracker,
        })
    }

    /// A permit for one request, as soon as there is one.
    pub(super) async fn slot(&self) -> Result<OwnedSemaphorePermit, ForwardError> {
        Arc::clone(&self.slots).acquire_owned().await.map_err(|_| ForwardError::Exhausted)
    }

    /// A connection, idle or new.
    pub(super) async fn lend(
        self: &Arc<Self>,
        slot: OwnedSemaphorePermit,
        freshness: Freshness,
    ) -> Result<Lent, ForwardError> {
        // Found closed: `grow_wary` empties the lists, so that this asks for one only.
        let idle = if freshness == Freshness::Reused { self.take_idle() } else { None };
        match idle {
            Some(held) if held.sender.is_ready() && held.wire.is_quiet() => {
                let (pool, keep) = (Arc::clone(self), self.idle_timeout);
                return Ok(Lent { pool, held, slot, reused: true, keep });
            }
            Some(_) => self.grow_wary(),
            None => {}
        }
        // In a box, for it is large, and seldom needed.
        Box::pin(self.start(slot)).await
    }

    async fn start(self: &Arc<Self>, slot: OwnedSemaphorePermit) -> Result<Lent, ForwardError> {
        let open = Open::of(&self.open);
        let (link, address) = self.connector.connect().await?;
        let wire = link.wire();
        let (sender, connection) = http1::Builder::new()
            .max_header_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(link))
            .await
            .map_err(|source| ForwardError::Unwritten { address, source })?;
        let (back, returned) = mpsc::channel(1);
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let driver = Driver { pool: Arc::clone(self), serial, open };
        self.tracker.spawn(driver.run(connection.with_upgrades(), returned));
        let (pool, keep) = (Arc::clone(self), self.idle_timeout);
        let held = Held { serial, sender, wire, address, back, rested: false };
        Ok(Lent { pool, held, slot, reused: false, keep })
    }

    /// How many requests are on their way, and connections at rest after one.
    pub(super) fn busy(&self) -> usize {
        self.connections_max.saturating_sub(self.slots.available_permits())
    }

    /// This worker's idle connection; another's only if there may be no more of them.
    fn take_idle(&self) -> Option<Held> {
        let now = clock::monotonic();
        // If time is over for the youngest, it is for all; their tasks see to them.
        let take = |idle: &Mutex<Vec<Idle>>| lock(idle).pop_if(|youngest| now < youngest.until);
        let idle = take(self.idle.mine()).or_else(|| {
            let full = self.open.load(Ordering::Relaxed) >= self.connections_max;
            if full { self.idle.iter().find_map(take) } else { None }
        });
        idle.map(|idle| idle.held)
    }

    pub(super) fn park(&self, held: Held, keep: Duration) {
        let until = clock::monotonic().plus(keep);
        lock(self.idle.mine()).push(Idle { held, until });
    }

    /// Takes an idle connection out again, if its time is over by `now`, or anyhow if there is no `now`.
    pub(super) fn withdraw(&self, serial: u64, now: Option<Monotonic>) -> Parked {
        for idle in self.idle.iter() {
            let mut idle = lock(idle);
            let Some((position, found)) =
                idle.iter().enumerate().find(|(_, idle)| idle.held.serial == serial)
            else {
                continue;
            };
            let left = now.map_or(Duration::ZERO, |now| found.until.since(now));
            if left > Duration::ZERO {
                return Parked::For(left);
            }
            // The order holds: what is behind it is younger.
            idle.remove(position);
            return Parked::Over;
        }
        Parked::No
    }

    /// Notes that the backend closes connections without saying so.
    pub(super) fn grow_wary(&self) {
        self.wary.store(WARY_CONNECTIONS, Ordering::Relaxed);
        for idle in self.idle.iter() {
            lock(idle).clear();
        }
    }

    /// Whether a connection may be used again.
    pub(super) fn trusts_backend(&self) -> bool {
        let less = |wary: u32| wary.checked_sub(1);
        self.wary.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
    }
}

fn lock(idle: &Mutex<Vec<Idle>>) -> MutexGuard<'_, Vec<Idle>> {
    // Nothing that holds the lock can leave the list half changed.
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lent {
    pub(super) const fn address(&self) -> SocketAddr {
        self.held.address
    }

    pub(super) const fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether anything was written, for somebody who no longer holds the connection.
    pub(super) fn wire(&self) -> Arc<Wire> {
        Arc::clone(&self.held.wire)
    }

    /// Sends the request, at once; the future waits for the head of the answer, which is then to be [`Self::heard`].
    pub(super) fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing>>>> + use<>
    {
        self.held.wire.arm();
        self.held.sender.try_send_request(request)
    }

    /// Notes what the backend says of the connection.
    pub(super) fn heard(&mut self, response: &Response<Incoming>) {
        self.keep = self.keep.min(time_to_keep(response));
    }

    /// Notes that a request failed here: if others had not, the backend was closing, and the next ones are spared that.
    pub(super) fn lost(&self) {
        if self.reused {
            self.pool.grow_wary();
        }
    }

    /// Ends the loan; `rest` is what has not been read of the answer.
    pub(super) fn give_back(self, rest: Option<Incoming>) {
        let Self { pool, held, slot, keep, .. } = self;
        let ended = rest.as_ref().is_none_or(Body::is_end_stream);
        // Ready means too that the request is written to its end: a backend may answer before it has read it all.
        let sound = held.rested && !keep.is_zero() && pool.wary.load(Ordering::Relaxed) == 0;
        if ended && sound && held.sender.is_ready() {
            pool.park(held, keep);
            // Only now, so that whoever waits for the place finds the connection.
            drop(slot);
            return;
        }
        let back = held.back.clone();
        // If the task is gone, so is the connection: closed with the answer, and perhaps without a word.
        if back.try_send(Returned { held, rest, keep, slot }).is_err() && !keep.is_zero() {
            pool.grow_wary();
        }
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent")
            .field("address", &self.held.address)
            .field("reused", &self.reused)
            .finish_non_exhaustive()
    }
}
