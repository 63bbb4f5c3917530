//! Parses the command line, runs the command, maps its outcome to an exit code.

use std::io::{LineWriter, stderr, stdout};
use std::process::ExitCode;

use oncehook::cli::{self, Stdio};

fn main() -> ExitCode {
    let (mut out, mut talk) = (LineWriter::new(stdout().lock()), stderr());
    cli::run(std::env::args_os(), &mut Stdio { out: &mut out, talk: &mut talk }).into()
}
