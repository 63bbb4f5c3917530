//! The families that [`super::metrics`] counts in: their names and help texts. Names are in base units.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::labels;

/// From a fast backend next door to the 8 s that one may take by default, and a little more.
const FORWARD_BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 8.0];
/// From memory (under a microsecond falls into the first) to the 250 ms that an operation may take by default.
const STORE_BUCKETS: [f64; 9] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.025, 0.1, 0.25];

pub(super) type Histograms<S> = Family<S, Histogram, fn() -> Histogram>;

#[derive(Debug, Default)]
pub(super) struct Webhooks {
    pub(super) received: Family<labels::Received, Counter>,
    pub(super) answered: Family<labels::Answered, Counter>,
    pub(super) refusals: Family<labels::Refusal, Counter>,
    pub(super) refusals_limited: Counter,
    pub(super) forwards: Family<labels::Forward, Counter>,
    pub(super) basis: Family<labels::Basis, Counter>,
    pub(super) possible_duplicates: Counter,
    pub(super) doubles: Counter,
    pub(super) fenced: Counter,
    pub(super) key_conflicts: Counter,
    pub(super) would_collapse: Counter,
    pub(super) panics: Counter,
    pub(super) in_flight: Gauge,
    pub(super) relayed: Family<labels::Relay, Counter>,
}

#[derive(Debug)]
pub(super) struct Durations {
    pub(super) forward: Histograms<labels::RouteSet>,
    pub(super) store: Histograms<labels::StoreTime>,
}

#[derive(Debug, Default)]
pub(super) struct Stores {
    pub(super) operations: Family<labels::Store, Counter>,
    pub(super) degraded: Gauge,
    pub(super) degraded_seconds: Counter<f64, AtomicU64>,
    pub(super) unfinished: Gauge,
    pub(super) written_back: Family<labels::Store, Counter>,
    pub(super) unfinished_dropped: Family<labels::StoreTime, Counter>,
    pub(super) memory_records: Gauge,
    pub(super) memory_bytes: Gauge,
    pub(super) memory_evicted: Counter,
    pub(super) disk_records: Gauge,
    pub(super) disk_bytes: Gauge,
    pub(super) disk_evicted: Counter,
    pub(super) disk_set_aside: Counter,
}

#[derive(Debug, Default)]
pub(super) struct Connections {
    pub(super) accepted: Counter,
    pub(super) accept_errors: Counter,
    pub(super) open: Gauge,
    pub(super) rejected: Family<labels::Rejection, Counter>,
    pub(super) tls_failures: Family<labels::TlsFailed, Counter>,
    pub(super) ended: Family<labels::Ended, Counter>,
    pub(super) http2_errors: Family<labels::Http2, Counter>,
    pub(super) malformed: Family<labels::MalformedRequest, Counter>,
    pub(super) panics: Counter,
    pub(super) admin_refused: Family<labels::Admin, Counter>,
    pub(super) certificate_not_after: Family<labels::Certificate, Gauge>,
    pub(super) client_ca_not_after: Family<labels::Certificate, Gauge>,
    pub(super) crl_next_update: Family<labels::Certificate, Gauge>,
}

#[derive(Debug, Default)]
pub(super) struct Reloads {
    pub(super) done: Family<labels::Reload, Counter>,
    pub(super) successful: Gauge,
    pub(super) success: Gauge,
}

impl Webhooks {
    pub(super) fn registered(into: &mut Registry) -> Self {
        let new = Self::default();
        let Self {
            received,
            answered,
            refusals,
            forwards,
            basis,
            possible_duplicates,
            doubles,
            fenced,
            ..
        } = &new;
        let Self { key_conflicts, would_collapse, panics, in_flight, relayed, .. } = &new;
        into.register("webhooks_received", "Copies that arrived", received.clone());
        into.register(
            "webhooks_answered",
            "Copies that were answered, by how they ended",
            answered.clone(),
        );
        into.register(
            "refusals",
            "Copies that were refused before store and backend",
            refusals.clone(),
        );
        into.register(
            "refusals_limited",
            "Refusals that were answered with 429 and not logged: their source was refused too often",
            new.refusals_limited.clone(),
        );
        into.register("forwards", "Attempts to forward, by what came of them", forwards.clone());
        into.register(
            "identity_basis",
            "Verified copies, by what their key was made from",
            basis.clone(),
        );
        into.register(
            "possible_duplicates",
            "Forwards marked as possible duplicates",
            possible_duplicates.clone(),
        );
        into.register("doubles", "Events that the backend accepted twice", doubles.clone());
        into.register("fenced", "Settles and releases after the lease was lost", fenced.clone());
        into.register(
            "key_conflicts",
            "Duplicates with other content than was forwarded",
            key_conflicts.clone(),
        );
        into.register(
            "shadow_would_collapse",
            "Forwarded in shadow mode only",
            would_collapse.clone(),
        );
        into.register("exchange_panics", "Exchanges that ended in a panic", panics.clone());
        into.register("in_flight", "Copies being worked on", in_flight.clone());
        into.register("relay_requests", "Requests relayed untouched", relayed.clone());
        new
    }
}

impl Stores {
    pub(super) fn registered(into: &mut Registry) -> Self {
        let new = Self::default();
        let Self { operations, degraded, memory_records, memory_bytes, memory_evicted, .. } = &new;
        into.register("store_operations", "Operations, by what came of them", operations.clone());
        into.register("store_degraded", "1 while the store cannot be asked", degraded.clone());
        into.register(
            "store_memory_records",
            "Records in this process's memory",
            memory_records.clone(),
        );
        let help = "What this process's memory of records takes";
        into.register_with_unit("store_memory", help, Unit::Bytes, memory_bytes.clone());
        into.register(
            "store_memory_evicted",
            "Records that went before their window ended",
            memory_evicted.clone(),
        );
        new.register_unfinished(into);
        new.register_disk(into);
        new
    }
}

impl Stores {
    fn register_unfinished(&self, into: &mut Registry) {
        let Self { degraded_seconds, unfinished, written_back, unfinished_dropped, .. } = self;
        let help = "How long the store could not be asked";
        into.register_with_unit("store_degraded", help, Unit::Seconds, degraded_seconds.clone());
        into.register(
            "unfinished",
            "Settles and releases that wait for the store",
            unfinished.clone(),
        );
        into.register(
            "written_back",
            "Settles and releases that had waited and were recorded, by what the store said",
            written_back.clone(),
        );
        for operation in [labels::StoreOperation::Settle, labels::StoreOperation::Release] {
            drop(unfinished_dropped.get_or_create(&labels::StoreTime { operation }));
        }
        into.register(
            "unfinished_dropped",
            "Settles and releases no store ever took",
            unfinished_dropped.clone(),
        );
    }

    fn register_disk(&self, into: &mut Registry) {
        let Self { disk_records, disk_bytes, disk_evicted, disk_set_aside, .. } = self;
        into.register("store_disk_records", "Records in the store's file", disk_records.clone());
        let help = "How large the store's file is";
        into.register_with_unit("store_disk", help, Unit::Bytes, disk_bytes.clone());
        into.register(
            "store_disk_evicted",
            "Records of the file that went before their window ended",
            disk_evicted.clone(),
        );
        into.register(
            "store_disk_files_set_aside",
            "Files that were found damaged; the store went on with a new one",
            disk_set_aside.clone(),
        );
    }
}

impl Reloads {
    pub(super) fn registered(into: &mut Registry) -> Self {
        let new = Self::default();
        let Self { done, successful, success } = &new;
        into.register(
            "config_reloads",
            "Times that the configuration was read again, by what came of it",
            done.clone(),
        );
        into.register(
            "config_last_reload_successful",
            "1 unless the configuration, as it is now, was rejected",
            successful.clone(),
        );
        let help = "When a configuration was last accepted, since the epoch";
        into.register_with_unit(
            "config_last_reload_success_timestamp",
            help,
            Unit::Seconds,
            success.clone(),
        );
        new
    }
}

impl Connections {
    pub(super) fn registered(into: &mut Registry) -> Self {
        let new = Self::default();
        let Self { accepted, accept_errors, open, rejected, tls_failures, ended, panics, .. } =
            &new;
        into.register(
            "connections_accepted",
            "Connections the operating system handed over",
            accepted.clone(),
        );
        into.register("accept_errors", "Connections it could not hand over", accept_errors.clone());
        into.register("connections_open", "Connections that are open", open.clone());
        into.register(
            "connections_rejected",
            "Connections closed before TLS or a request, by the limit or the rule",
            rejected.clone(),
        );
        into.register("tls_failures", "TLS handshakes that failed", tls_failures.clone());
        into.register("connections_ended", "Connections that came to their end", ended.clone());
        into.register(
            "admin_refused",
            "Requests for pages of the admin listener that were refused",
            new.admin_refused.clone(),
        );
        into.register("service_panics", "Requests that ended in a panic", panics.clone());
        for (name, help, family) in [
            (
                "tls_certificate_not_after",
                "When the certificate expires, since the epoch",
                &new.certificate_not_after,
            ),
            (
                "tls_client_ca_not_after",
                "When the authority of client certificates expires, since the epoch",
                &new.client_ca_not_after,
            ),
            (
                "tls_client_crl_next_update",
                "When the list of revoked client certificates is worth nothing any more, since the epoch",
                &new.crl_next_update,
            ),
        ] {
            into.register_with_unit(name, help, Unit::Seconds, family.clone());
        }
        new.register_http2(into);
        new
    }

    fn register_http2(&self, into: &mut Registry) {
        let Self { http2_errors, malformed, .. } = self;
        into.register(
            "http2_errors",
            "HTTP/2 streams and connections that were ended, by the code that their peer was told",
            http2_errors.clone(),
        );
        into.register(
            "requests_malformed",
            "Requests refused for their form, on any path",
            malformed.clone(),
        );
    }
}

impl Durations {
    pub(super) fn registered(into: &mut Registry) -> Self {
        let forward = Histograms::new_with_constructor(|| Histogram::new(FORWARD_BUCKETS));
        let help = "From the decision to forward to the backend's verdict, own retries included";
        into.register_with_unit("forward_duration", help, Unit::Seconds, forward.clone());
        let store = Histograms::new_with_constructor(|| Histogram::new(STORE_BUCKETS));
        let help = "From an operation to the store's reply or failure";
        into.register_with_unit("store_operation_duration", help, Unit::Seconds, store.clone());
        Self { forward, store }
    }
}
