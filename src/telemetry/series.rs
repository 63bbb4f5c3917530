//! The series that every webhook counts in, found by a place instead of a hash and a lock.
//!
//! They are those of the families, made by them when first counted; what is kept here is only where they are.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use super::labels::{
    AnswerResult, EventLabel, ForwardOutcome, REPLIES, RouteName, StatusClass, StoreOperation,
};
use crate::webhook::key::Basis;

/// One series for each of `N` values.
#[derive(Debug)]
pub(super) struct Places<M, const N: usize>([OnceLock<M>; N]);

impl<M, const N: usize> Default for Places<M, N> {
    fn default() -> Self {
        Self([const { OnceLock::new() }; N])
    }
}

impl<M, const N: usize> Places<M, N> {
    /// The series at `place`, made if it is the first time. No enum has more values than there are places.
    fn at(&self, place: usize, make: impl FnOnce() -> M) -> Option<&M> {
        self.0.get(place).map(|series| series.get_or_init(make))
    }
}

impl<const N: usize> Places<Counter, N> {
    /// One more at `place`.
    pub(super) fn count(&self, place: usize, make: impl FnOnce() -> Counter) {
        if let Some(counter) = self.at(place, make) {
            counter.inc();
        }
    }
}

impl<const N: usize> Places<Histogram, N> {
    /// It took `duration`.
    pub(super) fn observe(
        &self,
        place: usize,
        duration: Duration,
        make: impl FnOnce() -> Histogram,
    ) {
        if let Some(histogram) = self.at(place, make) {
            histogram.observe(duration.as_secs_f64());
        }
    }
}

/// A configured route: its name, and the series that are its own. Made by [`super::Metrics::route`].
#[derive(Clone, Debug)]
pub struct Route(Arc<RouteSeries>);

/// What [`Route`] shares.
#[derive(Debug)]
pub(super) struct RouteSeries {
    pub(super) name: RouteName,
    pub(super) received: Places<Counter, { EventLabel::COUNT }>,
    /// By result, and then by class.
    pub(super) answered: [Places<Counter, { StatusClass::ALL.len() }>; AnswerResult::ALL.len()],
    pub(super) forwards: Places<Counter, { ForwardOutcome::ALL.len() }>,
    pub(super) forward_duration: Places<Histogram, 1>,
}

impl Route {
    pub(super) fn new(name: &str) -> Self {
        Self(Arc::new(RouteSeries {
            name: RouteName(Arc::from(name)),
            received: Places::default(),
            answered: Default::default(),
            forwards: Places::default(),
            forward_duration: Places::default(),
        }))
    }

    /// The name as configured.
    pub fn as_str(&self) -> &str {
        &self.0.name.0
    }

    pub(super) fn series(&self) -> &RouteSeries {
        &self.0
    }
}

/// Those of all routes together.
#[derive(Debug, Default)]
pub(super) struct SharedSeries {
    pub(super) basis: Places<Counter, { Basis::ALL.len() }>,
    /// By operation, and then by reply.
    pub(super) operations: [Places<Counter, REPLIES>; StoreOperation::ALL.len()],
    pub(super) operation_duration: Places<Histogram, { StoreOperation::ALL.len() }>,
}
