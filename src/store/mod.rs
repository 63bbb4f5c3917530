//! Where records are kept: in this process's memory, in a file of this machine, or in a Redis that several gateways
//! share.
//!
//! Every store does what [`claim::record::apply`](crate::claim::record::apply) says; a conformance test holds them to
//! it. What to do when a store cannot be asked is left to `claim::exchange`; performing that, and counting, to
//! `dispatch`.

pub mod breaker;
pub mod disk;
mod error;
pub mod memory;
pub mod redis;

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

pub use disk::Disk;
pub use error::StoreError;
pub use memory::Memory;
pub use redis::Redis;

use crate::claim::record::{Operation, Reply};
use crate::claim::{Key, Owner};
use crate::clock;

/// A place that keeps the records of the claim protocol.
pub enum Store {
    /// This process's memory.
    Memory(Memory),
    /// A file of this machine, which this process has to itself.
    Disk(Disk),
    /// A Redis server, shared by the gateways that use the same prefix.
    Redis(Redis),
}

impl Store {
    /// Performs `operation` of `owner` on the record of `key`.
    ///
    /// Bounded by the store's own time-outs. If the future is dropped, or fails without a reply, the operation may or
    /// may not have been performed: a claim is repeated with the same owner, a settle or a release as it is.
    pub async fn execute(
        &self,
        key: Key,
        owner: Owner,
        operation: Operation,
    ) -> Result<Reply, StoreError> {
        match self {
            Self::Memory(memory) => memory.execute(key, owner, operation, clock::monotonic()),
            Self::Disk(disk) => disk.execute(key, owner, operation).await,
            Self::Redis(redis) => pin!(redis.execute(key, owner, operation)).await,
        }
    }

    /// Asks whether the store can do its work, and returns what an operator should know though it can.
    ///
    /// An error that [`StoreError::is_misconfigured`] must stop the start; others pass by themselves.
    pub async fn check(&self) -> Result<Vec<String>, StoreError> {
        match self {
            Self::Memory(_) => Ok(Vec::new()),
            Self::Disk(disk) => Ok(disk.warnings()),
            Self::Redis(redis) => redis.check().await,
        }
    }

    /// Asks a store that fails again and again until it answers; without it, a breaker that opened stays open.
    ///
    /// Never returns: to be spawned once for each store, and dropped at the end. Does nothing for memory.
    pub async fn probe_loop(&self) -> Infallible {
        match self {
            Self::Memory(_) => std::future::pending().await,
            Self::Disk(disk) => disk.probe_loop().await,
            Self::Redis(redis) => redis.probe_loop().await,
        }
    }

    /// The name of the kind, as in the configuration and the metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Disk(_) => "disk",
            Self::Redis(_) => "redis",
        }
    }

    /// How long every operation has failed; `None` if the last one did not.
    pub fn outage(&self) -> Option<Duration> {
        match self {
            Self::Memory(_) => None,
            Self::Disk(disk) => disk.outage(),
            Self::Redis(redis) => redis.outage(),
        }
    }

    /// Lets go of what must be closed in order. What is asked later fails. To be bounded by the caller.
    pub async fn close(&self) {
        match self {
            Self::Memory(_) | Self::Redis(_) => {}
            Self::Disk(disk) => disk.close().await,
        }
    }
}

/// How long the record that `operation` writes is remembered.
///
/// The window; but never less than what was just promised: a lease or a pause that outlives its record would be
/// forgotten while it runs.
fn remembered(operation: &Operation) -> Duration {
    match *operation {
        Operation::Claim { lease, window } => window.max(lease),
        Operation::Settle { verdict: _, digest: _, window } => window,
        Operation::Release { ending: _, pause, window } => window.max(pause),
    }
}

/// Whole milliseconds, the unit of every store's clock.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
