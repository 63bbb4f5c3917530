//! What ceases to be valid one day: tells it to the metrics, and to the log in time and again.

use std::convert::Infallible;
use std::time::Duration;

use crate::clock::{self, UnixTime};
use crate::listener::tls::{Leaf, Tls, Validity};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Expiring;

use super::status::Ledger;

/// From when on an expiry is worth a warning: one of a certificate …
const CERTIFICATE_WARNING: Duration = Duration::from_hours(14 * 24);
/// … and one of a list of revoked ones, which many authorities renew every day or every week.
const LIST_WARNING: Duration = Duration::from_hours(12);
/// How often it is told again.
const REMINDER: Duration = Duration::from_hours(24);

/// Something that ceases to be valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expiry {
    pub(super) what: Expiring,
    leaf: Leaf,
}

impl Expiry {
    pub(super) fn name(&self) -> &str {
        &self.leaf.name
    }

    pub(super) const fn at(&self) -> UnixTime {
        UnixTime::from_epoch(self.leaf.not_after)
    }

    const fn warning(&self) -> Duration {
        match self.what {
            Expiring::Certificate | Expiring::ClientAuthority => CERTIFICATE_WARNING,
            Expiring::RevocationList => LIST_WARNING,
        }
    }

    const fn noun(&self) -> &'static str {
        match self.what {
            Expiring::Certificate => "this certificate",
            Expiring::ClientAuthority => "this authority of client certificates",
            Expiring::RevocationList => "this list of revoked client certificates",
        }
    }

    /// What it means when its time is over.
    const fn consequence(&self) -> &'static str {
        match self.what {
            Expiring::Certificate => "LiveKit refuses it",
            Expiring::ClientAuthority => "client certificates that it signed are refused",
            Expiring::RevocationList => "all client certificates of its issuer are refused",
        }
    }

    /// Says it if there is something to say.
    fn tell(&self, now: UnixTime) {
        let (certificate, noun) = (self.leaf.name.as_str(), self.noun());
        match self.leaf.validity(now.since_epoch()) {
            Validity::Valid(left) if left > self.warning() => {}
            Validity::Valid(left) => {
                tracing::warn!(certificate, days_left = days(left), "{noun} expires soon");
            }
            Validity::Expired(since) => {
                let consequence = self.consequence();
                tracing::error!(
                    certificate,
                    days_since = days(since),
                    "{noun} has expired: {consequence}"
                );
            }
            Validity::NotYet(early) => {
                tracing::error!(
                    certificate,
                    seconds_early = early.as_secs(),
                    "{noun} is not valid yet"
                );
            }
        }
    }
}

/// All that expires of what the two listeners show and check.
pub(super) fn of(listeners: [&Option<Tls>; 2]) -> Vec<Expiry> {
    listeners.into_iter().flatten().flat_map(of_one).collect()
}

fn of_one(tls: &Tls) -> Vec<Expiry> {
    let as_what = |what| move |leaf: &Leaf| Expiry { what, leaf: leaf.clone() };
    let lists = tls.lists.iter().map(|list| Expiry {
        what: Expiring::RevocationList,
        leaf: Leaf {
            name: list.name.clone(),
            names: Vec::new(),
            not_before: Duration::ZERO,
            not_after: list.next_update,
        },
    });
    let leaves = tls.leaves.iter().map(as_what(Expiring::Certificate));
    let authorities = tls.authorities.iter().map(as_what(Expiring::ClientAuthority));
    leaves.chain(authorities).chain(lists).collect()
}

/// `now` takes the place of `before`.
pub(super) fn announce(now: &[Expiry], before: &[Expiry], metrics: &Metrics) {
    for gone in before {
        let stays = |kept: &Expiry| kept.what == gone.what && kept.name() == gone.name();
        if !now.iter().any(stays) {
            metrics.expiry_gone(gone.what, gone.name());
        }
    }
    for expiry in now {
        metrics.expires(expiry.what, expiry.name(), expiry.at());
        expiry.tell(clock::unix());
    }
}

/// Tells again, every day, for as long as it is polled.
pub(super) async fn remind(ledger: &Ledger) -> Infallible {
    loop {
        tokio::time::sleep(REMINDER).await;
        let now = clock::unix();
        for expiry in ledger.expiries() {
            expiry.tell(now);
        }
    }
}

const fn days(duration: Duration) -> u64 {
    duration.as_secs() / 86_400
}
