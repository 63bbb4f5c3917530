//! One sequence of operations through `apply`, memory, disk and Redis: equal replies, equal records, equal expiries.
//!
//! The clocks of Redis and of the disk store cannot be set, so terms are either so long that none ends during the test, or so short that the step
//! waits for their end. What is left of a long one is compared within [`TOLERANCE`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use oncehook::claim::record::{self, Ending, Operation, Record, Reply, StoreTime};
use oncehook::claim::{Digest, Key, Owner, Verdict};
use oncehook::clock;
use oncehook::store::disk::Disk;
use oncehook::store::memory::{self, Memory};
use oncehook::store::redis::{Options, Redis};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use crate::support::cluster::RedisCluster;
use crate::support::redis::{LIMIT, RedisServer, Settings, connect, redis_6_2, until};
use crate::support::store::{OnDisk, options, options_at};

/// Longer than the test.
const LONG: Duration = Duration::from_hours(1);

/// Waited for.
const SHORT: Duration = Duration::from_millis(2);

/// How far apart the clocks' views of one step may be, in milliseconds: this machine may be busy.
const TOLERANCE_MS: u64 = 60_000;

#[derive(Clone, Copy, Debug)]
struct Step {
    key: u8,
    owner: u8,
    operation: Operation,
}

impl Step {
    /// Whether something ends that the next step must find ended.
    fn waits(&self) -> bool {
        match self.operation {
            Operation::Claim { lease, window } => lease == SHORT || window == SHORT,
            Operation::Settle { window, .. } => window == SHORT,
            Operation::Release { pause, window, .. } => pause == SHORT || window == SHORT,
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let window = || prop_oneof![9 => Just(LONG), 1 => Just(SHORT)];
    let lease = prop_oneof![3 => Just(LONG), 2 => Just(SHORT)];
    let pause = prop_oneof![4 => Just(Duration::ZERO), 1 => Just(LONG), 1 => Just(SHORT)];
    let ending = prop_oneof![Just(Ending::Failed), Just(Ending::Ambiguous)];
    let verdict = prop_oneof![
        Just(Verdict::Delivered(200)),
        Just(Verdict::Delivered(204)),
        Just(Verdict::Refused(422)),
        Just(Verdict::Unknown)
    ];
    let digest = prop_oneof![Just(0), Just(u64::MAX), Just(0x0020_0000_0000_0001), any::<u64>()]
        .prop_map(Digest);
    let operation = prop_oneof![
        6 => (lease, window()).prop_map(|(lease, window)| Operation::Claim { lease, window }),
        2 => (verdict, digest, window())
            .prop_map(|(verdict, digest, window)| Operation::Settle { verdict, digest, window }),
        4 => (ending, pause, window())
            .prop_map(|(ending, pause, window)| Operation::Release { ending, pause, window }),
    ];
    let step = (0..3_u8, 0..3_u8, operation).prop_map(|(key, owner, operation)| Step {
        key,
        owner,
        operation,
    });
    prop::collection::vec(step, 1..40)
}

/// `apply` and a map: what the stores are compared with.
#[derive(Default)]
struct Model(HashMap<Key, (Record, StoreTime)>);

impl Model {
    fn record(&self, key: Key, now: StoreTime) -> Record {
        self.0
            .get(&key)
            .filter(|(_, deadline)| now < *deadline)
            .map_or(Record::Vacant, |(record, _)| *record)
    }

    fn execute(&mut self, key: Key, owner: Owner, operation: &Operation, now: StoreTime) -> Reply {
        let before = self.record(key, now);
        let mut after = before;
        let reply = record::apply(&mut after, owner, operation, now);
        if after != before || operation.always_writes() {
            let remembered = match *operation {
                Operation::Claim { lease, window } => window.max(lease),
                Operation::Settle { window, .. } => window,
                Operation::Release { pause, window, .. } => window.max(pause),
            };
            self.0.insert(key, (after, now.plus(remembered)));
        }
        reply
    }

    /// What is left of the record, in milliseconds.
    fn expires_in(&self, key: Key, now: StoreTime) -> u64 {
        self.0
            .get(&key)
            .map_or(0, |(_, deadline)| deadline.since(now).as_millis().try_into().unwrap())
    }
}

/// A kind of Redis, and where each record can be read.
struct Subject {
    redis: Redis,
    servers: Vec<RedisServer>,
}

impl Subject {
    fn one(server: RedisServer) -> Self {
        Self { redis: Redis::new(options(&server)).unwrap(), servers: vec![server] }
    }

    /// A connection to whoever has `name`.
    async fn holder(&self, name: &str) -> ::redis::aio::MultiplexedConnection {
        for server in &self.servers {
            // In a Cluster the others do not answer.
            if server.try_command(&["EXISTS", name]).await.is_ok() {
                return connect(&server.url(), LIMIT).await.unwrap();
            }
        }
        panic!("nobody serves {name}")
    }
}

fn conform(cases: u32, start: impl AsyncFnOnce() -> Subject) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let subject = runtime.block_on(start());
    let folder = tempfile::tempdir().unwrap();
    let disk = OnDisk::open(&folder.path().join("records.redb")).store;
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let case = std::cell::Cell::new(0_u64);
    let outcome = runner.run(&steps(), |steps| {
        case.set(case.get() + 1);
        runtime.block_on(run(&subject, &disk, case.get(), &steps));
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, steps)) => panic!("{reason}\nwith {steps:#?}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn apply_memory_disk_and_redis_are_one_machine() {
    conform(96, async || Subject::one(RedisServer::start().await));
}

/// `./test` installs that version where it can, and says so where it cannot.
#[test]
fn apply_memory_disk_and_redis_6_2_are_one_machine() {
    let Some(binary) = redis_6_2() else {
        eprintln!("NOT TESTED: there is no Redis 6.2 (./test --install installs one)");
        return;
    };
    conform(96, async || {
        let server = RedisServer::start_with(Settings::default().binary(binary)).await;
        let version = server.info("redis_version").await;
        assert!(version.starts_with("6.2."), "{version}");
        Subject::one(server)
    });
}

#[test]
fn apply_memory_disk_and_a_redis_cluster_are_one_machine() {
    conform(48, async || {
        let cluster = RedisCluster::start().await;
        let options = Options { endpoint: cluster.endpoint(), ..options_at(0) };
        Subject { redis: Redis::new(options).unwrap(), servers: cluster.nodes }
    });
}

async fn run(subject: &Subject, disk: &Disk, case: u64, steps: &[Step]) {
    let redis = &subject.redis;
    let memory = Memory::new(memory::Options { bytes_max: 1 << 20 });
    let mut model = Model::default();
    let mut holders = HashMap::new();
    for (index, step) in steps.iter().enumerate() {
        let key = Key(((u128::from(case) << 64) | u128::from(step.key)).to_be_bytes());
        // Owners fill all their 128 bits, so that a lost digit would show.
        let owner = Owner(u128::MAX / 3 + u128::from(step.owner));
        let started = clock::monotonic();
        let now = store_time(started);
        let expected = model.execute(key, owner, &step.operation, now);
        let by_memory = memory.execute(key, owner, step.operation, started).unwrap();
        assert_eq!(by_memory, expected, "memory's reply to step {index}");
        assert_eq!(
            memory.record(key, started),
            model.record(key, now),
            "memory's record after step {index}"
        );

        let by_disk = disk.execute(key, owner, step.operation).await.unwrap();
        assert_near(by_disk, expected, &format!("the disk's reply to step {index}"));
        let by_redis = redis.execute(key, owner, step.operation).await.unwrap();
        assert_near(by_redis, expected, &format!("Redis' reply to step {index}"));
        if step.waits() {
            let finished = clock::monotonic();
            until("the short term ends", async || clock::monotonic().since(finished) > 2 * SHORT)
                .await;
        } else {
            assert_eq!(
                far(disk.record(key).await.unwrap()),
                near(model.record(key, now), now),
                "the disk's record after step {index}"
            );
            let name = redis.name(key);
            let raw = match holders.entry(key) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(subject.holder(&name).await),
            };
            let (record, expires_in) = read(raw, &name, now).await;
            assert_eq!(
                near(record, now),
                near(model.record(key, now), now),
                "Redis' record after step {index}"
            );
            let off = expires_in.abs_diff(model.expires_in(key, now));
            assert!(off < TOLERANCE_MS, "Redis' expiry after step {index} is {off} ms off");
        }
    }
}

fn store_time(now: clock::Monotonic) -> StoreTime {
    StoreTime(u64::try_from(now.since_origin().as_millis()).unwrap())
}

/// Equal, but for what is left of a lease or a pause.
fn assert_near(left: Reply, right: Reply, what: &str) {
    match (left, right) {
        (Reply::Busy { remaining: left }, Reply::Busy { remaining: right }) => {
            assert!(
                left.abs_diff(right) < Duration::from_millis(TOLERANCE_MS),
                "{what}: {left:?}, {right:?}"
            );
        }
        _ => assert_eq!(left, right, "{what}"),
    }
}

/// The same of a record of the disk, whose clock is the civil one.
fn far(record: Record) -> Record {
    near(record, StoreTime(u64::try_from(clock::unix().since_epoch().as_millis()).unwrap()))
}

/// The record with its time replaced by whether it lies ahead.
fn near(record: Record, now: StoreTime) -> Record {
    let ahead = |time: StoreTime| StoreTime(u64::from(time.0 > now.0 + TOLERANCE_MS));
    match record {
        Record::Leased { owner, attempts, lapses, until } => {
            Record::Leased { owner, attempts, lapses, until: ahead(until) }
        }
        Record::Released { attempts, lapses, not_before } => {
            Record::Released { attempts, lapses, not_before: ahead(not_before) }
        }
        Record::Vacant | Record::Settled { .. } => record,
    }
}

/// Reads a record as `record.lua` documents it, its times moved to the clock that reads `now`; and its expiry.
async fn read(
    connection: &mut ::redis::aio::MultiplexedConnection,
    name: &str,
    now: StoreTime,
) -> (Record, u64) {
    let (stored, expires_in, (seconds, micros)): (Option<Vec<u8>>, i64, (u64, u64)) =
        ::redis::pipe()
            .cmd("GET")
            .arg(name)
            .cmd("PTTL")
            .arg(name)
            .cmd("TIME")
            .query_async(connection)
            .await
            .unwrap();
    let Some(stored) = stored else { return (Record::Vacant, 0) };
    let record = match stored.split_first_chunk() {
        Some((b"1F", fields)) => {
            // `now` and the server's clock are one point in time; so is the one at which the lease began.
            first(str::from_utf8(fields).unwrap(), now.0.saturating_add_signed(expires_in))
        }
        Some((b"1L" | b"1R", _)) => {
            undecided(str::from_utf8(&stored).unwrap(), now.0, seconds * 1000 + micros / 1000)
        }
        _ => settled(&stored),
    };
    (record, u64::try_from(expires_in).expect("every record expires"))
}

/// A first lease, whose key expires at `deadline`.
fn first(fields: &str, deadline: u64) -> Record {
    let parts: Vec<&str> = fields.split(':').collect();
    let millis = |index: usize| parts[index].parse::<u64>().unwrap();
    Record::Leased {
        owner: Owner(u128::from_str_radix(parts[0], 16).unwrap()),
        attempts: 1,
        lapses: 0,
        until: StoreTime((deadline + millis(1)).saturating_sub(millis(2))),
    }
}

fn undecided(text: &str, now: u64, theirs: u64) -> Record {
    let parts: Vec<&str> = text[2..].split(':').collect();
    let count = |index: usize| parts[index].parse::<u32>().unwrap();
    let time = |index: usize| {
        StoreTime((parts[index].parse::<u64>().unwrap() + now).saturating_sub(theirs))
    };
    if text.starts_with("1R") {
        return Record::Released { attempts: count(0), lapses: count(1), not_before: time(2) };
    }
    Record::Leased {
        owner: Owner(u128::from_str_radix(parts[0], 16).unwrap()),
        attempts: count(1),
        lapses: count(2),
        until: time(3),
    }
}

fn settled(stored: &[u8]) -> Record {
    let (verdict, digest) = stored.split_at(4);
    let status = str::from_utf8(&verdict[1..]).unwrap().parse().unwrap();
    let verdict = match verdict[0] {
        b'D' => Verdict::Delivered(status),
        b'R' => Verdict::Refused(status),
        b'U' => Verdict::Unknown,
        _ => panic!("{stored:?} is no record"),
    };
    Record::Settled { verdict, digest: Digest(u64::from_be_bytes(digest.try_into().unwrap())) }
}
