//! The table of a run, in Markdown, so that it can be shown as it is.

use std::fmt::Write as _;

use crate::checker::Report;

/// One line a scenario.
pub(crate) fn of(rows: &[(&str, Report)]) -> String {
    let mut text = String::from(
        "| scenario | events | copies | faults | accepted | extra | marked | forgotten | lost | early | |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n",
    );
    for (name, Report { figures, violations, .. }) in rows {
        let verdict = if violations.is_empty() { "ok" } else { "FAILED" };
        writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {verdict} |",
            figures.events,
            figures.copies,
            figures.faults,
            figures.accepted,
            figures.extra,
            figures.marked,
            figures.forgotten,
            figures.lost,
            figures.early
        )
        .expect("a string takes everything");
    }
    let overloads: usize = rows.iter().map(|(_, report)| report.figures.overloads).sum();
    if overloads > 0 {
        writeln!(
            text,
            "\nThis machine was overloaded {overloads} times: what that may have cost is forgiven, and not counted as a \
             fault. A quieter machine judges more strictly."
        )
        .expect("a string takes everything");
    }
    text
}
