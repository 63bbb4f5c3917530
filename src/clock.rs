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

    /// As RFC 3339 writes it, in UTC and whole seconds.
    pub fn rfc3339(self) -> String {
        let (days, second) = (self.seconds() / 86_400, self.seconds() % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Year, month and day of a day since the epoch: `civil_from_days` of Howard Hinnant's "chrono-Compatible Low-Level Date
/// Algorithms", whose years begin in March, so that a leap day is a year's last.
const fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_rfc_3339_wants_it() {
        let written = |seconds| UnixTime::from_epoch(Duration::from_secs(seconds)).rfc3339();
        assert_eq!(written(0), "1970-01-01T00:00:00Z");
        assert_eq!(written(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(written(951_868_799), "2000-02-29T23:59:59Z");
        assert_eq!(written(1_795_574_895), "2026-11-25T02:48:15Z");
        assert_eq!(written(4_102_444_800), "2100-01-01T00:00:00Z");
        assert_eq!(written(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
