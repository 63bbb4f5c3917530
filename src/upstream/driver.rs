//! What drives one connection to the backend: the task that reads what is left of an answer, waits for the connection's
//! end, and takes it out of the pool when its time is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{sleep, timeout};

use super::pool::{Held, Parked, Pool};
use crate::clock;

/// How much of the rest of an answer is read to save the connection.
const DRAIN_BYTES_MAX: usize = 64 * 1024;
/// How long that may take, and what is left to write of the request.
const RECOVERY: Duration = Duration::from_secs(1);
/// How long a connection rests after its first answer. A backend that closes after its answer without saying so does it
/// within this time, or hardly ever.
const REST: Duration = Duration::from_millis(10);
/// How long a connection may take to close.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the driving task gets back.
pub(super) struct Returned {
    pub(super) held: Held,
    pub(super) rest: Option<Incoming>,
    pub(super) keep: Duration,
    pub(super) slot: OwnedSemaphorePermit,
}

/// Counts a connection for as long as it may be used.
pub(super) struct Open(Arc<AtomicUsize>);

impl Open {
    /// One more.
    pub(super) fn of(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Drives one connection.
pub(super) struct Driver {
    pub(super) pool: Arc<Pool>,
    pub(super) serial: u64,
    pub(super) open: Open,
}

impl Driver {
    pub(super) async fn run(
        self,
        connection: impl Future<Output = hyper::Result<()>>,
        mut returned: mpsc::Receiver<Returned>,
    ) {
        tokio::pin!(connection);
        // Looked at when it ends, not set anew for every request.
        let (expiry, mut patience) = (sleep(Duration::ZERO), None);
        tokio::pin!(expiry);
        loop {
            let given = tokio::select! {
                biased;
                // A failure is the request's to report; the connection itself has nobody to tell.
                _ = &mut connection => {
                    if let Parked::Over = self.pool.withdraw(self.serial, None) {
                        self.pool.grow_wary();
                    }
                    return;
                }
                given = returned.recv() => given,
                () = &mut expiry, if patience.is_some() => {
                    match self.pool.withdraw(self.serial, Some(clock::monotonic())) {
                        Parked::No => expiry.set(sleep(patience.unwrap_or_default())),
                        Parked::For(left) => expiry.set(sleep(left)),
                        Parked::Over => break,
                    }
                    continue;
                }
            };
            let Some(given) = given else { return };
            let keep = given.keep;
            let recovered = tokio::select! {
                biased;
                _ = &mut connection => {
                    if !keep.is_zero() {
                        self.pool.grow_wary();
                    }
                    return;
                }
                recovered = self.recover(given) => recovered,
            };
            let Some((mut held, slot)) = recovered else { break };
            if !held.rested && timeout(REST, &mut connection).await.is_ok() {
                return self.pool.grow_wary();
            }
            held.rested = true;
            if patience.replace(keep).is_none_or(|before| keep < before) {
                expiry.set(sleep(keep));
            }
            self.pool.park(held, keep);
            // Only now, so that whoever waits for the place finds the connection.
            drop(slot);
        }
        drop(self.open);
        // Nobody can send any more, so that the connection takes its leave (TLS: close_notify).
        timeout(FAREWELL, connection).await.ok();
    }

    /// Makes a connection that was given back ready for the next request; `None` if it is not worth it.
    async fn recover(&self, given: Returned) -> Option<(Held, OwnedSemaphorePermit)> {
        let Returned { mut held, rest, keep, slot } = given;
        // Ready means too that the request is written to its end: a backend may answer before it has read it all.
        let ready = async { drain(rest).await && held.sender.ready().await.is_ok() };
        let ready = timeout(RECOVERY, ready).await.unwrap_or(false);
        (ready && !keep.is_zero() && self.pool.trusts_backend()).then_some((held, slot))
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
