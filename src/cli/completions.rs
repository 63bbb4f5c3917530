//! `oncehook completions`: what a shell needs to complete oncehook's command line.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::exit::{Ending, Exit};
use crate::cli::{Cli, Stdio};

const AFTER_HELP: &str = "\
Examples:
  oncehook completions bash > /etc/bash_completion.d/oncehook
  oncehook completions zsh  > ~/.zfunc/_oncehook
  oncehook completions fish > ~/.config/fish/completions/oncehook.fish";

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &Args, stdio: &mut Stdio<'_>) -> Ending {
    // clap_complete panics where it cannot write; a buffer can always be written.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "oncehook", &mut script);
    stdio.out.write_all(&script)?;
    Ok(Exit::Success)
}
