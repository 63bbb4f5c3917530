//! What came of a run, as a table or as one JSON object, and what to do where the audit fails.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::cli::Stdio;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::{Format, human};
use crate::cli::sender::PostError;
use crate::cli::trigger::report::chain;

use super::audit::{Audit, Verdict};
use super::latency::Latency;
use super::load::Told;

/// Errors that are told apart; all others are one.
const ERRORS_MAX: usize = 16;

/// What came of a run, so far.
pub(super) struct Outcome {
    pub(super) audit: Audit,
    /// From the first copy to the end of the last answer.
    pub(super) took: Duration,
    latency: Latency,
    requests: u64,
    unconnected: u64,
    statuses: BTreeMap<u16, u64>,
    words: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Whole<'a> {
    requests: u64,
    took_ms: f64,
    requests_per_second: f64,
    latency_ms: Percentiles,
    statuses: &'a BTreeMap<u16, u64>,
    oncehook_status: &'a BTreeMap<String, u64>,
    errors: &'a BTreeMap<String, u64>,
    audit: &'a Verdict,
}

#[derive(Serialize)]
struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Outcome {
    pub(super) fn new(audit: Audit) -> Self {
        Self {
            audit,
            took: Duration::ZERO,
            latency: Latency::new(),
            requests: 0,
            unconnected: 0,
            statuses: BTreeMap::new(),
            words: BTreeMap::new(),
            errors: BTreeMap::new(),
        }
    }

    /// Counts an attempt.
    pub(super) fn told(&mut self, told: &Told) {
        self.requests += 1;
        self.latency.add(told.latency);
        self.audit.told(told);
        match &told.attempt.result {
            Ok(answer) => {
                *self.statuses.entry(answer.status.as_u16()).or_default() += 1;
                if let Some(word) = &answer.oncehook_status {
                    *self.words.entry(word.clone()).or_default() += 1;
                }
            }
            Err(error) => self.failed(error),
        }
    }

    fn failed(&mut self, error: &PostError) {
        self.unconnected += u64::from(matches!(error, PostError::Connect(_)));
        let mut error = chain(error);
        if self.errors.len() >= ERRORS_MAX && !self.errors.contains_key(&error) {
            "other errors".clone_into(&mut error);
        }
        *self.errors.entry(error).or_default() += 1;
    }

    /// Requests, retries included.
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// Copies that are done with.
    pub(super) fn copies(&self) -> u64 {
        self.audit.copies()
    }

    fn exit(&self, verdict: &Verdict) -> Exit {
        if verdict.ok {
            Exit::Success
        } else if self.requests > 0 && self.unconnected == self.requests {
            Exit::Unavailable
        } else {
            Exit::No
        }
    }

    fn per_second(&self) -> f64 {
        // Exact below 2^32 requests, which no run reaches.
        f64::from(u32::try_from(self.requests).unwrap_or(u32::MAX))
            / self.took.as_secs_f64().max(1e-9)
    }
}

/// Prints the result and says how to end; `listened` is where this command was the backend.
pub(super) fn print(
    format: Format,
    outcome: &Outcome,
    listened: Option<SocketAddr>,
    stdio: &mut Stdio<'_>,
) -> Result<Exit, Failure> {
    let verdict = outcome.audit.verdict();
    match format {
        Format::Json => Format::json(stdio.out, &whole(outcome, &verdict))?,
        Format::Text => text(outcome, &verdict, stdio.out)?,
    }
    if let Some(hint) = hint(outcome, &verdict, listened) {
        writeln!(stdio.talk, "hint: {hint}")?;
    }
    Ok(outcome.exit(&verdict))
}

fn whole<'a>(outcome: &'a Outcome, verdict: &'a Verdict) -> Whole<'a> {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let latency = &outcome.latency;
    Whole {
        requests: outcome.requests,
        took_ms: ms(outcome.took),
        requests_per_second: outcome.per_second(),
        latency_ms: Percentiles {
            p50: ms(latency.percentile(50)),
            p90: ms(latency.percentile(90)),
            p99: ms(latency.percentile(99)),
            max: ms(latency.longest()),
        },
        statuses: &outcome.statuses,
        oncehook_status: &outcome.words,
        errors: &outcome.errors,
        audit: verdict,
    }
}

fn text(outcome: &Outcome, verdict: &Verdict, out: &mut dyn Write) -> io::Result<()> {
    let latency = &outcome.latency;
    let mut row = |name: &str, value: String| writeln!(out, "{name:<16} {value}");
    row("requests", format!("{} in {}", outcome.requests, human(outcome.took)))?;
    row("requests/s", format!("{:.0}", outcome.per_second()))?;
    for (name, percent) in [("p50", 50), ("p90", 90), ("p99", 99)] {
        row(name, human(latency.percentile(percent)))?;
    }
    row("max", human(latency.longest()))?;
    row("status", counts(&outcome.statuses))?;
    row("oncehook-status", counts(&outcome.words))?;
    if !outcome.errors.is_empty() {
        row("errors", counts(&outcome.errors))?;
    }
    writeln!(out)?;
    let mut row =
        |name: &str, value: u64, what: &str| writeln!(out, "{name:<12} {value:>9}  {what}");
    row("events", verdict.events, &format!("sent, {} copies each", outcome.audit.copies_each()))?;
    row("copies", verdict.copies, "answered, or given up")?;
    row("acknowledged", verdict.acknowledged, "copies answered with 2xx")?;
    row("forwarded", verdict.forwarded, "times that the backend took one of the events")?;
    row("extra", verdict.extra, "times that it was one that the backend had")?;
    match verdict.marked {
        Some(marked) => row("marked", marked, "times with Oncehook-Possible-Duplicate")?,
        None => writeln!(out, "{:<12} {:>9}  only a backend sees it: --listen", "marked", "-")?,
    }
    let mut row =
        |name: &str, value: u64, what: &str| writeln!(out, "{name:<12} {value:>9}  {what}");
    row("missing", verdict.missing, "events that never arrived")?;
    for (name, count, what) in [
        ("foreign", verdict.foreign, "arrivals of what another sent"),
        ("refused", verdict.refused, "arrivals that this key has not signed"),
    ] {
        count.filter(|count| *count > 0).map_or(Ok(()), |count| row(name, count, what))?;
    }
    writeln!(out)?;
    writeln!(out, "{}", sentence(verdict))
}

fn sentence(verdict: &Verdict) -> &'static str {
    match (verdict.ok, verdict.extra) {
        (true, 0) => "ok: every event arrived exactly once",
        (true, _) => "ok: every event arrived, and whatever came again was marked",
        (false, _) => "WRONG: not every event arrived exactly once",
    }
}

fn counts<K: std::fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
    if counts.is_empty() {
        return "-".to_owned();
    }
    let counts = counts.iter().map(|(name, count)| format!("{count} {name}"));
    counts.collect::<Vec<_>>().join(", ")
}

/// What to look at first, where the audit fails.
fn hint(outcome: &Outcome, verdict: &Verdict, listened: Option<SocketAddr>) -> Option<String> {
    if verdict.ok {
        return None;
    }
    if outcome.requests > 0 && outcome.unconnected == outcome.requests {
        return Some("nobody listens there; is the gateway running, and --to its address?".into());
    }
    if outcome.statuses.contains_key(&401) {
        return Some("401: the gateway has another secret for this API key, or none".into());
    }
    if let (Some(address), 0) = (listened, verdict.forwarded)
        && verdict.acknowledged > 0
    {
        return Some(format!(
            "nothing arrived at {address}: is it the backend of the gateway's route?"
        ));
    }
    if verdict.acknowledged > 0 && outcome.words.is_empty() {
        return Some("no answer carries Oncehook-Status: is there a gateway behind --to?".into());
    }
    let every_copy = verdict.extra > 0 && verdict.forwarded == verdict.copies;
    every_copy.then(|| {
        "every copy was forwarded: with dedup.identity = \"id\" use --same-id; with dedup.shadow that is as told".into()
    })
}
