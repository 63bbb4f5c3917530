//! Operations as calls of the three scripts, and what the scripts say as replies.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisResult, Script, ServerErrorKind, Value};

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

    /// Runs the script of `operation`. The server keeps scripts until it restarts; only then is the code sent again,
    /// by an EVAL that runs it in the same step.
    pub(super) async fn run(
        &self,
        connection: &mut MultiplexedConnection,
        name: &str,
        owner: Owner,
        operation: &Operation,
    ) -> RedisResult<Value> {
        let script = match operation {
            Operation::Claim { .. } => &self.claim,
            Operation::Settle { .. } => &self.settle,
            Operation::Release { .. } => &self.release,
        };
        match call("EVALSHA", &script.digest, name, owner, operation).query_async(connection).await
        {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                call("EVAL", script.code, name, owner, operation).query_async(connection).await
            }
            answer => answer,
        }
    }
}

fn call(command: &str, script: &str, name: &str, owner: Owner, operation: &Operation) -> Cmd {
    let mut call = redis::cmd(command);
    call.arg(script).arg(1).arg(name).arg(format!("{:032x}", owner.0));
    match *operation {
        Operation::Claim { lease, window: _ } => call.arg(millis(lease)),
        Operation::Settle { verdict, digest, window: _ } => {
            call.arg(write_verdict(verdict)).arg(write_digest(digest))
        }
        Operation::Release { ending, pause, window: _ } => {
            call.arg(write_ending(ending)).arg(millis(pause))
        }
    };
    call.arg(millis(remembered(operation)).clamp(1, EXPIRY_MS_MAX));
    call
}

/// Reads what a script says.
pub(super) fn reply(value: &Value) -> Result<Reply, StoreError> {
    parse(value).ok_or_else(|| StoreError::Unexpected(format!("{value:?} from a script")))
}

fn parse(value: &Value) -> Option<Reply> {
    let Value::Array(items) = value else { return None };
    match items.as_slice() {
        [word, Value::Int(attempt), Value::Int(lapses)] if is(word, "won") => Some(Reply::Won {
            attempt: u32::try_from(*attempt).ok()?,
            possible_duplicate: *lapses > 0,
        }),
        [word, Value::Int(remaining)] if is(word, "busy") => {
            Some(Reply::Busy { remaining: Duration::from_millis(u64::try_from(*remaining).ok()?) })
        }
        [word, verdict, digest] if is(word, "duplicate") => Some(Reply::Duplicate {
            verdict: read_verdict(text(verdict)?)?,
            digest: read_digest(text(digest)?)?,
        }),
        [word] if is(word, "done") => Some(Reply::Done),
        [word] if is(word, "already_settled") => Some(Reply::AlreadySettled),
        [word] if is(word, "fenced") => Some(Reply::Fenced),
        _ => None,
    }
}

fn is(value: &Value, word: &str) -> bool {
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

/// In base64url, which keeps the record within an allocation of 40 bytes: most of what Redis holds is settled records.
fn write_digest(digest: Digest) -> String {
    URL_SAFE_NO_PAD.encode(digest.0.to_be_bytes())
}

fn read_digest(text: &str) -> Option<Digest> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    Some(Digest(u64::from_be_bytes(bytes.try_into().ok()?)))
}

fn write_verdict(verdict: Verdict) -> String {
    match verdict {
        Verdict::Delivered(status) => format!("D{status}"),
        Verdict::Refused(status) => format!("R{status}"),
        Verdict::Unknown => "U0".to_owned(),
    }
}

fn read_verdict(text: &str) -> Option<Verdict> {
    let (letter, status) = text.split_at_checked(1)?;
    let status = status.parse().ok()?;
    match letter {
        "D" => Some(Verdict::Delivered(status)),
        "R" => Some(Verdict::Refused(status)),
        "U" => Some(Verdict::Unknown),
        _ => None,
    }
}
