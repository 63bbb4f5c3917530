//! How attempts are told: a line each, and sums at the end.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::Stdio;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::{Format, human};
use crate::cli::sender::{Attempt, Next, PostError};
use crate::webhook::event::EventKind;

/// One attempt of one node.
#[derive(Debug)]
pub struct Report {
    /// Which node.
    pub node: String,
    /// What it sent.
    pub event: EventKind,
    /// The event's `id`.
    pub id: String,
    /// What came of it.
    pub attempt: Attempt,
}

#[derive(Serialize)]
struct Line<'a> {
    node: &'a str,
    event: &'static str,
    id: &'a str,
    attempt: usize,
    status: Option<u16>,
    oncehook_status: Option<&'a str>,
    error: Option<String>,
    duration_ms: f64,
    next: &'static str,
    retry_in_ms: Option<u64>,
}

/// What came of all copies.
#[derive(Debug, Default, Serialize)]
pub struct Sums {
    /// Copies that are done with.
    pub copies: u64,
    /// Requests, retries included.
    pub attempts: u64,
    /// Copies that were answered with 2xx.
    pub acknowledged: u64,
    /// Copies whose refusal LiveKit takes for success.
    pub lost_in_silence: u64,
    /// Copies that nobody took, whatever was tried.
    pub given_up: u64,
    /// Copies that never found a connection; they are among those given up.
    pub unconnected: u64,
    /// How often each `Oncehook-Status` was answered.
    pub oncehook_status: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Summary<'a> {
    summary: &'a Sums,
}

impl Sums {
    /// Counts an attempt.
    pub fn add(&mut self, report: &Report) {
        self.attempts += 1;
        let answer = report.attempt.result.as_ref().ok();
        if let Some(status) = answer.and_then(|answer| answer.oncehook_status.as_ref()) {
            *self.oncehook_status.entry(status.clone()).or_default() += 1;
        }
        match report.attempt.next {
            Next::Acknowledged => self.acknowledged += 1,
            Next::LostInSilence => self.lost_in_silence += 1,
            Next::GivenUp => {
                self.given_up += 1;
                self.unconnected +=
                    u64::from(matches!(report.attempt.result, Err(PostError::Connect(_))));
            }
            Next::Retry(_) => return,
        }
        self.copies += 1;
    }

    /// Success only if every copy was acknowledged.
    pub fn exit(&self) -> Exit {
        if self.acknowledged == self.copies {
            Exit::Success
        } else if self.unconnected == self.copies {
            Exit::Unavailable
        } else {
            Exit::No
        }
    }
}

/// Prints the names of the columns.
pub fn heading(format: Format, stdio: &mut Stdio<'_>) -> Result<(), Failure> {
    if format == Format::Text {
        let names = ["node", "event", "id", "try", "status", "oncehook-status", "took"];
        writeln!(stdio.out, "{}", columns(&names.map(str::to_owned), "then"))?;
    }
    Ok(())
}

/// Prints an attempt.
pub fn line(format: Format, report: &Report, stdio: &mut Stdio<'_>) -> Result<(), Failure> {
    let attempt = &report.attempt;
    let answer = attempt.result.as_ref().ok();
    let oncehook_status = answer.and_then(|answer| answer.oncehook_status.as_deref());
    if format == Format::Json {
        let line = Line {
            node: &report.node,
            event: report.event.name(),
            id: &report.id,
            attempt: attempt.number,
            status: answer.map(|answer| answer.status.as_u16()),
            oncehook_status,
            error: attempt.result.as_ref().err().map(chain),
            duration_ms: attempt.duration.as_secs_f64() * 1e3,
            next: attempt.next.name(),
            retry_in_ms: match attempt.next {
                Next::Retry(wait) => u64::try_from(wait.as_millis()).ok(),
                Next::Acknowledged | Next::LostInSilence | Next::GivenUp => None,
            },
        };
        return Format::json(stdio.out, &line);
    }
    let cells = [
        report.node.clone(),
        report.event.name().to_owned(),
        report.id.clone(),
        attempt.number.to_string(),
        answer.map_or("-".to_owned(), |answer| answer.status.as_u16().to_string()),
        oncehook_status.unwrap_or("-").to_owned(),
        human(attempt.duration),
    ];
    writeln!(stdio.out, "{}", columns(&cells, &then(attempt)))?;
    Ok(())
}

/// Prints the sums.
pub fn sums(format: Format, sums: &Sums, stdio: &mut Stdio<'_>) -> Result<(), Failure> {
    match format {
        Format::Json => Format::json(stdio.out, &Summary { summary: sums })?,
        Format::Text => {
            writeln!(
                stdio.out,
                "{} copies in {} attempts: {} acknowledged, {} lost in silence, {} given up",
                sums.copies, sums.attempts, sums.acknowledged, sums.lost_in_silence, sums.given_up
            )?;
            let statuses: Vec<_> = sums
                .oncehook_status
                .iter()
                .map(|(status, count)| format!("{count} {status}"))
                .collect();
            if !statuses.is_empty() {
                writeln!(stdio.out, "oncehook answered: {}", statuses.join(", "))?;
            }
        }
    }
    Ok(())
}

/// An error and its sources, on one line.
pub fn chain(error: &PostError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn columns(cells: &[String; 7], then: &str) -> String {
    let [node, event, id, attempt, status, oncehook_status, took] = cells;
    format!("{node:<8} {event:<24} {id:<16} {attempt:>3}  {status:>6}  {oncehook_status:<15}  {took:>9}  {then}")
        .trim_end()
        .to_owned()
}

fn then(attempt: &Attempt) -> String {
    let error = attempt.result.as_ref().err().map(chain);
    match (attempt.next, error) {
        (Next::Acknowledged, _) => String::new(),
        (Next::LostInSilence, _) => "LOST IN SILENCE: LiveKit takes this for success".to_owned(),
        (Next::Retry(wait), None) => format!("again in {}", human(wait)),
        (Next::Retry(wait), Some(error)) => format!("{error}; again in {}", human(wait)),
        (Next::GivenUp, None) => "GIVEN UP".to_owned(),
        (Next::GivenUp, Some(error)) => format!("GIVEN UP: {error}"),
    }
}
