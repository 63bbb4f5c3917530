//! For `fuzz/`: the service that a configuration describes, without sockets of its own.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::dispatch::Dispatch;
use crate::listener::fuzzing::{Protocol, serve};
use crate::listener::{self, Peer};
use crate::telemetry::Metrics;
use crate::telemetry::labels::ConnectionEnd;

use super::service::{Lasting, Service};
use super::{StartError, rooms};

/// A gateway whose connections somebody else brings. Its store must be memory: nothing writes back.
pub struct Assembled {
    service: Arc<Service>,
    lasting: Lasting,
    options: listener::Options,
}

impl Assembled {
    /// Builds the rooms as [`super::start`] does.
    pub fn new(config: &Config) -> Result<Self, StartError> {
        let metrics = Metrics::new();
        let (stores, _) = rooms::stores(&config.store)?;
        let options = rooms::dispatch(config);
        let lasting = Lasting {
            dispatch: Arc::new(Dispatch::new(options, stores, Arc::clone(&metrics))),
            metrics,
            exchanges: TaskTracker::new(),
            connections: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let service = Arc::new(Service::new(config, &lasting, None)?);
        Ok(Self { service, lasting, options: rooms::listener(config, None) })
    }

    /// Serves one connection to its end, and waits for the exchanges that outlive it.
    pub async fn serve<T>(&self, stream: T, peer: Peer, protocol: Protocol) -> ConnectionEnd
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = Arc::clone(&self.service);
        let answer =
            move |request, peer: Arc<listener::Peer>| Arc::clone(&service).answer(request, &peer);
        let metrics = Arc::clone(&self.lasting.metrics);
        let end = serve((stream, peer), protocol, (self.options.clone(), metrics), answer).await;
        self.lasting.exchanges.close();
        self.lasting.exchanges.wait().await;
        self.lasting.exchanges.reopen();
        end
    }
}
