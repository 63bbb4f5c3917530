//! The commands, one file each: what a command line says, and which command it runs.
//!
//! stdout is data, stderr is talk; the exit codes are those of [`exit`]. What a command does is left to its file.

pub mod admin;
pub mod backend;
pub mod bench;
mod capture;
pub mod check;
pub mod completions;
pub mod credentials;
pub mod demo;
pub mod exit;
mod explain;
mod files;
pub mod healthcheck;
pub mod listen;
pub mod options;
pub mod run;
pub mod sender;
pub mod sign;
pub mod status;
mod systemd;
pub mod trigger;
pub mod verify;
pub mod version;

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Read, Write};

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::app;
use crate::worker;

use exit::{Ending, Exit, Failure};

const ABOUT: &str =
    "A gateway for LiveKit webhooks: one copy of every signed event reaches your backend";

const AFTER_HELP: &str = "\
Examples:
  oncehook demo
      watch duplicates disappear, without any set-up
  oncehook run --dev --backend http://127.0.0.1:8080/webhook
      try it with your own backend
  oncehook run --config /etc/oncehook/oncehook.toml
      run it

stdout is data, stderr is talk. Exit codes: 0 done, 1 the answer is no,
64 command line, 65 data, 66 no such input, 69 not available, 73 cannot create,
74 input or output, 77 not permitted, 78 configuration (sysexits.h).";

/// A command line.
#[derive(Parser)]
#[command(name = "oncehook", version, about = ABOUT, after_help = AFTER_HELP, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Check(check::Args),
    Demo(demo::Args),
    Trigger(trigger::Args),
    Bench(bench::Args),
    Listen(listen::Args),
    Sign(sign::Args),
    Verify(verify::Args),
    Status(status::Args),
    Healthcheck(healthcheck::Args),
    Completions(completions::Args),
    Version(version::Args),
}

/// What a command reads and where it writes.
pub struct Stdio<'a> {
    /// What is piped into it.
    pub input: &'a mut dyn Read,
    /// Data, for a program or a reader.
    pub out: &'a mut dyn Write,
    /// Talk: progress, warnings, failures.
    pub talk: &'a mut dyn Write,
}

/// Parses `arguments`, runs the command they name, and tells a failure on `stdio.talk`.
pub fn main(arguments: impl IntoIterator<Item = OsString>, stdio: &mut Stdio<'_>) -> Exit {
    let ending = match Cli::try_parse_from(arguments) {
        Ok(cli) => dispatch(cli.command, stdio),
        Err(error) => usage(&error),
    };
    app::finish_log();
    let ending = ending.and_then(|exit| stdio.out.flush().map(|()| exit).map_err(Failure::from));
    ending.unwrap_or_else(|failure| {
        // A stderr that is closed leaves the exit code to tell.
        failure.tell(stdio.talk).ok();
        failure.exit()
    })
}

fn dispatch(command: Command, stdio: &mut Stdio<'_>) -> Ending {
    match command {
        Command::Run(args) => run::run(&args, stdio),
        Command::Check(args) => check::run(&args, stdio),
        Command::Demo(args) => demo::run(&args, stdio),
        Command::Trigger(args) => trigger::run(&args, stdio),
        Command::Bench(args) => bench::run(&args, stdio),
        Command::Listen(args) => listen::run(&args, stdio),
        Command::Sign(args) => {
            sign::run(&args, stdio.input, stdio.out).map_err(Failure::of)?;
            Ok(Exit::Success)
        }
        Command::Verify(args) => {
            match verify::run(&args, stdio.input, stdio.out).map_err(Failure::of)? {
                verify::Outcome::Accepted => Ok(Exit::Success),
                verify::Outcome::Refused => Ok(Exit::Data),
            }
        }
        Command::Status(args) => status::run(&args, stdio),
        Command::Healthcheck(args) => healthcheck::run(&args, stdio),
        Command::Completions(args) => completions::run(&args, stdio),
        Command::Version(args) => version::run(&args, stdio),
    }
}

/// clap's own end: help and version are data that was asked for; everything else is a wrong command line, for which
/// clap's code would be 2.
fn usage(error: &clap::Error) -> Ending {
    error.print()?;
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    Ok(if asked { Exit::Success } else { Exit::Usage })
}

/// Runs a command's future to its end, on this thread.
fn block_on(future: impl Future<Output = Ending>) -> Ending {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(io_failure("cannot start a runtime"))?.block_on(future)
}

/// Runs a command's future to its end, with a thread for each core.
fn block_on_all_cores(future: impl Future<Output = Ending>) -> Ending {
    let ended = worker::run(app::before_park, future);
    ended.map_err(io_failure("cannot start a thread for each core"))?
}

fn io_failure(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::new(Exit::Io, anyhow::Error::new(error).context(what))
}
