//! Whether the gateway is ready for webhooks.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// How far the gateway has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It does not accept webhooks yet.
    Starting,
    /// It does.
    Ready,
    /// It is about to end: send new ones elsewhere.
    Draining,
}

impl Stage {
    /// The word in `/readyz`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Starting => 0,
            Self::Ready => 1,
            Self::Draining => 2,
        }
    }
}

/// The stage, shared: `app` sets it, `/readyz` tells it.
#[derive(Debug)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// Starting.
    pub const fn new() -> Self {
        Self(AtomicU8::new(Stage::Starting.code()))
    }

    /// The gateway has come to `stage`.
    pub fn set(&self, stage: Stage) {
        self.0.store(stage.code(), Ordering::Release);
    }

    /// How far it has come.
    pub fn stage(&self) -> Stage {
        match self.0.load(Ordering::Acquire) {
            0 => Stage::Starting,
            1 => Stage::Ready,
            _ => Stage::Draining,
        }
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

/// How the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreHealth {
    /// Which store: `Store::kind`.
    pub kind: &'static str,
    /// How long it has been out; `None` if it is well. Not a reason to be unready: what happens to webhooks meanwhile
    /// is configured (`on_store_error`), and all replicas share the store, so that nobody else would do better.
    pub outage: Option<Duration>,
    /// What this process's memory of records holds.
    pub memory: Option<MemoryUse>,
    /// What the store's file holds, if it has one.
    pub disk: Option<DiskUse>,
}

/// What the store's file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUse {
    /// How many records.
    pub records: u64,
    /// How large the file is.
    pub file_bytes: u64,
    /// How many records went before their window ended, since the start.
    pub evicted: u64,
    /// How many files were found damaged and set aside, since the start.
    pub set_aside: u64,
}

/// What this process's memory of records holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// How many records.
    pub records: u64,
    /// How many bytes they count for.
    pub bytes: u64,
    /// How many went before their window ended, since the start.
    pub evicted: u64,
}
