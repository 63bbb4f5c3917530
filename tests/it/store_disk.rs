//! The disk store: what survives a restart, who may open the file, what becomes of a damaged one, and its bound.

use std::fs;
use std::path::{Path, PathBuf};
use std::task::Poll;
use std::time::Duration;

use oncehook::claim::record::{Operation, Record, Reply};
use oncehook::claim::{Digest, Verdict};
use oncehook::clock::{self, UnixTime};
use oncehook::store::StoreError;
use oncehook::store::disk::RECORD_BYTES;
use tempfile::TempDir;

use crate::support::redis::until;
use crate::support::store::{CLAIM, OnDisk, RELEASE, SETTLE, key, owner};

const ME: u128 = u128::MAX / 3;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.redb");
    (folder, path)
}

fn settle_for(seconds: u64) -> Operation {
    Operation::Settle {
        verdict: Verdict::Delivered(200),
        digest: Digest(7),
        window: Duration::from_secs(seconds),
    }
}

/// Keys of events are digests: their bits are spread.
fn spread(number: u128) -> oncehook::claim::Key {
    key(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

async fn is_known(disk: &OnDisk, number: u128) -> bool {
    disk.store.record(key(number)).await.unwrap() != Record::Vacant
}

fn set_aside(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.display().to_string().contains(".corrupt-")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_survives_a_restart() {
    let (_folder, path) = folder();
    let disk = OnDisk::open(&path);
    for number in 1..=3 {
        disk.store.execute(key(number), owner(ME), CLAIM).await.unwrap();
    }
    disk.store.execute(key(2), owner(ME), RELEASE).await.unwrap();
    disk.store.execute(key(3), owner(ME), SETTLE).await.unwrap();
    let mut before = Vec::new();
    for number in 1..=3 {
        before.push(disk.store.record(key(number)).await.unwrap());
    }
    disk.close().await;

    let disk = OnDisk::open(&path);
    assert_eq!(disk.store.usage().records, 3);
    for (number, record) in (1..=3).zip(before) {
        assert_eq!(disk.store.record(key(number)).await.unwrap(), record);
    }
    let busy = disk.store.execute(key(1), owner(2), CLAIM).await.unwrap();
    assert!(matches!(busy, Reply::Busy { .. }), "the lease still runs: {busy:?}");
    let won = disk.store.execute(key(2), owner(2), CLAIM).await.unwrap();
    assert!(matches!(won, Reply::Won { attempt: 2, .. }), "{won:?}");
    let known = disk.store.execute(key(3), owner(2), CLAIM).await.unwrap();
    assert!(matches!(known, Reply::Duplicate { .. }), "{known:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_lapses_after_a_restart_whatever_the_clock_did() {
    let lease = Duration::from_millis(300);
    let claim = Operation::Claim { lease, window: Duration::from_hours(1) };
    let day = Duration::from_hours(24);
    let now = clock::unix();
    let earlier = UnixTime::from_epoch(now.since_epoch().saturating_sub(day));
    for restarted_at in [now, earlier, UnixTime::from_epoch(Duration::ZERO)] {
        let (_folder, path) = folder();
        let disk = OnDisk::open(&path);
        disk.store.execute(key(9), owner(ME), SETTLE).await.unwrap();
        disk.store.execute(key(1), owner(ME), claim).await.unwrap();
        disk.close().await;
        let disk = OnDisk::open_at(&path, 1 << 20, restarted_at).unwrap();
        assert_eq!(disk.store.warnings().len(), usize::from(restarted_at != now));
        let started = clock::monotonic();
        until("the lease lapses", async || {
            let reply = disk.store.execute(key(1), owner(2), claim).await.unwrap();
            matches!(reply, Reply::Won { attempt: 2, possible_duplicate: true })
        })
        .await;
        assert!(clock::monotonic().since(started) < 10 * lease, "time stood still");
        let known = disk.store.execute(key(9), owner(2), CLAIM).await.unwrap();
        assert!(matches!(known, Reply::Duplicate { .. }), "{known:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_turned_forward_between_two_starts_ends_leases_and_windows() {
    let (_folder, path) = folder();
    let disk = OnDisk::open(&path);
    disk.store.execute(key(1), owner(ME), CLAIM).await.unwrap();
    disk.store.execute(key(2), owner(ME), settle_for(600)).await.unwrap();
    disk.close().await;
    let later = UnixTime::from_epoch(clock::unix().since_epoch() + Duration::from_mins(11));
    let disk = OnDisk::open_at(&path, 1 << 20, later).unwrap();
    let won = disk.store.execute(key(1), owner(2), CLAIM).await.unwrap();
    assert_eq!(won, Reply::Won { attempt: 2, possible_duplicate: true });
    assert!(!is_known(&disk, 2).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_expire_and_are_removed_in_order_of_their_deadlines() {
    let (_folder, path) = folder();
    let disk = OnDisk::open(&path);
    for number in 0..60_u128 {
        let window = Duration::from_millis(if number % 2 == 0 { 1 } else { 3_600_000 });
        let settle =
            Operation::Settle { verdict: Verdict::Delivered(200), digest: Digest(7), window };
        disk.store.execute(key(number), owner(ME), settle).await.unwrap();
    }
    until("those with a short window are gone", async || {
        // Each operation removes a few.
        disk.store.execute(key(1), owner(2), CLAIM).await.unwrap();
        disk.store.usage().records == 30
    })
    .await;
    for number in 0..60 {
        assert_eq!(is_known(&disk, number).await, number % 2 == 1, "{number}");
    }
    assert_eq!(disk.store.usage().evicted, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_full_settled_records_go_first_then_released_ones_and_leased_ones_never() {
    let (_folder, path) = folder();
    let disk = OnDisk::open_at(&path, 4 * RECORD_BYTES, clock::unix()).unwrap();
    disk.store.execute(key(1), owner(ME), CLAIM).await.unwrap();
    disk.store.execute(key(2), owner(ME), CLAIM).await.unwrap();
    disk.store.execute(key(2), owner(ME), RELEASE).await.unwrap();
    disk.store.execute(key(3), owner(ME), settle_for(900)).await.unwrap();
    disk.store.execute(key(4), owner(ME), settle_for(700)).await.unwrap();
    // Each takes the place of the next in order.
    for (number, gone) in [(5, 4), (6, 3), (7, 2)] {
        disk.store.execute(key(number), owner(ME), CLAIM).await.unwrap();
        assert!(!is_known(&disk, gone).await, "{gone} had to go for {number}");
    }
    for operation in [CLAIM, SETTLE] {
        let refused = disk.store.execute(key(8), owner(ME), operation).await;
        assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    }
    assert!(!is_known(&disk, 8).await, "a refused operation changes nothing");
    assert_eq!(disk.store.outage(), None, "a full store works");
    assert_eq!((disk.store.usage().records, disk.store.usage().evicted), (4, 3));
    disk.store.execute(key(1), owner(ME), SETTLE).await.unwrap();
    disk.store.execute(key(8), owner(ME), CLAIM).await.unwrap();
    assert!(!is_known(&disk, 1).await, "a settled one makes room");
    disk.close().await;

    let disk = OnDisk::open_at(&path, RECORD_BYTES, clock::unix()).unwrap();
    assert_eq!(disk.store.usage().records, 4, "a lower bound forgets no lease");
    let refused = disk.store.execute(key(9), owner(ME), CLAIM).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_stays_within_its_bound_while_records_come_and_go() {
    let (_folder, path) = folder();
    let records_max = 8_192;
    let disk = OnDisk::open_at(&path, records_max * RECORD_BYTES, clock::unix()).unwrap();
    for round in 0..128_u128 {
        let at_once = (0..256).map(|number| spread(round * 256 + number));
        let settled = at_once.map(|key| disk.store.execute(key, owner(ME), SETTLE));
        for settled in join_all(settled).await {
            settled.unwrap();
        }
    }
    let usage = disk.store.usage();
    assert_eq!((usage.records, usage.evicted), (records_max, 128 * 256 - records_max));
    let bytes_max = records_max * RECORD_BYTES;
    // What redb itself needs besides the records: its header, and the table of what is free.
    let overhead = 2 << 20;
    assert!(usage.file_bytes <= bytes_max + overhead, "{usage:?}");
    eprintln!(
        "{} bytes of file for each of {} records",
        usage.file_bytes / records_max,
        records_max
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_store_on_one_file_is_refused_and_changes_nothing() {
    let (folder, path) = folder();
    let disk = OnDisk::open(&path);
    disk.store.execute(key(1), owner(ME), SETTLE).await.unwrap();
    let Err(refused) = OnDisk::open_at(&path, 1 << 20, clock::unix()) else {
        panic!("two stores on one file")
    };
    assert!(matches!(&refused, StoreError::InUse(file) if *file == path), "{refused:?}");
    assert!(refused.to_string().contains("records.redb"), "{refused}");
    assert!(refused.hint().contains("fuser"), "{}", refused.hint());
    assert!(is_known(&disk, 1).await);
    assert_eq!(set_aside(folder.path()), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_kept_aside_and_counted_and_a_new_one_takes_its_place() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 5] = [
        ("garbage", |bytes| bytes.fill(0xa5)),
        ("half of it", |bytes| bytes.truncate(bytes.len() / 2)),
        ("a few bytes", |bytes| bytes.truncate(7)),
        ("no header", |bytes| bytes[..512].fill(0)),
        ("every page", |bytes| {
            bytes[4096..].iter_mut().step_by(64).for_each(|byte| *byte ^= 0x55);
        }),
    ];
    for (name, damage) in damages {
        let (folder, path) = folder();
        let disk = OnDisk::open(&path);
        for number in 0..500 {
            disk.store.execute(spread(number), owner(ME), SETTLE).await.unwrap();
        }
        disk.close().await;
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, &bytes).unwrap();

        let disk = OnDisk::open(&path);
        assert_eq!((disk.store.usage().records, disk.store.usage().set_aside), (0, 1), "{name}");
        let kept = set_aside(folder.path());
        assert_eq!(kept.len(), 1, "{name}");
        assert_eq!(fs::read(&kept[0]).unwrap().len(), bytes.len(), "{name}: nothing of it is lost");
        let won = disk.store.execute(spread(1), owner(ME), CLAIM).await.unwrap();
        assert!(matches!(won, Reply::Won { attempt: 1, .. }), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_emptied_is_counted() {
    let (folder, path) = folder();
    OnDisk::open(&path).close().await;
    fs::write(&path, "").unwrap();
    let disk = OnDisk::open(&path);
    assert_eq!(disk.store.usage().set_aside, 1);
    assert_eq!(set_aside(folder.path()), Vec::<PathBuf>::new(), "there was nothing to keep");
    disk.close().await;
    assert_eq!(OnDisk::open(&path).store.usage().set_aside, 0, "it is as good as any now");
}

#[test]
fn what_is_not_ours_is_left_as_it_is() {
    let (folder, path) = folder();
    let keys = folder.path().join("keys.yaml");
    fs::write(&keys, "APItest: a-secret\n").unwrap();
    let another = redb::TableDefinition::<u64, u64>::new("another program's");
    let database = redb::Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(another).unwrap().insert(1, 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    for file in [&keys, &path] {
        let before = fs::read(file).unwrap();
        let refused = OnDisk::open_at(file, 1 << 20, clock::unix()).err().expect("not ours");
        assert!(matches!(refused, StoreError::File { .. }), "{refused:?}");
        assert_eq!(fs::read(file).unwrap().len(), before.len());
    }
    assert_eq!(fs::read_to_string(&keys).unwrap(), "APItest: a-secret\n");
    let nowhere = folder.path().join("no-such-folder").join("records.redb");
    let refused = OnDisk::open_at(&nowhere, 1 << 20, clock::unix()).err().expect("no folder");
    assert!(matches!(refused, StoreError::File { .. }), "{refused:?}");
    assert_eq!(set_aside(folder.path()), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_claim_in_a_crowd_wins() {
    let (_folder, path) = folder();
    let disk = OnDisk::open(&path);
    let claims = (0..200).map(|number| disk.store.execute(key(1), owner(number), CLAIM));
    let won = join_all(claims).await.into_iter().filter(|reply| {
        let reply = reply.as_ref().unwrap();
        matches!(reply, Reply::Won { .. })
    });
    assert_eq!(won.count(), 1);
}

/// All of them, at once.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(Box::pin).map(Some).collect();
    let mut done: Vec<Option<F::Output>> = waiting.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, output) in waiting.iter_mut().zip(&mut done) {
            let Some(polled) = future else { continue };
            if let Poll::Ready(value) = polled.as_mut().poll(context) {
                (*future, *output) = (None, Some(value));
            }
        }
        if waiting.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
