//! How many copies there were, over all routes: a metric family cannot be summed up from within.

use std::sync::atomic::{AtomicU64, Ordering};

use super::labels::AnswerResult;

/// How many copies there were since the start, by how they ended, and how many are on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Copies that arrived.
    pub received: u64,
    /// [`AnswerResult::Forwarded`].
    pub forwarded: u64,
    /// [`AnswerResult::Duplicate`].
    pub duplicates: u64,
    /// [`AnswerResult::Collapsed`].
    pub collapsed: u64,
    /// [`AnswerResult::Refused`].
    pub refused: u64,
    /// [`AnswerResult::Failed`].
    pub failed: u64,
    /// Copies being worked on.
    pub in_flight: u64,
}

/// The counters behind [`Counts`].
#[derive(Debug, Default)]
pub(super) struct Totals {
    received: AtomicU64,
    forwarded: AtomicU64,
    duplicates: AtomicU64,
    collapsed: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

impl Totals {
    pub(super) fn received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self, result: AnswerResult) {
        self.of(result).fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn counts(&self, in_flight: u64) -> Counts {
        let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
        let of = |result| read(self.of(result));
        Counts {
            received: read(&self.received),
            forwarded: of(AnswerResult::Forwarded),
            duplicates: of(AnswerResult::Duplicate),
            collapsed: of(AnswerResult::Collapsed),
            refused: of(AnswerResult::Refused),
            failed: of(AnswerResult::Failed),
            in_flight,
        }
    }

    const fn of(&self, result: AnswerResult) -> &AtomicU64 {
        match result {
            AnswerResult::Forwarded => &self.forwarded,
            AnswerResult::Duplicate => &self.duplicates,
            AnswerResult::Collapsed => &self.collapsed,
            AnswerResult::Refused => &self.refused,
            AnswerResult::Failed => &self.failed,
        }
    }
}
