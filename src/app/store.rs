//! The store beside the requests: asked at the start, looked at by the pages, let go of at the end.

use std::thread::JoinHandle;
use std::time::Duration;

use crate::admin::StoreHealth;
use crate::admin::readiness::{DiskUse, MemoryUse};
use crate::dispatch::Dispatch;
use crate::store::Store;
use crate::store::disk::{Usage, Writer};
use crate::store::memory::Memory;

use super::{StartError, watch};

/// How long the store may take to let go of its file.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Asks the store whether it can do its work.
pub(super) async fn check(store: &Store) -> Result<(), StartError> {
    match store.check().await {
        Ok(warnings) => {
            for warning in warnings {
                tracing::warn!(store = store.kind(), "{warning}");
            }
            Ok(())
        }
        Err(error) if error.is_misconfigured() => Err(error.into()),
        Err(error) => {
            tracing::warn!(
                store = store.kind(), error = %watch::chain(&error), hint = error.hint(),
                "the store cannot be asked yet; starting all the same"
            );
            Ok(())
        }
    }
}

/// The store's disk is waited for on a thread of its own.
pub(super) fn spawn(writer: Writer) -> Result<JoinHandle<()>, StartError> {
    let builder = std::thread::Builder::new().name("store".into());
    builder.spawn(move || writer.run()).map_err(StartError::StoreThread)
}

/// Lets go of the store's file, so that another process can open it, and need not repair it.
pub(super) async fn close(store: &Store, writer: Option<JoinHandle<()>>) {
    if tokio::time::timeout(CLOSE_GRACE, store.close()).await.is_err() {
        // The thread hangs with its disk, and ends with the process.
        tracing::warn!(store = store.kind(), "the store was not closed in order: its disk hangs");
        return;
    }
    let joined = tokio::task::spawn_blocking(move || writer.map_or(Ok(()), JoinHandle::join));
    if !matches!(joined.await, Ok(Ok(()))) {
        tracing::warn!("the store's thread ended badly");
    }
}

/// How the store is, and what the memory beside it (or the memory that it is) holds.
pub(super) fn health(dispatch: &Dispatch) -> StoreHealth {
    let stores = dispatch.stores();
    let usage = match &stores.shared {
        Store::Memory(memory) => memory.usage(),
        Store::Disk(_) | Store::Redis(_) => {
            stores.remembered.as_ref().map(Memory::usage).unwrap_or_default()
        }
    };
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let memory = MemoryUse {
        records: count(usage.records),
        bytes: count(usage.bytes),
        evicted: usage.evicted,
    };
    let disk = match &stores.shared {
        Store::Memory(_) | Store::Redis(_) => None,
        Store::Disk(disk) => {
            let Usage { records, file_bytes, evicted, set_aside } = disk.usage();
            Some(DiskUse { records, file_bytes, evicted, set_aside })
        }
    };
    let (kind, outage) = (stores.shared.kind(), stores.shared.outage());
    StoreHealth { kind, outage, memory: Some(memory), disk }
}
