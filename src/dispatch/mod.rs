//! Performs what the claim protocol decides: asks the stores, waits, forwards. The only room where decisions meet I/O.
//!
//! [`Dispatch::exchange`] takes one copy from its key to its conclusion. What HTTP the copy came in, and what the sender
//! is told, is left to `gateway`.

mod flights;
mod owner;
mod perform;
mod shadow;
mod unfinished;
mod waiting;
pub mod window;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::request::Parts;
use tokio_util::sync::CancellationToken;

use crate::claim::exchange::{Conclusion, OnAmbiguous, OnStoreError, Terms};
use crate::claim::{Digest, Key, Verdict};
use crate::clock;
use crate::store::Store;
use crate::store::memory::Memory;
use crate::telemetry::Metrics;
use crate::upstream::Upstream;
pub use crate::upstream::{Peer, twin_seen, via_seen};
use crate::webhook::verify::Webhook;

use flights::{Boarded, Flights, Lead};
use unfinished::Backlog;
pub use unfinished::WriteBack;

/// Where a path's events go, and on what terms.
pub struct Route {
    /// Its name in logs and metrics: its path.
    pub name: crate::telemetry::Route,
    /// Its backend.
    pub upstream: Upstream,
    /// How long one forward may take.
    pub upstream_timeout: Duration,
    /// Forward every copy, and only say what would have been collapsed.
    pub shadow: bool,
}

/// What holds for all routes; checked by `config`.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a claim lasts.
    pub lease: Duration,
    /// How long before the lease's end its owner stops.
    pub guard: Duration,
    /// How long a copy waits for another process's result.
    pub join_wait: Duration,
    /// What to do when it is unknown whether the backend has the event.
    pub on_ambiguous: OnAmbiguous,
    /// What to do when the store cannot be asked.
    pub on_store_error: OnStoreError,
    /// How many copies of a key may wait for the first.
    pub followers_max: usize,
}

/// The stores of a process.
pub struct Stores {
    /// The one that all replicas share.
    pub shared: Store,
    /// Decides while that one cannot be asked.
    pub local: Memory,
    /// Settled keys, so that known duplicates cost no round trip; `None` if the shared one is in memory itself.
    pub remembered: Option<Memory>,
}

/// One verified copy.
pub struct Copy {
    /// Where it goes.
    pub route: Arc<Route>,
    /// Its bytes.
    pub webhook: Webhook,
    /// What it shares with the other copies of its event.
    pub key: Key,
    /// Of its content.
    pub digest: Digest,
    /// How long the event is remembered.
    pub window: Duration,
    /// The head it came with; in a box, for a copy is handed on several times.
    pub head: Box<Parts>,
    /// The sender.
    pub peer: Peer,
    /// For logs on both sides.
    pub request_id: Arc<str>,
}

/// How a copy's exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concluded {
    /// What became of the event.
    pub conclusion: Conclusion,
    /// This copy waited for the first one's result, which it shares.
    pub collapsed: bool,
    /// The number of the attempt, if the event was forwarded; else 0.
    pub attempt: u32,
    /// The forward was marked as a possible duplicate.
    pub possible_duplicate: bool,
    /// The content differs from what was forwarded.
    pub conflict: bool,
}

impl Concluded {
    /// A conclusion without a forward.
    pub const fn of(conclusion: Conclusion) -> Self {
        let conflict = matches!(conclusion, Conclusion::Duplicate { conflict: true, .. });
        Self { conclusion, collapsed: false, attempt: 0, possible_duplicate: false, conflict }
    }

    /// To a copy that waited for this; `differs` says whether its content is another.
    fn followed(self, differs: bool) -> Self {
        let conflict = match self.conclusion {
            // What was forwarded first is not the leader's. A third content may be the same as that; who knows.
            Conclusion::Duplicate { conflict: true, .. } => !differs,
            Conclusion::Duplicate { conflict: false, .. }
            | Conclusion::Forwarded(_)
            | Conclusion::Suppressed => differs,
            Conclusion::Busy { .. } | Conclusion::StoreUnavailable => false,
        };
        Self { collapsed: true, attempt: 0, conflict, ..self }
    }
}

/// The state that exchanges share.
pub struct Dispatch {
    options: ArcSwap<Options>,
    stores: Stores,
    flights: Arc<Flights>,
    backlog: Backlog,
    metrics: Arc<Metrics>,
}

impl Dispatch {
    /// Nothing under way. [`Dispatch::finish`] must run beside it.
    pub fn new(options: Options, stores: Stores, metrics: Arc<Metrics>) -> Self {
        let flights = Flights::new(options.followers_max);
        let (options, backlog) = (ArcSwap::from_pointee(options), Backlog::new());
        Self { options, stores, flights, backlog, metrics }
    }

    /// From now on `options` hold; exchanges under way end on the terms on which they began.
    pub fn set_options(&self, options: Options) {
        self.flights.set_followers_max(options.followers_max);
        self.options.store(Arc::new(options));
    }

    fn options(&self) -> Options {
        **self.options.load()
    }

    /// The stores, for those who report on them.
    pub const fn stores(&self) -> &Stores {
        &self.stores
    }

    /// How many keys are on their way in this process.
    pub fn flights(&self) -> usize {
        self.flights.len()
    }

    /// How far the writing back of what the store does not know yet has come.
    pub fn write_back(&self) -> WriteBack {
        self.backlog.write_back()
    }

    /// What a copy comes to that needs no exchange: a duplicate that this process knows of, without a round trip. Asked
    /// first.
    pub fn known(&self, route: &Route, key: Key, digest: Digest) -> Option<Concluded> {
        let remembered = self.stores.remembered.as_ref().filter(|_| !route.shadow)?;
        let (verdict, settled) = remembered.settled(key, clock::monotonic())?;
        let conflict = settled != digest;
        Some(Concluded::of(Conclusion::Duplicate { verdict, conflict }))
    }

    /// Takes one copy, unless it is [`Self::known`], to its conclusion. Not cancel safe: the caller runs it detached from
    /// its sender, or a claim may stay unsettled until its lease ends.
    pub async fn exchange(&self, copy: &Copy) -> Concluded {
        if copy.route.shadow {
            return self.shadow(copy).await;
        }
        match self.flights.board(copy.key, copy.digest) {
            Boarded::Lead(lead) => pin!(self.lead(copy, lead)).await,
            Boarded::Follow(follow) => {
                let differs = follow.digest != copy.digest;
                let led = follow.concluded().await;
                led.map_or_else(|| self.try_again(), |led| led.followed(differs))
            }
            Boarded::Full => self.try_again(),
        }
    }

    /// Retries what could not be recorded, until `stop` and for `grace` after it; returns when nothing is left that
    /// could be.
    pub async fn finish(&self, stop: CancellationToken, grace: Duration) {
        self.backlog.work(&self.stores.shared, &self.metrics, stop, grace).await;
    }

    async fn lead(&self, copy: &Copy, lead: Lead) -> Concluded {
        let concluded = pin!(self.perform(copy)).await;
        if let Some(remembered) = &self.stores.remembered
            && let Some((verdict, digest)) = settled(&concluded.conclusion, copy.digest)
        {
            // Before the landing: whoever arrives after it looks here.
            remembered.remember(copy.key, verdict, digest, copy.window, clock::monotonic());
        }
        lead.land(concluded);
        concluded
    }

    /// To a copy whose leader ended without a word, or that finds no place beside it.
    fn try_again(&self) -> Concluded {
        Concluded::of(Conclusion::Busy { retry_after: self.options().guard })
    }

    fn terms(&self, copy: &Copy) -> Terms {
        let options = self.options();
        Terms {
            lease: options.lease,
            guard: options.guard,
            join_wait: options.join_wait,
            window: copy.window,
            on_ambiguous: options.on_ambiguous,
            on_store_error: options.on_store_error,
        }
    }
}

/// What a conclusion says about every later copy. A duplicate that conflicts says nothing: its digest is not the one
/// that was forwarded, and whoever compared with it would find a conflict where there is none.
fn settled(conclusion: &Conclusion, own: Digest) -> Option<(Verdict, Digest)> {
    use crate::claim::exchange::Outcome;
    match *conclusion {
        Conclusion::Forwarded(Outcome::Delivered(status)) => {
            Some((Verdict::Delivered(status), own))
        }
        Conclusion::Forwarded(Outcome::Refused(status)) => Some((Verdict::Refused(status), own)),
        Conclusion::Suppressed => Some((Verdict::Unknown, own)),
        Conclusion::Duplicate { verdict, conflict: false } => Some((verdict, own)),
        Conclusion::Forwarded(
            Outcome::Misconfigured(_)
            | Outcome::Overloaded { .. }
            | Outcome::Failed(_)
            | Outcome::Unreached
            | Outcome::Ambiguous,
        )
        | Conclusion::Duplicate { conflict: true, .. }
        | Conclusion::Busy { .. }
        | Conclusion::StoreUnavailable => None,
    }
}
