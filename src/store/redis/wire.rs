//! The connections to one server, one for each worker, which all its operations share: made when it is first needed, made
//! anew when it is spoilt, and never waited for longer than allowed.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::RedisResult;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::classify;
use super::link::{Dialer, Link, Place};
use super::sentinel::Sentinels;
use crate::clock::{self, Monotonic};
use crate::store::StoreError;
use crate::worker::PerWorker;

/// For how long a server that took another one's place may be told of events that only that one knew: LiveKit sends a
/// copy again for 15 s, after up to 30 s in its queue.
const HEIR_FOR: Duration = Duration::from_mins(1);

/// How long to wait for a server.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// For a connection, from the look-up of the name to the log-in's answer.
    pub(super) connect: Duration,
    /// For the answer to a command.
    pub(super) operation: Duration,
}

/// Whom to connect to.
pub(super) enum Source {
    /// One place.
    Place(Arc<Dialer>, Place),
    /// Whomever the sentinels name.
    Sentinels(Sentinels),
}

/// Shared connections.
pub(super) struct Wire {
    source: Source,
    patience: Patience,
    /// The connections in use, or those to be made: whoever comes first makes it, the others wait for the same one.
    current: PerWorker<Current>,
    /// The last one's place, and when another took it.
    heir: Mutex<(Option<Place>, Option<Monotonic>)>,
}

/// One worker's connection.
#[derive(Default)]
struct Current(Mutex<Arc<OnceCell<Link>>>);

impl Wire {
    /// Connects to nothing yet.
    pub(super) fn new(source: Source, patience: Patience) -> Self {
        Self { source, patience, current: PerWorker::default(), heir: Mutex::default() }
    }

    /// Sends one command over the connection in use, or over a new one; returns that as well.
    ///
    /// Takes at most what [`Patience`] allows for both; where sentinels have to be asked, three times that.
    pub(super) async fn ask<T>(
        &self,
        command: impl AsyncFnOnce(&mut Link) -> RedisResult<T>,
    ) -> Result<(T, Link), StoreError> {
        let mine = self.current.mine();
        let current = mine.usable();
        let answer = pin!(self.ask_over(&current, command)).await;
        if answer.as_ref().is_err_and(StoreError::spoils_connection) {
            mine.replace(&current);
        }
        answer
    }

    /// Gives up connections to a server that the sentinels no longer take for the master. It may not know yet, and
    /// would go on to take what the new one never hears of.
    pub(super) async fn verify(&self) {
        let Source::Sentinels(sentinels) = &self.source else { return };
        // Nearly always all lead to the same place: they are asked about each place once.
        let mut disowned: Vec<(Place, bool)> = Vec::new();
        for of_worker in self.current.iter() {
            let current = of_worker.usable();
            let Some(place) = current.get().map(Link::place) else { continue };
            let known = disowned.iter().find(|(known, _)| known == place).map(|(_, is)| *is);
            let is_disowned = match known {
                Some(is_disowned) => is_disowned,
                None => sentinels.disown(place).await,
            };
            if known.is_none() {
                disowned.push((place.clone(), is_disowned));
            }
            if is_disowned {
                tracing::warn!("the sentinels name another master: changing over");
                of_worker.replace(&current);
            }
        }
    }

    /// Gives up all connections. What befell one has befallen the others, and whoever has been idle does not know yet:
    /// asking over one that fell silent would cost a time-out more.
    pub(super) fn give_up(&self) {
        for of_worker in self.current.iter() {
            *of_worker.lock() = Arc::default();
        }
    }

    /// Takes note that the server has taken another one's place.
    pub(super) fn inherited(&self) {
        self.heir().1 = Some(clock::monotonic());
    }

    /// Whether the server has taken another one's place so lately that copies of what that one did not pass on may
    /// still come.
    pub(super) fn is_heir(&self) -> bool {
        let heir = self.heir();
        heir.1.is_some_and(|since| clock::monotonic().since(since) < HEIR_FOR)
    }

    /// Compares the server that a new connection leads to with the last one.
    fn compare(&self, link: &Link) {
        let mut heir = self.heir();
        if heir.0.as_ref().is_some_and(|last| last != link.place()) {
            heir.1 = Some(clock::monotonic());
        }
        heir.0 = Some(link.place().clone());
    }

    async fn ask_over<T>(
        &self,
        current: &OnceCell<Link>,
        command: impl AsyncFnOnce(&mut Link) -> RedisResult<T>,
    ) -> Result<(T, Link), StoreError> {
        // The clone keeps the connection's task alive until the answer is there, even if others replace it meanwhile.
        let mut link = match current.get() {
            Some(link) => link.clone(),
            None => self.first_link(current).await?,
        };
        let answer = timeout(self.patience.operation, pin!(command(&mut link)))
            .await
            .map_err(|_| StoreError::Timeout(self.patience.operation))?
            .map_err(|error| classify::error(&error))?;
        Ok((answer, link))
    }

    /// Makes the connection, or waits for whoever makes it. The limit is each one's own: the cell lets those who wait try
    /// one after the other.
    async fn first_link(&self, current: &OnceCell<Link>) -> Result<Link, StoreError> {
        let made = current.get_or_try_init(|| self.connect_and_compare());
        within(self.connect_limit(), made).await.cloned()
    }

    async fn connect_and_compare(&self) -> Result<Link, StoreError> {
        let link = self.connect().await?;
        self.compare(&link);
        Ok(link)
    }

    /// In a box, for sentinels are asked over wires too.
    fn connect(&self) -> Pin<Box<dyn Future<Output = Result<Link, StoreError>> + Send + '_>> {
        match &self.source {
            Source::Place(dialer, place) => dialer.dial(place),
            Source::Sentinels(sentinels) => Box::pin(sentinels.connect()),
        }
    }

    fn connect_limit(&self) -> Duration {
        match &self.source {
            Source::Place(..) => self.patience.connect,
            Source::Sentinels(_) => (self.patience.connect + self.patience.operation) * 2,
        }
    }

    fn heir(&self) -> MutexGuard<'_, (Option<Place>, Option<Monotonic>)> {
        self.heir.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    /// The connection in use, or the one to be made if there is none that is open.
    fn usable(&self) -> Arc<OnceCell<Link>> {
        let mut current = self.lock();
        if current.get().is_some_and(Link::is_closed) {
            *current = Arc::default();
        }
        Arc::clone(&current)
    }

    /// Lets the next operation connect anew, unless somebody has seen to that already.
    fn replace(&self, spoilt: &Arc<OnceCell<Link>>) {
        let mut current = self.lock();
        if Arc::ptr_eq(&current, spoilt) {
            *current = Arc::default();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<OnceCell<Link>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `step` comes to, or [`StoreError::Timeout`].
pub(super) async fn within<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(limit, step).await.map_err(|_| StoreError::Timeout(limit))?
}
