//! Operations as calls of the three scripts, and what the scripts say as replies. What comes first, a single command where
//! one will do, is in `command`.

use std::pin::pin;
use std::time::Duration;

use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Script, ServerErrorKind, Value};

use super::command;
use super::link::Link;
use super::text;
use crate::claim::Owner;
use crate::claim::record::{Ending, Operation, Reply};
use crate::store::{StoreError, millis};

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
    pub(super) way: Way,
}

/// How an operation is performed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By a single command if one will do, else by the script.
    Cheapest,
    /// By the script, whatever the operation: to see whether the server runs it.
    Script,
}

/// Whether a node of a Cluster is to serve a slot that is still on its way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    No,
    Yes,
}

/// What a server answers.
pub(super) enum Answer {
    /// The reply, or that what it said is none.
    Reply(Result<Reply, StoreError>),
    /// That another one serves the slot: `host:port`.
    Moved(String),
    /// That another one has the record, or will have it: `host:port`.
    Ask(String),
}

impl Call<'_> {
    /// Performs the operation, or learns who else would.
    pub(super) async fn run(&self, link: &mut Link, asking: Asking) -> RedisResult<Answer> {
        let outcome = match self.way {
            Way::Cheapest => {
                let said = pin!(command::run(self, link, asking)).await;
                match said {
                    // In boxes, as all that is rare: what it takes would make every webhook's future so large.
                    Ok(None) => Box::pin(self.run_script(link, asking)).await,
                    Ok(Some(said)) => Ok(said),
                    Err(error) => Err(error),
                }
            }
            Way::Script => Box::pin(self.run_script(link, asking)).await,
        };
        let error = match outcome {
            Ok(said) => return Ok(Answer::Reply(said)),
            Err(error) => error,
        };
        match error.redirect_node().map(|(target, _)| target.to_owned()) {
            Some(target) if is(&error, ServerErrorKind::Moved) => Ok(Answer::Moved(target)),
            Some(target) => Ok(Answer::Ask(target)),
            None => Err(error),
        }
    }

    /// Runs the script of the operation. The server keeps scripts until it restarts; only then is the code sent again,
    /// by an EVAL that runs it in the same step.
    async fn run_script(
        &self,
        link: &mut Link,
        asking: Asking,
    ) -> RedisResult<Result<Reply, StoreError>> {
        let script = self.scripts.of(self.operation);
        let mut answer = send(link, self.command("EVALSHA", &script.digest), asking).await;
        if answer.as_ref().is_err_and(|error| is(error, ServerErrorKind::NoScript)) {
            answer = send(link, self.command("EVAL", script.code), asking).await;
        }
        answer.map(|value| reply(&value))
    }

    fn command(&self, command: &str, script: &str) -> Cmd {
        let mut call = redis::cmd(command);
        call.arg(script).arg(1).arg(self.name).arg(&text::owner(self.owner));
        match *self.operation {
            Operation::Claim { lease, window: _ } => call.arg(millis(lease)),
            Operation::Settle { verdict, digest, window: _ } => {
                call.arg(&text::verdict(verdict)).arg(&digest.0.to_be_bytes())
            }
            Operation::Release { ending, pause, window: _ } => {
                call.arg(write_ending(ending)).arg(millis(pause))
            }
        };
        call.arg(text::expiry_ms(self.operation));
        call
    }
}

/// ASKING is for the very next command of the connection, which many share: the two are sent in one piece.
pub(super) async fn send(link: &mut Link, command: Cmd, asking: Asking) -> RedisResult<Value> {
    if asking == Asking::No {
        // In a box as well: it is larger than all else that an exchange consists of.
        let said = Box::pin(link.connection().send_packed_command(&command)).await?;
        return said.extract_error();
    }
    Box::pin(send_asking(link, command)).await
}

async fn send_asking(link: &mut Link, command: Cmd) -> RedisResult<Value> {
    let connection = link.connection();
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
fn reply(value: &Value) -> Result<Reply, StoreError> {
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
            verdict: text::read_verdict(bytes(verdict)?)?,
            digest: text::read_digest(bytes(digest)?)?,
        }),
        [word] if says(word, "done") => Some(Reply::Done),
        [word] if says(word, "already_settled") => Some(Reply::AlreadySettled),
        [word] if says(word, "fenced") => Some(Reply::Fenced),
        _ => None,
    }
}

fn says(value: &Value, word: &str) -> bool {
    bytes(value) == Some(word.as_bytes())
}

fn bytes(value: &Value) -> Option<&[u8]> {
    let Value::BulkString(bytes) = value else { return None };
    Some(bytes)
}

fn write_ending(ending: Ending) -> &'static str {
    match ending {
        Ending::Failed => "failed",
        Ending::Ambiguous => "ambiguous",
    }
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
}
