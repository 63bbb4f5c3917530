//! `oncehook healthcheck`: asks a running gateway whether it is ready, for Docker's `HEALTHCHECK` and the like.

use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;
use http::StatusCode;

use crate::cli::Stdio;
use crate::cli::admin::Access;
use crate::cli::exit::{Ending, Exit};
use crate::cli::options;

const AFTER_HELP: &str = "\
Exit codes: 0 yes, 1 no, 69 nobody answers there.

Examples:
  oncehook healthcheck
  oncehook healthcheck --question live --address 127.0.0.1:9464
  HEALTHCHECK CMD [\"oncehook\", \"healthcheck\"]        in a Dockerfile";

/// Ask a running gateway whether it is ready
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Address of the gateway's admin listener
    #[arg(long, value_name = "ADDRESS", env = "ONCEHOOK_ADMIN__ADDRESS", hide_env_values = true)]
    #[arg(default_value = "127.0.0.1:9464")]
    address: SocketAddr,
    /// What to ask: ready (/readyz) or live (/livez)
    #[arg(long, value_enum, default_value_t = Question::Ready, value_name = "QUESTION")]
    #[arg(hide_possible_values = true)]
    question: Question,
    /// How long to wait for an answer
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = options::duration)]
    timeout: Duration,
    #[command(flatten)]
    access: Access,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Question {
    /// Does it take webhooks now?
    Ready,
    /// Does the process work at all?
    Live,
}

impl Question {
    const fn path(self) -> &'static str {
        match self {
            Self::Ready => "/readyz",
            Self::Live => "/livez",
        }
    }
}

/// Asks, says nothing on stdout, and answers with the exit code.
pub fn run(args: &Args, stdio: &mut Stdio<'_>) -> Ending {
    super::block_on(ask(args, stdio))
}

async fn ask(args: &Args, stdio: &mut Stdio<'_>) -> Ending {
    let path = args.question.path();
    match args.access.page(args.address, path, args.timeout).await? {
        (StatusCode::OK, _) => Ok(Exit::Success),
        (status, _) => {
            writeln!(stdio.talk, "oncehook: {}{path} answers {status}", args.address)?;
            Ok(Exit::No)
        }
    }
}
