//! The thread that owns the file: many operations, one transaction, one wait for the disk.
//!
//! While a transaction is being committed, operations gather; the next transaction takes all of them. Nobody is
//! answered before what was decided is on the disk. After an error the file is closed and opened anew, because redb
//! answers nothing more until then.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redb::Database;
use tokio::sync::{mpsc, oneshot};

use super::file::{self, Opened};
use super::ledger::{Ledger, Totals};
use super::{Figures, Timeline};
use crate::claim::record::{Operation, Record, Reply, StoreTime};
use crate::claim::{Key, Owner};
use crate::clock::{self, Monotonic};
use crate::store::StoreError;

/// How many operations one transaction takes at most.
const BATCH_MAX: usize = 512;
/// How many records past their deadline are removed for each operation at most.
const SWEEP_MAX: usize = 8;
/// Between two attempts to open a file that failed.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

/// What the thread is told.
pub(super) enum Message {
    /// To look at a record, or change it.
    Ask(Request),
    /// To end once everything before this is done, and to say so.
    Stop(oneshot::Sender<()>),
}

/// What is asked about a key.
pub(super) struct Request {
    pub(super) key: Key,
    pub(super) ask: Ask,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// What is asked.
pub(super) enum Ask {
    /// To perform an operation.
    Operation(Owner, Operation),
    /// What is held.
    Record,
}

/// What is said to that.
pub(super) enum Said {
    Reply(Reply),
    Record(Record),
}

/// A reply, or why there is none.
pub(super) type Answer = Result<Said, StoreError>;

/// The owner of the file. Does nothing until [`Writer::run`].
pub struct Writer {
    pub(super) path: PathBuf,
    pub(super) records_max: u64,
    pub(super) requests: mpsc::Receiver<Message>,
    /// `None` after an error, until it is open again.
    pub(super) database: Option<Database>,
    pub(super) timeline: Timeline,
    pub(super) figures: Arc<Figures>,
    /// Not to be opened again before.
    pub(super) reopen: Monotonic,
}

impl Writer {
    /// Performs what is asked until [`Store::close`](crate::store::Store::close), or until the store is dropped. Blocks:
    /// it is given a thread of its own.
    pub fn run(mut self) {
        let mut messages = Vec::with_capacity(BATCH_MAX);
        let mut stops = Vec::new();
        while self.requests.blocking_recv_many(&mut messages, BATCH_MAX) > 0 {
            let work = messages.drain(..).filter_map(|message| match message {
                Message::Ask(request) => Some(request),
                Message::Stop(done) => {
                    stops.push(done);
                    None
                }
            });
            let work = work.collect();
            self.batch(work);
            if !stops.is_empty() {
                // What is in the queue is still done; what comes later is refused.
                self.requests.close();
            }
        }
        // In order, so that the next start need not repair it.
        if let Some(Err(error)) = self.database.take().map(Database::close) {
            tracing::warn!(file = %self.path.display(), %error, "the store's file was not closed in order");
        }
        for done in stops {
            // Whoever asked may have given up waiting.
            done.send(()).ok();
        }
    }

    /// Performs `work` in one transaction and answers. What fails leaves nothing behind but its error.
    fn batch(&mut self, work: Vec<Request>) {
        // Nobody would use a claim that nobody waits for, and its lease would stand in the way.
        let work: Vec<_> = work.into_iter().filter(Request::is_wanted).collect();
        if work.is_empty() {
            return;
        }
        let (records_max, path) = (self.records_max, self.path.clone());
        let now = self.timeline.at(clock::monotonic());
        let performed = self.opened().map(|database| {
            file::guarded(|| perform(database, records_max, now, &work))
                .and_then(|performed| performed.map_err(|error| error.to_string()))
        });
        let failure = match performed {
            Ok(Ok((answers, totals))) => {
                self.figures.note(&totals, file::bytes(&path));
                return answer(work, answers);
            }
            Ok(Err(failure)) => failure,
            Err(closed) => return fail(work, &path, &closed),
        };
        tracing::error!(file = %self.path.display(), error = failure, "the store's file failed; it is opened anew");
        // Dropping it may meet the same trouble.
        let broken = self.database.take();
        if let Err(panic) = file::guarded(|| drop(broken)) {
            tracing::warn!(file = %self.path.display(), error = panic, "the store's file was not closed in order");
        }
        self.reopen = clock::monotonic();
        fail(work, &path, &failure);
    }

    /// The file; opened again if it failed before, but not more often than every [`REOPEN_PAUSE`].
    fn opened(&mut self) -> Result<&Database, String> {
        if self.database.is_none() {
            let now = clock::monotonic();
            if now < self.reopen {
                return Err("it failed a moment ago".to_owned());
            }
            self.reopen = now.plus(REOPEN_PAUSE);
            let Opened { database, time, records, replaced } =
                file::open(&self.path, clock::unix()).map_err(|error| describe(&error))?;
            self.timeline.not_before(time, now);
            self.figures.opened(records, replaced.is_some(), file::bytes(&self.path));
            tracing::info!(file = %self.path.display(), records, "the store's file is open again");
            self.database = Some(database);
        }
        self.database.as_ref().ok_or_else(|| "it is not open".to_owned())
    }
}

impl Request {
    fn is_wanted(&self) -> bool {
        match self.ask {
            Ask::Operation(_, Operation::Claim { .. }) | Ask::Record => !self.reply.is_closed(),
            Ask::Operation(_, Operation::Settle { .. } | Operation::Release { .. }) => true,
        }
    }
}

/// All of `work` in one transaction, which is on the disk when this returns.
fn perform(
    database: &Database,
    records_max: u64,
    now: StoreTime,
    work: &[Request],
) -> Result<(Vec<Answer>, Totals), redb::Error> {
    let transaction = database.begin_write()?;
    let mut ledger = Ledger::open(&transaction, records_max, now)?;
    ledger.sweep(SWEEP_MAX * work.len())?;
    let mut answers = Vec::with_capacity(work.len());
    for request in work {
        answers.push(match &request.ask {
            Ask::Operation(owner, operation) => {
                ledger.execute(request.key, *owner, operation)?.map(Said::Reply)
            }
            Ask::Record => ledger.record(request.key)?.map(Said::Record),
        });
    }
    let totals = ledger.finish()?;
    // Duplicates and busy claims change nothing, and need not wait for the disk.
    if totals.changed {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok((answers, totals))
}

fn answer(work: Vec<Request>, answers: Vec<Answer>) {
    for (request, answer) in work.into_iter().zip(answers) {
        // Whoever asked may have given up waiting.
        drop(request.reply.send(answer));
    }
}

fn fail(work: Vec<Request>, path: &Path, failure: &str) {
    let answers = work.iter().map(|_| Err(file::unusable(path, failure))).collect();
    answer(work, answers);
}

/// An error and its source, on one line.
fn describe(error: &StoreError) -> String {
    let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}")
}
