//! The tables of the file within one transaction: what an operation reads and writes, and what makes room for it.
//!
//! The same policy as in [`memory`](crate::store::memory): expired records go in order of their deadlines; when it is
//! full, settled ones go first, then released ones, the oldest deadline first; leased ones never.

use redb::{ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction};

use super::coding::{self, Place, Rank, Slot};
use crate::claim::record::{self, Operation, Record, Reply, StoreTime};
use crate::claim::{Key, Owner};
use crate::store::{StoreError, remembered};

/// The records by key.
const RECORDS: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("records");
/// The keys of `records` in the order of forgetting.
const ORDER: TableDefinition<'_, &[u8; 25], ()> = TableDefinition::new("order");
/// What is known of the file: its format, and the latest time at which it was written.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// In `META`: how the tables are to be read.
pub(super) const FORMAT_KEY: &str = "format";
/// In `META`: the latest time of the store's clock that anybody has seen.
pub(super) const TIME_KEY: &str = "time";
/// What this version writes and reads.
pub(super) const FORMAT: u64 = 1;

/// How many records one insertion removes at most to make room. More than one, so that a file that was allowed to be
/// larger shrinks to its new bound.
const EVICTIONS_MAX: usize = 8;

/// The tables in a transaction that writes.
pub(super) struct Ledger<'txn> {
    records: Table<'txn, &'static [u8; 16], &'static [u8]>,
    order: Table<'txn, &'static [u8; 25], ()>,
    meta: Table<'txn, &'static str, u64>,
    records_max: u64,
    now: StoreTime,
    changes: u64,
    evicted: u64,
}

impl<'txn> Ledger<'txn> {
    /// Opens the tables, and makes those that are not there.
    pub(super) fn open(
        transaction: &'txn WriteTransaction,
        records_max: u64,
        now: StoreTime,
    ) -> Result<Self, redb::Error> {
        Ok(Self {
            records: transaction.open_table(RECORDS)?,
            order: transaction.open_table(ORDER)?,
            meta: transaction.open_table(META)?,
            records_max,
            now,
            changes: 0,
            evicted: 0,
        })
    }

    /// Performs `operation` of `owner` on the record of `key`. The inner error concerns this operation alone, which
    /// then changed nothing; the outer one the file.
    pub(super) fn execute(
        &mut self,
        key: Key,
        owner: Owner,
        operation: &Operation,
    ) -> Result<Result<Reply, StoreError>, redb::Error> {
        let old = match self.slot(key)? {
            Ok(old) => old,
            Err(foreign) => return Ok(Err(foreign)),
        };
        let before = old.map_or(Record::Vacant, |old| self.living(&old));
        let mut after = before;
        let reply = record::apply(&mut after, owner, operation, self.now);
        if after == before && !operation.always_writes() {
            return Ok(Ok(reply));
        }
        if old.is_none() && self.records.len()? >= self.records_max && !self.make_room()? {
            return Ok(Err(StoreError::Full));
        }
        let deadline = self.now.plus(remembered(operation));
        self.put(key, old, &Slot { record: after, deadline })?;
        Ok(Ok(reply))
    }

    /// What is held for `key`.
    pub(super) fn record(&self, key: Key) -> Result<Result<Record, StoreError>, redb::Error> {
        Ok(self.slot(key)?.map(|slot| slot.map_or(Record::Vacant, |slot| self.living(&slot))))
    }

    /// Forgets at most `removals_max` records past their deadline, the oldest of each rank first.
    pub(super) fn sweep(&mut self, removals_max: usize) -> Result<(), redb::Error> {
        let mut left = removals_max;
        for rank in Rank::ALL {
            while left > 0
                && let Some((deadline, place)) = self.first(rank)?
                && deadline <= self.now
            {
                self.forget(&place)?;
                left -= 1;
            }
        }
        Ok(())
    }

    /// Notes the time, so that the store's clock never goes back, and says how many records there are.
    pub(super) fn finish(mut self) -> Result<Totals, redb::Error> {
        if self.changes > 0 {
            self.meta.insert(TIME_KEY, self.now.0)?;
        }
        Ok(Totals {
            records: self.records.len()?,
            evicted: self.evicted,
            changed: self.changes > 0,
        })
    }

    fn slot(&self, key: Key) -> Result<Result<Option<Slot>, StoreError>, redb::Error> {
        let Some(bytes) = self.records.get(&key.0)? else { return Ok(Ok(None)) };
        let slot = coding::decode(bytes.value());
        Ok(slot.map(Some).ok_or_else(|| StoreError::Foreign(format!("of the key {key}"))))
    }

    fn living(&self, slot: &Slot) -> Record {
        if self.now < slot.deadline { slot.record } else { Record::Vacant }
    }

    fn put(&mut self, key: Key, old: Option<Slot>, new: &Slot) -> Result<(), redb::Error> {
        if let Some(old) = old
            && let Some(rank) = Rank::of(&old.record)
        {
            self.order.remove(&coding::place(rank, old.deadline, key))?;
        }
        if let Some(rank) = Rank::of(&new.record) {
            self.records.insert(&key.0, coding::encode(new).as_slice())?;
            self.order.insert(&coding::place(rank, new.deadline, key), ())?;
        }
        self.changes += 1;
        Ok(())
    }

    /// Whether there is room now.
    fn make_room(&mut self) -> Result<bool, redb::Error> {
        let mut removed = false;
        for _ in 0..EVICTIONS_MAX {
            let Some((deadline, place)) = self.least()? else { break };
            self.forget(&place)?;
            self.evicted += u64::from(self.now < deadline);
            removed = true;
            if self.records.len()? < self.records_max {
                break;
            }
        }
        Ok(removed)
    }

    /// What goes next when there is no room.
    fn least(&self) -> Result<Option<(StoreTime, Place)>, redb::Error> {
        for rank in Rank::ALL {
            let first = self.first(rank)?;
            let may_go = match rank {
                Rank::Settled | Rank::Released => true,
                Rank::Leased => first.is_some_and(|(deadline, _)| deadline <= self.now),
            };
            if first.is_some() && may_go {
                return Ok(first);
            }
        }
        Ok(None)
    }

    fn first(&self, rank: Rank) -> Result<Option<(StoreTime, Place)>, redb::Error> {
        let (first, last) = coding::places(rank);
        let Some(entry) = self.order.range::<&Place>(&first..=&last)?.next() else {
            return Ok(None);
        };
        let place = *entry?.0.value();
        Ok(Some((coding::deadline_and_key(&place).0, place)))
    }

    fn forget(&mut self, place: &Place) -> Result<(), redb::Error> {
        let (_, key) = coding::deadline_and_key(place);
        self.order.remove(place)?;
        self.records.remove(&key.0)?;
        self.changes += 1;
        Ok(())
    }
}

/// What a transaction leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    /// How many records there are, those past their deadline but not yet removed included.
    pub(super) records: u64,
    /// How many records were forgotten before their deadline, to make room.
    pub(super) evicted: u64,
    /// Whether there is anything to commit.
    pub(super) changed: bool,
}
