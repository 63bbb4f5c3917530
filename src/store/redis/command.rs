//! The two operations of every fresh event as single commands, which cost the server a third of a script: a claim, which
//! mostly finds nothing, and the record of a delivery, which is written whatever was there. What was there comes back,
//! and says what `apply` would have; where it does not, the script is asked, and decides as if nothing had come first.
//!
//! A claim's `SET … NX GET` writes `1F…` (see `record.lua`): a first lease that says how long it is and how long the key's
//! expiry was, but no time. Leases are measured by the server's clock alone, which the gateway does not know; what is
//! left of the expiry, which is the server's affair, replicated and saved as a point in time, says what is left of the
//! lease.

use std::pin::pin;

use redis::{Cmd, RedisError, RedisResult, Value};

use super::link::Link;
use super::script::{Asking, Call, send};
use super::text;
use crate::claim::record::{Operation, Reply};
use crate::claim::{Digest, Owner, Verdict};
use crate::store::{StoreError, millis};

/// The length of a settled record: of no other.
const SETTLED_BYTES: usize = 12;
const VERDICT_BYTES: usize = 4;

/// Room for a first lease, and for the words and the number beside it and the name.
const FIRST_BYTES: usize = 64;
const OTHER_BYTES: usize = 24;

/// What a server says that may not write now. It may still read, and the script finds out whether there is anything to
/// write: a duplicate is told so by a server that is out of memory.
const MAY_NOT_WRITE: [&str; 4] = ["OOM", "READONLY", "MISCONF", "NOREPLICAS"];

/// Performs `call` by a single command; `None` if that takes the script.
pub(super) async fn run(
    call: &Call<'_>,
    link: &mut Link,
    asking: Asking,
) -> RedisResult<Option<Result<Reply, StoreError>>> {
    match *call.operation {
        Operation::Claim { .. } if link.lacks_set_nx_get() => Ok(None),
        Operation::Claim { lease, window: _ } => {
            let expiry = text::expiry_ms(call.operation);
            let set = claim(call, millis(lease).min(expiry), expiry);
            let old = pin!(send(link, set, asking)).await;
            match old {
                Ok(old) => Ok(claimed(&old)),
                Err(error) if is_syntax_error(&error) => {
                    link.note_lack_of_set_nx_get();
                    Ok(None)
                }
                Err(error) if may_not_write(&error) => Ok(None),
                Err(error) => Err(error),
            }
        }
        Operation::Settle { verdict, digest, window: _ } if call.operation.always_writes() => {
            let old = pin!(send(link, settle(call, verdict, digest), asking)).await?;
            Ok(Some(settled(&old, call.owner)))
        }
        Operation::Settle { .. } | Operation::Release { .. } => Ok(None),
    }
}

/// Asks for the key unless there is a record, and for that record.
fn claim(call: &Call<'_>, lease: u64, expiry: u64) -> Cmd {
    let mut record = Vec::with_capacity(FIRST_BYTES);
    record.extend_from_slice(b"1F");
    record.extend_from_slice(&text::owner(call.owner));
    for number in [lease, expiry] {
        record.push(b':');
        record.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }
    let mut set = Cmd::with_capacity(7, call.name.len() + FIRST_BYTES + OTHER_BYTES);
    set.arg("SET").arg(call.name).arg(&record).arg("NX").arg("GET").arg("PX").arg(expiry);
    set
}

/// Writes a settled record, and asks for what was there.
fn settle(call: &Call<'_>, verdict: Verdict, digest: Digest) -> Cmd {
    let mut record = [0; SETTLED_BYTES];
    let (of_verdict, of_digest) = record.split_at_mut(VERDICT_BYTES);
    of_verdict.copy_from_slice(&text::verdict(verdict));
    of_digest.copy_from_slice(&digest.0.to_be_bytes());
    let mut set = Cmd::with_capacity(6, call.name.len() + SETTLED_BYTES + OTHER_BYTES);
    set.arg("SET").arg(call.name).arg(&record).arg("PX").arg(text::expiry_ms(call.operation));
    set.arg("GET");
    set
}

fn may_not_write(error: &RedisError) -> bool {
    error.code().is_some_and(|code| MAY_NOT_WRITE.contains(&code))
}

/// Redis up to 6.2 knows NX and GET, but not together.
fn is_syntax_error(error: &RedisError) -> bool {
    error.code() == Some("ERR") && error.detail() == Some("syntax error")
}

/// What the old value means to a claim that was written if there was none.
fn claimed(old: &Value) -> Option<Result<Reply, StoreError>> {
    match record(old) {
        Ok(None) => Some(Ok(Reply::Won { attempt: 1, possible_duplicate: false })),
        // Leased, released, or not ours: that takes the server's clock, or its script's words.
        Ok(Some(record)) => duplicate(record).map(Ok),
        Err(error) => Some(Err(error)),
    }
}

/// What the old value means to a delivery that was written whatever it is.
///
/// A string that is no record of this version is lost: that the backend has the event is the fact that must not be.
/// "Fenced" is what happened: recorded, though the asker's lease was not there. An error would have the settle repeated,
/// and the repeat counted as a second delivery; the operator hears of such a key from every claim of it, which fails.
fn settled(old: &Value, owner: Owner) -> Result<Reply, StoreError> {
    Ok(match record(old)? {
        Some(record) if duplicate(record).is_some() => Reply::AlreadySettled,
        Some(record) if is_leased_by(owner, record) => Reply::Done,
        Some(_) | None => Reply::Fenced,
    })
}

/// The old value, if there was one.
fn record(old: &Value) -> Result<Option<&[u8]>, StoreError> {
    if let Value::BulkString(record) = old {
        return Ok(Some(record));
    }
    let is_nothing = *old == Value::Nil;
    is_nothing
        .then_some(None)
        .ok_or_else(|| StoreError::Unexpected(format!("{old:?} for an old value")))
}

fn duplicate(record: &[u8]) -> Option<Reply> {
    if record.len() != SETTLED_BYTES {
        return None;
    }
    let (verdict, digest) = record.split_at_checked(VERDICT_BYTES)?;
    let (verdict, digest) = (text::read_verdict(verdict)?, text::read_digest(digest)?);
    Some(Reply::Duplicate { verdict, digest })
}

fn is_leased_by(owner: Owner, record: &[u8]) -> bool {
    let of_lease = record.strip_prefix(b"1F").or_else(|| record.strip_prefix(b"1L"));
    let after = of_lease.and_then(|rest| rest.strip_prefix(&text::owner(owner)));
    after.is_some_and(|rest| rest.starts_with(b":"))
}
