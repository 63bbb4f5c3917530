//! Watches the files that a configuration is made from, and tells when one of them holds something else.
//!
//! Contents count, not events: an event is only a reason to look. So a file that is replaced (as editors and certbot
//! do), a link that is turned (`..data` of a Kubernetes volume) and a file that is written in place are all the same,
//! and what no event tells, as on a network file system, is found by looking every now and then. Reading the
//! configuration is left to `config`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::config::InputFile;

/// Files are looked at when this long nothing has happened to them: a key and its certificate change together.
const QUIET: Duration = Duration::from_millis(300);
/// Or after this long, whatever goes on in their folders.
const UNREST_MAX: Duration = Duration::from_secs(3);
/// And this often without any event.
const LOOK: Duration = Duration::from_secs(10);

/// The files of one configuration.
pub(super) struct Files {
    inputs: Vec<InputFile>,
    watched: Arc<Mutex<Watched>>,
    /// What the files are called.
    names: Arc<Mutex<BTreeSet<OsString>>>,
    stirred: Arc<Notify>,
}

/// The folders that are watched.
struct Watched {
    /// `None` where the system has no events to spare; then there is only [`LOOK`].
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
}

impl Files {
    /// Watches `inputs`, as they were when they were read.
    pub(super) fn new(inputs: Vec<InputFile>) -> Self {
        let stirred = Arc::new(Notify::new());
        let names = Arc::new(Mutex::new(BTreeSet::new()));
        let (stir, ours) = (Arc::clone(&stirred), Arc::clone(&names));
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.map_or(true, |event| is_news(&event, &lock(&ours))) {
                stir.notify_one();
            }
        });
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!(%error, look_seconds = LOOK.as_secs(), "no events of the file system: files are looked at instead");
        });
        let watched = Watched { watcher: watcher.ok(), folders: BTreeSet::new() };
        let watched = Arc::new(Mutex::new(watched));
        let mut files = Self { inputs: Vec::new(), watched, names, stirred };
        files.set(inputs);
        files
    }

    /// Watches these from now on instead.
    pub(super) fn set(&mut self, inputs: Vec<InputFile>) {
        *lock(&self.names) = inputs.iter().flat_map(|input| names(input.path())).collect();
        let folders = inputs.iter().flat_map(|input| folders(input.path())).collect();
        self.inputs = inputs;
        let (watched, stirred) = (Arc::clone(&self.watched), Arc::clone(&self.stirred));
        // On a thread of its own: the system's answer comes behind all events that are waiting, and while much is
        // written in a folder that can take as long as the writing does.
        let change = move || {
            lock(&watched).change(folders);
            // What happened before the watch began is looked for once.
            stirred.notify_one();
        };
        if let Err(error) = std::thread::Builder::new().name("files".into()).spawn(change) {
            tracing::warn!(%error, look_seconds = LOOK.as_secs(), "no thread to watch the new files: they are looked at instead");
        }
    }

    /// Waits until one of the files holds something else than it did. Cancel safe: what is missed is found at the next
    /// look.
    pub(super) async fn changed(&self) {
        if self.inputs.is_empty() {
            return std::future::pending().await;
        }
        loop {
            tokio::select! {
                () = self.stirred.notified() => self.settled().await,
                () = sleep(LOOK) => {}
            }
            let inputs = self.inputs.clone();
            let look = move || inputs.iter().any(InputFile::has_changed);
            if tokio::task::spawn_blocking(look).await.unwrap_or(false) {
                return;
            }
        }
    }

    async fn settled(&self) {
        let quiet = async { while timeout(QUIET, self.stirred.notified()).await.is_ok() {} };
        timeout(UNREST_MAX, quiet).await.ok();
    }
}

impl Watched {
    fn change(&mut self, folders: BTreeSet<PathBuf>) {
        if let Some(watcher) = &mut self.watcher {
            // All anew: what has an old name may be a new folder; and one that is gone is watched no longer.
            for folder in &self.folders {
                watcher.unwatch(folder).ok();
            }
            for folder in &folders {
                watch(watcher, folder);
            }
        }
        self.folders = folders;
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each is replaced as a whole: a panic elsewhere cannot have left it half written.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(watcher: &mut RecommendedWatcher, folder: &Path) {
    if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
        tracing::debug!(folder = %folder.display(), %error, "cannot be watched");
    }
}

/// Whether one of the files may hold something else after it: not if it was only read, for that is what looking does;
/// nor if another file was written to, such as a log in the same folder. What is renamed or made anew may be a link on
/// the way to one of them.
fn is_news(event: &Event, names: &BTreeSet<OsString>) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_) | ModifyKind::Any) => {
            event.paths.is_empty()
                || event
                    .paths
                    .iter()
                    .filter_map(|path| path.file_name())
                    .any(|name| names.contains(name))
        }
        EventKind::Access(_) => false,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

/// What a file is called: where it is named, and where it is found.
fn names(path: &Path) -> BTreeSet<OsString> {
    let found = std::fs::canonicalize(path).ok();
    [Some(path), found.as_deref()]
        .into_iter()
        .flatten()
        .filter_map(|path| path.file_name().map(ToOwned::to_owned))
        .collect()
}

/// The folders in which something happens when a file changes: where it is named, where it is found, and where the links
/// on the way stand. What is behind a link to a link is found by [`LOOK`].
fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let named = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let links = named.ancestors().filter(|part| part.is_symlink()).filter_map(Path::parent);
    let found = std::fs::canonicalize(path).ok();
    links
        .chain(named.parent())
        .filter_map(|folder| std::fs::canonicalize(folder).ok())
        .chain(found.as_deref().and_then(Path::parent).map(Path::to_path_buf))
        .collect()
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, RenameMode};

    use super::*;

    #[test]
    fn what_another_file_is_written_to_is_no_news() {
        let ours = BTreeSet::from([OsString::from("keys.yaml")]);
        let is_news = |kind, path: &str| {
            is_news(&Event::new(kind).add_path(PathBuf::from("/etc/oncehook").join(path)), &ours)
        };
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        for kind in [written, closed] {
            assert!(is_news(kind, "keys.yaml"));
            assert!(!is_news(kind, "oncehook.log"));
        }
        assert!(!is_news(EventKind::Access(AccessKind::Read), "keys.yaml"));
        assert!(
            is_news(EventKind::Modify(ModifyKind::Name(RenameMode::To)), "..data"),
            "a volume's link"
        );
        assert!(is_news(EventKind::Create(CreateKind::Any), "..data"));
    }
}
