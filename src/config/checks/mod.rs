//! What does not fit together: makes a [`Config`] of settings that are sound one by one, and tells every contradiction.
//!
//! A check that fails still gives something back, so that the next one can run; `load` throws it all away then.

mod admin;
mod endpoints;
mod store;
mod tenants;
mod timing;
mod tls;

use super::Config;
use super::changes::Secrets;
use super::problem::{Fault, Place};
use super::raw::Raw;
use super::reader::Reader;

/// Puts the sections together.
pub(super) fn config(reader: &mut Reader<'_>, raw: Raw) -> Config {
    let Raw { enabled, listen, dedup, limits, log, shutdown, .. } = raw;
    let tenants = tenants::tenants(reader, enabled, raw.tenants);
    let relay = endpoints::relay(raw.relay);
    let any_route = !raw.routes.is_empty() || raw.upstream.backend.is_some();
    let routes = endpoints::routes(reader, raw.routes, &raw.upstream);
    endpoints::no_route(reader, enabled, (any_route || raw.upstream.backend_failed, &relay));
    tenants::unknown(reader, &tenants.tenants, &routes);
    tenants::direct(reader, &tenants.urls, &routes);
    let (tls, handshake) = tls::tls(reader, raw.tls);
    let admin = admin::admin(reader, raw.admin);
    timing::idle(reader, limits.idle_timeout);
    let claim = timing::claim(&raw.claim, &raw.store);
    timing::check(reader, &claim, &routes, shutdown);
    let store = store::store(reader, raw.store, &claim);
    let config = Config {
        enabled,
        listen,
        tls,
        handshake,
        admin,
        tenants: tenants.tenants,
        routes: routes.into_iter().map(|checked| checked.route).collect(),
        relay,
        store,
        dedup,
        claim,
        limits,
        log,
        shutdown,
        warnings: Vec::new(),
        settings: Vec::new(),
        inputs: Vec::new(),
        secrets: Secrets::default(),
    };
    endpoints::addresses(reader, &config);
    sizes(reader, &config);
    loud(reader, &config);
    config
}

fn sizes(reader: &mut Reader<'_>, config: &Config) {
    let limits = &config.limits;
    let mut at_most = |low: (&str, usize), high: (&str, usize), why: &str| {
        if low.1 > high.1 {
            reader.contradiction(
                &[low.0, high.0],
                Fault::new(format!("`{}` is more than `{}`: {why}", low.0, high.0)),
            );
        }
    };
    at_most(
        ("limits.body_bytes_max", limits.body_bytes_max),
        ("limits.body_memory_bytes_max", limits.body_memory_bytes_max),
        "the largest body could never be taken",
    );
    at_most(
        ("limits.connections_per_source_max", limits.connections_per_source_max),
        ("limits.connections_max", limits.connections_max),
        "one source is a part of all",
    );
}

/// What somebody may want, but should not overlook.
fn loud(reader: &mut Reader<'_>, config: &Config) {
    if !config.enabled {
        let fault =
            Fault::new("nothing is verified and nothing is deduplicated: every request is relayed");
        let place = reader.place(&["enabled"]);
        reader.warning(
            place,
            fault.hint("remove `enabled = false` or WEBHOOK_ENABLED to switch oncehook on"),
        );
    }
    if config.dedup.shadow {
        let fault = Fault::new("shadow mode: duplicates are counted, and forwarded all the same");
        let place = reader.place(&["dedup.shadow"]);
        reader.warning(place, fault);
    }
    if reader.variable("WEBHOOK_URLS").is_some() {
        let fault = Fault::new(
            "this is where LiveKit sends webhooks, which is this gateway: it is not taken for the backend",
        );
        let hint = "name the backend in upstream.backend or ONCEHOOK_UPSTREAM__BACKEND, and remove WEBHOOK_URLS here";
        reader.warning(Place::Variable("WEBHOOK_URLS".to_owned()), fault.hint(hint));
    }
}
