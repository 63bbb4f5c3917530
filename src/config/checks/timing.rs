//! Whether an owner always stops before its claim does, and everybody else waits long enough.

use std::time::Duration;

use crate::claim::exchange::OnStoreError;

use super::super::problem::Fault;
use super::super::raw::RawClaim;
use super::super::raw::store::RawStore;
use super::super::reader::Reader;
use super::super::units::duration_text as text;
use super::super::value::OnError;
use super::super::{Claim, Shutdown};
use super::endpoints::Checked;

/// LiveKit makes its last attempt this long after the first (DESIGN: "What the sender does").
const LAST_ATTEMPT: Duration = Duration::from_secs(15);

/// LiveKit closes a connection that was idle this long; whoever closes earlier makes a POST meet a closing connection.
const SENDER_IDLE: Duration = Duration::from_secs(90);

pub(super) fn claim(raw: &RawClaim, store: &RawStore) -> Claim {
    Claim {
        lease: raw.lease,
        guard: raw.guard,
        join_wait: raw.join_wait,
        on_ambiguous: raw.on_ambiguous,
        on_store_error: match store.on_error {
            OnError::Local => OnStoreError::Local,
            OnError::Reject => OnStoreError::Reject,
            OnError::RejectThenLocal => OnStoreError::RejectThenLocal(store.local_after),
        },
    }
}

pub(super) fn check(
    reader: &mut Reader<'_>,
    claim: &Claim,
    routes: &[Checked],
    shutdown: Shutdown,
) {
    for checked in routes {
        forward(reader, claim, checked);
    }
    let longest =
        routes.iter().map(|checked| checked.route.upstream.timeout).max().unwrap_or_default();
    if shutdown.grace < longest {
        let place = reader.place(&["shutdown.grace", "upstream.timeout"]);
        let fault = Fault::new(format!(
            "a forward may take {}, and the end leaves it {}: it would be cut off",
            text(longest),
            text(shutdown.grace)
        ));
        reader.warning(place, fault.of("shutdown.grace"));
    }
    local_after(reader, claim);
}

pub(super) fn idle(reader: &mut Reader<'_>, idle_timeout: Duration) {
    if idle_timeout <= SENDER_IDLE {
        let place = reader.place(&["limits.idle_timeout"]);
        let fault = Fault::new(
            "LiveKit keeps idle connections for 90s: closing earlier loses requests on the way",
        );
        reader.warning(place, fault.hint("keep it above 90s").of("limits.idle_timeout"));
    }
}

fn forward(reader: &mut Reader<'_>, claim: &Claim, checked: &Checked) {
    let Checked { route, section } = checked;
    let upstream = &route.upstream;
    let own = format!("{section}.timeout");
    let name = if reader.is_set(&own) && section.starts_with("route") {
        "route.timeout"
    } else {
        "upstream.timeout"
    };
    if upstream.timeout + claim.guard > claim.lease {
        let paths = &[&own, "upstream.timeout", "claim.guard", "claim.lease"];
        let fault = Fault::new(format!(
            "`{name}` ({}) and `claim.guard` ({}) together are more than `claim.lease` ({}): the owner would outlive its \
             claim",
            text(upstream.timeout),
            text(claim.guard),
            text(claim.lease)
        ));
        reader.contradiction(
            paths,
            fault.hint(format!(
                "set claim.lease to {} or more",
                text(upstream.timeout + claim.guard)
            )),
        );
    }
    if upstream.connect_timeout > upstream.timeout {
        let connect = format!("{section}.connect_timeout");
        let paths = &[&connect, &own, "upstream.connect_timeout", "upstream.timeout"];
        let fault = Fault::new(format!(
            "`connect_timeout` ({}) is more than `timeout` ({}), of which it is a part",
            text(upstream.connect_timeout),
            text(upstream.timeout)
        ));
        reader.contradiction(paths, fault);
    }
}

fn local_after(reader: &mut Reader<'_>, claim: &Claim) {
    let place = reader.place(&["store.on_store_error_after"]);
    match claim.on_store_error {
        OnStoreError::RejectThenLocal(after) if after >= LAST_ATTEMPT => {
            let fault = Fault::new(
                "LiveKit gives an event up after 15s: one that comes first in an outage would be lost",
            );
            reader.warning(place, fault.of("store.on_store_error_after"));
        }
        OnStoreError::Local | OnStoreError::Reject
            if reader.is_set("store.on_store_error_after") =>
        {
            let fault = Fault::new("it counts only with on_store_error = \"reject-then-local\"");
            reader.warning(place, fault.of("store.on_store_error_after"));
        }
        OnStoreError::Local | OnStoreError::Reject | OnStoreError::RejectThenLocal(_) => {}
    }
}
