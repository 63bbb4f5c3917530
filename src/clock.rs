//! Time as a value, and the only reader of the clock.
//!
//! Everything that decides takes a [`Monotonic`] or a [`UnixTime`] as an argument, so that tests, the model and the
//! simulation can choose it. Waiting is left to the rooms that own a runtime.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

/// A point on this process's monotonic clock: the time since an origin that is fixed once, at the first reading.
///
/// Two values compare only within one process; nothing that leaves the process holds one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// The point `since_origin` after the origin.
    pub const fn from_origin(since_origin: Duration) -> Self {
        Self(since_origin)
    }

    /// The time since the origin.
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// The point `after` later, or the last one that can be written.
    #[must_use]
    pub const fn plus(self, after: Duration) -> Self {
        Self(self.0.saturating_add(after))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// A point of civil time: the time since 1970-01-01T00:00:00Z, as in RFC 7519's `NumericDate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(Duration);

impl UnixTime {
    /// The point `since_epoch` after the epoch.
    pub const fn from_epoch(since_epoch: Duration) -> Self {
        Self(since_epoch)
    }

    /// The time since the epoch.
    pub const fn since_epoch(self) -> Duration {
        self.0
    }

    /// Whole seconds since the epoch.
    pub const fn seconds(self) -> u64 {
        self.0.as_secs()
    }
}

/// Reads the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "this is the reader that everything else must use")]
pub fn monotonic() -> Monotonic {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let origin = *ORIGIN;
    Monotonic(Instant::now().saturating_duration_since(origin))
}

/// Reads the civil clock. A clock that stands before the epoch reads as the epoch.
#[expect(clippy::disallowed_methods, reason = "this is the reader that everything else must use")]
pub fn unix() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
