//! Settings: what an operator can choose, parsed and cross-checked.
//!
//! [`load`] is the only way to a [`Config`], and a `Config` holds no contradiction: what does not fit together is an
//! error that names the file and line, or the variable, and all errors are told at once. Sections that inherit from
//! each other are resolved here: every route carries its whole [`Upstream`]. What a section means to its room is left to
//! that room; `app` translates one into the other.

pub mod backend;
mod changes;
mod checks;
mod environment;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod host_port;
mod livekit;
pub mod load;
pub mod problem;
mod raw;
mod reader;
mod section;
mod secured;
mod show;
mod store;
pub mod units;
mod url_password;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;

use crate::claim::exchange::{OnAmbiguous, OnStoreError, Terms};
use crate::webhook::event::EventKind;
use crate::webhook::key::Identity;
use crate::webhook::keys::Tenant as TenantName;

pub use backend::{Backend, HostPolicy, RoutePath};
pub use changes::Change;
pub use environment::Environment;
pub use host_port::HostPort;
pub use load::{
    InputFile, LoadError, Overrides, Sources, check_fragment, environment, load, load_watched,
    open_to_others,
};
pub use problem::{Problem, Problems};
pub use secured::{
    Admin, AdminTls, Certificate, ClientMode, Handshake, Tls, TlsClients, TlsVersion,
};
pub use show::{Key, schema, show};
pub use store::{Disk, Redis, RedisServers, Sentinel, Store, StoreKind, WaitReplicas};

/// Everything an operator can choose. Made by [`load`] alone.
#[derive(Clone)]
pub struct Config {
    /// `false`: nothing is verified or deduplicated; every request goes through the relay, those on a route's path to
    /// the route's backend. There may be no keys then.
    pub enabled: bool,
    /// Where senders connect.
    pub listen: Listen,
    /// How connections of senders are secured.
    pub tls: Tls,
    /// What their TLS handshakes are held to.
    pub handshake: Handshake,
    /// Where an operator connects.
    pub admin: Admin,
    /// Whose webhooks are accepted; at least one with a key, unless `enabled` is false.
    pub tenants: Vec<Tenant>,
    /// Which paths take webhooks; at least one, and no two with one path.
    pub routes: Vec<Route>,
    /// What becomes of requests on all other paths.
    pub relay: Relay,
    /// Where records are held.
    pub store: Store,
    /// What makes two webhooks copies of one event, and for how long.
    pub dedup: Dedup,
    /// The terms of the claim protocol.
    pub claim: Claim,
    /// What any input is bounded by.
    pub limits: Limits,
    /// What is logged, and how.
    pub log: Log,
    /// How the end goes.
    pub shutdown: Shutdown,
    /// What is allowed, but looks like a mistake. To be logged at the start.
    pub warnings: Vec<Problem>,
    /// Every setting in force and where it came from, for [`show`]. Secrets are not in it.
    settings: Vec<reader::Setting>,
    /// The files that it was made from, for [`Config::changes`].
    inputs: Vec<InputFile>,
    /// Marks of the secrets that stand in the configuration file, for the same.
    secrets: changes::Secrets,
}

/// Where senders connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Every connection comes from one of these, and begins with a header of the PROXY protocol; then there is one.
    pub proxy_protocol: bool,
}

/// A group of API keys whose events are one namespace.
#[derive(Clone)]
pub struct Tenant {
    /// Its name, unique.
    pub name: TenantName,
    /// API key and secret; at least one, and no API key belongs to two tenants.
    pub keys: Vec<(String, SecretString)>,
    /// The API key that LiveKit signs webhooks with (`webhook.api_key`), if that is known; one of `keys`.
    ///
    /// All keys are accepted all the same: when LiveKit is told to sign with another one, the gateway must not refuse
    /// what it sends, because LiveKit takes a refusal for success.
    pub signs_with: Option<String>,
}

/// A path that takes webhooks.
#[derive(Clone, Debug)]
pub struct Route {
    /// The path, matched whole and byte for byte; unique.
    pub path: RoutePath,
    /// The tenants whose webhooks it takes, each one of [`Config::tenants`]; empty for all.
    pub tenants: Vec<TenantName>,
    /// Who waits for the backend.
    pub mode: Mode,
    /// Where its webhooks go.
    pub upstream: Upstream,
}

/// Who waits for the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The sender.
    Sync,
}

/// A backend and how to talk to it; routes inherit from `[upstream]` what they leave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Its URL. A path in it replaces a route's path.
    pub backend: Backend,
    /// Which `Host` it is sent.
    pub host: HostPolicy,
    /// From the start of a forward to the head of the answer. Relayed requests have no such limit.
    /// `timeout + claim.guard <= claim.lease`.
    pub timeout: Duration,
    /// Of that, for connecting and TLS; at most `timeout`.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Open connections, and so forwards in flight, at most.
    pub connections_max: usize,
    /// Statuses that mean "refused for good": 4xx, never 429.
    pub refused: Vec<u16>,
    /// For a backend with an https URL.
    pub tls: UpstreamTls,
}

/// How to trust a backend or a store over TLS, and what to show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// PEM; these roots instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// What is shown to a server that asks for a client certificate.
    pub client: Option<Certificate>,
    /// The name to check the certificate against, instead of the URL's host.
    pub server_name: Option<String>,
}

/// What becomes of requests on paths that are no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relay {
    /// They are answered with 404.
    NotFound,
    /// They are passed on, untouched. `refused` and `timeout` mean nothing here.
    Backend(Box<Upstream>),
}

/// What makes two webhooks copies of one event, and for how long.
#[derive(Clone, Debug)]
pub struct Dedup {
    /// How the key is derived.
    pub identity: Identity,
    /// Forward everything; only count and log what would have been collapsed.
    pub shadow: bool,
    /// How long records are remembered.
    pub windows: Windows,
}

/// How long a settled record is remembered, at least [`Windows::FLOOR`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    default: Duration,
    by_kind: Vec<(EventKind, Duration)>,
}

/// The terms of the claim protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// How long a claim lasts.
    pub lease: Duration,
    /// How long before the lease's end its owner stops.
    pub guard: Duration,
    /// How long a copy waits for another process's result.
    pub join_wait: Duration,
    /// What to do when it is unknown whether the backend has the event.
    pub on_ambiguous: OnAmbiguous,
    /// What to do when the store cannot be asked (`store.on_store_error`).
    pub on_store_error: OnStoreError,
}

/// What any input is bounded by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of senders.
    pub connections_max: usize,
    /// Of those, from one source address.
    pub connections_per_source_max: usize,
    /// Refusals of one source that are told and logged, in a minute, and ten times as many at once; 0: all.
    pub refusals_per_source_per_minute: u32,
    /// From accept to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// From accept, or a request's first byte, to the end of its head.
    pub head_timeout: Duration,
    /// From the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// Between two requests of one connection.
    pub idle_timeout: Duration,
    /// A request's head, in bytes.
    pub head_bytes_max: usize,
    /// A request's header fields.
    pub head_fields_max: usize,
    /// A request's target, in bytes.
    pub uri_bytes_max: usize,
    /// A webhook's token, in bytes.
    pub token_bytes_max: usize,
    /// A webhook's body, in bytes.
    pub body_bytes_max: usize,
    /// All webhooks' bodies in memory, in bytes; at least `body_bytes_max`.
    pub body_memory_bytes_max: usize,
    /// How long a sender may take nothing of an answer that is ready for it.
    pub answer_timeout: Duration,
    /// Concurrent streams of one HTTP/2 connection.
    pub http2_streams_max: u32,
    /// An HTTP/2 request's header list, decompressed, in bytes (RFC 9113 §6.5.2).
    pub http2_header_list_bytes_max: usize,
    /// Streams of one HTTP/2 connection that were reset before they were seen.
    pub http2_pending_resets_max: usize,
    /// Streams of one HTTP/2 connection that had to be reset for the sender's errors.
    pub http2_local_resets_max: usize,
    /// Frames a second of one HTTP/2 connection that carry nothing of a request.
    pub http2_idle_frames_max: u32,
    /// Copies that wait for one exchange of this process.
    pub followers_max: usize,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// One JSON object a line, or text for people.
    pub format: LogFormat,
    /// The least severe level that is logged.
    pub level: LogLevel,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text for people.
    Text,
}

/// The least severe level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// `error`
    Error,
    /// `warn`
    Warn,
    /// `info`
    Info,
    /// `debug`
    Debug,
    /// `trace`
    Trace,
}

/// How the end goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// From "not ready" to the end of accepting: as long as a balancer needs to notice.
    pub drain_delay: Duration,
    /// After that, for the exchanges in flight.
    pub grace: Duration,
}

impl Config {
    /// Every API key with its tenant and its secret, as `webhook` takes them for its ring.
    pub fn keys(&self) -> impl Iterator<Item = (TenantName, String, SecretString)> {
        self.tenants.iter().flat_map(|tenant| {
            tenant
                .keys
                .iter()
                .map(|(api_key, secret)| (tenant.name.clone(), api_key.clone(), secret.clone()))
        })
    }

    /// What an exchange whose record is remembered for `window` is held to. `upstream` says how long it may take.
    pub fn terms(&self, window: Duration) -> Terms {
        Terms {
            lease: self.claim.lease,
            guard: self.claim.guard,
            join_wait: self.claim.join_wait,
            window,
            on_ambiguous: self.claim.on_ambiguous,
            on_store_error: self.claim.on_store_error,
        }
    }
}

impl Windows {
    /// No window is shorter: LiveKit's tokens live five minutes, and its clock may be off by a few.
    pub const FLOOR: Duration = Duration::from_mins(10);

    /// For events that fell to `id` or to the body.
    pub const fn fallback(&self) -> Duration {
        self.default
    }

    /// For events of this kind whose identity was found.
    pub fn of(&self, kind: EventKind) -> Duration {
        self.by_kind
            .iter()
            .find(|(named, _)| *named == kind)
            .map_or(self.default, |(_, window)| *window)
    }
}
