//! Records as the store's file has them: of any bytes either nothing is read, or a record that is written as it was read,
//! and to which every operation can be done.
//!
//! The first bytes of the input choose an operation, the rest is the record.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::{Corpus, fuzz_target};
use oncehook::claim::record::{Ending, Operation, Record, Reply, StoreTime, apply};
use oncehook::claim::{Digest, Owner, Verdict};
use oncehook::store::disk::fuzzing::{read, write};

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((choice, bytes)) = data.split_first_chunk::<34>() else { return Corpus::Reject };
    let [kind, ending, rest @ ..] = *choice;
    let [owner, times] = rest.as_chunks::<16>().0 else { return Corpus::Reject };
    let [now, span] = times.as_chunks::<8>().0 else { return Corpus::Reject };
    let (now, span) = (StoreTime(u64::from_be_bytes(*now)), u64::from_be_bytes(*span));
    let (owner, span) = (Owner(u128::from_be_bytes(*owner)), Duration::from_millis(span));

    let Some((record, deadline)) = read(bytes) else { return Corpus::Keep };
    assert_eq!(write(record, deadline), bytes, "{record:?} is not how it was written");
    let operation = match kind % 3 {
        0 => Operation::Claim { lease: span, window: span },
        1 => Operation::Settle {
            verdict: [Verdict::Delivered(200), Verdict::Refused(422), Verdict::Unknown]
                [usize::from(ending % 3)],
            digest: Digest(7),
            window: span,
        },
        _ => Operation::Release {
            ending: if ending % 2 == 0 { Ending::Failed } else { Ending::Ambiguous },
            pause: span,
            window: span,
        },
    };
    let mut after = record;
    let reply = apply(&mut after, owner, &operation, now);
    if let (Record::Settled { .. }, Reply::Won { .. }) = (record, reply) {
        panic!("what was settled is forwarded again");
    }
    let bytes = write(after, deadline);
    assert_eq!(read(&bytes), Some((after, deadline)), "{after:?} cannot be read again");
    Corpus::Keep
});
