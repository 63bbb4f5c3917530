//! The settings of one backend, as `app` translates them from `config`. Defaults stand there, not here.

use std::time::Duration;

use http::{HeaderValue, Uri};

use super::TlsOptions;

/// The settings of one backend.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it is: `http` or `https`, a host, perhaps a port and a path.
    pub target: Uri,
    /// Which path a request asks for.
    pub path: PathPolicy,
    /// Which `Host` a request names.
    pub host: HostPolicy,
    /// For an `https` target; `None` there means the system's roots and no client certificate.
    pub tls: Option<TlsOptions>,
    /// How long one address may take to accept a connection, and as long again for the TLS handshake.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept (1.5 s suits most backends; less where its `Keep-Alive: timeout` says so).
    pub idle_timeout: Duration,
    /// How many requests may be on their way at once, and so how many connections there are.
    pub connections_max: usize,
    /// The 4xx statuses by which the backend refuses an event for good.
    pub refused: Vec<u16>,
    /// The name of this gateway in `Via`: a token (RFC 9110, §5.6.2).
    pub via: String,
}

/// Which path a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathPolicy {
    /// The target's own path and query, whatever the sender asked for.
    Target,
    /// The sender's path and query, with the target's path before it unless that is `/`.
    Sender,
}

/// Which `Host` a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPolicy {
    /// The target's host, with its port unless that is the scheme's own.
    Backend,
    /// The one that the sender named.
    Keep,
    /// This one.
    Fixed(HeaderValue),
}
