//! Whether requests can come in, and go somewhere else than back.

use std::net::SocketAddr;

use super::super::backend::{Backend, RoutePath};
use super::super::problem::Fault;
use super::super::raw::routes::{RawRelay, RawRoute, RawUpstream};
use super::super::reader::Reader;
use super::super::value::Target;
use super::super::{Config, Mode, Relay, Route, Tls};

/// The path of the only route, if nobody says another.
const DEFAULT_PATH: &str = "/webhook";

/// A route, and what its section is called: `route[0]`, or `upstream` for the one that no section makes.
pub(super) struct Checked {
    pub(super) route: Route,
    pub(super) section: String,
}

pub(super) fn routes(
    reader: &mut Reader<'_>,
    raw: Vec<RawRoute>,
    upstream: &RawUpstream,
) -> Vec<Checked> {
    if raw.is_empty() {
        return only_route(upstream).into_iter().collect();
    }
    if upstream.backend.is_some()
        && raw.iter().all(|route| route.backend.is_some())
        && reader.is_set("upstream.backend")
    {
        let fault = Fault::new("every [[route]] names its own backend: this one is not used");
        let place = reader.place(&["upstream.backend"]);
        reader.warning(place, fault);
    }
    let mut routes: Vec<Checked> = Vec::new();
    for raw in raw {
        let Some(backend) = backend(reader, &raw, upstream) else { continue };
        let Some(path) = raw.path else { continue };
        if routes.iter().any(|other| other.route.path == path) {
            let place = reader.place(&[&format!("{}.path", raw.section)]);
            reader.error(
                place,
                Fault::new(format!("two routes have the path {path}")).of("route.path"),
            );
        }
        let upstream = raw.terms.with(backend);
        let route = Route { path, tenants: raw.tenants, mode: raw.mode, upstream };
        routes.push(Checked { route, section: raw.section });
    }
    routes
}

/// Without `[[route]]` the gateway has the backend's path: whoever moves to it changes only the host in `webhook.urls`.
fn only_route(upstream: &RawUpstream) -> Option<Checked> {
    let backend = upstream.backend.clone()?;
    let path: RoutePath =
        backend.path().unwrap_or(DEFAULT_PATH).parse().or_else(|_| DEFAULT_PATH.parse()).ok()?;
    let upstream = upstream.terms.clone().with(backend);
    let route = Route { path, tenants: Vec::new(), mode: Mode::Sync, upstream };
    Some(Checked { route, section: "upstream".to_owned() })
}

fn backend(reader: &mut Reader<'_>, raw: &RawRoute, upstream: &RawUpstream) -> Option<Backend> {
    let backend = raw.backend.clone().or_else(|| upstream.backend.clone());
    if backend.is_none() && !raw.backend_failed {
        let fault = Fault::new("[[route]] has no `backend`, and neither has [upstream]");
        reader.error(
            raw.place.clone(),
            fault.hint("add backend = \"http://127.0.0.1:8080/webhook\""),
        );
    }
    backend
}

pub(super) fn relay(raw: RawRelay) -> Relay {
    match raw.target {
        Target::NotFound => Relay::NotFound,
        Target::Backend(backend) => Relay::Backend(Box::new(raw.terms.with(backend))),
    }
}

/// A gateway that has nothing to do.
pub(super) fn no_route(reader: &mut Reader<'_>, enabled: bool, (any_route, relay): (bool, &Relay)) {
    if any_route || (!enabled && *relay != Relay::NotFound) {
        return;
    }
    let fault = Fault::new("there is no backend: no path takes webhooks");
    let hint =
        "set backend in [upstream], or add [[route]] with path and backend; or use --backend URL";
    reader.contradiction(&["route", "upstream"], fault.hint(hint));
}

/// Whether listeners, backends and the network around them go together.
pub(super) fn addresses(reader: &mut Reader<'_>, config: &Config) {
    let (listen, admin) = (config.listen.address, config.admin.address);
    loops(reader, config);
    if listen.port() == admin.port() && listen.port() != 0 && overlap(listen, admin) {
        let fault = Fault::new(format!("senders connect to {listen} too (listen.address)"));
        reader.contradiction(
            &["admin.address", "listen.address"],
            fault.hint("give health and metrics a port of their own").of("admin.address"),
        );
    }
    if config.listen.proxy_protocol && config.listen.trusted_proxies.is_empty() {
        let fault = Fault::new("no proxy is trusted, so that every connection would be closed")
            .hint(
                "name the balancer's networks in listen.trusted_proxies, such as [\"10.0.0.0/8\"]",
            )
            .of("listen.proxy_protocol");
        reader.contradiction(&["listen.proxy_protocol", "listen.trusted_proxies"], fault);
    }
    let open = !listen.ip().is_loopback();
    if open && config.tls == Tls::Off {
        let place = reader.place(&["tls.enabled", "listen.address"]);
        let fault = Fault::new(format!(
            "TLS is off, and {listen} is not a loopback address: webhooks can be read on the way"
        ));
        reader.warning(place, fault);
    }
    if open && config.tls == Tls::SelfSigned {
        let place = reader.place(&["tls.self_signed", "listen.address"]);
        reader.warning(
            place,
            Fault::new("a self-signed certificate is for trials: no sender can verify it"),
        );
    }
}

fn loops(reader: &mut Reader<'_>, config: &Config) {
    let relay = match &config.relay {
        Relay::NotFound => None,
        Relay::Backend(upstream) => Some(("relay.backend".to_owned(), &upstream.backend)),
    };
    let numbered = config.routes.iter().enumerate();
    let routes =
        numbered.map(|(index, route)| (format!("route[{index}].backend"), &route.upstream.backend));
    for (path, backend) in routes.chain(relay) {
        let own =
            [("listen.address", config.listen.address), ("admin.address", config.admin.address)];
        for (name, address) in own.into_iter().filter(|(_, address)| backend.is(*address)) {
            let fault = Fault::new(format!(
                "the backend {backend} is this gateway itself ({name} is {address})"
            ));
            reader.contradiction(
                &[&path, "upstream.backend", name],
                fault.hint("name the service that handles the webhooks"),
            );
        }
    }
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified()
}
