//! The table of a run, in Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use crate::Report;

/// One line a flood.
pub(crate) fn of(reports: &[Report]) -> String {
    let mut text = String::from(
        "| flood | connections | closed by the gateway | with GOAWAY | frames/s | good requests | p50 before | \
         p99 before | p99 under it | ratio | RSS before / peak / after (MiB) | unexpected at the backend |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for report in reports {
        let Report { attack, done, before, during, memory, unexpected } = report;
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.2} | {} / {} / {} | {unexpected} |",
            attack.name,
            done.connections,
            done.closed,
            done.goaways,
            done.frames_a_second(),
            before.requests + during.requests,
            milliseconds(before.quantile(0.5)),
            milliseconds(before.quantile(0.99)),
            milliseconds(during.quantile(0.99)),
            report.ratio(),
            mib(memory.before),
            mib(memory.peak),
            mib(memory.after),
        )
        .expect("a string takes everything");
    }
    text
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1_000.0)
}
