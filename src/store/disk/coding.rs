//! How a record is written down in the file: fixed fields, big end first, so that a reader needs no parser.
//!
//! `deadline:8 state:1`, then for a lease `owner:16 attempts:4 lapses:4 until:8`, for a release
//! `attempts:4 lapses:4 not_before:8`, for a settled record `verdict:1 status:2 digest:8`.

use crate::claim::record::{Record, StoreTime};
use crate::claim::{Digest, Key, Owner, Verdict};

/// The most that a record takes: a lease.
const RECORD_BYTES_MAX: usize = 41;

const LEASED: u8 = b'L';
const RELEASED: u8 = b'R';
const SETTLED: u8 = b'S';

const DELIVERED: u8 = b'D';
const REFUSED: u8 = b'R';
const UNKNOWN: u8 = b'U';

/// A record, and when it is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Never vacant.
    pub(super) record: Record,
    /// When it is forgotten.
    pub(super) deadline: StoreTime,
}

/// Where a record stands in the order of forgetting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    Settled,
    Released,
    Leased,
}

impl Rank {
    /// In the order of forgetting.
    pub(super) const ALL: [Self; 3] = [Self::Settled, Self::Released, Self::Leased];

    /// `None` for a vacant record, which is not kept.
    pub(super) const fn of(record: &Record) -> Option<Self> {
        match record {
            Record::Vacant => None,
            Record::Settled { .. } => Some(Self::Settled),
            Record::Released { .. } => Some(Self::Released),
            Record::Leased { .. } => Some(Self::Leased),
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Self::Settled => 0,
            Self::Released => 1,
            Self::Leased => 2,
        }
    }
}

/// A key of the order of forgetting: rank, deadline, key.
pub(super) type Place = [u8; 25];

/// The place of `key`.
pub(super) fn place(rank: Rank, deadline: StoreTime, key: Key) -> Place {
    (u128::from_be_bytes(key.0), deadline.0, rank.byte()).to_place()
}

/// The first and the last place of `rank`.
pub(super) fn places(rank: Rank) -> (Place, Place) {
    let byte = rank.byte();
    ((0, 0, byte).to_place(), (u128::MAX, u64::MAX, byte).to_place())
}

/// The deadline and the key of a place.
pub(super) fn deadline_and_key(place: &Place) -> (StoreTime, Key) {
    let [_, rest @ ..] = place;
    let (mut deadline, mut key) = ([0; 8], [0; 16]);
    let (front, back) = rest.split_at(8);
    deadline.copy_from_slice(front);
    key.copy_from_slice(back);
    (StoreTime(u64::from_be_bytes(deadline)), Key(key))
}

trait ToPlace {
    fn to_place(self) -> Place;
}

impl ToPlace for (u128, u64, u8) {
    fn to_place(self) -> Place {
        let (key, deadline, rank) = self;
        let mut place = [rank; 25];
        let (front, back) = place.split_at_mut(9);
        front.split_at_mut(1).1.copy_from_slice(&deadline.to_be_bytes());
        back.copy_from_slice(&key.to_be_bytes());
        place
    }
}

/// Writes `slot` down; nothing for a vacant record.
pub(super) fn encode(slot: &Slot) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RECORD_BYTES_MAX);
    bytes.extend(slot.deadline.0.to_be_bytes());
    match slot.record {
        Record::Vacant => bytes.clear(),
        Record::Leased { owner, attempts, lapses, until } => {
            bytes.push(LEASED);
            bytes.extend(owner.0.to_be_bytes());
            bytes.extend(attempts.to_be_bytes());
            bytes.extend(lapses.to_be_bytes());
            bytes.extend(until.0.to_be_bytes());
        }
        Record::Released { attempts, lapses, not_before } => {
            bytes.push(RELEASED);
            bytes.extend(attempts.to_be_bytes());
            bytes.extend(lapses.to_be_bytes());
            bytes.extend(not_before.0.to_be_bytes());
        }
        Record::Settled { verdict, digest } => {
            bytes.push(SETTLED);
            let (letter, status) = match verdict {
                Verdict::Delivered(status) => (DELIVERED, status),
                Verdict::Refused(status) => (REFUSED, status),
                Verdict::Unknown => (UNKNOWN, 0),
            };
            bytes.push(letter);
            bytes.extend(status.to_be_bytes());
            bytes.extend(digest.0.to_be_bytes());
        }
    }
    bytes
}

/// Reads what [`encode`] wrote; `None` for anything else, also for counts that no record can have.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Slot> {
    let bytes = &mut bytes;
    let deadline = StoreTime(u64::from_be_bytes(take(bytes)?));
    let [state] = take(bytes)?;
    let record = match state {
        LEASED => {
            let owner = Owner(u128::from_be_bytes(take(bytes)?));
            let (attempts, lapses) = counts(bytes)?;
            // The attempt that holds the lease has not lapsed yet; only where both have stopped counting may they meet.
            if lapses == attempts && attempts != u32::MAX {
                return None;
            }
            Record::Leased { owner, attempts, lapses, until: time(bytes)? }
        }
        RELEASED => {
            let (attempts, lapses) = counts(bytes)?;
            Record::Released { attempts, lapses, not_before: time(bytes)? }
        }
        SETTLED => {
            let [letter] = take(bytes)?;
            let status = u16::from_be_bytes(take(bytes)?);
            let verdict = match (letter, status) {
                (DELIVERED, _) => Verdict::Delivered(status),
                (REFUSED, _) => Verdict::Refused(status),
                (UNKNOWN, 0) => Verdict::Unknown,
                _ => return None,
            };
            let verdict = verdict.checked()?;
            Record::Settled { verdict, digest: Digest(u64::from_be_bytes(take(bytes)?)) }
        }
        _ => return None,
    };
    bytes.is_empty().then_some(Slot { record, deadline })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

fn time(bytes: &mut &[u8]) -> Option<StoreTime> {
    Some(StoreTime(u64::from_be_bytes(take(bytes)?)))
}

/// `apply` panics over counts that cannot be; what comes from a file must never get there.
fn counts(bytes: &mut &[u8]) -> Option<(u32, u32)> {
    let attempts = u32::from_be_bytes(take(bytes)?);
    let lapses = u32::from_be_bytes(take(bytes)?);
    (attempts > 0 && lapses <= attempts).then_some((attempts, lapses))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots() -> Vec<Slot> {
        let deadline = StoreTime(u64::MAX / 3);
        let verdicts = [Verdict::Delivered(204), Verdict::Refused(422), Verdict::Unknown];
        let settled = verdicts
            .map(|verdict| Record::Settled { verdict, digest: Digest(0x0123_4567_89ab_cdef) });
        let others = [
            Record::Leased {
                owner: Owner(u128::MAX / 3),
                attempts: 3,
                lapses: 2,
                until: StoreTime(7),
            },
            Record::Released { attempts: 2, lapses: 0, not_before: StoreTime(9) },
        ];
        settled.into_iter().chain(others).map(|record| Slot { record, deadline }).collect()
    }

    #[test]
    fn what_is_written_is_read_again_and_nothing_shorter_or_longer_is() {
        for slot in slots() {
            let bytes = encode(&slot);
            assert!(bytes.len() <= RECORD_BYTES_MAX);
            assert_eq!(decode(&bytes), Some(slot));
            assert!((0..bytes.len()).all(|length| decode(&bytes[..length]).is_none()));
            assert_eq!(decode(&[bytes, vec![0]].concat()), None);
        }
    }

    #[test]
    fn counts_that_cannot_be_are_not_read() {
        let lease = |attempts, lapses| {
            let record = Record::Leased { owner: Owner(1), attempts, lapses, until: StoreTime(1) };
            encode(&Slot { record, deadline: StoreTime(1) })
        };
        assert_eq!(decode(&lease(0, 0)), None);
        assert_eq!(decode(&lease(1, 2)), None);
        assert_eq!(decode(&lease(2, 2)), None, "the third lapse would be one too many");
        assert!(decode(&lease(u32::MAX, u32::MAX)).is_some(), "what counts no further");
    }

    #[test]
    fn a_status_without_an_answer_is_not_read() {
        let record = Record::Settled { verdict: Verdict::Unknown, digest: Digest(1) };
        let mut bytes = encode(&Slot { record, deadline: StoreTime(1) });
        bytes[11] = 1;
        assert_eq!(decode(&bytes), None);
    }

    #[test]
    fn places_are_in_order_of_rank_then_deadline() {
        let at = |rank, deadline| place(rank, StoreTime(deadline), Key([0xff; 16]));
        let in_order = [
            at(Rank::Settled, 1),
            at(Rank::Settled, 256),
            at(Rank::Released, 0),
            at(Rank::Leased, 0),
        ];
        assert!(in_order.is_sorted());
        for (rank, place) in [(Rank::Settled, in_order[1]), (Rank::Leased, in_order[3])] {
            let (first, last) = places(rank);
            assert!(first <= place && place <= last);
        }
        assert_eq!(deadline_and_key(&in_order[1]), (StoreTime(256), Key([0xff; 16])));
    }
}
