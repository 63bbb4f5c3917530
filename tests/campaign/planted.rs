//! Violations planted in histories that are otherwise in order: a checker that finds nothing must be able to find
//! something.

use std::time::Duration;

use crate::checker::{Report, check};
use crate::history::{Arrival, At, Attempt, End, Fault, History, Told};

/// Each with what it shows.
pub(crate) const ALL: [(&str, fn()); 9] = [
    ("the checker finds nothing wrong with a history in order", in_order),
    ("the checker finds a lost event", lost),
    ("the checker finds an early acknowledgement", early),
    ("the checker finds an extra copy that no fault explains", unexplained),
    ("the checker finds an unmarked extra copy", unmarked),
    ("the checker counts an unmarked copy apart where the store forgot", forgotten),
    ("the checker finds a forged copy at the backend", forged),
    ("the checker finds two events under one key", shared_key),
    ("the checker finds a valid copy that was dismissed", dismissed),
];

const fn ms(milliseconds: u64) -> At {
    Duration::from_millis(milliseconds)
}

fn arrival(event: u64, marked: bool, accepted: u64) -> Arrival {
    let at = ms(accepted);
    Arrival { event: Some(event), key: format!("key {event}"), marked, at, accepted: Some(at) }
}

fn fault(forgets: bool) -> Fault {
    let (began, ended) = (ms(20), ms(25));
    Fault { what: "planted", began, ended, event: None, costs: 1, forgets, refuses: false }
}

/// Two events, each sent at 10 ms, accepted at 20 ms and acknowledged at 30 ms.
fn history() -> History {
    let mut history = History::default();
    for event in [1, 2] {
        history.attempts.push(Attempt {
            event,
            copy: 0,
            number: 1,
            gateway: 0,
            sent: ms(10),
            ended: ms(30),
            told: Told::Status(200),
        });
        history.ends.insert((event, 0), End::Acknowledged);
        history.arrivals.push(arrival(event, false, 20));
    }
    history
}

fn complains(report: &Report, part: &str) {
    let found = report.violations.iter().any(|violation| violation.contains(part));
    assert!(found, "no violation says {part:?}: {:?}", report.violations);
}

fn in_order() {
    let report = check(&history());
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    let figures = report.figures;
    assert_eq!((figures.events, figures.accepted, figures.extra, figures.lost), (2, 2, 0, 0));
}

fn lost() {
    let mut history = history();
    history.arrivals.pop();
    history.attempts[1].told = Told::Nothing;
    history.ends.insert((2, 0), End::GivenUp);
    let report = check(&history);
    complains(&report, "event 2: lost");
    assert_eq!(report.figures.lost, 1);
}

fn early() {
    let mut history = history();
    history.arrivals[0].accepted = Some(ms(31));
    let report = check(&history);
    complains(&report, "event 1: acknowledged before");
    assert_eq!(report.figures.early, 1);

    history.arrivals[0].accepted = None;
    complains(&check(&history), "event 1: acknowledged before");
}

fn unexplained() {
    let mut history = history();
    history.arrivals.push(arrival(1, true, 25));
    complains(&check(&history), "event 1: accepted 2 times, 0 faults touched it");

    history.faults.push(fault(false));
    let report = check(&history);
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    assert_eq!((report.figures.extra, report.figures.marked), (1, 1));

    history.faults[0].event = Some(2);
    complains(&check(&history), "0 faults touched it");
    history.faults[0].event = None;
    (history.faults[0].began, history.faults[0].ended) = (ms(31), ms(40));
    complains(&check(&history), "0 faults touched it");
}

fn unmarked() {
    let mut history = history();
    history.faults.push(fault(false));
    history.arrivals.push(arrival(1, false, 25));
    complains(&check(&history), "event 1: 2 accepted copies are not marked");
}

fn forgotten() {
    let mut history = history();
    history.faults.push(fault(true));
    history.arrivals.push(arrival(1, false, 25));
    let report = check(&history);
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    assert_eq!((report.figures.extra, report.figures.forgotten), (1, 1));
}

fn forged() {
    let mut history = history();
    history.arrivals.push(Arrival { event: None, ..arrival(1, false, 25) });
    complains(&check(&history), "1 forged copies reached the backend");
}

fn shared_key() {
    let mut history = history();
    "key 1".clone_into(&mut history.arrivals[1].key);
    complains(&check(&history), "share the key");
}

fn dismissed() {
    let mut history = history();
    history.attempts[1].told = Told::Status(401);
    history.ends.insert((2, 0), End::Dismissed);
    complains(&check(&history), "event 2: a valid copy was dismissed");
}
