//! Looks at the gateway's memory from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

const EVERY: Duration = Duration::from_millis(50);
/// After a flood, before memory is looked at for the last time.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// What the process had resident, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) before: u64,
    pub(crate) peak: u64,
    pub(crate) after: u64,
}

/// Looks again and again.
pub(crate) struct Watching {
    pid: u32,
    before: u64,
    peak: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Watching {
    pub(crate) fn begin(pid: u32) -> Self {
        let before = resident_bytes(pid);
        let peak = Arc::new(AtomicU64::new(before));
        let seen = Arc::clone(&peak);
        let task = tokio::spawn(async move {
            loop {
                seen.fetch_max(resident_bytes(pid), Ordering::Relaxed);
                tokio::time::sleep(EVERY).await;
            }
        });
        Self { pid, before, peak, task }
    }

    pub(crate) async fn end(self) -> Memory {
        tokio::time::sleep(AFTERWARDS).await;
        self.task.abort();
        let (peak, after) = (self.peak.load(Ordering::Relaxed), resident_bytes(self.pid));
        Memory { before: self.before, peak: peak.max(after), after }
    }
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the gateway runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("its memory");
    kib.trim().parse::<u64>().expect("a number") * 1024
}
