//! Which store it is, and whether it is told enough.

use std::time::Duration;

use secrecy::SecretString;

use super::super::problem::Fault;
use super::super::raw::store::{RawDisk, RawRedis, RawStore, Server};
use super::super::reader::Reader;
use super::super::units::duration_text as text;
use super::super::value::{Kind, Value as _};
use super::super::{Claim, Disk, HostPort, Redis, RedisServers, Store, StoreKind, UpstreamTls};

pub(super) fn store(reader: &mut Reader<'_>, raw: RawStore, claim: &Claim) -> Store {
    let memory_bytes_max = raw.memory_bytes_max;
    let (server, file) = (raw.redis.is_named(), raw.disk.path.is_some());
    // Whoever names a server or a file means it: `REDIS_URL` alone is enough.
    let kind = raw.kind.unwrap_or(match (server, file) {
        (true, _) => Kind::Redis,
        (false, true) => Kind::Disk,
        (false, false) => Kind::Memory,
    });
    let word = kind.toml();
    if server && kind != Kind::Redis {
        let fault = Fault::new(format!("store.kind is {word}: this server is not used"));
        let place = reader.place(&WHERE);
        reader.warning(place, fault.of("store.redis"));
    }
    if file && kind != Kind::Disk {
        let fault = Fault::new(format!("store.kind is {word}: this file is not used"));
        let place = reader.place(&["store.disk.path"]);
        reader.warning(place, fault.of("store.disk.path"));
    }
    let kind = match kind {
        Kind::Memory => None,
        Kind::Disk => disk(reader, raw.disk, claim).map(StoreKind::Disk),
        Kind::Redis => {
            redis(reader, raw.redis, claim).map(|redis| StoreKind::Redis(Box::new(redis)))
        }
    };
    Store { kind: kind.unwrap_or(StoreKind::Memory), memory_bytes_max }
}

fn disk(reader: &mut Reader<'_>, raw: RawDisk, claim: &Claim) -> Option<Disk> {
    timeout(reader, ("store.disk.operation_timeout", raw.operation_timeout), claim);
    let Some(path) = raw.path else {
        if !raw.path_failed {
            let fault = Fault::new("store.kind is \"disk\", and store.disk.path says not where");
            let place = reader.place(&["store.kind"]);
            reader.error(
                place,
                fault.hint("set path in [store.disk], as in \"/var/lib/oncehook/records.redb\""),
            );
        }
        return None;
    };
    Some(Disk { path, bytes_max: raw.bytes_max, operation_timeout: raw.operation_timeout })
}

/// What says where Redis is: one of them may.
const WHERE: [&str; 4] = [
    "store.redis.url",
    "store.redis.url_file",
    "store.redis.sentinel.addresses",
    "store.redis.cluster.addresses",
];

fn redis(reader: &mut Reader<'_>, mut raw: RawRedis, claim: &Claim) -> Option<Redis> {
    timeout(reader, ("store.redis.operation_timeout", raw.operation_timeout), claim);
    let server = raw.server.take();
    let in_url = server.as_ref().map(|server| server.tls);
    let (username, password, servers) = match server {
        Some(server) => {
            let (username, password) = both(reader, &server, &raw);
            let address = HostPort { host: server.host, port: server.port };
            (username, password, Some(RedisServers::One { address, database: server.database }))
        }
        None => (raw.username.clone(), raw.password.clone(), None),
    };
    if username.is_some() && password.is_none() && !raw.password_failed {
        reader.contradiction(
            &["store.redis.username", "store.redis.url", "store.redis.password"],
            Fault::new("there is a user, and no password")
                .hint("set password_file")
                .of("store.redis"),
        );
    }
    let tls = tls(reader, in_url, &raw);
    let servers = servers_of(reader, servers, &mut raw)?;
    Some(Redis {
        servers,
        username,
        password,
        prefix: raw.prefix,
        operation_timeout: raw.operation_timeout,
        connect_timeout: raw.connect_timeout,
        wait_replicas: raw.wait_replicas,
        breaker_failures: raw.breaker_failures,
        breaker_probe_interval: raw.breaker_probe_interval,
        tls: tls.then_some(raw.tls),
    })
}

/// Who asks, from the URL or from keys of their own, but not from both.
fn both(
    reader: &mut Reader<'_>,
    server: &Server,
    raw: &RawRedis,
) -> (Option<String>, Option<SecretString>) {
    let two_users = server.username.is_some() && raw.username.is_some();
    if two_users || (server.password.is_some() && raw.password.is_some()) {
        let fault = Fault::new("the URL names a user or a password too");
        let place = reader.place(&[
            "store.redis.username",
            "store.redis.password",
            "store.redis.password_file",
        ]);
        reader.error(place, fault.hint("take it out of the URL").of("store.redis"));
    }
    (
        server.username.clone().or_else(|| raw.username.clone()),
        server.password.clone().or_else(|| raw.password.clone()),
    )
}

/// Whether to speak TLS: a URL says it itself.
fn tls(reader: &mut Reader<'_>, in_url: Option<bool>, raw: &RawRedis) -> bool {
    let enabled = in_url.or(raw.tls_enabled).unwrap_or(false);
    if in_url.is_some_and(|in_url| raw.tls_enabled.is_some_and(|enabled| enabled != in_url)) {
        let fault = Fault::new("`enabled` of [store.redis.tls] and the URL contradict each other");
        reader.contradiction(
            &["store.redis.tls.enabled", "store.redis.url"],
            fault.hint("leave `enabled` out: rediss:// means TLS, redis:// none"),
        );
    } else if !enabled && raw.tls != UpstreamTls::default() {
        let (fault, hint) = match in_url {
            Some(_) => {
                ("[store.redis.tls] is set, and the URL asks for no TLS", "write rediss:// for TLS")
            }
            None => ("[store.redis.tls] is set, and not enabled", "set enabled = true there"),
        };
        let place = reader.place(&WHERE);
        reader.error(place, Fault::new(fault).hint(hint).of("store.redis"));
    }
    enabled
}

/// Where Redis is: said once.
fn servers_of(
    reader: &mut Reader<'_>,
    one: Option<RedisServers>,
    raw: &mut RawRedis,
) -> Option<RedisServers> {
    let sentinel = raw.sentinel.take().map(|sentinel| RedisServers::Sentinel(Box::new(sentinel)));
    let cluster = raw.cluster.take().map(RedisServers::Cluster);
    let mut all = [one, sentinel, cluster].into_iter().flatten();
    let servers = all.next();
    if all.next().is_some() {
        let fault = Fault::new("more than one of url, sentinel and cluster says where Redis is");
        reader.contradiction(&WHERE, fault.hint("keep one of them").of("store.redis"));
    }
    if let Some(RedisServers::Sentinel(sentinel)) = &servers
        && sentinel.username.is_some()
        && sentinel.password.is_none()
        && !reader.is_set("store.redis.sentinel.password_file")
    {
        let place = reader.place(&["store.redis.sentinel.username"]);
        let fault = Fault::new("there is a user, and no password").hint("set password_file");
        reader.error(place, fault.of("store.redis.sentinel"));
    }
    if servers.is_none() && !raw.where_failed {
        let fault = Fault::new("store.kind is \"redis\", and nothing says where Redis is");
        let place = reader.place(&["store.kind"]);
        reader.error(
            place,
            fault.hint(
                "set url in [store.redis], or REDIS_URL, as in \"redis://127.0.0.1:6379/0\"; or addresses in \
                 [store.redis.sentinel] or [store.redis.cluster]",
            ),
        );
    }
    servers
}

/// An operation that takes longer than the guard would be recorded after the lease has ended.
fn timeout(reader: &mut Reader<'_>, (name, of_one): (&str, Duration), claim: &Claim) {
    if of_one >= claim.guard {
        let place = reader.place(&[name, "claim.guard"]);
        let fault = Fault::new(format!(
            "`{name}` ({}) must be less than `claim.guard` ({}): what the backend said is recorded in that time",
            text(of_one),
            text(claim.guard)
        ));
        reader.error(place, fault);
    }
}
