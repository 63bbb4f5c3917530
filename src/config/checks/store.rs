//! Which store it is, and whether it is told enough.

use std::time::Duration;

use super::super::problem::Fault;
use super::super::raw::store::{RawDisk, RawRedis, RawStore};
use super::super::reader::Reader;
use super::super::units::duration_text as text;
use super::super::value::{Kind, Value as _};
use super::super::{Claim, Disk, Redis, Store, StoreKind, UpstreamTls};

pub(super) fn store(reader: &mut Reader<'_>, raw: RawStore, claim: &Claim) -> Store {
    let memory_bytes_max = raw.memory_bytes_max;
    let (server, file) = (raw.redis.server.is_some(), raw.disk.path.is_some());
    // Whoever names a server or a file means it: `REDIS_URL` alone is enough.
    let kind = raw.kind.unwrap_or(match (server, file) {
        (true, _) => Kind::Redis,
        (false, true) => Kind::Disk,
        (false, false) => Kind::Memory,
    });
    let word = kind.toml();
    if server && kind != Kind::Redis {
        let fault = Fault::new(format!("store.kind is {word}: this server is not used"));
        let place = reader.place(&["store.redis.url", "store.redis.url_file"]);
        reader.warning(place, fault.of("store.redis.url"));
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

fn redis(reader: &mut Reader<'_>, raw: RawRedis, claim: &Claim) -> Option<Redis> {
    timeout(reader, ("store.redis.operation_timeout", raw.operation_timeout), claim);
    let Some(server) = raw.server else {
        if !raw.url_failed {
            let fault = Fault::new("store.kind is \"redis\", and store.redis.url says not where");
            let place = reader.place(&["store.kind"]);
            reader.error(
                place,
                fault.hint(
                    "set url in [store.redis], or REDIS_URL, as in \"redis://127.0.0.1:6379/0\"",
                ),
            );
        }
        return None;
    };
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
    let username = server.username.or(raw.username);
    let password = server.password.or(raw.password);
    if username.is_some() && password.is_none() && !raw.password_failed {
        reader.contradiction(
            &["store.redis.username", "store.redis.url", "store.redis.password"],
            Fault::new("there is a user, and no password")
                .hint("set password_file")
                .of("store.redis"),
        );
    }
    if !server.tls && raw.tls != UpstreamTls::default() {
        let place = reader.place(&["store.redis.url"]);
        let fault = Fault::new("[store.redis.tls] is set, and the URL asks for no TLS");
        reader.error(place, fault.hint("write rediss:// for TLS").of("store.redis.url"));
    }
    Some(Redis {
        host: server.host,
        port: server.port,
        database: server.database,
        username,
        password,
        prefix: raw.prefix,
        operation_timeout: raw.operation_timeout,
        connect_timeout: raw.connect_timeout,
        breaker_failures: raw.breaker_failures,
        breaker_probe_interval: raw.breaker_probe_interval,
        tls: server.tls.then_some(raw.tls),
    })
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
