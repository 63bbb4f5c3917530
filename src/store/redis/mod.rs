//! Records in Redis: three scripts that do what `apply` does, over one connection that many operations share.
//!
//! Connects when it is first needed, retries nothing, and gives every step a time-out of its own; a breaker keeps an
//! outage from costing each operation one. What an operation needs: EVALSHA, EVAL, GET, SET, TIME; a probe likewise.
//!
//! [`link`] connects; [`script`] translates operations and replies; [`classify`] makes errors of what went wrong;
//! [`check`] looks at the server when the gateway starts.

mod check;
mod classify;
mod link;
mod script;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::sync::OnceCell;
use tokio::time::timeout;

pub use link::{ClientCertificate, Credentials, Endpoint, TlsOptions};

use self::link::{Connector, Link};
use self::script::Scripts;
use super::StoreError;
use super::breaker::{Breaker, Change};
use crate::claim::record::{Operation, Reply};
use crate::claim::{Key, Owner};
use crate::clock;

/// What a probe is remembered for; any value does, for every probe writes the same record.
const PROBE_WINDOW: Duration = Duration::from_mins(1);

/// Where the server is, and how patient to be. `app` makes it of the configuration, where the defaults are.
pub struct Options {
    /// Where the server listens.
    pub endpoint: Endpoint,
    /// Who asks; `None` for a server that needs no password.
    pub credentials: Option<Credentials>,
    /// The number of the database.
    pub database: u16,
    /// TLS, if the server speaks it. Not over a Unix socket.
    pub tls: Option<TlsOptions>,
    /// What every key begins with; without braces, which have a meaning to Redis Cluster.
    pub prefix: String,
    /// How long a connection may take, from the look-up of the name to the server's first answer.
    pub connect_timeout: Duration,
    /// How long an operation may take on a connection that stands.
    pub operation_timeout: Duration,
    /// After how many failures in a row the server is not asked any more.
    pub breaker_failures: u32,
    /// How long the pauses between probes of a failing server are.
    pub breaker_probe_interval: Duration,
}

/// A store in one Redis server (or a master behind one address) of version 6.2 or newer.
pub struct Redis {
    connector: Connector,
    scripts: Scripts,
    prefix: String,
    connect_timeout: Duration,
    operation_timeout: Duration,
    probe_interval: Duration,
    breaker: Mutex<Breaker>,
    /// The connection in use, or the one to be made: whoever comes first makes it, the others wait for the same one.
    current: Mutex<Arc<OnceCell<Link>>>,
}

impl Redis {
    /// Reads the certificates; connects to nothing.
    pub fn new(options: Options) -> Result<Self, StoreError> {
        if options.prefix.contains(['{', '}']) {
            return Err(StoreError::Options(format!(
                "the key prefix {:?} contains a brace",
                options.prefix
            )));
        }
        let Options { endpoint, credentials, database, tls, prefix, .. } = options;
        Ok(Self {
            connector: Connector::new(endpoint, credentials, database, tls)?,
            scripts: Scripts::new(),
            prefix,
            connect_timeout: options.connect_timeout,
            operation_timeout: options.operation_timeout,
            probe_interval: options.breaker_probe_interval,
            breaker: Mutex::new(Breaker::new(options.breaker_failures)),
            current: Mutex::default(),
        })
    }

    /// Performs `operation` of `owner` on the record of `key`.
    ///
    /// Takes at most the connect time-out and the operation time-out; nothing while the breaker is open. A dropped
    /// future, a time-out or a broken connection leaves it open whether the operation was performed.
    pub async fn execute(
        &self,
        key: Key,
        owner: Owner,
        operation: Operation,
    ) -> Result<Reply, StoreError> {
        if self.breaker().is_open() {
            return Err(StoreError::Open);
        }
        self.attempt(&self.name(key), owner, &operation).await
    }

    /// How long every operation and probe has failed; `None` if the last one did not.
    pub fn outage(&self) -> Option<Duration> {
        self.breaker().outage(clock::monotonic())
    }

    /// Probes the server at every interval for as long as the last operation failed. Never returns; see
    /// [`Store::probe_loop`](super::Store::probe_loop).
    pub async fn probe_loop(&self) -> Infallible {
        loop {
            tokio::time::sleep(self.probe_interval).await;
            let wanted = self.breaker().wants_probe();
            if wanted && let Err(error) = self.probe().await {
                tracing::debug!(error = error.label(), "the store still fails");
            }
        }
    }

    /// The name of the record of `key`: the prefix, then the key in a hash tag, readable and short (base64url).
    pub fn name(&self, key: Key) -> String {
        format!("{}{{{}}}", self.prefix, URL_SAFE_NO_PAD.encode(key.0))
    }

    /// A whole claim on a record of its own: a PING would also be answered by a replica, by a server that is out of
    /// memory, and for a user who may not run scripts.
    async fn probe(&self) -> Result<(), StoreError> {
        // A new owner each time, and a lease that has lapsed by the next, so that the claim has to be written.
        let owner = Owner(u128::from(getrandom::u64().unwrap_or_default()));
        let claim = Operation::Claim { lease: Duration::ZERO, window: PROBE_WINDOW };
        self.attempt(&format!("{}{{probe}}", self.prefix), owner, &claim).await.map(|_| ())
    }

    async fn attempt(
        &self,
        name: &str,
        owner: Owner,
        operation: &Operation,
    ) -> Result<Reply, StoreError> {
        let outcome = self
            .ask(async |connection| self.scripts.run(connection, name, owner, operation).await)
            .await;
        let outcome = outcome.and_then(|value| script::reply(&value));
        self.note(&outcome);
        outcome
    }

    /// Sends one command over the connection in use, or over a new one.
    async fn ask(
        &self,
        command: impl AsyncFnOnce(&mut MultiplexedConnection) -> redis::RedisResult<Value>,
    ) -> Result<Value, StoreError> {
        let current = self.usable();
        let answer = self.ask_over(&current, command).await;
        if answer.as_ref().is_err_and(StoreError::spoils_connection) {
            self.replace(&current);
        }
        answer
    }

    async fn ask_over(
        &self,
        current: &OnceCell<Link>,
        command: impl AsyncFnOnce(&mut MultiplexedConnection) -> redis::RedisResult<Value>,
    ) -> Result<Value, StoreError> {
        let link =
            timeout(self.connect_timeout, current.get_or_try_init(|| self.connector.connect()))
                .await
                .map_err(|_| StoreError::Timeout(self.connect_timeout))??;
        // The clone keeps the connection's task alive until the answer is there, even if others replace it meanwhile.
        let mut link = link.clone();
        timeout(self.operation_timeout, command(link.connection()))
            .await
            .map_err(|_| StoreError::Timeout(self.operation_timeout))?
            .map_err(|error| classify::error(&error))
    }

    /// The connection in use, or the one to be made if there is none that is open.
    fn usable(&self) -> Arc<OnceCell<Link>> {
        let mut current = self.current();
        if current.get().is_some_and(Link::is_closed) {
            *current = Arc::default();
        }
        Arc::clone(&current)
    }

    /// Lets the next operation connect anew, unless somebody has seen to that already.
    fn replace(&self, spoilt: &Arc<OnceCell<Link>>) {
        let mut current = self.current();
        if Arc::ptr_eq(&current, spoilt) {
            *current = Arc::default();
        }
    }

    fn note(&self, outcome: &Result<Reply, StoreError>) {
        let failure = outcome.as_ref().err().filter(|error| !error.concerns_one_record());
        let change = match failure {
            Some(_) => self.breaker().failed(clock::monotonic()),
            None => self.breaker().succeeded(),
        };
        match (change, failure) {
            (Change::Opened, Some(error)) => {
                tracing::error!(error = error.label(), detail = %classify::with_sources(error), hint = error.hint(),
                    "the store fails again and again and is not asked for now");
            }
            (Change::Closed, _) => tracing::info!("the store answers again"),
            (Change::None | Change::Opened, _) => {}
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> MutexGuard<'_, Arc<OnceCell<Link>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
