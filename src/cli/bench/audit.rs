//! Whether each event arrived once, by what the backend saw, or by the gateway's word where nobody can ask the backend.

use serde::Serialize;

use crate::cli::backend::Arrival;
use crate::cli::sender::Next;

use super::load::{self, Told};

/// Who says what was forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Witness {
    /// The backend, which is this command.
    Backend,
    /// `Oncehook-Status`. It shows no marks.
    Words,
}

/// What is known of every event.
pub(super) struct Audit {
    witness: Witness,
    copies_each: u16,
    events: Vec<Event>,
    copies: u64,
    acknowledged: u64,
    refused: u64,
    foreign: u64,
    /// Events that were acknowledged and have not arrived.
    waiting: u64,
}

#[derive(Clone, Copy, Default)]
struct Event {
    /// Copies that are done with.
    copies: u16,
    forwarded: u16,
    /// Of those forwarded, how many were marked as possible duplicates.
    marked: u16,
    /// Whether a copy was acknowledged with the gateway's word for it.
    vouched: bool,
    /// Whether an attempt got no answer: it may have been the one that was forwarded.
    unanswered: bool,
}

/// The judgement.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    /// Whether every event was delivered, and none twice without the mark.
    pub(super) ok: bool,
    /// Who said so.
    pub(super) witness: Witness,
    /// Events of which a copy was sent.
    pub(super) events: u64,
    /// Copies that are done with.
    pub(super) copies: u64,
    /// Copies that were acknowledged with 2xx.
    pub(super) acknowledged: u64,
    /// How often an event was forwarded and accepted.
    pub(super) forwarded: u64,
    /// How often beyond once for each event.
    pub(super) extra: u64,
    /// How often with `Oncehook-Possible-Duplicate`; only a backend sees that.
    pub(super) marked: Option<u64>,
    /// Events that never arrived.
    pub(super) missing: u64,
    /// Arrivals of what another sent; only a backend sees them.
    pub(super) foreign: Option<u64>,
    /// Arrivals that are not genuine by this command's key; only a backend sees them.
    pub(super) refused: Option<u64>,
}

impl Audit {
    pub(super) fn new(events: u32, copies_each: u16, witness: Witness) -> Self {
        let events = vec![Event::default(); usize::try_from(events).unwrap_or(usize::MAX)];
        let (copies, acknowledged, refused, foreign, waiting) = (0, 0, 0, 0, 0);
        Self { witness, copies_each, events, copies, acknowledged, refused, foreign, waiting }
    }

    /// Counts an attempt.
    pub(super) fn told(&mut self, told: &Told) {
        let Some(event) = self.events.get_mut(told.event) else { return };
        event.unanswered |= told.attempt.result.is_err();
        match told.attempt.next {
            Next::Retry(_) => return,
            Next::LostInSilence | Next::GivenUp => {}
            Next::Acknowledged => {
                self.acknowledged += 1;
                let answer = told.attempt.result.as_ref().ok();
                let word = answer.and_then(|answer| answer.oncehook_status.as_deref());
                let arrived = event.forwarded > 0;
                if !event.vouched && word.is_some() && !arrived {
                    self.waiting += 1;
                }
                event.vouched |= word.is_some();
                let forwarded = matches!(word, Some("forwarded" | "queued"));
                if self.witness == Witness::Words && forwarded {
                    event.forwarded = event.forwarded.saturating_add(1);
                }
            }
        }
        event.copies += 1;
        self.copies += 1;
    }

    /// Counts what reached the backend, of this run or of anybody else.
    pub(super) fn arrived(&mut self, run: u64, arrival: &Arrival) {
        if !arrival.is_accepted() {
            self.refused += 1;
            return;
        }
        let number = arrival.id.as_deref().and_then(|id| load::read_id(run, id));
        let Some(event) = number.and_then(|number| self.events.get_mut(number)) else {
            self.foreign += 1;
            return;
        };
        if event.vouched && event.forwarded == 0 {
            self.waiting -= 1;
        }
        event.forwarded = event.forwarded.saturating_add(1);
        event.marked = event.marked.saturating_add(u16::from(arrival.possible_duplicate));
    }

    /// Whether an event was acknowledged that the backend has not seen.
    pub(super) fn is_waiting(&self) -> bool {
        self.witness == Witness::Backend && self.waiting > 0
    }

    /// The judgement so far.
    pub(super) fn verdict(&self) -> Verdict {
        // What is under way at an early end arrives without having been told of.
        let sent = || self.events.iter().filter(|event| event.copies > 0 || event.forwarded > 0);
        let sum = |of: fn(&Event) -> u16| sent().map(|event| u64::from(of(event))).sum::<u64>();
        let seen = |count| (self.witness == Witness::Backend).then_some(count);
        let events = u64::try_from(sent().count()).unwrap_or(u64::MAX);
        let missing = sent().filter(|event| event.is_missing(self.witness)).count();
        let missing = u64::try_from(missing).unwrap_or(u64::MAX);
        let unmarked_extra = sum(|event| (event.forwarded - event.marked).saturating_sub(1));
        Verdict {
            ok: events > 0 && missing == 0 && unmarked_extra == 0,
            witness: self.witness,
            events,
            copies: self.copies,
            acknowledged: self.acknowledged,
            forwarded: sum(|event| event.forwarded),
            extra: sum(|event| event.forwarded.saturating_sub(1)),
            marked: seen(sum(|event| event.marked)),
            missing,
            foreign: seen(self.foreign),
            refused: seen(self.refused),
        }
    }

    /// Copies that are done with.
    pub(super) fn copies(&self) -> u64 {
        self.copies
    }

    /// Copies that each event has.
    pub(super) fn copies_each(&self) -> u16 {
        self.copies_each
    }
}

impl Event {
    /// By words, what was vouched for and never said to be forwarded is there only if an answer was lost on the way.
    fn is_missing(self, witness: Witness) -> bool {
        let word_was_lost = witness == Witness::Words && self.vouched && self.unanswered;
        self.forwarded == 0 && !word_was_lost
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::sender::{Answer, Attempt, PostError};

    fn told(event: usize, status: u16, word: Option<&str>) -> Told {
        let oncehook_status = word.map(str::to_owned);
        let status = status.try_into().unwrap();
        let next = if status == 200 { Next::Acknowledged } else { Next::GivenUp };
        let result = Ok(Answer { status, oncehook_status, retry_after: None });
        let attempt = Attempt { number: 1, result, duration: Duration::ZERO, next };
        Told { event, attempt, latency: Duration::ZERO }
    }

    fn unanswered(event: usize) -> Told {
        let result = Err(PostError::Timeout(Duration::ZERO));
        let next = Next::Retry(Duration::ZERO);
        let attempt = Attempt { number: 1, result, duration: Duration::ZERO, next };
        Told { event, attempt, latency: Duration::ZERO }
    }

    fn arrival(id: &str, possible_duplicate: bool) -> Arrival {
        Arrival {
            number: 1,
            event: Some("room_started"),
            id: Some(id.to_owned()),
            attempt: None,
            idempotency_key: None,
            possible_duplicate,
            refusal: None,
            status: 200,
            duplicate: None,
        }
    }

    fn by_words(told: &[Told]) -> Verdict {
        let mut audit = Audit::new(2, 2, Witness::Words);
        for told in told {
            audit.told(told);
        }
        audit.verdict()
    }

    fn by_backend(arrivals: &[Arrival]) -> Verdict {
        let mut audit = Audit::new(2, 2, Witness::Backend);
        for event in [0, 0, 1, 1] {
            audit.told(&told(event, 200, Some("duplicate")));
        }
        assert!(audit.is_waiting());
        for arrival in arrivals {
            audit.arrived(7, arrival);
        }
        assert_eq!(audit.is_waiting(), audit.verdict().missing > 0);
        audit.verdict()
    }

    #[test]
    fn by_words_each_event_is_forwarded_once() {
        let one = || told(0, 200, Some("forwarded"));
        assert!(by_words(&[one(), told(0, 200, Some("collapsed"))]).ok);
        assert!(by_words(&[told(0, 503, Some("busy")), one()]).ok);
        let twice = by_words(&[one(), one()]);
        assert_eq!((twice.ok, twice.extra, twice.missing), (false, 1, 0));
        let other = by_words(&[one(), told(1, 503, None)]);
        assert_eq!((other.ok, other.missing), (false, 1));
        assert!(!by_words(&[]).ok, "nothing was sent");
        assert!(!by_words(&[told(0, 200, None)]).ok, "nobody vouches for it");
    }

    #[test]
    fn a_word_may_be_lost_with_its_answer_and_only_so() {
        let known = || told(0, 200, Some("duplicate"));
        assert!(by_words(&[unanswered(0), known()]).ok);
        assert!(!by_words(&[known()]).ok);
        assert!(!by_words(&[unanswered(1), known()]).ok);
    }

    #[test]
    fn a_backend_may_see_an_event_again_only_with_the_mark() {
        let (first, second) = (arrival("EV_bench-7-0-1", false), arrival("EV_bench-7-1-0", false));
        assert!(by_backend(&[first.clone(), second.clone()]).ok);
        let again = by_backend(&[first.clone(), second.clone(), arrival("EV_bench-7-0-0", false)]);
        assert_eq!((again.ok, again.extra, again.marked), (false, 1, Some(0)));
        let marked = by_backend(&[first.clone(), second, arrival("EV_bench-7-0-0", true)]);
        assert_eq!((marked.ok, marked.extra, marked.marked), (true, 1, Some(1)));
        let missing = by_backend(std::slice::from_ref(&first));
        assert_eq!((missing.ok, missing.missing), (false, 1));
        let foreign = by_backend(&[first, arrival("EV_bench-8-1-0", false)]);
        assert_eq!((foreign.ok, foreign.missing, foreign.foreign), (false, 1, Some(1)));
    }
}
