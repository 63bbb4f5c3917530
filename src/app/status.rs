//! What is told of a gateway that runs: keeps what only `app` knows, and makes [`Status`] of it when somebody asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::admin::status::{Certificate, Reload, Route, Status, Store};
use crate::admin::{Readiness, readiness::Stage};
use crate::clock::{self, UnixTime};
use crate::config::{Config, Relay};
use crate::dispatch::Dispatch;
use crate::telemetry::Metrics;
use crate::telemetry::labels::ReloadResult;
use crate::telemetry::metrics::Expiring;

use super::expiry::{self, Expiry};

const SECONDS_OF_DAY: i64 = 86_400;

/// What is known of the process.
pub(super) struct Ledger {
    started: UnixTime,
    readiness: Arc<Readiness>,
    dispatch: Arc<Dispatch>,
    metrics: Arc<Metrics>,
    now: Mutex<Now>,
}

/// What a reload changes.
#[derive(Default)]
struct Now {
    routes: Vec<Route>,
    relay: Option<String>,
    /// Certificates and the like.
    expiries: Vec<Expiry>,
    restart_needed: Vec<String>,
    reload: Option<Reload>,
}

impl Ledger {
    /// Nothing but that it has started, now.
    pub(super) fn new(
        readiness: Arc<Readiness>,
        dispatch: Arc<Dispatch>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { started: clock::unix(), readiness, dispatch, metrics, now: Mutex::default() }
    }

    pub(super) const fn readiness(&self) -> &Arc<Readiness> {
        &self.readiness
    }

    pub(super) fn dispatch(&self) -> &Dispatch {
        &self.dispatch
    }

    pub(super) const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// This configuration holds; what it shows and checks expires as `expiries` say.
    pub(super) fn configured(&self, config: &Config, expiries: Vec<Expiry>) {
        let routes = config.routes.iter().map(|route| Route {
            path: route.path.to_string(),
            backend: route.upstream.backend.to_string(),
        });
        let mut now = self.lock();
        now.routes = routes.collect();
        now.relay = match &config.relay {
            Relay::NotFound => None,
            Relay::Backend(upstream) => Some(upstream.backend.to_string()),
        };
        expiry::announce(&expiries, &now.expiries, &self.metrics);
        now.expiries = expiries;
    }

    /// What expires one day.
    pub(super) fn expiries(&self) -> Vec<Expiry> {
        self.lock().expiries.clone()
    }

    /// These keys have values that wait for a restart.
    pub(super) fn waits_for_restart(&self, keys: Vec<String>) {
        self.lock().restart_needed = keys;
    }

    /// A reload came to this.
    pub(super) fn reloaded(
        &self,
        result: ReloadResult,
        changed: Vec<String>,
        error: Option<String>,
    ) {
        let at = clock::unix();
        self.metrics.reloaded(result, at);
        let reload = Reload { result: result.label(), at: at.rfc3339(), changed, error };
        self.lock().reload = Some(reload);
    }

    /// All of it, now.
    pub(super) fn status(&self) -> Status {
        let (at, stage, counts) = (clock::unix(), self.readiness.stage(), self.metrics.counts());
        let health = super::store::health(&self.dispatch);
        let now = self.lock();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            ready: stage == Stage::Ready,
            stage: stage.label(),
            started: self.started.rfc3339(),
            uptime_seconds: at.seconds().saturating_sub(self.started.seconds()),
            routes: now.routes.clone(),
            relay: now.relay.clone(),
            store: Store {
                kind: health.kind,
                degraded: health.outage.is_some(),
                outage_seconds: health.outage.map(|outage| outage.as_secs()),
            },
            in_flight: counts.in_flight,
            unfinished: self.dispatch.write_back().waiting(),
            reload: now.reload.clone(),
            restart_needed: now.restart_needed.clone(),
            certificates: now
                .expiries
                .iter()
                .filter(|expiry| expiry.what == Expiring::Certificate)
                .map(|expiry| certificate(expiry.name(), expiry.at(), at))
                .collect(),
            counters: counts.into(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        // Whoever panicked with it had changed one field, or none.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn certificate(name: &str, not_after: UnixTime, at: UnixTime) -> Certificate {
    let seconds = |time: UnixTime| i64::try_from(time.seconds()).unwrap_or(i64::MAX);
    let left = seconds(not_after).saturating_sub(seconds(at));
    Certificate {
        name: name.to_owned(),
        not_after: not_after.rfc3339(),
        days_left: left.div_euclid(SECONDS_OF_DAY),
    }
}
