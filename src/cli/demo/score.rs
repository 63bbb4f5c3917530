//! What the nodes were told, what reached the backend, and whether both are right.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::cli::Stdio;
use crate::cli::backend::Arrival;
use crate::cli::exit::{Ending, Exit, Failure};
use crate::cli::options::{Format, human};
use crate::cli::sender::Next;
use crate::cli::trigger::report::Report;
use crate::webhook::key::Basis;

use super::scene::{Expected, Scene};
use super::{Args, PATH, Places};

/// The score of one scene.
#[derive(Debug, Serialize)]
pub struct Score {
    scene: &'static str,
    event: &'static str,
    /// What the gateway's key is made of: `event`, `id` or `body`.
    basis: Option<&'static str>,
    /// The fields that tell two such events apart.
    fields: &'static str,
    ids: &'static str,
    expected: &'static str,
    events: usize,
    copies: usize,
    attempts: u64,
    forwarded: u64,
    duplicate: u64,
    collapsed: u64,
    refused: u64,
    /// Attempts that the sender was told to repeat.
    retried: u64,
    /// Copies that are neither acknowledged nor, rightly, refused.
    lost: u64,
    /// Times that the backend took an event.
    accepted: u64,
    /// Times that the backend failed one.
    failed: u64,
    /// Whether the backend has every event as often as it should, and every node was told so.
    ok: bool,
    #[serde(skip)]
    once: Expected,
    /// Which event an id belongs to.
    #[serde(skip)]
    event_of: HashMap<String, usize>,
    /// How often the backend accepted each event.
    #[serde(skip)]
    accepted_of: Vec<u64>,
}

#[derive(Serialize)]
struct Summary {
    summary: Sums,
}

#[derive(Serialize)]
struct Sums {
    events: usize,
    copies: usize,
    accepted: u64,
    late: usize,
    duration_ms: u128,
    ok: bool,
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

/// Says what will be seen.
pub fn opening(places: &Places, args: &Args, stdio: &mut Stdio<'_>) -> io::Result<()> {
    let out = &mut *stdio.out;
    writeln!(out, "{} LiveKit nodes  ->  oncehook  ->  your backend", args.nodes)?;
    writeln!(out)?;
    writeln!(
        out,
        "   nodes      HTTP/2 over TLS, signed with the development key, retrying as LiveKit does"
    )?;
    writeln!(out, "   oncehook   https://{}{PATH}", places.gateway)?;
    writeln!(
        out,
        "   backend    http://{}{PATH}, which knows nothing of duplicates",
        places.backend
    )?;
    writeln!(out)
}

/// Sums up, and says what to do next.
pub fn closing(
    format: Format,
    scores: &[Score],
    late: &[Arrival],
    took: Duration,
    stdio: &mut Stdio<'_>,
) -> Ending {
    let ok = late.is_empty() && scores.iter().all(|score| score.ok);
    let genuine = || scores.iter().filter(|score| score.once == Expected::Once);
    let sums = Sums {
        events: genuine().map(|score| score.events).sum(),
        copies: genuine().map(|score| score.copies).sum(),
        accepted: scores.iter().map(|score| score.accepted).sum(),
        late: late.len(),
        duration_ms: took.as_millis(),
        ok,
    };
    let exit = if ok { Exit::Success } else { Exit::No };
    if format == Format::Json {
        Format::json(stdio.out, &Summary { summary: sums })?;
        return Ok(exit);
    }
    table(scores, stdio)?;
    let out = &mut *stdio.out;
    if ok {
        writeln!(
            out,
            "{} copies of {} events: the backend got every event exactly once ({}).",
            sums.copies,
            sums.events,
            human(took)
        )?;
    } else {
        writeln!(
            out,
            "WRONG: {} events, {} accepted by the backend, {} of them after the end.",
            sums.events, sums.accepted, sums.late
        )?;
    }
    writeln!(out)?;
    writeln!(out, "forwarded   the copy that the backend got")?;
    writeln!(out, "duplicate   answered from the record of an event that is done with")?;
    writeln!(out, "collapsed   came while another copy was on its way, and shared its result")?;
    writeln!(out)?;
    writeln!(out, "Next, with your own backend:")?;
    writeln!(out, "  oncehook run --dev --backend http://127.0.0.1:8080/webhook")?;
    writeln!(out, "  oncehook trigger egress_ended --nodes 3 --to http://127.0.0.1:8443{PATH}")?;
    writeln!(out, "No backend at hand? `oncehook listen` is one.")?;
    Ok(exit)
}

fn table(scores: &[Score], stdio: &mut Stdio<'_>) -> io::Result<()> {
    let out = &mut *stdio.out;
    writeln!(
        out,
        "   {:<20} {:>6} {:>6} {:<8} {:>9} {:>9} {:>9} {:>8}",
        "event", "events", "copies", "ids", "forwarded", "duplicate", "collapsed", "accepted"
    )?;
    for (number, score) in scores.iter().enumerate() {
        writeln!(
            out,
            "{}. {:<20} {:>6} {:>6} {:<8} {:>9} {:>9} {:>9} {:>8}  {}",
            number + 1,
            score.event,
            score.events,
            score.copies,
            score.ids,
            score.forwarded,
            score.duplicate,
            score.collapsed,
            score.accepted,
            if score.ok { "ok" } else { "WRONG" }
        )?;
    }
    writeln!(out)
}
