//! Translates sections of the configuration into what each room is held to. The only place that knows both.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashMapExt as _};
use http::HeaderValue;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::clock;
use crate::config::{self, Config};
use crate::dispatch::window::Windows;
use crate::dispatch::{self, Stores};
use crate::gateway::{self, VIA_NAME};
use crate::listener::{self, tls};
use crate::relay::{self, Relay};
use crate::store::Store;
use crate::store::disk::{self, Disk, Writer};
use crate::store::memory::{self, Memory};
use crate::store::redis::{
    Address, ClientCertificate, Credentials, Endpoint, Options as RedisOptions, Redis, Sentinel,
    TlsOptions, WaitReplicas,
};
use crate::telemetry::{Metrics, log};
use crate::upstream::{self, BuildError, PathPolicy, SystemRoots, Upstream};
use crate::webhook::verify::{KeyRing, KeyRingError, Tenant, Verifier};

use super::StartError;

/// A sender is answered this long after the last moment at which an exchange may still forward, at the latest.
const ANSWER_SLACK: Duration = Duration::from_millis(1_500);

/// Of a store's memory, how much goes to settled keys that are remembered beside a shared store, and how much to
/// records of its own while that one cannot be asked.
const SHARES: usize = 2;

/// HTTP/2, as far as it is not configured: windows for LiveKit's bodies.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The relay waits as nginx does.
const RELAY: relay::Options = relay::Options {
    head_timeout: Duration::from_mins(1),
    idle_timeout: Duration::from_mins(1),
    tunnel_idle_timeout: Duration::from_hours(1),
};

/// The log.
pub(super) fn log(section: config::Log) -> log::Options {
    let format = match section.format {
        config::LogFormat::Json => log::Format::Json,
        config::LogFormat::Text => log::Format::Text,
    };
    let level = match section.level {
        config::LogLevel::Error => tracing::Level::ERROR,
        config::LogLevel::Warn => tracing::Level::WARN,
        config::LogLevel::Info => tracing::Level::INFO,
        config::LogLevel::Debug => tracing::Level::DEBUG,
        config::LogLevel::Trace => tracing::Level::TRACE,
    };
    log::Options { format, level }
}

/// The listener.
pub(super) fn listener(config: &Config, tls: Option<&tls::Tls>) -> listener::Options {
    let (section, limits) = (&config.listen, &config.limits);
    let list_bytes = u32::try_from(limits.http2_header_list_bytes_max).unwrap_or(u32::MAX);
    listener::Options {
        address: section.address,
        tls: tls.map(|tls| Arc::clone(&tls.server)),
        names: tls.and_then(|tls| tls.names.clone()),
        proxy_protocol: section.proxy_protocol.then(|| section.trusted_proxies.clone()),
        connections_max: limits.connections_max,
        connections_per_source_max: limits.connections_per_source_max,
        handshake_timeout: limits.handshake_timeout,
        head_timeout: limits.head_timeout,
        idle_timeout: limits.idle_timeout,
        answer_timeout: limits.answer_timeout,
        head_bytes_max: limits.head_bytes_max,
        headers_max: limits.head_fields_max,
        target_bytes_max: limits.uri_bytes_max,
        refuse: gateway::malformed_http1,
        http2: listener::Http2 {
            streams_max: limits.http2_streams_max,
            header_list_bytes_max: list_bytes,
            pending_resets_max: limits.http2_pending_resets_max,
            local_resets_max: limits.http2_local_resets_max,
            idle_frames_max: limits.http2_idle_frames_max,
            stream_window_bytes: STREAM_WINDOW_BYTES,
            connection_window_bytes: CONNECTION_WINDOW_BYTES,
            ping_interval: PING_INTERVAL,
            ping_timeout: PING_TIMEOUT,
        },
    }
}

/// The gateway.
pub(super) fn gateway(config: &Config) -> gateway::Options {
    gateway::Options {
        token_bytes_max: config.limits.token_bytes_max,
        body_bytes_max: config.limits.body_bytes_max,
        body_timeout: config.limits.body_timeout,
        bodies_bytes_max: config.limits.body_memory_bytes_max,
        refusals_per_minute: config.limits.refusals_per_source_per_minute,
        answer_within: config
            .claim
            .lease
            .saturating_sub(config.claim.guard)
            .saturating_add(ANSWER_SLACK),
    }
}

/// Dispatch.
pub(super) const fn dispatch(config: &Config) -> dispatch::Options {
    dispatch::Options {
        lease: config.claim.lease,
        guard: config.claim.guard,
        join_wait: config.claim.join_wait,
        on_ambiguous: config.claim.on_ambiguous,
        on_store_error: config.claim.on_store_error,
        followers_max: config.limits.followers_max,
    }
}

/// The stores; and what writes the file of one that has one, to be run on a thread of its own.
pub(super) fn stores(section: &config::Store) -> Result<(Stores, Option<Writer>), StartError> {
    let memory = |bytes_max| Memory::new(memory::Options { bytes_max });
    let bytes_max = section.memory_bytes_max;
    let beside = |shared| Stores {
        shared,
        local: memory(bytes_max / SHARES),
        remembered: Some(memory(bytes_max / SHARES)),
    };
    Ok(match &section.kind {
        // What such a store forgets or cannot take, nobody else remembers: the local one is only there for the form.
        config::StoreKind::Memory => {
            let shared = Store::Memory(memory(bytes_max));
            (Stores { shared, local: memory(0), remembered: None }, None)
        }
        config::StoreKind::Disk(section) => {
            let (disk, writer) = Disk::open(disk(section), clock::unix())?;
            (beside(Store::Disk(disk)), Some(writer))
        }
        config::StoreKind::Redis(section) => (beside(Store::Redis(redis(section)?)), None),
    })
}

fn disk(section: &config::Disk) -> disk::Options {
    disk::Options {
        path: section.path.clone(),
        bytes_max: u64::try_from(section.bytes_max).unwrap_or(u64::MAX),
        operation_timeout: section.operation_timeout,
    }
}

fn redis(section: &config::Redis) -> Result<Redis, StartError> {
    let (endpoint, database) = match &section.servers {
        config::RedisServers::One { address: config::HostPort { host, port }, database } => {
            (Endpoint::Tcp { host: host.clone(), port: *port }, *database)
        }
        config::RedisServers::Sentinel(sentinel) => {
            let endpoint = Endpoint::Sentinel(Sentinel {
                master: sentinel.master.clone(),
                addresses: addresses(&sentinel.addresses),
                credentials: credentials(sentinel.username.as_ref(), sentinel.password.as_ref()),
            });
            (endpoint, sentinel.database)
        }
        config::RedisServers::Cluster(seeds) => (Endpoint::Cluster(addresses(seeds)), 0),
    };
    let wait_replicas = section
        .wait_replicas
        .map(|wait| WaitReplicas { replicas: wait.replicas, timeout: wait.timeout });
    Ok(Redis::new(RedisOptions {
        endpoint,
        credentials: credentials(section.username.as_ref(), section.password.as_ref()),
        database: u16::try_from(database).map_err(|_| StartError::Database(database))?,
        tls: section.tls.as_ref().map(redis_tls).transpose()?,
        prefix: section.prefix.clone(),
        connect_timeout: section.connect_timeout,
        operation_timeout: section.operation_timeout,
        wait_replicas,
        breaker_failures: section.breaker_failures,
        breaker_probe_interval: section.breaker_probe_interval,
    })?)
}

fn addresses(section: &[config::HostPort]) -> Vec<Address> {
    let address = |at: &config::HostPort| Address { host: at.host.clone(), port: at.port };
    section.iter().map(address).collect()
}

fn credentials(username: Option<&String>, password: Option<&SecretString>) -> Option<Credentials> {
    Some(Credentials { username: username.cloned(), password: password?.clone() })
}

fn redis_tls(section: &config::UpstreamTls) -> Result<TlsOptions, StartError> {
    let client = match &section.client {
        None => None,
        Some(pair) => {
            let key = Zeroizing::new(read(&pair.key_file)?);
            let text = str::from_utf8(&key)
                .map_err(|_not_text| StartError::NotPem(pair.key_file.clone()))?;
            Some(ClientCertificate { chain: read(&pair.certificate_file)?, key: text.into() })
        }
    };
    Ok(TlsOptions {
        ca: section.ca_file.as_deref().map(read).transpose()?,
        server_name: section.server_name.clone(),
        client,
    })
}

fn read(file: &Path) -> Result<Vec<u8>, StartError> {
    std::fs::read(file)
        .map_err(|source| StartError::Unreadable { file: PathBuf::from(file), source })
}

/// What the backends of one configuration share.
pub(super) struct Backends {
    /// Drives their connections.
    connections: TaskTracker,
    roots: SystemRoots,
}

impl Backends {
    /// Their connections are driven on `connections`.
    pub(super) fn new(connections: TaskTracker) -> Self {
        Self { connections, roots: SystemRoots::default() }
    }
}

/// The webhook routes, by path.
pub(super) fn routes(
    config: &Config,
    metrics: &Metrics,
    backends: &Backends,
) -> Result<HashMap<String, gateway::Route>, StartError> {
    let mut routes = HashMap::with_capacity(config.routes.len());
    for route in &config.routes {
        let path = route.path.as_str().to_owned();
        // `mode` has one value yet: the sender waits.
        let config::Mode::Sync = route.mode;
        let destination = dispatch::Route {
            name: metrics.route(&path),
            upstream: backend(&route.upstream, webhook_path(&route.upstream), backends)?,
            upstream_timeout: route.upstream.timeout,
            shadow: config.dedup.shadow,
        };
        let windows = &config.dedup.windows;
        let served = gateway::Route {
            verifier: Verifier::new(keys(&config.tenants, &route.tenants)?),
            identity: config.dedup.identity.clone(),
            windows: Windows::new(windows.fallback(), |kind| windows.of(kind)),
            destination: Arc::new(destination),
        };
        routes.insert(path, served);
    }
    Ok(routes)
}

/// The keys of the tenants that a route takes; of all of them if it names none.
fn keys(tenants: &[config::Tenant], taken: &[Tenant]) -> Result<KeyRing, KeyRingError> {
    let of_route = tenants.iter().filter(|tenant| taken.is_empty() || taken.contains(&tenant.name));
    KeyRing::new(of_route.flat_map(|tenant| {
        tenant.keys.iter().map(|(key, secret)| (tenant.name.clone(), key.clone(), secret.clone()))
    }))
}

/// A backend URL with a path gets webhooks there; one without gets them on the route's own path.
fn webhook_path(section: &config::Upstream) -> PathPolicy {
    if section.backend.path().is_some() { PathPolicy::Target } else { PathPolicy::Sender }
}

/// What serves the paths that are no route's, and the routes' own while webhooks are neither verified nor collapsed.
pub(super) fn relays(
    config: &Config,
    backends: &Backends,
    stop: &CancellationToken,
) -> Result<(Option<Relay>, HashMap<String, Relay>), StartError> {
    let relay = |section: &config::Upstream, path| -> Result<Relay, BuildError> {
        Ok(Relay::new(
            backend(section, path, backends)?,
            RELAY,
            backends.connections.clone(),
            stop.clone(),
        ))
    };
    let others = match &config.relay {
        config::Relay::NotFound => None,
        config::Relay::Backend(section) => Some(relay(section, PathPolicy::Sender)?),
    };
    let mut routes = HashMap::new();
    if !config.enabled {
        for route in &config.routes {
            let path = webhook_path(&route.upstream);
            routes.insert(route.path.as_str().to_owned(), relay(&route.upstream, path)?);
        }
    }
    Ok((others, routes))
}

fn backend(
    section: &config::Upstream,
    path: PathPolicy,
    backends: &Backends,
) -> Result<Upstream, BuildError> {
    let tls = upstream::TlsOptions {
        ca: section.tls.ca_file.clone(),
        client: section.tls.client.as_ref().map(|pair| upstream::ClientCertificate {
            chain: pair.certificate_file.clone(),
            key: pair.key_file.clone(),
        }),
        server_name: section.tls.server_name.clone(),
        system_roots: backends.roots.clone(),
    };
    let options = upstream::Options {
        target: section.backend.uri().clone(),
        path,
        host: host(&section.host),
        tls: section.backend.is_tls().then_some(tls),
        connect_timeout: section.connect_timeout,
        idle_timeout: section.idle_timeout,
        connections_max: section.connections_max,
        refused: section.refused.clone(),
        via: VIA_NAME.to_owned(),
    };
    Upstream::new(&options, backends.connections.clone())
}

fn host(policy: &config::HostPolicy) -> upstream::HostPolicy {
    match policy {
        config::HostPolicy::Backend => upstream::HostPolicy::Backend,
        config::HostPolicy::Keep => upstream::HostPolicy::Keep,
        config::HostPolicy::Fixed(name) => {
            // `config` has checked that it is a host, and a host is a header value.
            HeaderValue::from_str(name)
                .map_or(upstream::HostPolicy::Backend, upstream::HostPolicy::Fixed)
        }
    }
}
