//! The backend: connections, header rules, classification of outcomes.
//!
//! [`Upstream`] is one backend. [`Upstream::forward`] carries a verified event there and says what came of it in the
//! terms of the claim protocol; [`Upstream::pass`] streams any other request for `relay`. Whether an event may be
//! forwarded is left to `claim`, what the sender is told to `gateway::answer`.
//!
//! In reading order: `forward` and `pass` (the two errands), `outcome`, `headers`, `forwarding`, `scribe`, `forwarded` and
//! `keep` (the rules, pure), `pool`, `driver` and `connection` (the sockets), `tls`, `body`, `error`.

mod body;
mod connection;
mod driver;
mod error;
mod forward;
mod forwarded;
mod forwarding;
mod headers;
mod keep;
mod options;
mod outcome;
mod pass;
mod pool;
mod scribe;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use tokio_util::task::TaskTracker;

use crate::claim::Key;
use crate::claim::exchange::Outcome;

pub use body::{BoxError, Carried, Outgoing};
pub use error::{BuildError, ForwardError};
pub use forwarded::client;
pub use headers::{strip_hop_by_hop, twin_seen, upgrade_wanted, via_seen};
pub use options::{HostPolicy, Options, PathPolicy};
pub use pass::Passage;
pub use tls::{ClientCertificate, SystemRoots, TlsOptions};

use headers::HeadRules;
use outcome::RefusedStatuses;
use pool::Pool;

/// One backend: its connections, and the rules by which a request to it is built.
///
/// Cheap to clone; the clones share the connections.
#[derive(Clone)]
pub struct Upstream {
    pool: Arc<Pool>,
    rules: Arc<HeadRules>,
    refused: Arc<RefusedStatuses>,
}

impl Upstream {
    /// Checks the options and reads the certificate files; opens no connection and spawns nothing.
    ///
    /// Later, each connection is driven by a task on `tracker`. Such a task ends when its connection has been idle for
    /// `idle_timeout`, so `tracker.wait()` after the last forward takes no longer than that.
    pub fn new(options: &Options, tracker: TaskTracker) -> Result<Self, BuildError> {
        let refused = Arc::new(RefusedStatuses::new(&options.refused)?);
        let rules = Arc::new(HeadRules::new(options)?);
        let pool = Arc::new(Pool::new(options, tracker)?);
        Ok(Self { pool, rules, refused })
    }

    /// The name by which this gateway is known in `Via`.
    pub fn via(&self) -> &str {
        self.rules.via()
    }

    /// How many connections are in use, those included that rest for a moment after an answer.
    pub fn busy(&self) -> usize {
        self.pool.busy()
    }
}

/// A verified event, on its way to the backend.
#[derive(Clone, Copy)]
pub struct Forward<'a> {
    /// The head of the copy as it arrived.
    pub head: &'a Parts,
    /// The body, byte for byte.
    pub body: &'a Bytes,
    /// Who sent it.
    pub peer: &'a Peer,
    /// Becomes `Idempotency-Key`, in hex: the same for every forward of one event.
    pub key: Key,
    /// The number of the attempt, from 1; becomes `Oncehook-Attempt`.
    pub attempt: u32,
    /// Whether an earlier attempt may have reached the backend; becomes `Oncehook-Possible-Duplicate`.
    pub possible_duplicate: bool,
    /// Becomes `X-Request-Id`.
    pub request_id: &'a str,
    /// How long it may take, from now to the head of the answer, own retries included.
    pub budget: Duration,
    /// Asked immediately before each time the request is handed to a connection: whether the lease still allows it.
    pub may_write: &'a (dyn Fn() -> bool + Send + Sync),
}

/// What came of a forward.
#[derive(Debug)]
pub struct Forwarded {
    /// What it means to the claim protocol.
    pub outcome: Outcome,
    /// Why there was no answer, for the log.
    pub detail: Option<ForwardError>,
    /// How many connections were tried, those that had gone stale included; 0 if there was no time for any.
    pub tries: u32,
}

/// The other end of the inbound connection: what `Forwarded` and `X-Forwarded-*` are rebuilt from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address (that of the PROXY header, where one is used).
    pub address: SocketAddr,
    /// Whom the request is from: its address, or what trusted proxies say of it, see [`client`].
    pub client: IpAddr,
    /// Whether it spoke TLS to the gateway.
    pub tls: bool,
    /// Whether it is a proxy whose own `Forwarded` and `X-Forwarded-*` are believed, and so are added to.
    pub trusted: bool,
}
