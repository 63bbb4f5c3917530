//! Floods: a real gateway under attack, good senders beside it, and what the attack cost them.
//!
//! ```text
//! cargo test --test floods                                  a short selection without timing, as CI runs it
//! cargo test --release --test floods -- --all               all of them, timed, and the table
//! cargo test --release --test floods -- ping --seconds 30   one of them, or several
//! cargo test --test floods -- --list
//! ```
//!
//! The attackers are a process of their own (this one again) that runs only while nobody else wants to: in earnest they
//! would have machines of their own. `attack` is what they do; `senders` are the good ones; `watch` looks at the gateway.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that meets what it did not expect should stop and say so"
)]

mod arguments;
mod attack;
mod frames;
mod peers;
mod senders;
#[path = "../it/support/mod.rs"]
#[expect(dead_code, reason = "shared with the integration tests, which use the rest")]
mod support;
mod table;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use arguments::{Arguments, Asked, Pace};
use attack::{Attack, Done};
use senders::Latencies;
use support::backend::{Action, Backend};
use support::gateway::{Gateway, Surroundings};
use tokio_util::sync::CancellationToken;
use watch::Memory;

/// How long good senders are alone, for comparison.
const BASELINE: Duration = Duration::from_secs(5);
/// Connections that the gateway takes here, and from one source; the rest is as it comes.
const CONFIGURATION: &str = "tls.self_signed = true\nshutdown.drain_delay = \"0s\"\n\
                             limits.connections_max = 16384\nlimits.answer_timeout = \"5s\"\n";
/// More than any flood here may cost, besides what connections cost in earnest.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
/// The p99 of good senders may be this many times what it was.
const RATIO_MAX: f64 = 2.0;

/// What came of one flood.
struct Report {
    attack: &'static Attack,
    done: Done,
    before: Latencies,
    during: Latencies,
    memory: Memory,
    unexpected: u64,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(Asked::Run(arguments)) => arguments,
        Ok(Asked::List) => {
            for attack in attack::ALL {
                println!("{:<24} {}", attack.name, attack.about);
            }
            return ExitCode::SUCCESS;
        }
        Ok(Asked::Attack(order)) => {
            println!("{}", runtime.block_on(attack::run(order)).to_json());
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(64);
        }
    };
    let (mut reports, mut failed) = (Vec::new(), 0);
    for attack in arguments.attacks() {
        let report = runtime.block_on(flood(attack, arguments.pace));
        let faults = report.faults(arguments.pace);
        println!("{}: {}", attack.name, if faults.is_empty() { "ok" } else { "FAILED" });
        for fault in &faults {
            println!("    {fault}");
        }
        failed += usize::from(!faults.is_empty());
        reports.push(report);
    }
    if !reports.is_empty() {
        println!("\n{}", table::of(&reports));
    }
    println!("{} passed, {failed} failed", reports.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One flood against a gateway of its own.
async fn flood(attack: &'static Attack, pace: Pace) -> Report {
    let backend = Backend::always(Action::status(200));
    let configuration = format!(
        "{CONFIGURATION}[[route]]\npath = \"/webhook\"\nbackend = \"{}/hook\"\n",
        backend.url()
    );
    let surroundings = Surroundings { descriptors_max: Some(16 * 1024), ..Surroundings::default() };
    let gateway = Gateway::start_in(&surroundings, &configuration);
    let url = format!("https://{}/webhook", gateway.address());

    let before = match pace {
        Pace::Short => senders::until(&url, 0, tokio::time::sleep(Duration::ZERO)).await,
        Pace::Timed(_) => senders::until(&url, 0, tokio::time::sleep(BASELINE)).await,
    };
    let watching = watch::Watching::begin(gateway.pid());
    let attacking = attack::start(attack, gateway.address(), pace);
    let over = CancellationToken::new();
    let attackers = async {
        let done = attacking.await;
        over.cancel();
        done
    };
    let good = senders::until(&url, before.requests, over.cancelled());
    let (done, during) = tokio::join!(attackers, good);
    let memory = watching.end().await;
    let good = before.requests + during.requests;
    let unexpected = (backend.requests().len() as u64).saturating_sub(good);
    Report { attack, done, before, during, memory, unexpected }
}

impl Report {
    fn ratio(&self) -> f64 {
        self.during.quantile(0.99).as_secs_f64() / self.before.quantile(0.99).as_secs_f64()
    }

    /// What must not be.
    fn faults(&self, pace: Pace) -> Vec<String> {
        let mut faults = Vec::new();
        let refused = self.before.refused + self.during.refused;
        if refused > 0 {
            faults.push(format!("{refused} webhooks in order were not told 200"));
        }
        if self.unexpected > 0 {
            faults.push(format!("the backend was asked {} times too often", self.unexpected));
        }
        if self.done.connections == 0 || self.done.closed == 0 {
            faults.push(format!("the gateway closed no connection of {}", self.done.connections));
        }
        let grown = self.memory.peak.saturating_sub(self.memory.before);
        if grown > MEMORY_BYTES_MAX {
            faults.push(format!("its memory grew by {} MiB", grown >> 20));
        }
        match pace {
            // Each of them ends only when the gateway ends it.
            Pace::Short if self.done.closed < self.done.connections => faults.push(format!(
                "the gateway closed {} connections of {}",
                self.done.closed, self.done.connections
            )),
            Pace::Timed(_) if self.ratio() >= RATIO_MAX => {
                faults
                    .push(format!("the p99 of good senders is {:.1} times as long", self.ratio()));
            }
            Pace::Short | Pace::Timed(_) => {}
        }
        faults
    }
}
