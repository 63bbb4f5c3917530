//! The campaign: real gateways, a real Redis, senders that behave like LiveKit's, a backend that counts, and whatever
//! can go wrong between them; afterwards the history is held against the guarantee (`docs/guarantee.md`).
//!
//! ```text
//! cargo test --test campaign                            a short selection, as CI runs it
//! cargo test --test campaign -- burst --seed 7          one scenario, or several
//! cargo test --test campaign -- burst --events 100000   more of it
//! cargo test --test campaign -- --all --seed 7          all of them, and the table
//! cargo test --test campaign -- --list
//! ```
//!
//! `history` records, `checker` judges, `planted` shows that it can find something; `senders`, `backend` and `world`
//! are the parts, `namespaces` the networks of some; `scenarios` break them. `nodes`, behind a `front` each, are
//! LiveKit's own sender in the place of ours.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that meets what it did not expect should stop and say so"
)]

mod arguments;
mod backend;
mod checker;
mod front;
mod history;
mod namespaces;
mod nodes;
mod observe;
mod planted;
mod random;
mod scenarios;
mod senders;
mod servers;
#[path = "../it/support/mod.rs"]
#[expect(dead_code, reason = "shared with the integration tests, which use the rest")]
mod support;
mod table;
mod wire;
mod world;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Instant;

use arguments::{Arguments, Selection};
use checker::Report;
use scenarios::Scenario;
use world::Plan;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(64);
        }
    };
    if arguments.selection == Selection::List {
        for scenario in scenarios::ALL {
            println!("{:<26} {}", scenario.name, scenario.about);
        }
        return ExitCode::SUCCESS;
    }
    let (passed, failed) = run(&arguments);
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(arguments: &Arguments) -> (usize, usize) {
    let (mut passed, mut failed) = (0, 0);
    let mut count = |well: bool| if well { passed += 1 } else { failed += 1 };
    if arguments.selection != Selection::Named {
        for (what, test) in planted::ALL {
            let well = std::panic::catch_unwind(test).is_ok();
            println!("{what}: {}", word(well));
            count(well);
        }
    }
    let mut rows = Vec::new();
    for scenario in scenarios::ALL.iter().filter(|scenario| arguments.takes(scenario)) {
        let report = play(scenario, arguments.plan(scenario));
        if report.not_run.is_some() {
            continue;
        }
        count(report.violations.is_empty());
        // What was planted is no result.
        if report.figures.events > 0 || !report.violations.is_empty() {
            rows.push((scenario.name, report));
        }
    }
    if !rows.is_empty() {
        println!("\nseed {}\n{}", arguments.seed, table::of(&rows));
    }
    (passed, failed)
}

/// One scenario in a runtime of its own, so that nothing of it is left for the next. A panic is a violation.
fn play(scenario: &Scenario, plan: Plan) -> Report {
    const SHOWN: usize = 10;
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime");
    let run = AssertUnwindSafe(|| runtime.block_on((scenario.run)(plan)));
    let report = std::panic::catch_unwind(run).unwrap_or_else(|_| Report {
        violations: vec!["the scenario itself failed, see above".to_owned()],
        ..Report::default()
    });
    runtime.shutdown_background();
    if let Some(why) = report.not_run {
        println!("{}: not run: {why}", scenario.name);
        return report;
    }
    let well = report.violations.is_empty();
    println!("{}: {} ({:.1} s)", scenario.name, word(well), began.elapsed().as_secs_f64());
    for note in &report.notes {
        println!("    {note}");
    }
    for violation in report.violations.iter().take(SHOWN) {
        println!("    {violation}");
    }
    if report.violations.len() > SHOWN {
        println!("    … and {} more", report.violations.len() - SHOWN);
    }
    if !well {
        println!("    again: cargo test --test campaign -- {} --seed {}", scenario.name, plan.seed);
        println!("    logs: target/tmp/campaign-{}-{}-gateway-*.log", scenario.name, plan.seed);
    }
    report
}

const fn word(well: bool) -> &'static str {
    if well { "ok" } else { "FAILED" }
}
