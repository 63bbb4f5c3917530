//! The counters, gauges and histograms of one process, and their text.
//!
//! A method is named by what happened. Serving the text is left to `admin`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::claim::record::{Operation, Reply};
use crate::clock;

use super::families::{Connections, Durations, Reloads, Stores, Webhooks};
use super::labels::{
    self, AdminRefusal, ConnectionEnd, ConnectionRejection, Http2Error, Http2Scope, Malformed,
    ReloadResult, StatusClass, TlsFailure,
};
use super::log;
use super::process::Process;
use super::series::{Route, SharedSeries};
pub use super::totals::Counts;
use super::totals::Totals;

/// The content type of [`Metrics::encode`]'s text (OpenMetrics 1.0.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All that is counted. Shared by an [`Arc`]; every method may be called from any thread, and none blocks for long.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub(super) webhooks: Webhooks,
    pub(super) store: Stores,
    connections: Connections,
    pub(super) durations: Durations,
    reloads: Reloads,
    pub(super) totals: Totals,
    pub(super) series: SharedSeries,
}

impl Metrics {
    /// All at zero. The process counts as started now.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process::started(clock::unix())));
        let ours = registry.sub_registry_with_prefix("oncehook");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))].to_vec());
        ours.register("build", "The version that is running", build);
        let webhooks = Webhooks::registered(ours);
        let store = Stores::registered(ours);
        let connections = Connections::registered(ours);
        let durations = Durations::registered(ours);
        let reloads = Reloads::registered(ours);
        let help = "Log lines that were dropped, because standard error took none";
        ours.register("log_lines_dropped", help, log::dropped());
        for &result in ReloadResult::ALL {
            drop(reloads.done.get_or_create(&labels::Reload { result }));
        }
        let totals = Totals::default();
        let series = SharedSeries::default();
        Arc::new(Self {
            registry,
            webhooks,
            store,
            connections,
            durations,
            reloads,
            totals,
            series,
        })
    }

    /// Why a copy was refused, beside [`Metrics::answered`]. `reason` is the `label()` of a closed enum.
    pub fn refused(&self, route: &Route, reason: &'static str) {
        self.webhooks
            .refusals
            .get_or_create(&labels::Refusal { route: route.series().name.clone(), reason })
            .inc();
    }

    /// A refusal was neither told nor logged: its source has been refused too often.
    pub fn refusal_limited(&self) {
        self.webhooks.refusals_limited.inc();
    }

    /// The store cannot be asked (or can again), and this process decides alone or rejects.
    pub fn store_degraded(&self, degraded: Degraded) {
        self.store.degraded.set(match degraded {
            Degraded::No => 0,
            Degraded::Yes => 1,
        });
    }

    /// What the memory store holds, or the memory of settled keys beside another store; `evicted` since the start.
    pub fn store_memory(&self, records: u64, bytes: u64, evicted: u64) {
        self.store.memory_records.set(gauge(records));
        self.store.memory_bytes.set(gauge(bytes));
        self.store.memory_evicted.inner().store(evicted, Ordering::Relaxed);
    }

    /// What the store's file holds and how large it is; `evicted` and `set_aside` since the start.
    pub fn store_disk(&self, records: u64, file_bytes: u64, evicted: u64, set_aside: u64) {
        self.store.disk_records.set(gauge(records));
        self.store.disk_bytes.set(gauge(file_bytes));
        self.store.disk_evicted.inner().store(evicted, Ordering::Relaxed);
        self.store.disk_set_aside.inner().store(set_aside, Ordering::Relaxed);
    }

    /// A forward was marked `Oncehook-Possible-Duplicate`.
    pub fn possible_duplicate(&self) {
        self.webhooks.possible_duplicates.inc();
    }

    /// A settle found that another had settled: the backend has accepted an event twice.
    pub fn double(&self) {
        self.webhooks.doubles.inc();
    }

    /// A settle or a release came from an owner that no longer held the lease.
    pub fn fenced(&self) {
        self.webhooks.fenced.inc();
    }

    /// A duplicate had other content than the copy that was forwarded.
    pub fn key_conflict(&self) {
        self.webhooks.key_conflicts.inc();
    }

    /// In shadow mode: forwarded, though it would have been collapsed.
    pub fn would_collapse(&self) {
        self.webhooks.would_collapse.inc();
    }

    /// So many settles and releases wait for the store.
    pub fn unfinished(&self, waiting: usize) {
        self.store.unfinished.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// A settle or release that had waited was recorded.
    pub fn written_back(&self, operation: Operation, reply: Reply) {
        let (operation, result) = (operation.into(), labels::reply_label(reply));
        self.store.written_back.get_or_create(&labels::Store { operation, result }).inc();
    }

    /// A settle or release was given up before a store had taken it.
    pub fn unfinished_dropped(&self, operation: Operation) {
        let set = labels::StoreTime { operation: operation.into() };
        self.store.unfinished_dropped.get_or_create(&set).inc();
    }

    /// The store has been out for so much longer.
    pub fn store_degraded_for(&self, more: Duration) {
        self.store.degraded_seconds.inc_by(more.as_secs_f64());
    }

    /// An exchange panicked. It alone fails: its lease lapses, and the sender's retry wins.
    pub fn exchange_panicked(&self) {
        self.webhooks.panics.inc();
    }

    /// A copy is being worked on until the guard is dropped.
    pub fn in_flight(&self) -> Occupied {
        Occupied::one_of(&self.webhooks.in_flight)
    }

    /// A request that is no webhook was relayed and answered.
    pub fn relayed(&self, status: u16) {
        self.webhooks
            .relayed
            .get_or_create(&labels::Relay { class: StatusClass::of(status) })
            .inc();
    }

    /// A connection was accepted; it counts as open until the guard is dropped.
    pub fn connection_accepted(&self) -> Occupied {
        self.connections.accepted.inc();
        Occupied::one_of(&self.connections.open)
    }

    /// The operating system could not hand over a connection.
    pub fn accept_failed(&self) {
        self.connections.accept_errors.inc();
    }

    /// A connection was closed before anything was read from it.
    pub fn connection_rejected(&self, reason: ConnectionRejection) {
        self.connections.rejected.get_or_create(&labels::Rejection { reason }).inc();
    }

    /// A TLS handshake failed.
    pub fn tls_failed(&self, reason: TlsFailure) {
        self.connections.tls_failures.get_or_create(&labels::TlsFailed { reason }).inc();
    }

    /// A connection that had been admitted came to its end.
    pub fn connection_ended(&self, reason: ConnectionEnd) {
        self.connections.ended.get_or_create(&labels::Ended { reason }).inc();
    }

    /// Somebody asked the admin listener for what it may not see.
    pub fn admin_refused(&self, reason: AdminRefusal) {
        self.connections.admin_refused.get_or_create(&labels::Admin { reason }).inc();
    }

    /// A stream or a connection of HTTP/2 was ended, and its peer told why.
    pub fn http2_error(&self, scope: Http2Scope, code: Http2Error) {
        self.connections.http2_errors.get_or_create(&labels::Http2 { scope, code }).inc();
    }

    /// A request was refused for its form.
    pub fn malformed(&self, reason: Malformed) {
        self.connections.malformed.get_or_create(&labels::MalformedRequest { reason }).inc();
    }

    /// A service panicked under a connection.
    pub fn service_panicked(&self) {
        self.connections.panics.inc();
    }

    /// When something ceases to be valid. `name` comes from a certificate or a list that is configured, so the set is
    /// bounded.
    pub fn expires(&self, what: Expiring, name: &str, at: clock::UnixTime) {
        let set = labels::Certificate { name: Arc::from(name) };
        self.expiring(what).get_or_create(&set).set(gauge(at.seconds()));
    }

    /// It is no longer in use.
    pub fn expiry_gone(&self, what: Expiring, name: &str) {
        self.expiring(what).remove(&labels::Certificate { name: Arc::from(name) });
    }

    const fn expiring(&self, what: Expiring) -> &Family<labels::Certificate, Gauge> {
        match what {
            Expiring::Certificate => &self.connections.certificate_not_after,
            Expiring::ClientAuthority => &self.connections.client_ca_not_after,
            Expiring::RevocationList => &self.connections.crl_next_update,
        }
    }

    /// The configuration was accepted at the start, which is no reload.
    pub fn configured(&self, at: clock::UnixTime) {
        self.reloads.successful.set(1);
        self.reloads.success.set(gauge(at.seconds()));
    }

    /// The configuration was read again.
    pub fn reloaded(&self, result: ReloadResult, at: clock::UnixTime) {
        self.reloads.done.get_or_create(&labels::Reload { result }).inc();
        match result {
            ReloadResult::Applied | ReloadResult::Unchanged => self.configured(at),
            ReloadResult::Rejected => {
                self.reloads.successful.set(0);
            }
        }
    }

    /// How many copies there were, over all routes.
    pub fn counts(&self) -> Counts {
        let in_flight = u64::try_from(self.webhooks.in_flight.get()).unwrap_or_default();
        self.totals.counts(in_flight)
    }

    /// All of it as OpenMetrics text, which ends in `# EOF` and has [`CONTENT_TYPE`].
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut into = String::new();
        text::encode(&mut into, &self.registry)?;
        Ok(into)
    }
}

/// What ceases to be valid at a known time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expiring {
    /// A certificate that is shown to senders.
    Certificate,
    /// An authority of client certificates.
    ClientAuthority,
    /// A list of client certificates that were revoked.
    RevocationList,
}

/// Whether the store is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Degraded {
    /// It replies.
    No,
    /// It does not.
    Yes,
}

/// Holds a gauge one higher until it is dropped.
#[derive(Debug)]
#[must_use = "the gauge falls again when this is dropped"]
pub struct Occupied(Gauge);

impl Occupied {
    fn one_of(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A gauge holds an `i64`; what does not fit stands at its end.
fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
