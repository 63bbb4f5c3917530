//! Operations as calls of the three scripts, and what the scripts say as replies.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Script, ServerErrorKind, Value};

use crate::claim::record::{Ending, Operation, Reply};
use crate::claim::{Digest, Owner, Verdict};
use crate::store::{StoreError, millis, remembered};

/// The longest expiry that is asked for, ten years: beyond it Redis refuses the number.
const EXPIRY_MS_MAX: u64 = 10 * 366 * 24 * 60 * 60 * 1000;

/// The scripts and their digests.
pub(super) struct Scripts {
    claim: Prepared,
    settle: Prepared,
    release: Prepared,
}

struct Prepared {
    code: &'static str,
    digest: String,
}

impl Prepared {
    fn new(code: &'static str) -> Self {
        Self { code, digest: Script::new(code).get_hash().to_owned() }
    }
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            claim: Prepared::new(concat!(include_str!("record.lua"), include_str!("claim.lua"))),
            settle: Prepared::new(concat!(include_str!("record.lua"), include_str!("settle.lua"))),
            release: Prepared::new(concat!(
                include_str!("record.lua"),
                include_str!("release.lua")
            )),
        }
    }

    fn of(&self, operation: &Operation) -> &Prepared {
        match operation {
            Operation::Claim { .. } => &self.claim,
            Operation::Settle { .. } => &self.settle,
            Operation::Release { .. } => &self.release,
        }
    }
}

/// One operation on one record.
pub(super) struct Call<'a> {
    pub(super) scripts: &'a Scripts,
    /// Of the record, as Redis has it.
    pub(super) name: &'a str,
    pub(super) owner: Owner,
    pub(super) operation: &'a Operation,
}

/// Whether a node of a Cluster is to serve a slot that is still on its way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    No,
    Yes,
}

/// What a server answers.
pub(super) enum Answer {
    /// What the script says.
    Value(Value),
    /// That another one serves the slot: `host:port`.
    Moved(String),
    /// That another one has the record, or will have it: `host:port`.
    Ask(String),
}

impl Call<'_> {
    /// Runs the script of the operation. The server keeps scripts until it restarts; only then is the code sent again,
    /// by an EVAL that runs it in the same step.
    pub(super) async fn run(
        &self,
        connection: &mut MultiplexedConnection,
        asking: Asking,
    ) -> RedisResult<Answer> {
        let script = self.scripts.of(self.operation);
        let mut answer = send(connection, self.command("EVALSHA", &script.digest), asking).await;
        if answer.as_ref().is_err_and(|error| is(error, ServerErrorKind::NoScript)) {
            answer = send(connection, self.command("EVAL", script.code), asking).await;
        }
        let error = match answer {
            Ok(value) => return Ok(Answer::Value(value)),
            Err(error) => error,
        };
        match error.redirect_node().map(|(target, _)| target.to_owned()) {
            Some(target) if is(&error, ServerErrorKind::Moved) => Ok(Answer::Moved(target)),
            Some(target) => Ok(Answer::Ask(target)),
            None => Err(error),
        }
    }

    fn command(&self, command: &str, script: &str) -> Cmd {
        let mut call = redis::cmd(command);
        call.arg(script).arg(1).arg(self.name).arg(format!("{:032x}", self.owner.0));
        match *self.operation {
            Operation::Claim { lease, window: _ } => call.arg(millis(lease)),
            Operation::Settle { verdict, digest, window: _ } => {
                call.arg(write_verdict(verdict)).arg(digest.0.to_be_bytes().as_slice())
            }
            Operation::Release { ending, pause, window: _ } => {
                call.arg(write_ending(ending)).arg(millis(pause))
            }
        };
        call.arg(millis(remembered(self.operation)).clamp(1, EXPIRY_MS_MAX));
        call
    }
}

/// ASKING is for the very next command of the connection, which many share: the two are sent in one piece.
async fn send(
    connection: &mut MultiplexedConnection,
    command: Cmd,
    asking: Asking,
) -> RedisResult<Value> {
    if asking == Asking::No {
        return command.query_async(connection).await;
    }
    let mut both = Pipeline::with_capacity(2);
    both.cmd("ASKING").add_command(command);
    let answers = connection.send_packed_commands(&both, 0, both.len()).await?;
    let mut last = Value::Nil;
    for answer in answers {
        last = answer.extract_error()?;
    }
    Ok(last)
}

fn is(error: &RedisError, kind: ServerErrorKind) -> bool {
    error.kind() == ErrorKind::Server(kind)
}

/// Reads what a script says.
pub(super) fn reply(value: &Value) -> Result<Reply, StoreError> {
    parse(value).ok_or_else(|| StoreError::Unexpected(format!("{value:?} from a script")))
}

fn parse(value: &Value) -> Option<Reply> {
    let Value::Array(items) = value else { return None };
    match items.as_slice() {
        [word, Value::Int(attempt), Value::Int(lapses)] if says(word, "won") => {
            let (attempt, lapses) = (u32::try_from(*attempt).ok()?, u32::try_from(*lapses).ok()?);
            // Whoever counts otherwise is none of our scripts.
            let possible = attempt > 0 && lapses <= attempt;
            possible.then_some(Reply::Won { attempt, possible_duplicate: lapses > 0 })
        }
        [word, Value::Int(remaining)] if says(word, "busy") => {
            Some(Reply::Busy { remaining: Duration::from_millis(u64::try_from(*remaining).ok()?) })
        }
        [word, verdict, digest] if says(word, "duplicate") => Some(Reply::Duplicate {
            verdict: read_verdict(text(verdict)?)?,
            digest: read_digest(digest)?,
        }),
        [word] if says(word, "done") => Some(Reply::Done),
        [word] if says(word, "already_settled") => Some(Reply::AlreadySettled),
        [word] if says(word, "fenced") => Some(Reply::Fenced),
        _ => None,
    }
}

fn says(value: &Value, word: &str) -> bool {
    text(value) == Some(word)
}

fn text(value: &Value) -> Option<&str> {
    let Value::BulkString(bytes) = value else { return None };
    std::str::from_utf8(bytes).ok()
}

fn write_ending(ending: Ending) -> &'static str {
    match ending {
        Ending::Failed => "failed",
        Ending::Ambiguous => "ambiguous",
    }
}

fn read_digest(value: &Value) -> Option<Digest> {
    let Value::BulkString(bytes) = value else { return None };
    Some(Digest(u64::from_be_bytes(bytes.as_slice().try_into().ok()?)))
}

fn write_verdict(verdict: Verdict) -> String {
    match verdict {
        Verdict::Delivered(status) => format!("D{status:03}"),
        Verdict::Refused(status) => format!("R{status:03}"),
        Verdict::Unknown => "U000".to_owned(),
    }
}

fn read_verdict(text: &str) -> Option<Verdict> {
    let (letter, status) = text.split_at_checked(1)?;
    let plain = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
    let status = plain.then(|| status.parse().ok())??;
    let verdict = match (letter, status) {
        ("D", _) => Verdict::Delivered(status),
        ("R", _) => Verdict::Refused(status),
        ("U", 0) => Verdict::Unknown,
        _ => return None,
    };
    verdict.checked()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn counts_that_cannot_be_are_no_reply() {
        let won = |attempt, lapses| {
            parse(&Value::Array(vec![text("won"), Value::Int(attempt), Value::Int(lapses)]))
        };
        assert_eq!(won(2, 1), Some(Reply::Won { attempt: 2, possible_duplicate: true }));
        for (attempt, lapses) in [(0, 0), (1, 2), (1, -1), (-1, 0), (1 << 32, 0)] {
            assert_eq!(won(attempt, lapses), None, "{attempt} {lapses}");
        }
    }

    #[test]
    fn a_verdict_has_three_digits() {
        assert_eq!(read_verdict("D200"), Some(Verdict::Delivered(200)));
        assert_eq!(read_verdict("U000"), Some(Verdict::Unknown));
        for wrong in [
            "D20", "D+20", "D2000", "D65535", "U200", "X200", "200", "", "D", "D302", "R429",
            "R200",
        ] {
            assert_eq!(read_verdict(wrong), None, "{wrong}");
        }
    }
}
