//! What stands around the scenes: who plays, the table of all scores, what it means, what to do next.

use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::cli::Stdio;
use crate::cli::backend::Arrival;
use crate::cli::exit::{Ending, Exit};
use crate::cli::options::{Format, human};

use super::scene::Expected;
use super::score::Score;
use super::{Args, PATH, Places};

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
