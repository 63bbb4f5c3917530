//! Composition root: Config -> rooms -> tasks -> drain.
//!
//! [`start`] builds every room from its section of the configuration ([`rooms`]), spawns what runs beside the requests,
//! and returns a [`Running`], which takes another configuration ([`Running::reload`]), and whose [`Running::stop`] ends
//! all of it in order. What a room does is left to the room.

mod announce;
mod expiry;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod reload;
mod rooms;
mod service;
mod status;
mod store;
mod tls;
mod watch;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::readiness::Stage;
use crate::admin::{self, Admin, Guard, Readiness};
use crate::clock;
use crate::config::{Config, Shutdown};
use crate::dispatch::Dispatch;
use crate::listener::tls::{Tls, TlsError};
use crate::listener::{self, Listener};
use crate::store::StoreError;
use crate::telemetry::{Metrics, log};
use crate::upstream::BuildError;
use crate::webhook::verify::KeyRingError;
use crate::worker;

use service::{Lasting, Service};
use status::Ledger;

/// What a runtime's threads call before they park, and a process before it ends: lines of the log are kept until then.
pub use crate::telemetry::log::{before_park, finish as finish_log, flush as flush_log};

pub use reload::{ReloadError, Reloaded};

/// For how long at the end it is still tried to record what could not be: a store that has just come back is found by
/// the probe within about a second. And how long the last try may take beyond that.
const BACKLOG_GRACE: Duration = Duration::from_secs(2);
const LAST_TRY: Duration = Duration::from_secs(3);
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
    /// Random numbers, which every claim needs.
    #[error("the operating system gives no random numbers; hint: a container needs /dev/urandom")]
    Random(#[source] getrandom::Error),
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
    /// The thread that writes the store's file.
    #[error("cannot start the store's thread")]
    StoreThread(#[source] std::io::Error),
    /// The number of a Redis database.
    #[error("store.redis: there is no database {0}; hint: use 0 to 65535")]
    Database(i64),
}

impl StartError {
    /// Whether another process has what this one needs, and it may help to wait for its end.
    pub const fn is_in_use(&self) -> bool {
        matches!(self, Self::Store(StoreError::InUse(_)))
    }
}

/// A running gateway.
pub struct Running {
    address: SocketAddr,
    admin_address: SocketAddr,
    readiness: Arc<Readiness>,
    /// The configuration of the start: what only a restart changes is as it says.
    started: Config,
    /// The last one that was accepted.
    current: Config,
    /// What the listener shows, as far as it speaks TLS.
    tls: Option<Tls>,
    /// The same of the admin listener, and what it asks for.
    admin_tls: Option<Tls>,
    admin_guard: Arc<ArcSwap<Guard>>,
    service: Arc<ArcSwap<Service>>,
    control: listener::Control,
    lasting: Lasting,
    ledger: Arc<Ledger>,
    /// Ends accepting, and what waits for a next request.
    stop: CancellationToken,
    /// Drops what is still open.
    kill: CancellationToken,
    /// Lets the backlog come to its end.
    finish: CancellationToken,
    /// Ends what runs beside the requests.
    end: CancellationToken,
    /// The listener.
    serving: TaskTracker,
    /// What is recorded behind the requests' backs.
    backlog: TaskTracker,
    /// What runs beside the requests.
    beside: TaskTracker,
    admin: JoinHandle<()>,
    /// The thread that writes the store's file.
    writer: Option<JoinHandle<()>>,
}

/// Sets up this process's log as `config` says. Once for each process; demos and tests go without.
pub fn init_log(config: &Config) -> Result<(), StartError> {
    Ok(log::init(rooms::log(config.log))?)
}

/// Starts a gateway within the current runtime. A store that cannot be reached does not keep it from starting, one that
/// is set up wrong does.
pub async fn start(config: Config) -> Result<Running, StartError> {
    // Boxed, for it is large, and waited for once.
    Box::pin(start_on(None, config)).await
}

/// The same, with webhooks on a socket that listens already, whatever `listen.address` says; `None` binds that.
pub async fn start_on(socket: Option<TcpListener>, config: Config) -> Result<Running, StartError> {
    // Asked before the first event comes: the first answer may take a while, and without one nothing can be claimed.
    getrandom::u64().map_err(StartError::Random)?;
    let metrics = Metrics::new();
    let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
    let (finish, end) = (CancellationToken::new(), CancellationToken::new());
    let (serving, exchanges) = (TaskTracker::new(), TaskTracker::new());
    let (backlog, beside) = (TaskTracker::new(), TaskTracker::new());

    let tls = tls::listener(&config)?;
    let admin_tls = tls::admin(&config.admin)?;
    let (stores, writer) = rooms::stores(&config.store)?;
    let writer = writer.map(store::spawn).transpose()?;
    store::check(&stores.shared).await?;
    let dispatch = Arc::new(Dispatch::new(rooms::dispatch(&config), stores, Arc::clone(&metrics)));
    let lasting = Lasting {
        dispatch: Arc::clone(&dispatch),
        metrics: Arc::clone(&metrics),
        exchanges,
        // Driven connections end by themselves; nobody waits for those that idle.
        connections: TaskTracker::new(),
        stop: stop.clone(),
    };
    let service = Arc::new(ArcSwap::from_pointee(Service::new(&config, &lasting, None)?));

    let listener = listener(socket, rooms::listener(&config, tls.as_ref()), &metrics)?;
    let (address, control) = (listener.local_address(), listener.control());
    let readiness = Arc::new(Readiness::new());
    let ledger =
        Arc::new(Ledger::new(Arc::clone(&readiness), Arc::clone(&dispatch), Arc::clone(&metrics)));
    let guard = tls::guard(&config.admin, admin_tls.as_ref());
    let admin = bind_admin(&config, guard, &ledger)?;
    let (admin_address, admin_guard) = (admin.local_address(), admin.guard());

    let (working, finishing) = (Arc::clone(&dispatch), finish.clone());
    backlog.spawn(async move { working.finish(finishing, BACKLOG_GRACE).await });
    watch_beside(&beside, &dispatch, &ledger, &end);
    let admin = spawn_admin(admin, end.clone())?;
    let (serve, stopped, killed) = (Arc::clone(&service), stop.clone(), kill.clone());
    serving.spawn(listener.serve(
        move |request, peer: Arc<listener::Peer>| serve.load_full().answer(request, &peer),
        stopped,
        killed,
    ));
    readiness.set(Stage::Ready);
    metrics.configured(clock::unix());
    ledger.configured(&config, expiry::of([&tls, &admin_tls]));
    announce::configuration(&config);
    tracing::info!(%address, admin = %admin_address, tls = tls.is_some(), "listening");
    Ok(Running {
        address,
        admin_address,
        readiness,
        started: config.clone(),
        current: config,
        tls,
        admin_tls,
        admin_guard,
        service,
        control,
        lasting,
        ledger,
        stop,
        kill,
        finish,
        end,
        serving,
        backlog,
        beside,
        admin,
        writer,
    })
}

/// Comes back when each of the workers has done something: one that is stuck does not.
pub async fn pulse() {
    for worker in worker::crew().iter() {
        // A task that is cut off has been run, too.
        drop(TaskTracker::new().spawn_on(std::future::ready(()), worker).await);
    }
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
        self.lasting.metrics.encode().unwrap_or_default()
    }

    /// Ends it in order: not ready, `drain_delay` for balancers to notice, no new connections, what is in flight
    /// finished and its claims settled within `grace`. Dropping the future ends at once what is still running when the
    /// runtime does.
    pub async fn stop(self) {
        let Shutdown { drain_delay, grace } = self.current.shutdown;
        let exchanges = &self.lasting.exchanges;
        self.readiness.set(Stage::Draining);
        tracing::info!(drain_delay_ms = millis(drain_delay), "draining");
        tokio::time::sleep(drain_delay).await;
        self.stop.cancel();
        self.serving.close();
        exchanges.close();
        let finished = async {
            self.serving.wait().await;
            exchanges.wait().await;
        };
        if tokio::time::timeout(grace, finished).await.is_err() {
            tracing::warn!(
                grace_ms = millis(grace),
                exchanges = exchanges.len(),
                "not all that was in flight has finished; its leases will lapse"
            );
            self.kill.cancel();
        }
        // The store is probed until the backlog has come to its end: it may be back in time.
        self.finish.cancel();
        self.backlog.close();
        if tokio::time::timeout(BACKLOG_GRACE + LAST_TRY, self.backlog.wait()).await.is_err() {
            tracing::warn!("some operations could not be recorded at the store");
        }
        self.end.cancel();
        self.beside.close();
        self.beside.wait().await;
        store::close(&self.lasting.dispatch.stores().shared, self.writer).await;
        // The thread ends with `end`; a second is its own limit for open connections.
        let ended = tokio::task::spawn_blocking(move || self.admin.join()).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("the admin thread ended badly");
        }
        tracing::info!("stopped");
    }
}

/// The listener, on `socket` if there is one.
fn listener(
    socket: Option<TcpListener>,
    options: listener::Options,
    metrics: &Arc<Metrics>,
) -> Result<Listener, listener::BindError> {
    match socket {
        None => Listener::bind(options, Arc::clone(metrics)),
        Some(socket) => Listener::on(socket, options, Arc::clone(metrics)),
    }
}

fn bind_admin(config: &Config, guard: Guard, ledger: &Arc<Ledger>) -> Result<Admin, StartError> {
    let options = admin::Options {
        address: config.admin.address,
        head_timeout: ADMIN_HEAD_TIMEOUT,
        connections_max: ADMIN_CONNECTIONS_MAX,
    };
    let (of_store, of_all) = (Arc::clone(ledger), Arc::clone(ledger));
    let state = admin::State {
        metrics: Arc::clone(ledger.metrics()),
        readiness: Arc::clone(ledger.readiness()),
        store: Arc::new(move || store::health(of_store.dispatch())),
        status: Arc::new(move || of_all.status()),
    };
    Ok(Admin::bind(options, guard, state)?)
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
    ledger: &Arc<Ledger>,
    end: &CancellationToken,
) {
    let (probing, stopping) = (Arc::clone(dispatch), end.clone());
    beside.spawn(async move {
        tokio::select! {
            never = probing.stores().shared.probe_loop() => match never {},
            () = stopping.cancelled() => {}
        }
    });
    let (watched, metrics, stopping) =
        (Arc::clone(dispatch), Arc::clone(ledger.metrics()), end.clone());
    beside.spawn(async move {
        tokio::select! {
            never = watch::store(&watched, &metrics) => match never {},
            () = stopping.cancelled() => {}
        }
    });
    let (reminding, stopping) = (Arc::clone(ledger), end.clone());
    beside.spawn(async move {
        tokio::select! {
            never = expiry::remind(&reminding) => match never {},
            () = stopping.cancelled() => {}
        }
    });
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
