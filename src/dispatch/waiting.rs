//! What waits to be recorded: two lanes and what has failed, bounded; the oldest and the least worth goes first.

use std::collections::VecDeque;

use crate::claim::record::Operation;
use crate::claim::{Key, Owner};
use crate::clock::Monotonic;

/// One operation that the shared store has not recorded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unfinished {
    /// Of the record.
    pub(super) key: Key,
    /// Whose attempt it was.
    pub(super) owner: Owner,
    /// What to record.
    pub(super) operation: Operation,
    /// After this it no longer matters.
    pub(super) until: Monotonic,
}

/// That the backend has an event is a fact, and worth more than a lease that is given up before it lapses.
pub(super) const fn is_fact(operation: &Operation) -> bool {
    match operation {
        Operation::Settle { .. } => true,
        Operation::Claim { .. } | Operation::Release { .. } => false,
    }
}

/// What waits, the oldest first.
pub(super) struct Waiting {
    facts: VecDeque<Unfinished>,
    releases: VecDeque<Unfinished>,
    /// What has failed in this round, of both kinds.
    failed: VecDeque<Unfinished>,
    max: usize,
}

impl Waiting {
    /// Empty; `max` find a place.
    pub(super) const fn new(max: usize) -> Self {
        Self { facts: VecDeque::new(), releases: VecDeque::new(), failed: VecDeque::new(), max }
    }

    /// Of both kinds.
    pub(super) fn len(&self) -> usize {
        self.facts.len() + self.releases.len() + self.failed.len()
    }

    /// Results of forwards among them.
    pub(super) fn facts_len(&self) -> usize {
        self.facts.len() + self.failed.iter().filter(|each| is_fact(&each.operation)).count()
    }

    /// Whether anything waits for the next round.
    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Takes in `new`. Returns what has to go: the oldest release, whose lease ends first; else, for a fact, the oldest fact, whose
    /// copies have mostly come; else `new` itself. What has failed is older than the rest.
    pub(super) fn push(&mut self, new: Unfinished) -> Option<Unfinished> {
        let lost = if self.len() < self.max { None } else { self.oldest_release() };
        let full = self.len() >= self.max;
        if !is_fact(&new.operation) {
            if full {
                return Some(new);
            }
            self.releases.push_back(new);
            return lost;
        }
        let lost = if full { self.oldest_fact() } else { lost };
        self.facts.push_back(new);
        lost
    }

    fn oldest_release(&mut self) -> Option<Unfinished> {
        let failed = self.failed.iter().position(|each| !is_fact(&each.operation));
        match failed {
            Some(at) => self.failed.remove(at),
            None => self.releases.pop_front(),
        }
    }

    /// Called when no release is left.
    fn oldest_fact(&mut self) -> Option<Unfinished> {
        self.failed.pop_front().or_else(|| self.facts.pop_front())
    }

    /// Facts first. While the store is out, releases that no longer matter come to light one by one.
    pub(super) fn pop(&mut self) -> Option<Unfinished> {
        self.facts.pop_front().or_else(|| self.releases.pop_front())
    }

    /// For the next round.
    pub(super) fn set_aside(&mut self, unfinished: Unfinished) {
        self.failed.push_back(unfinished);
    }

    /// What has failed comes first: it is the oldest.
    pub(super) fn begin_round(&mut self) {
        while let Some(last) = self.failed.pop_back() {
            let lane = if is_fact(&last.operation) { &mut self.facts } else { &mut self.releases };
            lane.push_front(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::claim::record::Ending;
    use crate::claim::{Digest, Verdict};

    const WINDOW: Duration = Duration::from_hours(1);

    const fn at(millis: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_millis(millis))
    }

    fn unfinished(number: u8, operation: Operation) -> Unfinished {
        Unfinished { key: Key([number; 16]), owner: Owner(1), operation, until: at(10_000) }
    }

    fn fact(number: u8) -> Unfinished {
        let verdict = Verdict::Delivered(200);
        unfinished(number, Operation::Settle { verdict, digest: Digest(0), window: WINDOW })
    }

    fn release(number: u8) -> Unfinished {
        let (ending, pause) = (Ending::Failed, Duration::ZERO);
        unfinished(number, Operation::Release { ending, pause, window: WINDOW })
    }

    #[test]
    fn when_it_overflows_releases_go_before_facts() {
        let mut waiting = Waiting::new(3);
        for each in [release(1), fact(2), release(3)] {
            assert_eq!(waiting.push(each), None);
        }
        assert_eq!(waiting.push(release(4)), Some(release(1)), "the oldest of its kind");
        assert_eq!(waiting.push(fact(5)), Some(release(3)));
        assert_eq!(waiting.push(fact(6)), Some(release(4)));
        assert_eq!(waiting.push(release(7)), Some(release(7)), "a fact does not go for a release");
        assert_eq!(waiting.push(fact(8)), Some(fact(2)), "among facts the oldest goes");
        assert_eq!(drained(&mut waiting), [fact(5), fact(6), fact(8)]);
    }

    fn drained(waiting: &mut Waiting) -> Vec<Unfinished> {
        std::iter::from_fn(|| waiting.pop()).collect()
    }

    #[test]
    fn facts_are_written_back_first_and_one_that_failed_holds_no_other() {
        let mut waiting = Waiting::new(9);
        for each in [release(1), fact(2), fact(3)] {
            waiting.push(each);
        }
        let first = waiting.pop().unwrap();
        assert_eq!(first, fact(2));
        waiting.set_aside(first);
        assert_eq!(waiting.len(), 3, "it counts");
        assert_eq!(waiting.facts_len(), 2);
        assert_eq!(drained(&mut waiting), [fact(3), release(1)]);
        waiting.push(fact(4));
        waiting.begin_round();
        assert_eq!(drained(&mut waiting), [fact(2), fact(4)], "the oldest first");
    }

    #[test]
    fn what_has_failed_is_the_first_to_go_of_its_kind() {
        let mut waiting = Waiting::new(4);
        for each in [fact(1), release(2), fact(3), release(4)] {
            waiting.push(each);
        }
        while let Some(next) = waiting.pop() {
            waiting.set_aside(next);
        }
        assert_eq!(waiting.push(fact(5)), Some(release(2)));
        assert_eq!(waiting.push(fact(6)), Some(release(4)));
        assert_eq!(waiting.push(fact(7)), Some(fact(1)));
        waiting.begin_round();
        assert_eq!(drained(&mut waiting), [fact(3), fact(5), fact(6), fact(7)]);
    }
}
