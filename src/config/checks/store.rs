//! Which store it is, and whether it is told enough.

use super::super::problem::Fault;
use super::super::raw::store::{RawRedis, RawStore};
use super::super::reader::Reader;
use super::super::units::duration_text as text;
use super::super::value::Kind;
use super::super::{Claim, Redis, Store, StoreKind, UpstreamTls};

pub(super) fn store(reader: &mut Reader<'_>, raw: RawStore, claim: &Claim) -> Store {
    let memory_bytes_max = raw.memory_bytes_max;
    // Whoever names a server means it: `REDIS_URL` alone is enough.
    let kind =
        raw.kind.unwrap_or(if raw.redis.server.is_some() { Kind::Redis } else { Kind::Memory });
    let redis = match kind {
        Kind::Memory => {
            if raw.redis.server.is_some() {
                let fault = Fault::new("store.kind is \"memory\": this server is not used");
                let place = reader.place(&["store.redis.url", "store.redis.url_file"]);
                reader.warning(place, fault.of("store.redis.url"));
            }
            None
        }
        Kind::Redis => redis(reader, raw.redis, claim),
    };
    let kind = redis.map_or(StoreKind::Memory, |redis| StoreKind::Redis(Box::new(redis)));
    Store { kind, memory_bytes_max }
}

fn redis(reader: &mut Reader<'_>, raw: RawRedis, claim: &Claim) -> Option<Redis> {
    timeouts(reader, &raw, claim);
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

fn timeouts(reader: &mut Reader<'_>, raw: &RawRedis, claim: &Claim) {
    if raw.operation_timeout >= claim.guard {
        let fault = Fault::new(format!(
            "`store.redis.operation_timeout` ({}) must be less than `claim.guard` ({}): what the backend said is recorded \
             in that time",
            text(raw.operation_timeout),
            text(claim.guard)
        ));
        reader.contradiction(&["store.redis.operation_timeout", "claim.guard"], fault);
    }
}
