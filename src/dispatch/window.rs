//! How long a settled record of each kind of event is remembered.

use std::time::Duration;

use crate::clock::UnixTime;
use crate::webhook::event::EventKind;
use crate::webhook::key::Basis;

/// A sender may present its token until it expires; a record outlives that by this much, leeway included.
const BEYOND_EXPIRY: Duration = Duration::from_mins(2);

/// No store has to count further, whatever expiry a token names.
const WINDOW_MAX: Duration = Duration::from_hours(366 * 24);

/// Windows, one for each kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    by_kind: [Duration; EventKind::ALL.len()],
    fallback: Duration,
}

impl Windows {
    /// `of` each kind; `fallback` for events that are known by their id or body only.
    pub fn new(fallback: Duration, of: impl Fn(EventKind) -> Duration) -> Self {
        Self { by_kind: EventKind::ALL.map(of), fallback }
    }

    /// The window of an event of `kind` that is known by `basis`, whose token can be presented until `expires`: never
    /// shorter than that, or a retry could outlive the memory of it.
    pub fn of(&self, kind: EventKind, basis: Basis, expires: UnixTime, now: UnixTime) -> Duration {
        let configured = match basis {
            Basis::Event | Basis::Template => self.kind(kind),
            Basis::Id | Basis::Body => self.fallback,
        };
        let presentable =
            expires.since_epoch().saturating_sub(now.since_epoch()).saturating_add(BEYOND_EXPIRY);
        configured.max(presentable).min(WINDOW_MAX)
    }

    fn kind(&self, kind: EventKind) -> Duration {
        let at = EventKind::ALL.iter().position(|each| *each == kind);
        at.and_then(|at| self.by_kind.get(at)).copied().unwrap_or(self.fallback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const NOW: UnixTime = UnixTime::from_epoch(Duration::from_secs(1_000_000));

    fn windows() -> Windows {
        Windows::new(HOUR, |kind| if kind == EventKind::EgressEnded { 24 * HOUR } else { HOUR })
    }

    #[test]
    fn each_kind_has_its_own_window_unless_only_the_id_is_known() {
        assert_eq!(windows().of(EventKind::EgressEnded, Basis::Event, NOW, NOW), 24 * HOUR);
        assert_eq!(windows().of(EventKind::EgressEnded, Basis::Id, NOW, NOW), HOUR);
        assert_eq!(windows().of(EventKind::TrackPublished, Basis::Event, NOW, NOW), HOUR);
    }

    #[test]
    fn no_window_ends_before_the_token_does() {
        let expires = UnixTime::from_epoch(NOW.since_epoch() + 2 * HOUR);
        assert_eq!(
            windows().of(EventKind::TrackPublished, Basis::Event, expires, NOW),
            2 * HOUR + BEYOND_EXPIRY
        );
    }
}
