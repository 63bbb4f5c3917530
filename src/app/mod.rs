//! Composition root: Config -> rooms -> tasks -> drain.
//!
//! [`start`] builds every room from its section of the configuration ([`rooms`]), spawns what runs beside the requests,
//! and returns a [`Running`], whose [`Running::stop`] ends all of it in order. What a room does is left to the room.

mod rooms;
mod service;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::readiness::{MemoryUse, Stage};
use crate::admin::{self, Admin, Readiness, StoreHealth};
use crate::clock;
use crate::config::{Config, Shutdown};
use crate::dispatch::Dispatch;
use crate::gateway::Gateway;
use crate::listener::tls::{Tls, TlsError, Validity};
use crate::listener::{self, Listener};
use crate::store::{Store, StoreError};
use crate::telemetry::{Metrics, log};
use crate::upstream::BuildError;
use crate::webhook::verify::KeyRingError;

use service::Service;

/// How long what could not be recorded may still take at the end.
const BACKLOG_GRACE: Duration = Duration::from_secs(2);
/// From when on an expiry is worth a warning at the start.
const CERTIFICATE_WARNING: Duration = Duration::from_hours(14 * 24);
/// How long an admin request's head may take, and how many may ask at once.
const ADMIN_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log.
    #[error("cannot set up the log")]
    Log(#[from] log::InitError),
    /// The listener's address.
    #[error(transparent)]
    Listen(#[from] listener::BindError),
    /// The admin listener's address.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// The admin thread.
    #[error("cannot start the admin thread")]
    AdminThread(#[source] std::io::Error),
    /// The listener's certificates.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    /// A backend.
    #[error("cannot set up a backend")]
    Backend(#[from] BuildError),
    /// The store, for a reason that time does not mend.
    #[error("cannot use the store; hint: {}", .0.hint())]
    Store(#[from] StoreError),
    /// The keys.
    #[error("cannot use the API keys")]
    Keys(#[from] KeyRingError),
    /// A file that the configuration names.
    #[error("cannot read {}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key file that holds no text.
    #[error("{} is no PEM file", .0.display())]
    NotPem(PathBuf),
    /// The number of a Redis database.
    #[error("store.redis: there is no database {0}; hint: use 0 to 65535")]
    Database(i64),
}

/// A running gateway.
pub struct Running {
    address: SocketAddr,
    admin_address: SocketAddr,
    shutdown: Shutdown,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    /// Ends accepting, and what waits for a next request.
    stop: CancellationToken,
    /// Drops what is still open.
    kill: CancellationToken,
    /// Ends what runs beside the requests.
    end: CancellationToken,
    /// The listener.
    serving: TaskTracker,
    /// Exchanges, detached from their senders.
    exchanges: TaskTracker,
    /// What runs beside the requests.
    beside: TaskTracker,
    admin: JoinHandle<()>,
}

/// Sets up this process's log as `config` says. Once for each process; demos and tests go without.
pub fn init_log(config: &Config) -> Result<(), StartError> {
    Ok(log::init(&rooms::log(config.log))?)
}

/// Starts a gateway within the current runtime. A store that cannot be reached does not keep it from starting, one that
/// is set up wrong does.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let metrics = Metrics::new();
    let (stop, kill, end) =
        (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let (serving, exchanges, beside) = (TaskTracker::new(), TaskTracker::new(), TaskTracker::new());
    // Driven connections end by themselves; nobody waits for those that idle.
    let connections = TaskTracker::new();

    let tls = rooms::listener_tls(&config.tls)?;
    let stores = rooms::stores(&config.store)?;
    check(&stores.shared).await?;
    let dispatch = Arc::new(Dispatch::new(rooms::dispatch(&config), stores, Arc::clone(&metrics)));
    let routes = rooms::routes(&config, &metrics, &connections)?;
    let (relay, relayed_routes) = rooms::relays(&config, &connections, &stop)?;
    let gateway = config.enabled.then(|| {
        let dispatch = Arc::clone(&dispatch);
        Gateway::new(
            routes,
            rooms::gateway(&config),
            dispatch,
            Arc::clone(&metrics),
            exchanges.clone(),
        )
    });
    let trusted_proxies = config.listen.trusted_proxies.clone();
    let service = Arc::new(Service {
        gateway,
        relayed_routes,
        relay,
        trusted_proxies,
        metrics: Arc::clone(&metrics),
    });

    let listener = Listener::bind(rooms::listener(&config, tls.as_ref()), Arc::clone(&metrics))?;
    let address = listener.local_address();
    let readiness = Arc::new(Readiness::new());
    let admin = bind_admin(&config, &metrics, &readiness, &dispatch)?;
    let admin_address = admin.local_address();

    watch_beside(&beside, &dispatch, &metrics, &end);
    let admin = spawn_admin(admin, end.clone())?;
    let (stopped, killed) = (stop.clone(), kill.clone());
    serving.spawn(listener.serve(
        move |request, peer| Arc::clone(&service).answer(request, peer),
        stopped,
        killed,
    ));
    readiness.set(Stage::Ready);
    announce(&config, tls.as_ref(), &metrics, address, admin_address);
    let shutdown = config.shutdown;
    Ok(Running {
        address,
        admin_address,
        shutdown,
        metrics,
        readiness,
        stop,
        kill,
        end,
        serving,
        exchanges,
        beside,
        admin,
    })
}

impl Running {
    /// Where senders connect.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where health and metrics are.
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// What has been counted, as OpenMetrics text.
    pub fn metrics(&self) -> String {
        self.metrics.encode().unwrap_or_default()
    }

    /// Ends it in order: not ready, `drain_delay` for balancers to notice, no new connections, what is in flight
    /// finished and its claims settled within `grace`. Dropping the future ends at once what is still running when the
    /// runtime does.
    pub async fn stop(self) {
        self.readiness.set(Stage::Draining);
        tracing::info!(drain_delay_ms = millis(self.shutdown.drain_delay), "draining");
        tokio::time::sleep(self.shutdown.drain_delay).await;
        self.stop.cancel();
        self.serving.close();
        self.exchanges.close();
        let finished = async {
            self.serving.wait().await;
            self.exchanges.wait().await;
        };
        if tokio::time::timeout(self.shutdown.grace, finished).await.is_err() {
            tracing::warn!(
                grace_ms = millis(self.shutdown.grace),
                exchanges = self.exchanges.len(),
                "not all that was in flight has finished; its leases will lapse"
            );
            self.kill.cancel();
        }
        self.end.cancel();
        self.beside.close();
        if tokio::time::timeout(BACKLOG_GRACE, self.beside.wait()).await.is_err() {
            tracing::warn!("some operations could not be recorded at the store");
        }
        // The thread ends with `end`; a second is its own limit for open connections.
        if tokio::task::spawn_blocking(move || self.admin.join()).await.is_err() {
            tracing::warn!("the admin thread ended badly");
        }
        tracing::info!("stopped");
    }
}

/// Asks the store whether it can do its work.
async fn check(store: &Store) -> Result<(), StartError> {
    match store.check().await {
        Ok(warnings) => {
            for warning in warnings {
                tracing::warn!(store = store.kind(), "{warning}");
            }
            Ok(())
        }
        Err(error) if error.is_misconfigured() => Err(error.into()),
        Err(error) => {
            tracing::warn!(
                store = store.kind(), error = %watch::chain(&error), hint = error.hint(),
                "the store cannot be asked yet; starting all the same"
            );
            Ok(())
        }
    }
}

fn bind_admin(
    config: &Config,
    metrics: &Arc<Metrics>,
    readiness: &Arc<Readiness>,
    dispatch: &Arc<Dispatch>,
) -> Result<Admin, StartError> {
    let options = admin::Options {
        address: config.admin.address,
        head_timeout: ADMIN_HEAD_TIMEOUT,
        connections_max: ADMIN_CONNECTIONS_MAX,
    };
    let dispatch = Arc::clone(dispatch);
    let state = admin::State {
        metrics: Arc::clone(metrics),
        readiness: Arc::clone(readiness),
        store: Arc::new(move || health(&dispatch)),
    };
    Ok(Admin::bind(options, state)?)
}

/// How the store is, and what the memory beside it (or the memory that it is) holds.
fn health(dispatch: &Dispatch) -> StoreHealth {
    let stores = dispatch.stores();
    let usage = match &stores.shared {
        Store::Memory(memory) => memory.usage(),
        Store::Redis(_) => stores.remembered.usage(),
    };
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let memory = MemoryUse {
        records: count(usage.records),
        bytes: count(usage.bytes),
        evicted: usage.evicted,
    };
    StoreHealth { kind: stores.shared.kind(), outage: stores.shared.outage(), memory: Some(memory) }
}

fn spawn_admin(admin: Admin, end: CancellationToken) -> Result<JoinHandle<()>, StartError> {
    let serve = move || {
        if let Err(error) = admin.serve(&end) {
            tracing::error!(%error, "health and metrics are no longer served");
        }
    };
    std::thread::Builder::new().name("admin".into()).spawn(serve).map_err(StartError::AdminThread)
}

/// Spawns what runs beside the requests until `end`.
fn watch_beside(
    beside: &TaskTracker,
    dispatch: &Arc<Dispatch>,
    metrics: &Arc<Metrics>,
    end: &CancellationToken,
) {
    let (working, stopping) = (Arc::clone(dispatch), end.clone());
    beside.spawn(async move { working.finish(stopping).await });
    let (probing, stopping) = (Arc::clone(dispatch), end.clone());
    beside.spawn(async move {
        tokio::select! {
            never = probing.stores().shared.probe_loop() => match never {},
            () = stopping.cancelled() => {}
        }
    });
    let (watched, metrics, stopping) = (Arc::clone(dispatch), Arc::clone(metrics), end.clone());
    beside.spawn(async move {
        tokio::select! {
            never = watch::store(&watched.stores().shared, &metrics) => match never {},
            () = stopping.cancelled() => {}
        }
    });
}

/// Says that it runs, and what an operator should know besides.
fn announce(
    config: &Config,
    tls: Option<&Tls>,
    metrics: &Metrics,
    address: SocketAddr,
    admin_address: SocketAddr,
) {
    for leaf in tls.iter().flat_map(|tls| &tls.leaves) {
        metrics.certificate(&leaf.name, clock::UnixTime::from_epoch(leaf.not_after));
        let certificate = leaf.name.as_str();
        match leaf.validity(clock::unix().since_epoch()) {
            Validity::Valid(left) if left > CERTIFICATE_WARNING => {}
            Validity::Valid(left) => {
                tracing::warn!(
                    certificate,
                    days_left = days(left),
                    "this certificate expires soon"
                );
            }
            Validity::Expired(since) => {
                tracing::error!(
                    certificate,
                    days_since = days(since),
                    "this certificate has expired: LiveKit refuses it"
                );
            }
            Validity::NotYet(early) => {
                tracing::error!(
                    certificate,
                    seconds_early = early.as_secs(),
                    "this certificate is not valid yet"
                );
            }
        }
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if !config.enabled {
        tracing::warn!(
            "verification and deduplication are OFF: every request is relayed as it comes"
        );
    }
    for route in &config.routes {
        tracing::info!(path = route.path.as_str(), backend = %route.upstream.backend.uri(), "route");
    }
    tracing::info!(%address, admin = %admin_address, tls = tls.is_some(), "listening");
}

const fn days(duration: Duration) -> u64 {
    duration.as_secs() / 86_400
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
