//! `[store]`: where records are held.

use std::path::PathBuf;
use std::time::Duration;

use redis::{ConnectionAddr, IntoConnectionInfo as _};
use secrecy::{ExposeSecret as _, SecretString};

use super::super::problem::{Fault, Reveal};
use super::super::reader::Origin;
use super::super::section::Section;
use super::super::url_password;
use super::super::value::{Kind, OnError, quoted};
use super::super::{HostPort, Sentinel, UpstreamTls, WaitReplicas};
use super::{gib, mib, milliseconds, routes, seconds};

/// `[store]`
pub(in crate::config) struct RawStore {
    pub(in crate::config) kind: Option<Kind>,
    pub(in crate::config) on_error: OnError,
    pub(in crate::config) local_after: Duration,
    pub(in crate::config) memory_bytes_max: usize,
    pub(in crate::config) disk: RawDisk,
    pub(in crate::config) redis: RawRedis,
}

/// `[store.disk]`
pub(in crate::config) struct RawDisk {
    pub(in crate::config) path: Option<PathBuf>,
    /// There is a path, but it could not be read; that has been told.
    pub(in crate::config) path_failed: bool,
    pub(in crate::config) bytes_max: usize,
    pub(in crate::config) operation_timeout: Duration,
}

/// `[store.redis]`
pub(in crate::config) struct RawRedis {
    pub(in crate::config) server: Option<Server>,
    /// There is a URL or a list of servers, but it could not be read; that has been told.
    pub(in crate::config) where_failed: bool,
    pub(in crate::config) sentinel: Option<Sentinel>,
    pub(in crate::config) cluster: Option<Vec<HostPort>>,
    pub(in crate::config) username: Option<String>,
    pub(in crate::config) password: Option<SecretString>,
    /// There is a password, but it could not be read; that has been told.
    pub(in crate::config) password_failed: bool,
    pub(in crate::config) prefix: String,
    pub(in crate::config) operation_timeout: Duration,
    pub(in crate::config) connect_timeout: Duration,
    pub(in crate::config) wait_replicas: Option<WaitReplicas>,
    pub(in crate::config) breaker_failures: u32,
    pub(in crate::config) breaker_probe_interval: Duration,
    /// For servers without a URL that would say it.
    pub(in crate::config) tls_enabled: Option<bool>,
    pub(in crate::config) tls: UpstreamTls,
}

/// What a Redis URL says.
pub(in crate::config) struct Server {
    pub(in crate::config) host: String,
    pub(in crate::config) port: u16,
    pub(in crate::config) database: i64,
    pub(in crate::config) tls: bool,
    pub(in crate::config) username: Option<String>,
    pub(in crate::config) password: Option<SecretString>,
}

impl RawRedis {
    /// Whether anything says where Redis is.
    pub(in crate::config) const fn is_named(&self) -> bool {
        self.server.is_some() || self.sentinel.is_some() || self.cluster.is_some()
    }
}

pub(super) fn store(section: &mut Section<'_, '_>) -> RawStore {
    let kind = section.option("kind");
    let on_error = section.take("on_store_error", OnError::Local);
    let local_after =
        section.within("on_store_error_after", seconds(10), seconds(1)..=Duration::from_hours(1));
    let memory_bytes_max = section
        .section("memory", |section| section.within("bytes_max", mib(128), mib(1)..=gib(64)).0);
    let disk = section.section("disk", disk);
    let redis = section.section("redis", redis);
    RawStore { kind, on_error, local_after, memory_bytes_max, disk, redis }
}

fn disk(section: &mut Section<'_, '_>) -> RawDisk {
    let errors = section.reader.errors();
    let path = section.path_value("path").map(|(path, _)| path);
    RawDisk {
        path,
        path_failed: section.reader.errors() > errors,
        bytes_max: section.within("bytes_max", mib(256), mib(1)..=gib(64)).0,
        operation_timeout: section.within(
            "operation_timeout",
            seconds(1),
            milliseconds(10)..=seconds(10),
        ),
    }
}

fn redis(section: &mut Section<'_, '_>) -> RawRedis {
    let errors = section.reader.errors();
    let server = url(section);
    let sentinel = section.section("sentinel", sentinel);
    let cluster = section.section("cluster", addresses);
    let where_failed = section.reader.errors() > errors;
    let errors = section.reader.errors();
    let password = section.secret("password", "password_file").map(|(password, _)| password);
    let password_failed = section.reader.errors() > errors;
    let (tls_enabled, tls) =
        section.section("tls", |section| (section.option("enabled"), routes::tls(section, None)));
    RawRedis {
        server,
        where_failed,
        sentinel,
        cluster,
        username: section.option("username"),
        password,
        password_failed,
        prefix: prefix(section),
        operation_timeout: section.within(
            "operation_timeout",
            milliseconds(250),
            milliseconds(1)..=seconds(10),
        ),
        connect_timeout: section.within(
            "connect_timeout",
            milliseconds(250),
            milliseconds(1)..=seconds(10),
        ),
        wait_replicas: wait_replicas(section),
        breaker_failures: section.within("breaker_failures", 5, 1..=1000),
        breaker_probe_interval: section.within(
            "breaker_probe_interval",
            seconds(1),
            milliseconds(10)..=seconds(60),
        ),
        tls_enabled,
        tls,
    }
}

/// `[store.redis.sentinel]`; `None` without addresses.
fn sentinel(section: &mut Section<'_, '_>) -> Option<Sentinel> {
    let addresses = addresses(section);
    let master = section.take("master", "mymaster".to_owned());
    let database = section.within("database", 0_u32, 0..=u32::from(u16::MAX));
    let username = section.option("username");
    let password = section.secret("password", "password_file").map(|(password, _)| password);
    let addresses = addresses?;
    Some(Sentinel { master, addresses, database: i64::from(database), username, password })
}

/// `None` if there is no list, or one that cannot be used.
fn addresses(section: &mut Section<'_, '_>) -> Option<Vec<HostPort>> {
    let errors = section.reader.errors();
    let addresses: Vec<HostPort> = section.list("addresses", None)?;
    if section.reader.errors() > errors {
        return None;
    }
    if addresses.is_empty() {
        let name = section.named("addresses");
        let place = section.reader.place(&[&name]);
        section.reader.error(place, Fault::new("names no server").of(&name));
        return None;
    }
    Some(addresses)
}

fn wait_replicas(section: &mut Section<'_, '_>) -> Option<WaitReplicas> {
    let replicas = section.within("wait_replicas", 0, 0..=100);
    let timeout = section.within("wait_timeout", milliseconds(100), milliseconds(1)..=seconds(5));
    (replicas > 0).then_some(WaitReplicas { replicas, timeout })
}

/// A URL may hold a password: it is treated as a secret until that is taken out.
fn url(section: &mut Section<'_, '_>) -> Option<Server> {
    let (url, origin) = section.secret("url", "url_file")?;
    match server(url.expose_secret()) {
        Ok(Server { password: Some(_), .. }) if matches!(origin, Origin::Flag(_)) => {
            let fault = Fault::new("all users of this machine may read a password in a command");
            let hint = "set REDIS_URL, or `password_file` of [store.redis]";
            section.fault(&origin, Reveal::Key, fault.hint(hint).of(&section.named("url")));
            None
        }
        Ok(server) => {
            let name = if section.has("url") { "url" } else { "url_file" };
            if name == "url" {
                section.record(name, quoted(&server.to_string()), origin, Reveal::Key);
            }
            Some(server)
        }
        Err(fault) => {
            let fault = fault.of(&section.named("url"));
            section.fault(&origin, Reveal::Key, fault);
            None
        }
    }
}

fn prefix(section: &mut Section<'_, '_>) -> String {
    let prefix: String = section.take("prefix", "oncehook:".to_owned());
    if prefix.len() > 64
        || prefix.contains(['{', '}'])
        || prefix.chars().any(|c| c.is_control() || c.is_whitespace())
    {
        let place = section.reader.place(&["store.redis.prefix"]);
        let fault =
            Fault::new("must be at most 64 bytes, without braces, blanks and control characters");
        section.reader.error(place, fault.of("store.redis.prefix"));
    }
    prefix
}

/// Never quotes the URL.
fn server(url: &str) -> Result<Server, Fault> {
    let expected = |what: &str| {
        Fault::new(format!("expected the URL of a Redis server: {what}"))
            .hint("write it as \"redis://redis.internal:6379/0\", or rediss:// for TLS")
    };
    if url.starts_with("redis+unix:") || url.starts_with("unix:") {
        return Err(expected("sockets of the file system are not in this version"));
    }
    // The library would keep copies of the password that nobody wipes.
    let (url, password) =
        url_password::taken(url).map_err(|_not_text| expected("its password is no text"))?;
    let info = url.as_str().into_connection_info().map_err(|_| expected("it cannot be read"))?;
    // The scheme says which of the kinds of address it is; sockets are none of them.
    let (host, port, tls) = if let ConnectionAddr::Tcp(host, port) = info.addr() {
        (host.clone(), *port, false)
    } else if let ConnectionAddr::TcpTls { host, port, insecure: false, .. } = info.addr() {
        (host.clone(), *port, true)
    } else {
        return Err(expected(
            "#insecure is not allowed; name the server's root in ca_file of [store.redis.tls]",
        ));
    };
    let redis = info.redis_settings();
    if u16::try_from(redis.db()).is_err() {
        return Err(expected("the database must be from 0 to 65535"));
    }
    Ok(Server {
        host,
        port,
        database: redis.db(),
        tls,
        username: redis.username().map(str::to_owned),
        password,
    })
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        write!(f, "{scheme}://")?;
        if self.username.is_some() || self.password.is_some() {
            let password = if self.password.is_some() { ":<redacted>" } else { "" };
            write!(f, "{}{password}@", self.username.as_deref().unwrap_or_default())?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]:{}/{}", self.host, self.port, self.database)
        } else {
            write!(f, "{}:{}/{}", self.host, self.port, self.database)
        }
    }
}
