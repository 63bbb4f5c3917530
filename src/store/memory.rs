//! Records in this process's memory: bounded in bytes, forgotten in order of their deadlines.
//!
//! When it is full, settled records go first, then released ones, the oldest deadline first; leased ones never, for a
//! claim in force must not be granted again. No admission policy: what a cache takes for a one-hit wonder is exactly
//! the newest event, whose copies are on their way.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;

use super::{StoreError, millis, remembered};
use crate::claim::record::{self, Operation, Record, Reply, StoreTime};
use crate::claim::{Digest, Key, Owner, Verdict};
use crate::clock::Monotonic;

/// What one record is counted as, in bytes.
///
/// The worst case of what the collections allocate for it: a slot of the hash table (81 bytes) when the table has just
/// doubled and is 7/16 full, and an entry in the order of deadlines (24 bytes) in nodes that are little more than half
/// full, because deadlines come in order. Measured then: 239 bytes; 161 when the table is fuller.
pub const RECORD_BYTES: usize = 256;

/// Locks are held for a microsecond; a few shards are enough to keep cores from meeting.
const SHARDS_MAX: usize = 16;

/// Below this many records a shard's share would be at the mercy of how evenly the keys fall.
const SHARD_RECORDS_MIN: usize = 1024;

/// How many records past their deadline one operation removes at most. More than one, so that removal outruns
/// insertion; few, so that no operation pays for all.
const SWEEP_MAX: usize = 8;

/// What a memory store is held to.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The bytes that its records may take; room for at least one record a shard is always given.
    pub bytes_max: usize,
}

/// How full a memory store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many records it holds, those past their deadline but not yet removed included.
    pub records: usize,
    /// What they are counted as.
    pub bytes: usize,
    /// How many records were forgotten before their deadline, to make room.
    pub evicted: u64,
}

/// A bounded store of one process.
pub struct Memory {
    shards: Box<[Mutex<Shard>]>,
}

impl Memory {
    /// Empty.
    pub fn new(options: Options) -> Self {
        let records_max = options.bytes_max / RECORD_BYTES;
        let count = (records_max / SHARD_RECORDS_MIN).clamp(1, SHARDS_MAX);
        let shard_records_max = (records_max / count).max(1);
        Self { shards: (0..count).map(|_| Mutex::new(Shard::new(shard_records_max))).collect() }
    }

    /// Performs `operation` of `owner` on the record of `key`; fails only when full, and then changes nothing.
    pub fn execute(
        &self,
        key: Key,
        owner: Owner,
        operation: Operation,
        now: Monotonic,
    ) -> Result<Reply, StoreError> {
        self.shard(key).execute(key, owner, &operation, store_time(now))
    }

    /// What is known of `key`, if it is settled.
    pub fn settled(&self, key: Key, now: Monotonic) -> Option<(Verdict, Digest)> {
        match self.record(key, now) {
            Record::Settled { verdict, digest } => Some((verdict, digest)),
            Record::Vacant | Record::Leased { .. } | Record::Released { .. } => None,
        }
    }

    /// Notes that `key` is settled, as another store said. If there is no room, that is forgotten at once, and counted
    /// as evicted: the other store still knows.
    #[expect(clippy::too_many_arguments, reason = "the parts of a settled record, and the time")]
    pub fn remember(
        &self,
        key: Key,
        verdict: Verdict,
        digest: Digest,
        window: Duration,
        now: Monotonic,
    ) {
        let operation = Operation::Settle { verdict, digest, window };
        let mut shard = self.shard(key);
        if shard.execute(key, Owner(0), &operation, store_time(now)).is_err() {
            shard.evicted += 1;
        }
    }

    /// What is held for `key`.
    pub fn record(&self, key: Key, now: Monotonic) -> Record {
        self.shard(key).record(key, store_time(now))
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        self.shards.iter().fold(Usage::default(), |usage, shard| {
            let shard = lock(shard);
            Usage {
                records: usage.records + shard.slots.len(),
                bytes: usage.bytes + shard.slots.len() * RECORD_BYTES,
                evicted: usage.evicted + shard.evicted,
            }
        })
    }

    /// Keys are digests: any bits of them are evenly spread. The hash table's seeded hash is independent of these.
    #[expect(clippy::indexing_slicing, reason = "a remainder of the length, which is at least 1")]
    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        let [.., last] = key.0;
        lock(&self.shards[usize::from(last) % self.shards.len()])
    }
}

/// A shard is consistent between any two statements that could panic, so a poisoned one is as good as any.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn store_time(now: Monotonic) -> StoreTime {
    StoreTime(millis(now.since_origin()))
}

/// Where a record stands in the order of forgetting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    Settled,
    Released,
    Leased,
}

#[derive(Clone, Copy)]
struct Slot {
    record: Record,
    /// When it is forgotten.
    deadline: StoreTime,
}

struct Shard {
    records_max: usize,
    slots: HashMap<Key, Slot, RandomState>,
    /// The keys of `slots` by rank, each in order of deadline.
    settled: BTreeSet<(StoreTime, Key)>,
    released: BTreeSet<(StoreTime, Key)>,
    leased: BTreeSet<(StoreTime, Key)>,
    evicted: u64,
}

impl Shard {
    fn new(records_max: usize) -> Self {
        Self {
            records_max,
            slots: HashMap::default(),
            settled: BTreeSet::new(),
            released: BTreeSet::new(),
            leased: BTreeSet::new(),
            evicted: 0,
        }
    }

    fn execute(
        &mut self,
        key: Key,
        owner: Owner,
        operation: &Operation,
        now: StoreTime,
    ) -> Result<Reply, StoreError> {
        self.sweep(now);
        let before = self.record(key, now);
        let mut after = before;
        let reply = record::apply(&mut after, owner, operation, now);
        if after != before || operation.always_writes() {
            let deadline = now.plus(remembered(operation));
            self.put(key, Slot { record: after, deadline }, now)?;
        }
        Ok(reply)
    }

    fn record(&self, key: Key, now: StoreTime) -> Record {
        self.slots
            .get(&key)
            .filter(|slot| now < slot.deadline)
            .map_or(Record::Vacant, |slot| slot.record)
    }

    fn put(&mut self, key: Key, slot: Slot, now: StoreTime) -> Result<(), StoreError> {
        if self.slots.len() >= self.records_max && !self.slots.contains_key(&key) {
            self.make_room(now)?;
        }
        if let Some(old) = self.slots.insert(key, slot)
            && let Some(rank) = rank(&old.record)
        {
            self.order(rank).remove(&(old.deadline, key));
        }
        if let Some(rank) = rank(&slot.record) {
            self.order(rank).insert((slot.deadline, key));
        }
        Ok(())
    }

    fn make_room(&mut self, now: StoreTime) -> Result<(), StoreError> {
        if let Some((deadline, key)) =
            self.settled.pop_first().or_else(|| self.released.pop_first())
        {
            self.slots.remove(&key);
            self.evicted += u64::from(now < deadline);
            return Ok(());
        }
        if self.forget_first_expired(Rank::Leased, now) { Ok(()) } else { Err(StoreError::Full) }
    }

    fn sweep(&mut self, now: StoreTime) {
        for rank in [Rank::Settled, Rank::Released, Rank::Leased] {
            (0..SWEEP_MAX).take_while(|_| self.forget_first_expired(rank, now)).for_each(drop);
        }
    }

    fn forget_first_expired(&mut self, rank: Rank, now: StoreTime) -> bool {
        let order = self.order(rank);
        if order.first().is_none_or(|(deadline, _)| now < *deadline) {
            return false;
        }
        let Some((_, key)) = order.pop_first() else { return false };
        self.slots.remove(&key);
        true
    }

    const fn order(&mut self, rank: Rank) -> &mut BTreeSet<(StoreTime, Key)> {
        match rank {
            Rank::Settled => &mut self.settled,
            Rank::Released => &mut self.released,
            Rank::Leased => &mut self.leased,
        }
    }
}

/// `None` for a vacant record, which is not kept.
const fn rank(record: &Record) -> Option<Rank> {
    match record {
        Record::Vacant => None,
        Record::Settled { .. } => Some(Rank::Settled),
        Record::Released { .. } => Some(Rank::Released),
        Record::Leased { .. } => Some(Rank::Leased),
    }
}
