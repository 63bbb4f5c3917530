//! Parses the command line, runs the command, maps its outcome to an exit code.

use std::io::{LineWriter, stderr, stdin, stdout};
use std::process::ExitCode;

use oncehook::cli::{self, Stdio};

fn main() -> ExitCode {
    let (mut input, mut out, mut talk) = (stdin(), LineWriter::new(stdout()), stderr());
    let mut stdio = Stdio { input: &mut input, out: &mut out, talk: &mut talk };
    cli::main(std::env::args_os(), &mut stdio).into()
}
