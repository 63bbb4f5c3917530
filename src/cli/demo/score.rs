//! What the nodes were told, what reached the backend, and whether both are right: scene by scene.
//!
//! What stands around the scenes is left to [`super::frame`].

use std::collections::HashMap;

use serde::Serialize;

use crate::cli::Stdio;
use crate::cli::backend::Arrival;
use crate::cli::exit::Failure;
use crate::cli::options::Format;
use crate::cli::sender::Next;
use crate::cli::trigger::report::Report;
use crate::webhook::key::Basis;

use super::scene::{Expected, Scene};

/// The score of one scene.
#[derive(Debug, Serialize)]
pub struct Score {
    scene: &'static str,
    pub(super) event: &'static str,
    /// What the gateway's key is made of: `event`, `id` or `body`.
    basis: Option<&'static str>,
    /// The fields that tell two such events apart.
    fields: &'static str,
    pub(super) ids: &'static str,
    expected: &'static str,
    pub(super) events: usize,
    pub(super) copies: usize,
    attempts: u64,
    pub(super) forwarded: u64,
    pub(super) duplicate: u64,
    pub(super) collapsed: u64,
    refused: u64,
    /// Attempts that the sender was told to repeat.
    retried: u64,
    /// Copies that are neither acknowledged nor, rightly, refused.
    lost: u64,
    /// Times that the backend took an event.
    pub(super) accepted: u64,
    /// Times that the backend failed one.
    failed: u64,
    /// Whether the backend has every event as often as it should, and every node was told so.
    pub(super) ok: bool,
    #[serde(skip)]
    pub(super) once: Expected,
    /// Which event an id belongs to.
    #[serde(skip)]
    event_of: HashMap<String, usize>,
    /// How often the backend accepted each event.
    #[serde(skip)]
    accepted_of: Vec<u64>,
}

impl Score {
    /// A score before the scene is played.
    pub fn new(scene: &Scene, basis: Option<Basis>) -> Self {
        let copies = scene.events.iter().map(Vec::len).sum();
        let ids = scene.events.iter().enumerate();
        let event_of =
            ids.flat_map(|(event, copies)| copies.iter().map(move |copy| (copy.id.clone(), event)));
        Self {
            scene: scene.title,
            event: scene.event,
            basis: basis.map(Basis::label),
            fields: scene.fields,
            ids: scene.ids,
            expected: match scene.expected {
                Expected::Once => "once",
                Expected::Never => "never",
            },
            events: scene.events.len(),
            copies,
            attempts: 0,
            forwarded: 0,
            duplicate: 0,
            collapsed: 0,
            refused: 0,
            retried: 0,
            lost: 0,
            accepted: 0,
            failed: 0,
            ok: false,
            once: scene.expected,
            event_of: event_of.collect(),
            accepted_of: vec![0; scene.events.len()],
        }
        .judged()
    }

    /// Counts what a node was told.
    pub fn told(&mut self, report: &Report) {
        self.attempts += 1;
        let answer = report.attempt.result.as_ref().ok();
        match report.attempt.next {
            Next::Acknowledged => {
                match answer.and_then(|answer| answer.oncehook_status.as_deref()) {
                    Some("forwarded") => self.forwarded += 1,
                    Some("duplicate") => self.duplicate += 1,
                    Some("collapsed") => self.collapsed += 1,
                    // An acknowledgement that does not say where it comes from is none.
                    _ => self.lost += 1,
                }
            }
            Next::LostInSilence if answer.is_some_and(|answer| answer.status.as_u16() == 401) => {
                self.refused += 1;
            }
            Next::LostInSilence | Next::GivenUp => self.lost += 1,
            Next::Retry(_) => self.retried += 1,
        }
        self.judge();
    }

    /// Counts what reached the backend.
    pub fn arrived(&mut self, arrival: &Arrival) {
        if !arrival.is_accepted() {
            self.failed += 1;
            return;
        }
        self.accepted += 1;
        let event = arrival.id.as_ref().and_then(|id| self.event_of.get(id));
        if let Some(count) = event.and_then(|&event| self.accepted_of.get_mut(event)) {
            *count += 1;
        }
        self.judge();
    }

    fn judged(mut self) -> Self {
        self.judge();
        self
    }

    fn judge(&mut self) {
        let wanted = match self.once {
            Expected::Once => 1,
            Expected::Never => 0,
        };
        let as_wanted = self.accepted_of.iter().all(|&count| count == wanted);
        // What the backend accepted and no node sent in this scene shows in the sum alone.
        let no_other = self.accepted_of.iter().sum::<u64>() == self.accepted;
        let told = match self.once {
            Expected::Once => self.forwarded + self.duplicate + self.collapsed,
            Expected::Never => self.refused,
        };
        self.ok = as_wanted && no_other && self.lost == 0 && u64::try_from(self.copies) == Ok(told);
    }

    /// Prints the scene.
    pub fn print(
        &self,
        format: Format,
        number: usize,
        stdio: &mut Stdio<'_>,
    ) -> Result<(), Failure> {
        if format == Format::Json {
            return Format::json(stdio.out, self);
        }
        let out = &mut *stdio.out;
        writeln!(out, "{number}. {}", self.scene)?;
        let events = counted(self.events, "event", "events");
        let copies = counted(self.copies, "copy", "copies");
        let ids = counted(self.event_of.len(), "id", "ids");
        writeln!(out, "   sent       {}: {events}, {copies} under {ids}", self.event)?;
        writeln!(out, "   answered   {}", self.answers())?;
        if let Some(basis) = self.basis {
            writeln!(out, "   known by   {basis}: {}", self.fields)?;
        }
        writeln!(out, "   backend    {}", self.reached())?;
        writeln!(out, "   {}", if self.ok { "ok" } else { "WRONG" })?;
        writeln!(out)?;
        Ok(())
    }

    fn answers(&self) -> String {
        let answers = [
            (self.forwarded, "forwarded"),
            (self.duplicate, "duplicate"),
            (self.collapsed, "collapsed"),
            (self.refused, "refused with 401"),
            (self.retried, "told to try again"),
            (self.lost, "LOST"),
        ];
        let answers = answers.iter().filter(|(count, _)| *count > 0);
        answers.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
    }

    fn reached(&self) -> String {
        match (self.accepted, self.failed) {
            (0, 0) => "saw nothing".to_owned(),
            (accepted, 0) => format!("accepted {accepted}"),
            (accepted, failed) => format!("accepted {accepted}, after it had failed {failed}"),
        }
    }
}

fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::backend::Known;
    use crate::cli::sender::{Answer, Attempt, Signed};
    use crate::cli::trigger::Concurrency;
    use crate::cli::trigger::plan::Posting;
    use crate::webhook::event::EventKind;

    fn posting(id: &str) -> Posting {
        let webhook = Signed { body: "{}".into(), authorization: String::new() };
        Posting { node: 0, kind: EventKind::RoomStarted, id: id.to_owned(), webhook }
    }

    /// Two events: one told of under two ids, the other under one.
    fn scene(expected: Expected) -> Score {
        let events = vec![vec![posting("a1"), posting("a2")], vec![posting("b1")]];
        let (event, fields, ids, title) = ("room_started", "room.sid", "distinct", "");
        let concurrency = Concurrency::Simultaneous;
        Score::new(&Scene { title, event, fields, ids, concurrency, events, expected }, None)
    }

    fn told(status: u16, oncehook_status: &str, next: Next) -> Report {
        let oncehook_status = Some(oncehook_status.to_owned());
        let status = status.try_into().unwrap();
        let result = Ok(Answer { status, oncehook_status, retry_after: None });
        let attempt = Attempt { number: 1, result, duration: Duration::ZERO, next };
        Report {
            node: "node-1".to_owned(),
            event: EventKind::RoomStarted,
            id: String::new(),
            attempt,
        }
    }

    fn accepted(id: &str) -> Arrival {
        Arrival {
            number: 1,
            event: Some("room_started"),
            id: Some(id.to_owned()),
            attempt: None,
            idempotency_key: None,
            possible_duplicate: false,
            refusal: None,
            status: 200,
            duplicate: None::<Known>,
        }
    }

    fn play(oncehook_statuses: [&str; 3], reached: &[&str]) -> bool {
        let mut score = scene(Expected::Once);
        for status in oncehook_statuses {
            score.told(&told(200, status, Next::Acknowledged));
        }
        for id in reached {
            score.arrived(&accepted(id));
        }
        score.ok
    }

    #[test]
    fn a_scene_is_well_played_only_if_each_event_arrived_once() {
        let all = ["forwarded", "collapsed", "forwarded"];
        assert!(play(all, &["a2", "b1"]), "either copy of an event will do");
        assert!(!play(all, &["a1"]), "an event is missing");
        assert!(!play(all, &["a1", "a2", "b1"]), "an event came twice under two ids");
        assert!(!play(all, &["a1", "a1", "b1"]), "an event came twice under one id");
        assert!(!play(all, &["a1", "a2"]), "as many as events, and yet one twice and one never");
        assert!(!play(all, &["a1", "b1", "c1"]), "something came that nobody sent");
        assert!(
            !play(["forwarded", "forwarded", "no-word"], &["a1", "b1"]),
            "who acknowledged that?"
        );
    }

    #[test]
    fn a_node_that_was_told_to_forget_an_event_lost_it() {
        let mut score = scene(Expected::Once);
        score.told(&told(404, "forwarded", Next::LostInSilence));
        assert_eq!((score.lost, score.ok), (1, false));
    }

    #[test]
    fn a_forged_event_must_be_refused_and_never_arrive() {
        let mut score = scene(Expected::Never);
        assert!(!score.ok, "nobody has been told anything yet");
        for _ in 0..3 {
            score.told(&told(401, "refused", Next::LostInSilence));
        }
        assert!(score.ok);
        score.arrived(&accepted("a1"));
        assert!(!score.ok);
    }
}
