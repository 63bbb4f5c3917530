//! The file: who may open it, whether it can be trusted, and what becomes of one that cannot.
//!
//! A file that is damaged is never emptied: it is renamed, and a new one takes its place. That is done only to what
//! bears the mark of redb, or has a name that says so; anything else at the path belongs to somebody else, and is left
//! as it is.

use std::fs::{self, File as OsFile};
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableError,
};

use super::ledger::{FORMAT, FORMAT_KEY, Ledger, META, TIME_KEY};
use crate::claim::record::StoreTime;
use crate::clock::UnixTime;
use crate::store::StoreError;

/// What redb keeps of the file in memory. Enough for the inner pages of the largest files, and for what is hot.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// What a redb file begins with.
const MAGIC: &[u8] = b"redb";

/// What the name of a file ends in that may be set aside though its beginning is destroyed.
const EXTENSION: &str = "redb";

/// How many names are tried for a file that is set aside: one is taken if that happens twice in a second.
const NAMES_MAX: u32 = 16;

/// An open file.
pub(super) struct Opened {
    pub(super) database: Database,
    /// The latest time of the store's clock that was written down.
    pub(super) time: StoreTime,
    /// How many records it holds.
    pub(super) records: u64,
    /// What was there before could not be used: where it is now, or that it was empty.
    pub(super) replaced: Option<Replaced>,
}

/// A file that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Replaced {
    /// It is damaged, and kept under this name.
    Kept(PathBuf),
    /// It held nothing, not even what a new file holds: there was nothing to keep.
    Empty,
}

/// Why a file could not be opened.
enum Failure {
    /// Somebody has to do something.
    Error(StoreError),
    /// It is damaged.
    Damaged(String),
}

/// Opens the file at `path`, or makes a new one; a damaged one is set aside, stamped with `now`.
pub(super) fn open(path: &Path, now: UnixTime) -> Result<Opened, StoreError> {
    let was_empty = path.exists() && bytes(path) == 0;
    let replaced = match open_as_it_is(path) {
        Ok(opened) if was_empty => {
            tracing::error!(
                file = %path.display(),
                "the store's file was empty: what it held, if anything, is forgotten"
            );
            return Ok(Opened { replaced: Some(Replaced::Empty), ..opened });
        }
        Ok(opened) => return Ok(opened),
        Err(Failure::Error(error)) => return Err(error),
        Err(Failure::Damaged(damage)) => set_aside(path, &damage, now)?,
    };
    match open_as_it_is(path) {
        Ok(opened) => Ok(Opened { replaced: Some(replaced), ..opened }),
        Err(Failure::Error(error)) => Err(error),
        Err(Failure::Damaged(damage)) => Err(unusable(path, damage)),
    }
}

/// An error of the file at `path`.
pub(super) fn unusable(
    path: &Path,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::File { path: path.to_owned(), source: source.into() }
}

fn open_as_it_is(path: &Path) -> Result<Opened, Failure> {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    // Whole: what is trusted without a look makes redb panic, or forget, at some later time.
    builder.set_check_integrity_on_open(true);
    let opened = guarded(|| {
        let database = builder.create(path).map_err(|error| refused(path, error))?;
        prepare(path, database)
    });
    opened.unwrap_or_else(|panic| Err(Failure::Damaged(panic)))
}

/// Makes the tables that are not there, and reads what is known of the file.
fn prepare(path: &Path, database: Database) -> Result<Opened, Failure> {
    let failed = |error: redb::Error| broken(path, error);
    match known(&database).map_err(failed)? {
        Known::Format(FORMAT) | Known::Nothing => {}
        Known::Format(other) => {
            let what = format!("its format is {other}, and this version reads {FORMAT}");
            return Err(Failure::Error(unusable(path, what)));
        }
        Known::Foreign => {
            return Err(Failure::Error(unusable(path, "it is another program's database")));
        }
    }
    let (records, time) = lay_out(&database).map_err(failed)?;
    Ok(Opened { database, time, records, replaced: None })
}

/// What a file says of itself.
enum Known {
    /// There are no tables: it is new.
    Nothing,
    Format(u64),
    /// There are tables, and none of ours.
    Foreign,
}

fn known(database: &Database) -> Result<Known, redb::Error> {
    let transaction = database.begin_read()?;
    match transaction.open_table(META) {
        Ok(meta) => {
            Ok(meta.get(FORMAT_KEY)?.map_or(Known::Foreign, |format| Known::Format(format.value())))
        }
        Err(TableError::TableDoesNotExist(_)) if transaction.list_tables()?.next().is_none() => {
            Ok(Known::Nothing)
        }
        Err(TableError::Storage(error)) => Err(error.into()),
        Err(_) => Ok(Known::Foreign),
    }
}

fn lay_out(database: &Database) -> Result<(u64, StoreTime), redb::Error> {
    let transaction = database.begin_write()?;
    let time = {
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORMAT_KEY, FORMAT)?;
        meta.get(TIME_KEY)?.map_or(0, |time| time.value())
    };
    let records = Ledger::open(&transaction, 0, StoreTime(time))?.finish()?.records;
    transaction.commit()?;
    Ok((records, StoreTime(time)))
}

/// Why redb did not open the file.
#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
fn refused(path: &Path, error: DatabaseError) -> Failure {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            Failure::Error(StoreError::InUse(path.to_owned()))
        }
        DatabaseError::Storage(StorageError::Io(error)) if !says_damaged(&error) => {
            Failure::Error(unusable(path, error))
        }
        DatabaseError::Storage(error) => damaged(path, error.to_string()),
        other => Failure::Error(unusable(path, other)),
    }
}

/// Why the tables cannot be read.
#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
fn broken(path: &Path, error: redb::Error) -> Failure {
    match error {
        redb::Error::Corrupted(damage) => damaged(path, damage),
        redb::Error::Io(error) => Failure::Error(unusable(path, error)),
        other => Failure::Error(unusable(path, other)),
    }
}

/// redb reports a file without its mark, and one that ends too soon, as these.
fn says_damaged(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn damaged(path: &Path, damage: String) -> Failure {
    let named = path.extension().is_some_and(|extension| extension == EXTENSION);
    if named || begins_with_magic(path) {
        return Failure::Damaged(damage);
    }
    let what = format!(
        "it is no file of oncehook's ({damage}), and its name does not end in .{EXTENSION}: it is left as it is"
    );
    Failure::Error(unusable(path, what))
}

fn begins_with_magic(path: &Path) -> bool {
    let mut head = [0; MAGIC.len()];
    OsFile::open(path).is_ok_and(|mut file| file.read_exact(&mut head).is_ok()) && head == *MAGIC
}

/// Renames the damaged file.
fn set_aside(path: &Path, damage: &str, now: UnixTime) -> Result<Replaced, StoreError> {
    for attempt in 0..NAMES_MAX {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".corrupt-{}", now.seconds()));
        if attempt > 0 {
            name.push(format!("-{attempt}"));
        }
        let kept = PathBuf::from(name);
        if kept.exists() {
            continue;
        }
        fs::rename(path, &kept).map_err(|error| unusable(path, error))?;
        tracing::error!(
            file = %path.display(), kept_as = %kept.display(), damage,
            "the store's file is damaged and was set aside: what it held is forgotten, copies of older events are new ones"
        );
        return Ok(Replaced::Kept(kept));
    }
    Err(unusable(path, format!("it is damaged ({damage}), and no name is free to keep it under")))
}

/// How large the file at `path` is; 0 if nobody can say.
pub(super) fn bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Runs `work`; a panic becomes its message. redb panics over some damage instead of reporting it.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
    })
}
