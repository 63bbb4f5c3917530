//! Waits until replicas have what a server has just acknowledged.
//!
//! WAIT holds its connection up and counts for the writes of that connection alone. So it has one of its own, and writes
//! there first: replication is one stream, and whoever has that write has all earlier ones. One such write stands for
//! all operations that were acknowledged before it; however many come, one WAIT is under way and one is next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::{FromRedisValue, Pipeline, Value};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::classify;
use super::link::{Dialer, Link};
use super::script::Asking;
use super::wire::{Patience, within};
use crate::store::StoreError;

/// What the write is remembered for: it has done its work by then.
const MARK_MILLIS: u64 = 1000;

/// How many replicas must have a claim before it counts, and how long that may take.
#[derive(Clone, Copy, Debug)]
pub struct WaitReplicas {
    /// How many; at least one.
    pub replicas: u32,
    /// How long they may take.
    pub timeout: Duration,
}

/// Asks one server how far its replicas are.
pub(super) struct Barrier {
    terms: WaitReplicas,
    dialer: Arc<Dialer>,
    patience: Patience,
    /// How many have begun.
    begun: AtomicU64,
    turn: Mutex<Turn>,
}

/// The last one that ended.
#[derive(Default)]
struct Turn {
    number: u64,
    /// Over which connection.
    link: Option<Link>,
    /// How many replicas have all that was acknowledged before it began; `None` if that could not be learnt.
    replicas: Option<u64>,
}

impl Barrier {
    pub(super) fn new(terms: WaitReplicas, dialer: Arc<Dialer>, patience: Patience) -> Self {
        Self { terms, dialer, patience, begun: AtomicU64::new(0), turn: Mutex::default() }
    }

    /// Waits until enough replicas have what `written` has just acknowledged for the record called `name`.
    ///
    /// Fails if they are too slow or too few, and if the server may have lost it meanwhile.
    pub(super) async fn pass(
        &self,
        written: &Link,
        name: &str,
        asking: Asking,
    ) -> Result<(), StoreError> {
        let before = self.begun.load(Ordering::SeqCst);
        let round = self.terms.timeout + self.patience.operation;
        // At worst another one ends first, and this one has to connect.
        let limit = round * 2 + self.patience.connect;
        let replicas = timeout(limit, self.reached(before, written, name, asking))
            .await
            .map_err(|_| StoreError::Timeout(limit))??;
        // A server that went away in between may have come back without it.
        if written.is_closed() {
            return Err(StoreError::Unavailable("the server went away after a claim".to_owned()));
        }
        if replicas < u64::from(self.terms.replicas) {
            return Err(StoreError::Unavailable(format!(
                "only {replicas} of {} replicas had a claim within {} ms",
                self.terms.replicas,
                self.terms.timeout.as_millis()
            )));
        }
        Ok(())
    }

    async fn reached(
        &self,
        before: u64,
        written: &Link,
        name: &str,
        asking: Asking,
    ) -> Result<u64, StoreError> {
        let mut turn = self.turn.lock().await;
        let same_server = |link: &Link| link.place() == written.place() && !link.is_closed();
        if turn.number > before && turn.link.as_ref().is_some_and(same_server) {
            return turn.replicas.ok_or_else(|| {
                StoreError::Unavailable("replicas could not be waited for".to_owned())
            });
        }
        turn.number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        turn.replicas = None;
        if !turn.link.as_ref().is_some_and(same_server) {
            turn.link = None;
            let dialled = within(self.patience.connect, self.dialer.dial(written.place())).await?;
            turn.link = Some(dialled);
        }
        let Some(link) = turn.link.as_mut() else { return Ok(0) };
        let limit = self.terms.timeout + self.patience.operation;
        let replicas = within(limit, self.wait(link, name, asking)).await;
        match &replicas {
            Ok(replicas) => turn.replicas = Some(*replicas),
            Err(_) => turn.link = None,
        }
        replicas
    }

    async fn wait(&self, link: &mut Link, name: &str, asking: Asking) -> Result<u64, StoreError> {
        let mut commands = Pipeline::new();
        if asking == Asking::Yes {
            commands.cmd("ASKING");
        }
        // Beside the record, in the same slot of a Cluster.
        commands.cmd("SET").arg(format!("{name}w")).arg("").arg("PX").arg(MARK_MILLIS);
        commands.cmd("WAIT").arg(self.terms.replicas).arg(millis(self.terms.timeout));
        let answers = link
            .connection()
            .send_packed_commands(&commands, 0, commands.len())
            .await
            .map_err(|error| classify::error(&error))?;
        let mut last = Value::Nil;
        for answer in answers {
            last = answer.extract_error().map_err(|error| classify::error(&error))?;
        }
        u64::from_redis_value(last)
            .map_err(|error| StoreError::Unexpected(format!("{error} to WAIT")))
    }
}

/// Zero would mean for ever.
fn millis(duration: Duration) -> u64 {
    crate::store::millis(duration).max(1)
}
