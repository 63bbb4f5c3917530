//! What is counted of every copy, duplicates included: by place, see `series`.

use std::time::Duration;

use super::labels::{self, AnswerResult, StatusClass};
use super::metrics::Metrics;
use super::series::Route;
use crate::claim::exchange::Outcome;
use crate::claim::record::{Operation, Reply};
use crate::webhook::event::EventKind;
use crate::webhook::key::Basis;

impl Metrics {
    /// The label for a configured route. Call it once a route, when the gateway is built, and keep the value: cloning
    /// it is cheap. Its main series begin at zero, so that a rate can be taken from the first event.
    pub fn route(&self, name: &str) -> Route {
        let made = Route::new(name);
        let route = &made.series().name;
        for &result in AnswerResult::ALL {
            let class = match result {
                AnswerResult::Forwarded | AnswerResult::Duplicate | AnswerResult::Collapsed => {
                    StatusClass::Success
                }
                AnswerResult::Refused => StatusClass::ClientError,
                AnswerResult::Failed => StatusClass::ServerError,
            };
            drop(self.webhooks.answered.get_or_create(&labels::Answered {
                route: route.clone(),
                result,
                class,
            }));
        }
        for &outcome in labels::ForwardOutcome::ALL {
            drop(
                self.webhooks
                    .forwards
                    .get_or_create(&labels::Forward { route: route.clone(), outcome }),
            );
        }
        drop(self.durations.forward.get_or_create(&labels::RouteSet { route: route.clone() }));
        made
    }

    /// A copy arrived on `route`: call it once for every copy, as soon as its kind is known or it is refused
    /// (`None`).
    pub fn received(&self, route: &Route, kind: Option<EventKind>) {
        self.totals.received();
        let event = labels::EventLabel(kind);
        let series = route.series();
        let made = || {
            let set = labels::Received { route: series.name.clone(), event };
            self.webhooks.received.get_or_create(&set).clone()
        };
        series.received.count(event.place(), made);
    }

    /// A copy was answered: call it once for every copy that was received.
    pub fn answered(&self, route: &Route, result: AnswerResult, status: u16) {
        self.totals.answered(result);
        let class = StatusClass::of(status);
        let series = route.series();
        let made = || {
            let set = labels::Answered { route: series.name.clone(), result, class };
            self.webhooks.answered.get_or_create(&set).clone()
        };
        if let Some(classes) = series.answered.get(result.place()) {
            classes.count(class.place(), made);
        }
    }

    /// A forward came to an end, `duration` after it began.
    pub fn forwarded(&self, route: &Route, outcome: Outcome, duration: Duration) {
        let outcome = labels::ForwardOutcome::from(outcome);
        let series = route.series();
        let counter = || {
            let set = labels::Forward { route: series.name.clone(), outcome };
            self.webhooks.forwards.get_or_create(&set).clone()
        };
        series.forwards.count(outcome.place(), counter);
        let histogram = || {
            let set = labels::RouteSet { route: series.name.clone() };
            self.durations.forward.get_or_create(&set).clone()
        };
        series.forward_duration.observe(0, duration, histogram);
    }

    /// A store replied, or failed with the `label()` of its error.
    pub fn store_operation(
        &self,
        operation: Operation,
        result: Result<Reply, &'static str>,
        duration: Duration,
    ) {
        let operation = labels::StoreOperation::from(operation);
        let word = result.map_or_else(|error| error, labels::reply_label);
        let counter = || {
            self.store.operations.get_or_create(&labels::Store { operation, result: word }).clone()
        };
        match (result, self.series.operations.get(operation.place())) {
            (Ok(reply), Some(replies)) => replies.count(labels::reply_place(reply), counter),
            // Failures are many more words, and rare.
            (Err(_), _) | (Ok(_), None) => drop(counter().inc()),
        }
        let histogram =
            || self.durations.store.get_or_create(&labels::StoreTime { operation }).clone();
        self.series.operation_duration.observe(operation.place(), duration, histogram);
    }

    /// How a key was found.
    pub fn identified(&self, basis: Basis) {
        let set = labels::Basis { basis: basis.label() };
        let made = || self.webhooks.basis.get_or_create(&set).clone();
        self.series.basis.count(basis.place(), made);
    }
}
