//! Holds a history against the guarantee, and counts it.
//!
//! - A 2xx comes only after the backend accepted the event.
//! - An event is accepted once, and once more at most for each fault that touched it.
//! - Every event is accepted of which one sender stayed to its end.
//! - Of the accepted copies of an event at most one is not marked. A store that forgot is the exception: there nobody
//!   can know. Such copies are counted apart.
//! - No valid copy is dismissed with a status that LiveKit takes for success; no forged one is believed or passed on.
//! - Two events never share an `Idempotency-Key`, nor has one event two.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::history::{Arrival, At, Attempt, End, Fault, History, Told};
use crate::observe::OVERLOAD;

/// The figures of one scenario.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) events: usize,
    /// Distinct requests of senders, retries not counted.
    pub(crate) copies: usize,
    /// Those that were planned.
    pub(crate) faults: usize,
    /// Seconds, or so, in which the machine had too little time for the gateways.
    pub(crate) overloads: usize,
    /// By the backend, extra copies included.
    pub(crate) accepted: usize,
    /// Accepted beyond the first of each event.
    pub(crate) extra: usize,
    /// Of those, marked.
    pub(crate) marked: usize,
    /// Of those, neither marked nor markable: the store had forgotten.
    pub(crate) forgotten: usize,
    /// Events never accepted, though a sender stayed.
    pub(crate) lost: usize,
    /// 2xx before the backend had accepted.
    pub(crate) early: usize,
}

/// What the checker says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) figures: Figures,
    pub(crate) violations: Vec<String>,
    /// What else is worth knowing.
    pub(crate) notes: Vec<String>,
    /// What is missing on this machine, where that is no failure.
    pub(crate) not_run: Option<&'static str>,
}

/// One event's share of the history.
#[derive(Default)]
struct Life<'a> {
    began: Option<At>,
    ended: At,
    acknowledged: Option<At>,
    ends: Vec<End>,
    attempts: Vec<&'a Attempt>,
    arrivals: Vec<&'a Arrival>,
}

/// Checks `history`.
pub(crate) fn check(history: &History) -> Report {
    let lives = lives(history);
    let mut report = Report { violations: history.complaints.clone(), ..Report::default() };
    report.figures = Figures {
        events: lives.len(),
        copies: history.ends.len(),
        faults: history.faults.iter().filter(|fault| fault.what != OVERLOAD).count(),
        overloads: history.faults.iter().filter(|fault| fault.what == OVERLOAD).count(),
        ..Figures::default()
    };
    for (event, life) in &lives {
        check_event(*event, life, &history.faults, &mut report);
    }
    check_forgeries(history, &mut report);
    check_keys(history, &mut report);
    report
}

fn lives(history: &History) -> BTreeMap<u64, Life<'_>> {
    let mut lives: BTreeMap<u64, Life<'_>> = BTreeMap::new();
    for attempt in &history.attempts {
        let life = lives.entry(attempt.event).or_default();
        life.began = Some(life.began.map_or(attempt.sent, |began| began.min(attempt.sent)));
        life.ended = life.ended.max(attempt.ended);
        life.attempts.push(attempt);
        if matches!(attempt.told, Told::Status(200..=299)) {
            let first = life.acknowledged.map_or(attempt.ended, |first| first.min(attempt.ended));
            life.acknowledged = Some(first);
        }
    }
    for ((event, _), end) in &history.ends {
        lives.entry(*event).or_default().ends.push(*end);
    }
    for arrival in &history.arrivals {
        let Some(life) = arrival.event.and_then(|event| lives.get_mut(&event)) else { continue };
        life.ended = life.ended.max(arrival.accepted.unwrap_or(arrival.at));
        life.arrivals.push(arrival);
    }
    lives
}

fn check_event(event: u64, life: &Life<'_>, faults: &[Fault], report: &mut Report) {
    let touching: Vec<&Fault> = faults.iter().filter(|fault| touches(fault, event, life)).collect();
    let accepted: Vec<&Arrival> =
        life.arrivals.iter().copied().filter(|arrival| arrival.accepted.is_some()).collect();
    let first = accepted.iter().filter_map(|arrival| arrival.accepted).min();
    let figures = &mut report.figures;
    figures.accepted += accepted.len();
    let extra = accepted.len().saturating_sub(1);
    let marked = accepted.iter().filter(|arrival| arrival.marked).count().min(extra);
    figures.extra += extra;
    figures.marked += marked;
    let mut say = |what: String| {
        report.violations.push(format!("event {event}: {what}; {}", story(life, &touching)));
    };
    if extra > marked {
        if touching.iter().any(|fault| fault.forgets) {
            figures.forgotten += extra - marked;
        } else {
            say(format!("{} accepted copies are not marked", accepted.len() - marked));
        }
    }
    let bound = touching.iter().map(|fault| fault.costs as usize).sum();
    if extra > bound {
        say(format!("accepted {} times, {bound} faults touched it", accepted.len()));
    }
    if life.acknowledged.is_some_and(|told| first.is_none_or(|first| told < first)) {
        figures.early += 1;
        say("acknowledged before the backend had accepted it".to_owned());
    }
    let stayed = life.ends.iter().any(|end| *end != End::Gone);
    if first.is_none() && stayed {
        figures.lost += 1;
        say("lost: no copy was ever accepted".to_owned());
    }
    if life.ends.contains(&End::Dismissed) && !touching.iter().any(|fault| fault.refuses) {
        say("a valid copy was dismissed with a status that LiveKit takes for success".to_owned());
    }
}

fn touches(fault: &Fault, event: u64, life: &Life<'_>) -> bool {
    match fault.event {
        Some(only) => only == event,
        None => fault.began <= life.ended && life.began.is_some_and(|began| fault.ended >= began),
    }
}

/// Enough to see what happened to one event.
fn story(life: &Life<'_>, touching: &[&Fault]) -> String {
    let ms = |at: Duration| at.as_millis();
    let attempts: Vec<String> = life
        .attempts
        .iter()
        .map(|Attempt { copy, number, gateway, sent, ended, told, .. }| {
            format!("{copy}.{number} at {gateway} {}..{} {told:?}", ms(*sent), ms(*ended))
        })
        .collect();
    let arrivals: Vec<String> = life
        .arrivals
        .iter()
        .map(|arrival| {
            let accepted = arrival
                .accepted
                .map_or("not accepted".to_owned(), |at| format!("accepted {}", ms(at)));
            format!(
                "{}{} ({accepted})",
                ms(arrival.at),
                if arrival.marked { " marked" } else { "" }
            )
        })
        .collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for fault in touching {
        *counts.entry(fault.what).or_default() += 1;
    }
    let faults: Vec<String> =
        counts.iter().map(|(what, times)| format!("{times} × {what}")).collect();
    format!(
        "lived {}..{} ms, attempts [{}], arrivals [{}], ends {:?}, faults [{}]",
        ms(life.began.unwrap_or_default()),
        ms(life.ended),
        attempts.join(", "),
        arrivals.join(", "),
        life.ends,
        faults.join(", ")
    )
}

fn check_forgeries(history: &History, report: &mut Report) {
    let reached = history.arrivals.iter().filter(|arrival| arrival.event.is_none()).count();
    if reached > 0 {
        report.violations.push(format!("{reached} forged copies reached the backend"));
    }
    if history.believed > 0 {
        report.violations.push(format!("{} forged copies were not refused", history.believed));
    }
}

fn check_keys(history: &History, report: &mut Report) {
    let mut events_of: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    let mut keys_of: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for arrival in &history.arrivals {
        let Some(event) = arrival.event else { continue };
        events_of.entry(&arrival.key).or_default().insert(event);
        keys_of.entry(event).or_default().insert(&arrival.key);
    }
    if let Some((key, events)) = events_of.iter().find(|(_, events)| events.len() > 1) {
        report.violations.push(format!("the events {events:?} share the key {key}"));
    }
    if let Some((event, keys)) = keys_of.iter().find(|(_, keys)| keys.len() > 1) {
        report.violations.push(format!("event {event} was forwarded under {} keys", keys.len()));
    }
}
