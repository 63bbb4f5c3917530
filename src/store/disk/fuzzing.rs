//! For `fuzz/`: records as the file has them.

use super::coding::{Slot, decode, encode};
use crate::claim::record::{Record, StoreTime};

/// What `bytes` of the file say.
pub fn read(bytes: &[u8]) -> Option<(Record, StoreTime)> {
    decode(bytes).map(|Slot { record, deadline }| (record, deadline))
}

/// How a record is written down.
pub fn write(record: Record, deadline: StoreTime) -> Vec<u8> {
    encode(&Slot { record, deadline })
}
