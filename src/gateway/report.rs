//! What is counted and logged of one webhook, gathered while it goes its way.

use std::sync::Arc;

use crate::claim::Key;
use crate::claim::exchange::{Conclusion, Outcome};
use crate::clock::{self, Monotonic};
use crate::dispatch::{Concluded, Peer};
use crate::telemetry::labels::AnswerResult;
use crate::telemetry::log::{self, WebhookLine};
use crate::telemetry::{Metrics, Route};
use crate::webhook::event::EventKind;
use crate::webhook::key::{Basis, Keyed};

use super::answer::{Answer, Rejection};
use super::refusals;

/// The longest id that a log line shows.
const ID_BYTES_MAX: usize = 256;

/// One webhook's line, in the making.
pub(super) struct Report {
    began: Monotonic,
    route: Route,
    peer: std::net::SocketAddr,
    request_id: Arc<str>,
    identified: Option<Identified>,
    concluded: Option<Concluded>,
    rejection: Option<Rejection>,
    metrics: Arc<Metrics>,
    ended: bool,
}

struct Identified {
    kind: EventKind,
    basis: Basis,
    key: Key,
    id: Option<String>,
}

impl Drop for Report {
    /// A sender that hangs up takes its request with it, and nobody is left to end this. Its exchange goes on.
    fn drop(&mut self) {
        if !self.ended {
            self.end(&Answer::UNHEARD);
        }
    }
}

impl Report {
    /// A webhook has arrived.
    pub(super) fn begin(
        route: &Route,
        peer: &Peer,
        request_id: Arc<str>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Self {
            began: clock::monotonic(),
            route: route.clone(),
            peer: peer.address,
            request_id,
            identified: None,
            concluded: None,
            rejection: None,
            metrics: Arc::clone(metrics),
            ended: false,
        }
    }

    /// As in `X-Request-Id`.
    pub(super) fn request_id(&self) -> &str {
        &self.request_id
    }

    /// The same, to be kept.
    pub(super) fn request_id_shared(&self) -> Arc<str> {
        Arc::clone(&self.request_id)
    }

    /// It is verified, and this is what it says.
    pub(super) fn identified(&mut self, keyed: &Keyed<'_>) {
        let id = keyed.id.as_deref().filter(|id| id.len() <= ID_BYTES_MAX).map(str::to_owned);
        self.identified =
            Some(Identified { kind: keyed.kind, basis: keyed.basis, key: keyed.key, id });
    }

    /// Its exchange is over.
    pub(super) fn concluded(&mut self, concluded: &Concluded, metrics: &Metrics) {
        if concluded.conflict {
            metrics.key_conflict();
            let key =
                self.identified.as_ref().map(|identified| tracing::field::display(identified.key));
            tracing::warn!(
                key,
                route = self.route.as_str(),
                request_id = &*self.request_id,
                "a copy's content differs from what was forwarded"
            );
        }
        self.concluded = Some(*concluded);
    }

    /// It gets no exchange.
    pub(super) fn rejected(&mut self, rejection: Rejection) {
        self.rejection = Some(rejection);
    }

    /// It is answered: counts it and writes its line, unless its source has been refused too often.
    pub(super) fn end(&mut self, answer: &Answer) {
        self.ended = true;
        let metrics = &self.metrics;
        let kind = self.identified.as_ref().map(|identified| identified.kind);
        metrics.received(&self.route, kind);
        metrics.answered(&self.route, answer.result, answer.status.as_u16());
        let reason = self.reason(answer);
        if let (true, Some(reason)) = (self.is_early(answer), reason) {
            metrics.refused(&self.route, reason);
        }
        if answer.word == refusals::LIMITED {
            return;
        }
        let forwarded = self.concluded.filter(|concluded| concluded.attempt > 0);
        log::webhook(&WebhookLine {
            result: answer.result,
            route: &self.route,
            event: kind,
            id: self.identified.as_ref().and_then(|identified| identified.id.as_deref()),
            key: self.identified.as_ref().map(|identified| identified.key),
            basis: self.identified.as_ref().map(|identified| identified.basis.label()),
            attempt: forwarded.map(|concluded| concluded.attempt),
            possible_duplicate: forwarded.map(|concluded| concluded.possible_duplicate),
            status: answer.status.as_u16(),
            duration: clock::monotonic().since(self.began),
            peer: Some(self.peer),
            request_id: Some(&self.request_id),
            reason,
            hint: self.hint(),
        });
    }

    /// Whether it went no further than the gateway: refused, or its body did not come, or had no place.
    pub(super) const fn is_early(&self, answer: &Answer) -> bool {
        matches!(answer.result, AnswerResult::Refused)
            || matches!(
                self.rejection,
                Some(Rejection::BodySlow(_) | Rejection::BodyBroken(_) | Rejection::Crowded)
            )
    }

    /// Why it was refused or failed.
    fn reason(&self, answer: &Answer) -> Option<&'static str> {
        match (&self.rejection, answer.result) {
            (Some(Rejection::Unsigned(refusal)), _) => Some(refusal.label()),
            (Some(Rejection::Malformed(malformed)), _) => Some(malformed.label()),
            (Some(Rejection::TwoTokens), _) => Some("two_tokens"),
            (Some(_), _) | (None, AnswerResult::Failed | AnswerResult::Refused) => {
                Some(answer.word)
            }
            (None, AnswerResult::Forwarded | AnswerResult::Duplicate | AnswerResult::Collapsed) => {
                None
            }
        }
    }

    /// What the operator should do, where only the operator can.
    fn hint(&self) -> Option<&'static str> {
        match (&self.rejection, self.concluded.map(|concluded| concluded.conclusion)) {
            (Some(Rejection::Loop), _) => {
                Some("point the route's backend at the backend, not at the gateway")
            }
            (Some(Rejection::TooLarge(_)), _) => Some(
                "the event is lost to LiveKit, which takes 413 for success: raise limits.body_bytes_max",
            ),
            (None, Some(Conclusion::Forwarded(Outcome::Misconfigured(401 | 403)))) => Some(
                "the backend rejects an authentic event: give it the API key and secret that LiveKit signs with",
            ),
            (None, Some(Conclusion::Forwarded(Outcome::Misconfigured(_)))) => Some(
                "the backend rejects an authentic event: check the path and method in the route's backend URL",
            ),
            (Some(_) | None, _) => None,
        }
    }
}
