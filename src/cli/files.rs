//! Watches the files that a configuration is made from, and tells when one of them holds something else.
//!
//! Contents count, not events: an event is only a reason to look. So a file that is replaced (as editors and certbot
//! do), a link that is turned (`..data` of a Kubernetes volume) and a file that is written in place are all the same,
//! and what no event tells, as on a network file system, is found by looking every now and then. Reading the
//! configuration is left to `config`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
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
    /// `None` where the system has no events to spare; then there is only [`LOOK`].
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    stirred: Arc<Notify>,
}

impl Files {
    /// Watches `inputs`, as they were when they were read.
    pub(super) fn new(inputs: Vec<InputFile>) -> Self {
        let stirred = Arc::new(Notify::new());
        let stir = Arc::clone(&stirred);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.map_or(true, |event| is_news(event.kind)) {
                stir.notify_one();
            }
        });
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!(%error, look_seconds = LOOK.as_secs(), "no events of the file system: files are looked at instead");
        });
        let mut files =
            Self { inputs: Vec::new(), watcher: watcher.ok(), folders: BTreeSet::new(), stirred };
        files.set(inputs);
        files
    }

    /// Watches these from now on instead.
    pub(super) fn set(&mut self, inputs: Vec<InputFile>) {
        let folders: BTreeSet<PathBuf> =
            inputs.iter().flat_map(|input| folders(input.path())).collect();
        if let Some(watcher) = &mut self.watcher {
            // All anew: what has an old name may be a new folder; and one that is gone is watched no longer.
            for folder in &self.folders {
                watcher.unwatch(folder).ok();
            }
            for folder in &folders {
                watch(watcher, folder);
            }
        }
        (self.inputs, self.folders) = (inputs, folders);
        // What happened before the watch began is looked for once.
        self.stirred.notify_one();
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

fn watch(watcher: &mut RecommendedWatcher, folder: &Path) {
    if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
        tracing::debug!(folder = %folder.display(), %error, "cannot be watched");
    }
}

/// Whether a file may hold something else after it: not if it was only read, for that is what looking does.
fn is_news(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
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
