//! A line that says how far a run is, drawn anew a few times a second where stderr is a terminal, and nowhere else.

use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use super::report::Outcome;

/// Between two drawings.
const EVERY: Duration = Duration::from_millis(200);
/// Characters of the bar.
const WIDTH: u64 = 30;
/// The line's beginning, everything on it erased (ECMA-48, EL).
const ANEW: &str = "\r\x1b[2K";

/// How far a run is.
pub(super) struct Progress {
    all: u64,
    ticks: Option<Interval>,
}

impl Progress {
    /// Of so many copies.
    pub(super) fn new(all: u64) -> Self {
        let ticks = io::stderr().is_terminal().then(|| interval(EVERY));
        let ticks = ticks.map(|mut ticks| {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self { all, ticks }
    }

    /// Returns when the line should be drawn anew; never, if nobody looks. Nothing is lost if it is dropped.
    pub(super) async fn due(&mut self) {
        match &mut self.ticks {
            Some(ticks) => {
                ticks.tick().await;
            }
            None => std::future::pending().await,
        }
    }

    /// Draws the line.
    pub(super) fn draw(&self, talk: &mut dyn Write, outcome: &Outcome) -> io::Result<()> {
        write!(talk, "{ANEW}{}", line(outcome.copies(), self.all, outcome.requests()))?;
        talk.flush()
    }

    /// Erases it.
    pub(super) fn clear(&self, talk: &mut dyn Write) -> io::Result<()> {
        if self.ticks.is_none() {
            return Ok(());
        }
        write!(talk, "{ANEW}")?;
        talk.flush()
    }
}

fn line(copies: u64, all: u64, requests: u64) -> String {
    let filled = usize::try_from(copies * WIDTH / all.max(1)).unwrap_or_default();
    let width = usize::try_from(WIDTH).unwrap_or_default();
    let bar = "#".repeat(filled);
    format!("[{bar:<width$}] {copies} of {all} copies, {requests} requests")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_from_left_to_right() {
        assert!(line(0, 9, 0).starts_with(&format!("[{}]", " ".repeat(30))));
        assert!(line(3, 9, 4).starts_with(&format!("[{}{}]", "#".repeat(10), " ".repeat(20))));
        assert!(line(9, 9, 12).starts_with(&format!("[{}] 9 of 9 copies", "#".repeat(30))));
    }
}
