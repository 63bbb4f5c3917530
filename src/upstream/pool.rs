//! Which connection a request goes out on.
//!
//! A connection is driven by a task of its own from its making to its end. It is lent to one request at a time; given
//! back, the task reads what is left of the answer, and parks the connection until somebody takes it or its time ends.
//!
//! A request written to a connection that the backend is closing is lost without anybody knowing whether it arrived,
//! so that everything here errs on the side of a new connection.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::connection::{Connector, Link, Wire};
use super::keep::time_to_keep;
use super::options::Options;
use super::{BuildError, ForwardError, Outgoing};

/// How much of the rest of an answer is read to save the connection.
const DRAIN_BYTES_MAX: usize = 64 * 1024;
/// How long that may take, and what is left to write of the request.
const RECOVERY: Duration = Duration::from_secs(1);
/// How large the head of an answer may be.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long a connection rests before it is used again. A backend that closes after its answer without saying so does
/// it within this time, or hardly ever; at a thousand events a second it costs ten connections.
const REST: Duration = Duration::from_millis(10);
/// How long a connection may take to close.
const FAREWELL: Duration = Duration::from_secs(1);
/// How many connections are used only once after the backend closed one that rested, without having said so.
const WARY_CONNECTIONS: u32 = 256;

/// The connections to one backend.
pub(super) struct Pool {
    connector: Connector,
    idle_timeout: Duration,
    connections_max: usize,
    /// Most recently used last, and taken first, so that what is not needed runs out of time.
    idle: Mutex<Vec<Idle>>,
    /// One permit for each request on its way. No connection is made while one is idle, so this bounds them all.
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

struct Idle {
    serial: u64,
    sender: SendRequest<Outgoing>,
    wire: Arc<Wire>,
    address: SocketAddr,
    back: mpsc::Sender<Returned>,
}

/// A connection that one request has to itself. Dropping it closes the connection.
pub(super) struct Lent {
    pool: Arc<Pool>,
    sender: SendRequest<Outgoing>,
    wire: Arc<Wire>,
    address: SocketAddr,
    back: mpsc::Sender<Returned>,
    slot: OwnedSemaphorePermit,
    /// Whether it carried an earlier request.
    reused: bool,
    /// How long the connection may be kept, by what the backend said of it.
    keep: Duration,
}

/// What the driving task gets back.
struct Returned {
    sender: SendRequest<Outgoing>,
    rest: Option<Incoming>,
    keep: Duration,
    slot: OwnedSemaphorePermit,
    /// Travels with the connection: the task ends when neither a request nor the pool holds it.
    back: mpsc::Sender<Returned>,
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
            idle: Mutex::new(Vec::new()),
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
        // Found closed: `grow_wary` empties the list, so that this asks for one only.
        let idle = if freshness == Freshness::Reused { self.pop() } else { None };
        match idle {
            Some(idle) if idle.sender.is_ready() && idle.wire.is_quiet() => {
                return Ok(idle.lend(Arc::clone(self), slot));
            }
            Some(_) => self.grow_wary(),
            None => {}
        }
        let (link, address) = self.connector.connect().await?;
        self.start(link, address, slot).await
    }

    async fn start(
        self: &Arc<Self>,
        link: Link,
        address: SocketAddr,
        slot: OwnedSemaphorePermit,
    ) -> Result<Lent, ForwardError> {
        let wire = link.wire();
        let (sender, connection) = http1::Builder::new()
            .max_header_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(link))
            .await
            .map_err(|source| ForwardError::Unwritten { address, source })?;
        let (back, returned) = mpsc::channel(1);
        let driver = Driver { pool: Arc::clone(self), wire: Arc::clone(&wire), address };
        self.tracker.spawn(driver.run(connection.with_upgrades(), returned));
        let (pool, keep) = (Arc::clone(self), self.idle_timeout);
        Ok(Lent { pool, sender, wire, address, back, slot, reused: false, keep })
    }

    /// How many requests are on their way, and connections at rest after one.
    pub(super) fn busy(&self) -> usize {
        self.connections_max.saturating_sub(self.slots.available_permits())
    }

    fn pop(&self) -> Option<Idle> {
        self.lock().pop()
    }

    /// Takes an idle connection out again; `false` if somebody has it.
    fn withdraw(&self, serial: u64) -> bool {
        let mut idle = self.lock();
        let position = idle.iter().position(|idle| idle.serial == serial);
        // The order holds: what is behind it is younger.
        position.map(|position| idle.remove(position)).is_some()
    }

    /// Notes that the backend closes connections without saying so.
    fn grow_wary(&self) {
        self.wary.store(WARY_CONNECTIONS, Ordering::Relaxed);
        self.lock().clear();
    }

    /// Whether a connection may be used again.
    fn trusts_backend(&self) -> bool {
        let less = |wary: u32| wary.checked_sub(1);
        self.wary.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        // Nothing that holds the lock can leave the list half changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn lend(self, pool: Arc<Pool>, slot: OwnedSemaphorePermit) -> Lent {
        let Self { sender, wire, address, back, .. } = self;
        let keep = pool.idle_timeout;
        Lent { pool, sender, wire, address, back, slot, reused: true, keep }
    }
}

impl Lent {
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) const fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether anything was written, for somebody who no longer holds the connection.
    pub(super) fn wire(&self) -> Arc<Wire> {
        Arc::clone(&self.wire)
    }

    /// Sends the request, and waits for the head of the answer.
    pub(super) async fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Outgoing>>> {
        self.wire.arm();
        let response = self.sender.try_send_request(request).await?;
        self.keep = self.keep.min(time_to_keep(&response));
        Ok(response)
    }

    /// Notes that a request failed here: if others had not, the backend was closing, and the next ones are spared that.
    pub(super) fn lost(&self) {
        if self.reused {
            self.pool.grow_wary();
        }
    }

    /// Ends the loan; `rest` is what has not been read of the answer.
    pub(super) fn give_back(self, rest: Option<Incoming>) {
        let Self { pool, sender, back, slot, keep, .. } = self;
        let returned = Returned { sender, rest, keep, slot, back: back.clone() };
        // If the task is gone, so is the connection: closed with the answer, and perhaps without a word.
        if back.try_send(returned).is_err() && !keep.is_zero() {
            pool.grow_wary();
        }
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent")
            .field("address", &self.address)
            .field("reused", &self.reused)
            .finish_non_exhaustive()
    }
}

/// Drives one connection.
struct Driver {
    pool: Arc<Pool>,
    wire: Arc<Wire>,
    address: SocketAddr,
}

impl Driver {
    async fn run(
        self,
        connection: impl Future<Output = hyper::Result<()>>,
        mut returned: mpsc::Receiver<Returned>,
    ) {
        tokio::pin!(connection);
        // `None` while lent.
        let mut parked: Option<u64> = None;
        let expiry = sleep(Duration::ZERO);
        tokio::pin!(expiry);
        loop {
            let given = tokio::select! {
                // A failure is the request's to report; the connection itself has nobody to tell.
                _ = &mut connection => {
                    if parked.is_some_and(|serial| self.pool.withdraw(serial)) {
                        self.pool.grow_wary();
                    }
                    return;
                }
                given = returned.recv() => given,
                () = &mut expiry, if parked.is_some() => {
                    if parked.take().is_some_and(|serial| self.pool.withdraw(serial)) {
                        break;
                    }
                    continue;
                }
            };
            let Some(given) = given else { return };
            let keep = given.keep;
            let recovered = tokio::select! {
                _ = &mut connection => {
                    if !keep.is_zero() {
                        self.pool.grow_wary();
                    }
                    return;
                }
                recovered = self.recover(given) => recovered,
            };
            let Some((idle, slot)) = recovered else { break };
            if timeout(REST, &mut connection).await.is_ok() {
                return self.pool.grow_wary();
            }
            expiry.set(sleep(keep));
            parked = Some(idle.serial);
            self.pool.lock().push(idle);
            // Only now, so that whoever waits for the place finds the connection.
            drop(slot);
        }
        // Nobody can send any more, so that the connection takes its leave (TLS: close_notify).
        timeout(FAREWELL, connection).await.ok();
    }

    /// Makes a connection that was given back ready for the next request; `None` if it is not worth it.
    async fn recover(&self, given: Returned) -> Option<(Idle, OwnedSemaphorePermit)> {
        let Returned { mut sender, rest, keep, slot, back } = given;
        // Ready means too that the request is written to its end: a backend may answer before it has read it all.
        let ready = async { drain(rest).await && sender.ready().await.is_ok() };
        let ready = timeout(RECOVERY, ready).await.unwrap_or(false);
        if !ready || keep.is_zero() || !self.pool.trusts_backend() {
            return None;
        }
        let serial = self.pool.serial.fetch_add(1, Ordering::Relaxed);
        let wire = Arc::clone(&self.wire);
        Some((Idle { serial, sender, wire, address: self.address, back }, slot))
    }
}

/// Reads what is left of an answer; `false` if that is too much, or fails.
async fn drain(rest: Option<Incoming>) -> bool {
    let Some(mut rest) = rest else { return true };
    let mut left = DRAIN_BYTES_MAX;
    while let Some(frame) = rest.frame().await {
        let Ok(frame) = frame else { return false };
        let Some(less) = left.checked_sub(frame.data_ref().map_or(0, bytes::Bytes::len)) else {
            return false;
        };
        left = less;
    }
    true
}
