//! Records in a file of this machine: what is settled stays known through a crash, a restart and an update.
//!
//! One process has the file; a second one is refused. [`Disk`] hands operations to a thread, the [`Writer`], and waits
//! for its answer: [`writer`] commits many of them at once, [`ledger`] says what one does, [`coding`] how a record is
//! written down, [`file`] opens the file and sets a damaged one aside.
//!
//! # The clock
//! Deadlines have to mean the same after a restart, so the clock of this store is the civil one when the file is opened,
//! and from there on the monotonic one: an adjustment while the process runs changes nothing. The latest time is kept in
//! the file. If the civil clock stands before it at the next start, the store goes on from where it was: leases and
//! windows are never cut short, and last at most their own length from the start on.

mod coding;
mod file;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod ledger;
mod writer;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

pub use self::writer::Writer;

use self::ledger::Totals;
use self::writer::{Answer, Ask, Message, Request, Said};
use super::breaker::{Breaker, Change};
use super::{StoreError, millis};
use crate::claim::record::{Operation, Record, Reply, StoreTime};
use crate::claim::{Key, Owner};
use crate::clock::{self, Monotonic, UnixTime};

/// What one record is counted as, in bytes: what the file grows by for it at worst.
pub const RECORD_BYTES: u64 = 256;

/// How many operations may wait for the thread; more are told that it takes too long.
const QUEUE_MAX: usize = 4096;
/// After how many failures in a row the file is not asked any more.
const BREAKER_FAILURES: u32 = 5;
/// How long the pauses between probes of a failing file are.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// What a probe is remembered for; any value does, for every probe writes the same record.
const PROBE_WINDOW: Duration = Duration::from_mins(1);
/// How far the civil clock may stand behind the file's before that is worth a warning.
const STEP_BACK: Duration = Duration::from_secs(5);

/// Where the file is, and what it is held to. `app` makes it of the configuration, where the defaults are.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file; its folder must be there.
    pub path: PathBuf,
    /// The bytes that its records may take; room for at least one is always given.
    pub bytes_max: u64,
    /// How long an operation may take, the wait for others included.
    pub operation_timeout: Duration,
}

/// A store in one file of this machine.
pub struct Disk {
    messages: mpsc::Sender<Message>,
    operation_timeout: Duration,
    breaker: Mutex<Breaker>,
    figures: Arc<Figures>,
    warnings: Vec<String>,
}

/// How full the file is, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many records it holds, those past their deadline but not yet removed included.
    pub records: u64,
    /// How large the file is.
    pub file_bytes: u64,
    /// How many records were forgotten before their deadline, to make room.
    pub evicted: u64,
    /// How many files were found damaged, and set aside.
    pub set_aside: u64,
}

impl Disk {
    /// Opens the file, or makes a new one; `now` is the time. Nothing is performed before somebody runs the [`Writer`].
    ///
    /// Reads the whole file to see that it is sound. A damaged one is renamed, logged and counted, and a new one takes
    /// its place. Fails if another process has it, if the system refuses, and if it is not this program's.
    pub fn open(options: Options, now: UnixTime) -> Result<(Self, Writer), StoreError> {
        let Options { path, bytes_max, operation_timeout } = options;
        let opened = file::open(&path, now)?;
        let since = clock::monotonic();
        let timeline = Timeline::new(now, opened.time, since);
        let figures = Arc::new(Figures::default());
        figures.opened(opened.records, opened.replaced.is_some(), file::bytes(&path));
        let (messages, requests) = mpsc::channel(QUEUE_MAX);
        let disk = Self {
            messages,
            operation_timeout,
            breaker: Mutex::new(Breaker::new(BREAKER_FAILURES)),
            figures: Arc::clone(&figures),
            warnings: step_back(now, opened.time).into_iter().collect(),
        };
        let writer = Writer {
            path,
            records_max: (bytes_max / RECORD_BYTES).max(1),
            requests,
            database: Some(opened.database),
            timeline,
            figures,
            reopen: since,
        };
        Ok((disk, writer))
    }

    /// Performs `operation` of `owner` on the record of `key`.
    ///
    /// Answers once what was decided is on the disk; takes at most the operation time-out, and nothing while the breaker
    /// is open. A dropped future, a time-out or a failure leaves it open whether the operation was performed.
    pub async fn execute(
        &self,
        key: Key,
        owner: Owner,
        operation: Operation,
    ) -> Result<Reply, StoreError> {
        if self.breaker().is_open() {
            return Err(StoreError::Open);
        }
        self.attempt(key, owner, operation).await
    }

    /// What is held for `key`.
    pub async fn record(&self, key: Key) -> Result<Record, StoreError> {
        match self.ask(key, Ask::Record).await? {
            Said::Record(record) => Ok(record),
            Said::Reply(reply) => Err(StoreError::Unexpected(format!("{reply:?}"))),
        }
    }

    /// How full the file is.
    pub fn usage(&self) -> Usage {
        self.figures.usage()
    }

    /// What an operator should know about the start.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// How long every operation and probe has failed; `None` if the last one did not.
    pub fn outage(&self) -> Option<Duration> {
        self.breaker().outage(clock::monotonic())
    }

    /// Probes the file at every interval for as long as the last operation failed. Never returns; see
    /// [`Store::probe_loop`](super::Store::probe_loop).
    pub async fn probe_loop(&self) -> Infallible {
        loop {
            tokio::time::sleep(PROBE_INTERVAL).await;
            let wanted = self.breaker().wants_probe();
            if wanted && let Err(error) = self.probe().await {
                tracing::debug!(error = error.label(), "the store still fails");
            }
        }
    }

    /// Lets the thread finish what was asked before, close the file, and end. What is asked later fails. Returns when
    /// the file is closed; to be bounded by the caller, because a disk may hang.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.messages.send(Message::Stop(done)).await.is_ok() {
            // An error means that the thread has ended already, and dropped it.
            drop(closed.await);
        }
    }

    /// A claim that has to be written: a file that can be read may be on a disk that is full.
    async fn probe(&self) -> Result<(), StoreError> {
        let owner = Owner(u128::from(getrandom::u64().unwrap_or_default()));
        let claim = Operation::Claim { lease: Duration::ZERO, window: PROBE_WINDOW };
        self.attempt(Key([0; 16]), owner, claim).await.map(|_| ())
    }

    async fn attempt(
        &self,
        key: Key,
        owner: Owner,
        operation: Operation,
    ) -> Result<Reply, StoreError> {
        let began = clock::monotonic();
        let outcome = match self.ask(key, Ask::Operation(owner, operation)).await {
            Ok(Said::Reply(reply)) => Ok(reply),
            Ok(Said::Record(record)) => Err(StoreError::Unexpected(format!("{record:?}"))),
            Err(error) => Err(error),
        };
        self.note(began, &outcome);
        outcome
    }

    async fn ask(&self, key: Key, ask: Ask) -> Answer {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            let ended = || StoreError::Unavailable("it has been closed".to_owned());
            let request = Message::Ask(Request { key, ask, reply });
            self.messages.send(request).await.map_err(|_| ended())?;
            answer.await.map_err(|_| ended())?
        };
        let timed = timeout(self.operation_timeout, asked).await;
        timed.unwrap_or(Err(StoreError::Timeout(self.operation_timeout)))
    }

    fn note(&self, began: Monotonic, outcome: &Result<Reply, StoreError>) {
        // A store that is full works; what it may not forget is in its way.
        let works = |error: &&StoreError| {
            !error.concerns_one_record() && !matches!(error, StoreError::Full)
        };
        let failure = outcome.as_ref().err().filter(works);
        let change = match failure {
            Some(_) => self.breaker().failed(began, clock::monotonic()),
            None => self.breaker().succeeded(clock::monotonic()),
        };
        match (change, failure) {
            (Change::Opened, Some(error)) => {
                tracing::error!(error = error.label(), detail = %error, hint = error.hint(),
                    "the store fails again and again and is not asked for now");
            }
            (Change::Closed, _) => tracing::info!("the store answers again"),
            (Change::None | Change::Opened, _) => {}
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn step_back(now: UnixTime, written: StoreTime) -> Option<String> {
    let behind = written.since(StoreTime(millis(now.since_epoch())));
    (behind > STEP_BACK).then(|| {
        format!(
            "the clock stands {} s before the time at which the store's file was last written; the store goes on from there",
            behind.as_secs()
        )
    })
}

/// The store's clock: see the module.
#[derive(Clone, Copy, Debug)]
struct Timeline {
    start: StoreTime,
    since: Monotonic,
}

impl Timeline {
    /// Begins at `unix`, but not before what is `written`.
    fn new(unix: UnixTime, written: StoreTime, since: Monotonic) -> Self {
        Self { start: StoreTime(millis(unix.since_epoch())).max(written), since }
    }

    fn at(&self, now: Monotonic) -> StoreTime {
        self.start.plus(now.since(self.since))
    }

    /// Goes on from `written` if that is later.
    fn not_before(&mut self, written: StoreTime, now: Monotonic) {
        *self = Self { start: self.at(now).max(written), since: now };
    }
}

/// What the thread tells of the file.
#[derive(Debug, Default)]
struct Figures {
    records: AtomicU64,
    file_bytes: AtomicU64,
    evicted: AtomicU64,
    set_aside: AtomicU64,
}

impl Figures {
    fn opened(&self, records: u64, replaced: bool, file_bytes: u64) {
        self.records.store(records, Ordering::Relaxed);
        self.file_bytes.store(file_bytes, Ordering::Relaxed);
        self.set_aside.fetch_add(u64::from(replaced), Ordering::Relaxed);
    }

    fn note(&self, totals: &Totals, file_bytes: u64) {
        self.records.store(totals.records, Ordering::Relaxed);
        self.file_bytes.store(file_bytes, Ordering::Relaxed);
        self.evicted.fetch_add(totals.evicted, Ordering::Relaxed);
    }

    fn usage(&self) -> Usage {
        let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        Usage {
            records: read(&self.records),
            file_bytes: read(&self.file_bytes),
            evicted: read(&self.evicted),
            set_aside: read(&self.set_aside),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn unix(seconds: u64) -> UnixTime {
        UnixTime::from_epoch(Duration::from_secs(seconds))
    }

    const fn at(seconds: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn the_clock_goes_on_from_the_later_of_civil_time_and_what_is_written() {
        let written = StoreTime(1_000_000);
        let forward = Timeline::new(unix(2_000), written, at(5));
        assert_eq!(forward.at(at(8)), StoreTime(2_003_000));
        let back = Timeline::new(unix(10), written, at(5));
        assert_eq!(back.at(at(5)), written, "never before what was written");
        assert_eq!(back.at(at(8)), StoreTime(1_003_000), "and it does not stand still");
        assert!(step_back(unix(10), written).is_some());
        assert!(step_back(unix(999), written).is_none());
    }

    #[test]
    fn a_file_that_is_opened_anew_does_not_turn_the_clock_back() {
        let mut timeline = Timeline::new(unix(2_000), StoreTime(0), at(0));
        timeline.not_before(StoreTime(5), at(10));
        assert_eq!(timeline.at(at(11)), StoreTime(2_011_000));
        timeline.not_before(StoreTime(9_000_000), at(12));
        assert_eq!(timeline.at(at(13)), StoreTime(9_001_000));
    }
}
