//! A Redis that answers anything: nothing panics or waits for ever, what is taken for a reply stands there letter for
//! letter, and a password that is sent back gets into no error.
//!
//! The first byte chooses the operation and whether it is asked of the script alone, whether to log in, and in what pieces
//! the rest, the answers, comes.

#![no_main]

use std::error::Error;
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::{Corpus, fuzz_target};
use oncehook::claim::record::{Ending, Operation, Reply};
use oncehook::claim::{Digest, Owner, Verdict};
use oncehook::store::StoreError;
use oncehook::store::redis::Credentials;
use oncehook::store::redis::fuzzing::{perform, perform_by_script};
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
            stands_in(answers, reply) || is_old_value(choice & 3, answers, reply),
            "{reply:?} is nowhere in the answers"
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
    let asking = async {
        if choice & 3 == 0 {
            perform_by_script(ours, credentials, OWNER, &operation).await
        } else {
            perform(ours, credentials, OWNER, &operation).await
        }
    };
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

/// Whether a reply stands in the answers as the scripts write it, read without the gateway's library.
fn stands_in(answers: &[u8], reply: Reply) -> bool {
    (0..answers.len()).any(|at| read(&answers[at..]).is_some_and(|found| found == reply))
        || stands_among_garbage(answers, reply)
}

/// The library goes on within an array after bytes that are none of RESP, if nothing was asked when they came: at least
/// every part of the reply must be there, and come whole.
fn stands_among_garbage(answers: &[u8], reply: Reply) -> bool {
    let has = |bytes: &[u8]| answers.windows(bytes.len()).any(|part| part == bytes);
    let bulk =
        |text: &[u8]| has(&[format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat());
    let number = |number: u128| has(format!(":{number}\r\n").as_bytes());
    match reply {
        Reply::Won { attempt, .. } => bulk(b"won") && number(attempt.into()),
        Reply::Busy { remaining } => bulk(b"busy") && number(remaining.as_millis()),
        Reply::Duplicate { verdict, digest } => {
            let verdict = match verdict {
                Verdict::Delivered(status) => format!("D{status:03}"),
                Verdict::Refused(status) => format!("R{status:03}"),
                Verdict::Unknown => "U000".to_owned(),
            };
            let digest = digest.0.to_be_bytes();
            bulk(b"duplicate") && bulk(verdict.as_bytes()) && bulk(&digest)
        }
        Reply::Done => bulk(b"done"),
        Reply::AlreadySettled => bulk(b"already_settled"),
        Reply::Fenced => bulk(b"fenced"),
    }
}

/// Whether an old value, which is the answer to a claim and to a settle that are not asked of the script, says so: none, or
/// a string that is a settled record, a lease of the owner's, or anything else.
fn is_old_value(operation: u8, answers: &[u8], reply: Reply) -> bool {
    let has = |bytes: &[u8]| answers.windows(bytes.len()).any(|part| part == bytes);
    let is_none = has(b"$-") || has(b"*-") || has(b"_");
    let is_settled = |wanted: Option<Reply>| {
        answers.windows(19).any(|part| {
            let record = part.strip_prefix(b"$12\r\n").and_then(|rest| rest.strip_suffix(b"\r\n"));
            let read = record.and_then(|record| settled(&record[..4], &record[4..]));
            read.is_some() && (wanted.is_none() || read == wanted)
        })
    };
    let owner = format!("{:032x}:", OWNER.0);
    match (operation, reply) {
        (1, Reply::Won { attempt: 1, possible_duplicate: false }) => is_none,
        (1, Reply::Duplicate { .. }) => is_settled(Some(reply)),
        (2, Reply::Done) => has(format!("1F{owner}").as_bytes()) || has(format!("1L{owner}").as_bytes()),
        (2, Reply::AlreadySettled) => is_settled(None),
        (2, Reply::Fenced) => is_none || has(b"$"),
        _ => false,
    }
}

enum Item {
    Number(i64),
    Bytes(Vec<u8>),
}

fn read(bytes: &[u8]) -> Option<Reply> {
    let (count, mut rest) = line(bytes, b'*')?;
    let mut items = Vec::new();
    for _ in 0..usize::try_from(count).ok().filter(|count| *count <= 3)? {
        if let Some((number, after)) = line(rest, b':') {
            items.push(Item::Number(number));
            rest = after;
        } else {
            let (length, after) = line(rest, b'$')?;
            let (bytes, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
            items.push(Item::Bytes(bytes.to_vec()));
            rest = after.strip_prefix(b"\r\n")?;
        }
    }
    let word = match items.first()? {
        Item::Bytes(word) => word.as_slice(),
        Item::Number(_) => return None,
    };
    match (word, &items[1..]) {
        (b"won", [Item::Number(attempt), Item::Number(lapses)]) => {
            let (attempt, lapses) = (u32::try_from(*attempt).ok()?, u32::try_from(*lapses).ok()?);
            let possible = attempt > 0 && lapses <= attempt;
            possible.then_some(Reply::Won { attempt, possible_duplicate: lapses > 0 })
        }
        (b"busy", [Item::Number(left)]) => {
            Some(Reply::Busy { remaining: Duration::from_millis(u64::try_from(*left).ok()?) })
        }
        (b"duplicate", [Item::Bytes(verdict), Item::Bytes(digest)]) => {
            settled(verdict, digest)
        }
        (b"done", []) => Some(Reply::Done),
        (b"already_settled", []) => Some(Reply::AlreadySettled),
        (b"fenced", []) => Some(Reply::Fenced),
        _ => None,
    }
}

/// What the parts of a settled record say.
fn settled(verdict: &[u8], digest: &[u8]) -> Option<Reply> {
    let digest = Digest(u64::from_be_bytes(digest.try_into().ok()?));
    let (letter, digits) = verdict.split_first()?;
    let plain = digits.len() == 3 && digits.iter().all(u8::is_ascii_digit);
    let status = plain.then(|| std::str::from_utf8(digits).ok()?.parse().ok())??;
    let verdict = match letter {
        b'D' => Verdict::Delivered(status),
        b'R' => Verdict::Refused(status),
        b'U' if status == 0 => Verdict::Unknown,
        _ => return None,
    };
    Some(Reply::Duplicate { verdict, digest })
}

/// A line of a kind, which is a number, and what follows.
fn line(bytes: &[u8], kind: u8) -> Option<(i64, &[u8])> {
    let rest = bytes.strip_prefix(&[kind])?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    Some((std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?, &rest[end + 2..]))
}
