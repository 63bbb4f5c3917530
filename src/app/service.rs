//! Which room serves a request: `gateway` on a webhook path, `relay` on all others, or nobody.

use std::collections::HashMap;
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use ipnet::IpNet;

use crate::gateway::{self, Gateway};
use crate::listener;
use crate::relay::{Body, Relay};
use crate::telemetry::Metrics;
use crate::upstream::Peer;

/// What the listener calls for each request.
pub(super) struct Service {
    /// Serves the webhook paths; `None` when webhooks are relayed like everything else.
    pub(super) gateway: Option<Gateway>,
    /// Where webhook paths are relayed while there is no gateway.
    pub(super) relayed_routes: HashMap<String, Relay>,
    /// Serves all other paths; without it they are not found.
    pub(super) relay: Option<Relay>,
    /// Whose forwarding headers are believed.
    pub(super) trusted_proxies: Vec<IpNet>,
    /// Counts what is relayed.
    pub(super) metrics: Arc<Metrics>,
}

impl Service {
    /// Answers one request.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Arc<listener::Peer>,
    ) -> Response<Body> {
        let peer = self.peer(&peer);
        let path = request.uri().path();
        match &self.gateway {
            Some(gateway) if gateway.serves(path) => gateway
                .handle(request, peer)
                .await
                .map(|full| full.map_err(|never| match never {}).boxed_unsync()),
            Some(_) | None => self.relayed(request, &peer).await,
        }
    }

    async fn relayed(&self, request: Request<Incoming>, peer: &Peer) -> Response<Body> {
        let request_id = gateway::request_id(request.headers());
        let relay = self.relayed_routes.get(request.uri().path()).or(self.relay.as_ref());
        let response = match relay {
            Some(relay) => relay.serve(request, peer, &request_id).await,
            None => gateway::not_found(&request_id)
                .map(|full| full.map_err(|never| match never {}).boxed_unsync()),
        };
        self.metrics.relayed(response.status().as_u16());
        response
    }

    fn peer(&self, peer: &listener::Peer) -> Peer {
        let source = peer.address.ip().to_canonical();
        Peer {
            address: peer.address,
            tls: peer.tls.is_some(),
            trusted: self.trusted_proxies.iter().any(|trusted| trusted.contains(&source)),
        }
    }
}
