//! Which code a command ends with, and how a failure is told.
//!
//! The codes are those of `sysexits.h`, so that a script can tell a wrong flag from a wrong file from a backend that
//! is away. What is printed for a failure: what went wrong, its causes, and a hint what to do. Turning a code into the
//! process's end is left to `main`.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::cli::credentials::{NoSecret, OpenToOthers};

/// What a command that ran says with its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done; or the answer is yes.
    Success,
    /// 1: it ran, and the answer is no: an event was lost, a signature is wrong, the gateway is not ready.
    No,
    /// 64: the command line is wrong.
    Usage,
    /// 65: an input is not what it should be.
    Data,
    /// 66: an input is not there or cannot be read.
    NoInput,
    /// 69: something that is needed, a backend or a port, is not available.
    Unavailable,
    /// 70: a defect in oncehook.
    Software,
    /// 73: an output cannot be created; an address cannot be listened at.
    CannotCreate,
    /// 74: reading or writing failed on the way.
    Io,
    /// 77: not permitted.
    NoPermission,
    /// 78: the configuration is wrong.
    Config,
}

impl Exit {
    /// The number, as in `sysexits.h`.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::No => 1,
            Self::Usage => 64,
            Self::Data => 65,
            Self::NoInput => 66,
            Self::Unavailable => 69,
            Self::Software => 70,
            Self::CannotCreate => 73,
            Self::Io => 74,
            Self::NoPermission => 77,
            Self::Config => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// How a command ends: with a code, or with a failure that has one.
pub type Ending = Result<Exit, Failure>;

/// Why a command could not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: anyhow::Error,
    hint: Option<String>,
}

impl Failure {
    /// A failure that ends with `exit`; `error` and its sources are printed.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into(), hint: None }
    }

    /// A failure that a sentence describes fully.
    pub fn message(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, error: anyhow::anyhow!("{message}"), hint: None }
    }

    /// An error that says all there is to say: 64 if a secret was not given, 66 if a file was not there, 77 if it was
    /// forbidden, or if everybody may read what is secret, 74 if reading or writing failed, 65 otherwise.
    pub fn of(error: anyhow::Error) -> Self {
        let kind =
            error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
        let exit = match kind {
            None if error.is::<NoSecret>() => Exit::Usage,
            None if error.is::<OpenToOthers>() => Exit::NoPermission,
            Some(io::ErrorKind::NotFound) => Exit::NoInput,
            Some(io::ErrorKind::PermissionDenied) => Exit::NoPermission,
            Some(_) => Exit::Io,
            None => Exit::Data,
        };
        Self::new(exit, error)
    }

    /// A file that could not be read: 66 if it is not there, 77 if it is forbidden, 74 otherwise.
    pub fn reading(path: &Path, error: io::Error) -> Self {
        Self::of(anyhow::Error::new(error).context(format!("cannot read {}", path.display())))
    }

    /// An address that could not be listened at.
    pub fn listening(address: impl fmt::Display, error: io::Error) -> Self {
        let kind = error.kind();
        Self::refused(
            kind,
            anyhow::Error::new(error).context(format!("cannot listen at {address}")),
        )
    }

    /// A start that the system refused: 77 if it is forbidden, 69 if an address is taken, 66 if a file is not there, 73
    /// otherwise.
    pub fn refused(kind: io::ErrorKind, error: impl Into<anyhow::Error>) -> Self {
        if kind == io::ErrorKind::PermissionDenied {
            let hint = "ports below 1024 need CAP_NET_BIND_SERVICE, files the right owner";
            Self::new(Exit::NoPermission, error).with_hint(hint)
        } else if kind == io::ErrorKind::AddrInUse {
            let hint = "another process listens there; `ss -ltnp` names it, or choose another port";
            Self::new(Exit::Unavailable, error).with_hint(hint)
        } else if kind == io::ErrorKind::AddrNotAvailable {
            Self::new(Exit::CannotCreate, error)
                .with_hint("the address must be one of this machine's")
        } else if kind == io::ErrorKind::NotFound {
            Self::new(Exit::NoInput, error)
        } else {
            Self::new(Exit::CannotCreate, error)
        }
    }

    /// The same failure with a sentence that says what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The code to end with. A reader who has left (`oncehook … | head`) has what it wanted: that is success.
    pub fn exit(&self) -> Exit {
        if self.is_broken_pipe() { Exit::Success } else { self.exit }
    }

    /// Tells the failure, except a broken pipe, of which there is nobody left to tell: what went wrong and its causes
    /// on the first line, then what to do. Other rooms' errors carry a hint of their own after the message.
    pub fn tell(&self, talk: &mut dyn Write) -> io::Result<()> {
        if self.is_broken_pipe() {
            return Ok(());
        }
        let (mut messages, mut hints) = (Vec::new(), Vec::new());
        for cause in self.error.chain() {
            let text = cause.to_string();
            let (message, hint) = split_hint(&text);
            messages.push(message.to_owned());
            hints.extend(hint.map(str::to_owned));
        }
        if hints.is_empty() {
            hints.extend(self.hint.clone());
        }
        // A library's error often repeats its source.
        messages.dedup_by(|later, earlier| earlier.ends_with(later.as_str()));
        writeln!(talk, "oncehook: {}", messages.join(": "))?;
        hints.iter().try_for_each(|hint| writeln!(talk, "hint: {hint}"))
    }

    fn is_broken_pipe(&self) -> bool {
        self.error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe && self.exit == Exit::Io)
    }
}

/// A message, and the hint that stands behind it.
fn split_hint(text: &str) -> (&str, Option<&str>) {
    let split = text.split_once("; hint: ").or_else(|| text.split_once("\nhint: "));
    split.map_or((text, None), |(message, hint)| (message, Some(hint)))
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::Io, error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::new(Exit::Io, io::Error::from(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_pipe_is_success_and_says_nothing() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        let mut talk = Vec::new();
        failure.tell(&mut talk).unwrap();
        assert_eq!((failure.exit(), talk.as_slice()), (Exit::Success, &b""[..]));
    }

    #[test]
    fn a_hint_inside_an_error_is_told_once_and_last() {
        let taken = io::Error::from(io::ErrorKind::AddrInUse);
        let error =
            anyhow::Error::new(taken).context("cannot listen on :80; hint: choose another port");
        let mut talk = Vec::new();
        Failure::refused(io::ErrorKind::AddrInUse, error).tell(&mut talk).unwrap();
        let talk = String::from_utf8(talk).unwrap();
        assert_eq!(
            talk,
            "oncehook: cannot listen on :80: address in use\nhint: choose another port\n"
        );
    }

    #[test]
    fn a_failure_tells_its_causes_and_a_hint() {
        let taken = io::Error::from(io::ErrorKind::AddrInUse);
        let failure = Failure::listening("127.0.0.1:80", taken);
        let mut talk = Vec::new();
        failure.tell(&mut talk).unwrap();
        let talk = String::from_utf8(talk).unwrap();
        assert_eq!(failure.exit().code(), 69);
        assert!(talk.starts_with("oncehook: cannot listen at 127.0.0.1:80: "), "{talk}");
        assert!(talk.contains("\nhint: another process listens there"), "{talk}");
    }
}
