//! Which room serves a request: `gateway` on a webhook path, `relay` on all others, or nobody.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::HashMap;
use http::request::Parts;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::dispatch::Dispatch;
use crate::gateway::form::{self, Transport};
use crate::gateway::{self, Gateway};
use crate::listener;
use crate::relay::{Body, Relay};
use crate::telemetry::Metrics;
use crate::telemetry::labels::Malformed;
use crate::upstream::{self, Peer};

use super::{StartError, rooms};

/// What lasts while services come and go.
pub(super) struct Lasting {
    pub(super) dispatch: Arc<Dispatch>,
    pub(super) metrics: Arc<Metrics>,
    /// Exchanges, detached from their senders.
    pub(super) exchanges: TaskTracker,
    /// Connections to backends.
    pub(super) connections: TaskTracker,
    /// Ends what waits for a next request.
    pub(super) stop: CancellationToken,
}

/// What the listener calls for each request: made from one configuration, and gone with its last request once another
/// has taken its place.
pub(super) struct Service {
    /// Serves the webhook paths; `None` when webhooks are relayed like everything else.
    gateway: Option<Gateway>,
    /// Where webhook paths are relayed while there is no gateway.
    relayed_routes: HashMap<String, Relay>,
    /// Serves all other paths; without it they are not found.
    relay: Option<Relay>,
    /// The longest target, and how many fields a head may have.
    target_bytes_max: usize,
    head_fields_max: usize,
    /// Whose forwarding headers are believed.
    trusted_proxies: Vec<IpNet>,
    /// Counts what is relayed.
    metrics: Arc<Metrics>,
}

impl Service {
    /// The service that `config` describes. What it shares with `before`, its predecessor, is no more than what bounds
    /// both together; connections to backends are new.
    pub(super) fn new(
        config: &Config,
        lasting: &Lasting,
        before: Option<&Self>,
    ) -> Result<Self, StartError> {
        let Lasting { dispatch, metrics, exchanges, connections, stop } = lasting;
        let backends = rooms::Backends::new(connections.clone());
        let (relay, relayed_routes) = rooms::relays(config, &backends, stop)?;
        let (routes, options) =
            (rooms::routes(config, metrics, &backends)?, rooms::gateway(config));
        let gateway = match before.and_then(|before| before.gateway.as_ref()) {
            _ if !config.enabled => None,
            Some(gateway) => Some(gateway.renewed(routes, options)),
            None => {
                let (dispatch, metrics) = (Arc::clone(dispatch), Arc::clone(metrics));
                Some(Gateway::new(routes, options, dispatch, metrics, exchanges.clone()))
            }
        };
        let trusted_proxies = config.listen.trusted_proxies.clone();
        let head_fields_max = config.limits.head_fields_max;
        let metrics = Arc::clone(metrics);
        let target_bytes_max = config.limits.uri_bytes_max;
        Ok(Self {
            gateway,
            relayed_routes,
            relay,
            target_bytes_max,
            head_fields_max,
            trusted_proxies,
            metrics,
        })
    }

    /// Answers one request.
    pub(super) fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: &listener::Peer,
    ) -> impl Future<Output = Response<Body>> + Send + use<> {
        let peer = self.peer(peer, request.headers());
        let (head, mut body) = request.into_parts();
        // In a box: it is handed on several times.
        let head = Box::new(head);
        async move {
            if let Err(reason) = self.check(&head, &peer) {
                Box::pin(gateway::http2::outlast(head.version, &mut body)).await;
                return self.malformed(reason, &head, &peer);
            }
            match &self.gateway {
                Some(gateway) if gateway.serves(head.uri.path()) => {
                    // What is awaited by value is moved, whatever its size.
                    let answered = pin!(gateway.handle(head, body, peer)).await;
                    answered.map(|full| full.map_err(|never| match never {}).boxed_unsync())
                }
                // In a box: a relayed request needs much more room than a webhook.
                Some(_) | None => {
                    Box::pin(self.relayed(Request::from_parts(*head, body), &peer)).await
                }
            }
        }
    }

    /// Checks what holds on every path.
    fn check(&self, head: &Parts, peer: &Peer) -> Result<(), Malformed> {
        let transport = if peer.tls { Transport::Tls } else { Transport::Plain };
        gateway::http2::check(head, peer.tls, self.head_fields_max)?;
        form::check(head, transport, self.target_bytes_max)?;
        let path = head.uri.path();
        match &self.gateway {
            Some(gateway) if !gateway.serves(path) && gateway.is_disguised(path) => {
                Err(Malformed::DisguisedPath)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses a request for its form, whoever would have served it.
    fn malformed(&self, reason: Malformed, head: &Parts, peer: &Peer) -> Response<Body> {
        self.metrics.malformed(reason);
        let request_id = gateway::request_id(&head.headers);
        let response = self.gateway.as_ref().map_or_else(
            || gateway::malformed(reason, &request_id),
            |gateway| gateway.malformed(reason, peer, &request_id),
        );
        let response =
            if head.version == Version::HTTP_2 { response } else { gateway::closing(response) };
        response.map(|full| full.map_err(|never| match never {}).boxed_unsync())
    }

    async fn relayed(&self, request: Request<Incoming>, peer: &Peer) -> Response<Body> {
        let request_id = gateway::request_id(request.headers());
        let relay = self.relayed_routes.get(request.uri().path()).or(self.relay.as_ref());
        let response = if let Some(relay) = relay {
            relay.serve(request, peer, &request_id).await
        } else {
            gateway::http2::outlast(request.version(), &mut request.into_body()).await;
            self.not_found(peer, &request_id)
                .map(|full| full.map_err(|never| match never {}).boxed_unsync())
        };
        self.metrics.relayed(response.status().as_u16());
        response
    }

    fn not_found(&self, peer: &Peer, request_id: &str) -> Response<Full<Bytes>> {
        let gateway = self.gateway.as_ref();
        gateway.map_or_else(
            || gateway::not_found(request_id),
            |gateway| gateway.unserved(peer, request_id),
        )
    }

    fn peer(&self, peer: &listener::Peer, headers: &HeaderMap) -> Peer {
        let source = peer.address.ip().to_canonical();
        Peer {
            address: peer.address,
            client: upstream::client(source, headers, &self.trusted_proxies),
            tls: peer.tls.is_some(),
            trusted: self.trusted_proxies.iter().any(|trusted| trusted.contains(&source)),
        }
    }
}
