//! A Redis that answers anything: nothing panics or waits for ever, what is taken for a reply is what one of its answers
//! says, and a password that is sent back gets into no error.
//!
//! The first byte chooses the operation and whether it is asked of the script alone, whether to log in, and in what pieces
//! the rest, the answers, comes.
//!
//! The answers are read once more, from the first byte on, see [`values`]. It is as strict as the gateway's library (redis
//! 1.8 over combine 4.6), but for this: a byte that begins no value is skipped by the library if it is the last one of a
//! read (combine's `parse_committed` adds "end of input" to the error, and so makes it one that waits for more), and ends
//! the connection if more is there. No Redis sends such a byte, and what is read behind it is whole values still, none of
//! them in another's place. Where reads end cannot be told from here, so [`values`] skips all such bytes. Which of the
//! answers is a command's is not told either: one that comes before the command is dropped.

#![no_main]

use std::error::Error;
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::{Corpus, fuzz_target};
use oncehook::claim::record::{Ending, Operation, Reply};
use oncehook::claim::{Digest, Owner, Verdict};
use oncehook::store::StoreError;
use oncehook::store::redis::Credentials;
use oncehook::store::redis::fuzzing::perform;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

const PASSWORD: &str = "hunter2hunter2hunter2";
const OWNER: Owner = Owner(7);
const LONG: Duration = Duration::from_secs(10);

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((&choice, answers)) = data.split_first() else { return Corpus::Reject };
    let logs_in = choice & 4 != 0;
    let result = RUNTIME.block_on(ask(choice, logs_in, answers));
    match result {
        Ok(reply) => assert!(
            values(answers).iter().any(|value| says(choice & 3, value, reply)),
            "{reply:?} is none of {:?}",
            values(answers)
        ),
        Err(error) => {
            let logged_in = answers.windows(2).any(|pair| pair == b"OK");
            let told = [format!("{error:?}"), error.to_string(), sources(&error)];
            assert!(
                logged_in || !logs_in || !told.iter().any(|text| text.contains(PASSWORD)),
                "the password is told: {told:?}"
            );
        }
    }
    Corpus::Keep
});

async fn ask(choice: u8, logs_in: bool, answers: &[u8]) -> Result<Reply, StoreError> {
    let minute = Duration::from_secs(60);
    let operation = match choice & 3 {
        0 | 1 => Operation::Claim { lease: minute, window: minute },
        2 => Operation::Settle {
            verdict: Verdict::Delivered(200),
            digest: Digest(7),
            window: minute,
        },
        _ => Operation::Release { ending: Ending::Failed, pause: minute, window: minute },
    };
    let credentials = logs_in.then(|| Credentials { username: None, password: PASSWORD.into() });
    let (ours, peer) = duplex(1024);
    let (mut from, mut to) = tokio::io::split(peer);
    let pieces = 1 + usize::from(choice >> 4) * 5;
    let answering = async {
        let mut asked = [0; 4096];
        for piece in answers.chunks(if choice & 8 == 0 { answers.len().max(1) } else { pieces }) {
            // After a command, or before there was any.
            if choice & 8 != 0 {
                tokio::select! {
                    biased;
                    _ = from.read(&mut asked) => {}
                    () = turns() => {}
                }
            }
            if to.write_all(piece).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
        while from.read(&mut asked).await.is_ok_and(|bytes| bytes > 0) {}
    };
    let asking = perform(ours, credentials, (OWNER, &operation), choice & 3 == 0);
    let both = async { tokio::join!(asking, answering).0 };
    timeout(LONG, both).await.expect("nobody waits for a peer that has closed")
}

/// Lets the other side have its turns: it asks within a few, or not at all.
async fn turns() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

fn sources(error: &dyn Error) -> String {
    let mut all = String::new();
    let mut source = error.source();
    while let Some(cause) = source {
        all.push_str(&format!("{cause} {cause:?} "));
        source = cause.source();
    }
    all
}

/// Whether `value`, an answer, says `reply`: in the words of the scripts, or as the old value that a claim (1) or a settle
/// (2) finds which is not asked of the script alone.
fn says(operation: u8, value: &Value, reply: Reply) -> bool {
    match value {
        Value::Array(items) => of_script(items) == Some(reply),
        Value::Nil => match operation {
            1 => reply == (Reply::Won { attempt: 1, possible_duplicate: false }),
            2 => reply == Reply::Fenced,
            _ => false,
        },
        Value::Bytes(record) => match operation {
            1 => settled(record) == Some(reply),
            2 => of_settle(record) == reply,
            _ => false,
        },
        Value::Number(_) | Value::Other => false,
    }
}

fn of_script(items: &[Value]) -> Option<Reply> {
    let (Value::Bytes(word), rest) = items.split_first()? else { return None };
    match (word.as_slice(), rest) {
        (b"won", [Value::Number(attempt), Value::Number(lapses)]) => {
            let (attempt, lapses) = (u32::try_from(*attempt).ok()?, u32::try_from(*lapses).ok()?);
            let possible = attempt > 0 && lapses <= attempt;
            possible.then_some(Reply::Won { attempt, possible_duplicate: lapses > 0 })
        }
        (b"busy", [Value::Number(left)]) => {
            Some(Reply::Busy { remaining: Duration::from_millis(u64::try_from(*left).ok()?) })
        }
        (b"duplicate", [Value::Bytes(verdict), Value::Bytes(digest)]) => {
            settled(&[verdict.as_slice(), digest].concat()).filter(|_| verdict.len() == 4)
        }
        (b"done", []) => Some(Reply::Done),
        (b"already_settled", []) => Some(Reply::AlreadySettled),
        (b"fenced", []) => Some(Reply::Fenced),
        _ => None,
    }
}

/// What a settle is told that finds `record`.
fn of_settle(record: &[u8]) -> Reply {
    let owner = format!("{:032x}:", OWNER.0);
    let is_own = |kind: &str| record.starts_with(format!("{kind}{owner}").as_bytes());
    match settled(record) {
        Some(_) => Reply::AlreadySettled,
        None if is_own("1F") || is_own("1L") => Reply::Done,
        None => Reply::Fenced,
    }
}

/// What a settled record says: a letter, a status of its kind, eight bytes.
fn settled(record: &[u8]) -> Option<Reply> {
    let (verdict, digest) = record.split_first_chunk::<4>()?;
    let digest = Digest(u64::from_be_bytes(digest.try_into().ok()?));
    let [letter, digits @ ..] = verdict;
    let plain = digits.iter().all(u8::is_ascii_digit);
    let status = plain.then(|| std::str::from_utf8(digits).ok()?.parse().ok())??;
    let verdict = match (letter, status) {
        (b'D', 200..=299) => Verdict::Delivered(status),
        (b'R', 400..=428 | 430..=499) => Verdict::Refused(status),
        (b'U', 0) => Verdict::Unknown,
        _ => return None,
    };
    Some(Reply::Duplicate { verdict, digest })
}

/// A value of RESP, as far as it may be a reply.
#[derive(Debug)]
enum Value {
    Nil,
    Number(i64),
    Bytes(Vec<u8>),
    Array(Vec<Value>),
    Other,
}

/// Deeper, and the library gives up.
const DEPTH_MAX: usize = 100;

/// The answers, up to the first that is not whole or makes no sense.
fn values(answers: &[u8]) -> Vec<Value> {
    let mut rest = answers;
    std::iter::from_fn(|| value(&mut rest, 0)).collect()
}

fn value(rest: &mut &[u8], depth: usize) -> Option<Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    let begin = rest.iter().position(|byte| b"+:$*%|~-_,#!=(>".contains(byte))?;
    let kind = rest[begin];
    *rest = &rest[begin + 1..];
    match kind {
        b':' => number(rest).map(Value::Number),
        b'$' => match usize::try_from(number(rest)?) {
            Err(_) => Some(Value::Nil),
            Ok(length) => bytes(rest, length).map(Value::Bytes),
        },
        b'*' | b'~' => match usize::try_from(number(rest)?) {
            Err(_) => Some(Value::Nil),
            Ok(length) => {
                let items = items(rest, length, depth)?;
                Some(if kind == b'*' { Value::Array(items) } else { Value::Other })
            }
        },
        b'>' => {
            let length = usize::try_from(number(rest)?).unwrap_or_default();
            items(rest, length, depth).map(|_| Value::Other)
        }
        b'%' | b'|' => {
            // Behind a number below zero the library reads another one, if the read ended there.
            let mut pairs = number(rest)?;
            while pairs < 0 {
                pairs = number(rest)?;
            }
            let pairs = usize::try_from(pairs).ok()?.checked_mul(2)?;
            let length = if kind == b'%' { pairs } else { pairs + 1 };
            items(rest, length, depth).map(|_| Value::Other)
        }
        b'!' | b'=' => {
            let length = usize::try_from(number(rest)?).ok()?;
            bytes(rest, length).map(|_| Value::Other)
        }
        b'_' => line(rest).map(|_| Value::Nil),
        _ => line(rest).map(|_| Value::Other),
    }
}

fn items(rest: &mut &[u8], length: usize, depth: usize) -> Option<Vec<Value>> {
    let mut items = Vec::new();
    for _ in 0..length {
        items.push(value(rest, depth + 1)?);
    }
    Some(items)
}

fn bytes(rest: &mut &[u8], length: usize) -> Option<Vec<u8>> {
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after.strip_prefix(b"\r\n")?;
    Some(bytes.to_vec())
}

/// A line that is a number; the library lets blanks stand beside it.
fn number(rest: &mut &[u8]) -> Option<i64> {
    line(rest)?.trim().parse().ok()
}

fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = std::str::from_utf8(&rest[..end]).ok()?;
    *rest = &rest[end + 2..];
    Some(line)
}
