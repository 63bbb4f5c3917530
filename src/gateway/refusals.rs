//! How often each source may be refused before it is only counted: neither told why, nor logged.
//!
//! What is limited is the refusal, never the request: every copy is verified, however often its source has been refused
//! before, for behind one address there may be senders of both kinds. So this does not save the check of a signature;
//! it saves the log, which anybody could fill, and a sender that is set up wrong hears when to come again. The connection
//! stays open: a handshake costs the gateway more than another refusal.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;

use crate::clock::Monotonic;
use crate::telemetry::labels::AnswerResult;

use super::answer::{Answer, Rejection};

/// How many sources are told apart, a few dozen bytes each. Those beyond share one allowance.
const SOURCES_MAX: usize = 16 * 1024;
/// How often those are sought, at most, that can be forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// What a limit is counted in.
const MINUTE: Duration = Duration::from_mins(1);
/// How much of an allowance may be used at once: a fleet that is set up wrong, or an operator who tries things, is told the
/// reason for a while, whatever the pace.
const BURST: Duration = Duration::from_mins(10);

/// Counts refusals by source.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Sources>);

/// What becomes of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is told and logged.
    Told,
    /// It is the first beyond the source's allowance, or the first again: that is logged. Another is told after this.
    FirstBeyond(Duration),
    /// It is beyond, and just counted.
    Beyond(Duration),
}

#[derive(Debug, Default)]
struct Sources {
    by_source: HashMap<IpAddr, Allowance>,
    /// That of all sources for which there was no room.
    others: Allowance,
    swept: Monotonic,
}

/// A token bucket by its one number (the generic cell rate algorithm of ITU-T I.371).
#[derive(Clone, Copy, Debug, Default)]
struct Allowance {
    /// When it is whole again.
    whole: Monotonic,
    /// Whether it has been used up since it was last whole.
    beyond: bool,
}

impl Refusals {
    /// A source was refused, `now`. It may be so `per_minute` times in a minute, and ten times as often at once; 0 for any
    /// number of times.
    pub(super) fn count(&self, source: IpAddr, per_minute: u32, now: Monotonic) -> Verdict {
        let Some(each) = MINUTE.checked_div(per_minute) else { return Verdict::Told };
        self.lock().allowance(network(source), now).take(each, now)
    }

    fn lock(&self) -> MutexGuard<'_, Sources> {
        // A panic elsewhere cannot have left more than one number half told.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sources {
    fn allowance(&mut self, source: IpAddr, now: Monotonic) -> &mut Allowance {
        let full = self.by_source.len() >= SOURCES_MAX;
        if full && now.since(self.swept) >= SWEEP_INTERVAL {
            // Whose allowance is whole is as good as unknown.
            self.by_source.retain(|_, allowance| allowance.whole > now);
            self.swept = now;
        }
        if self.by_source.len() >= SOURCES_MAX && !self.by_source.contains_key(&source) {
            return &mut self.others;
        }
        self.by_source.entry(source).or_default()
    }
}

impl Allowance {
    fn take(&mut self, each: Duration, now: Monotonic) -> Verdict {
        if self.whole <= now {
            *self = Self { whole: now, beyond: false };
        }
        let after = self.whole.plus(each).since(now);
        match after.checked_sub(BURST) {
            None | Some(Duration::ZERO) => {
                self.whole = self.whole.plus(each);
                Verdict::Told
            }
            Some(wait) if self.beyond => Verdict::Beyond(wait),
            Some(wait) => {
                self.beyond = true;
                Verdict::FirstBeyond(wait)
            }
        }
    }
}

/// Whom an address counts for. Whoever has one IPv6 address has the 2^64 of its network (RFC 6177, RFC 4291 §2.5.4).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

impl Rejection {
    /// Whether it counts for its source's limit: anybody could cause it, without a key. What takes a valid token, or is
    /// the gateway's own trouble, does not.
    pub(super) const fn counts_for_its_source(&self) -> bool {
        match self {
            Self::NoRoute
            | Self::Malformed(_)
            | Self::Method(_)
            | Self::Unsigned(_)
            | Self::TwoTokens => true,
            Self::Loop
            | Self::BodyMalformed(_)
            | Self::TooLarge(_)
            | Self::BodySlow(_)
            | Self::BodyBroken(_)
            | Self::Crowded
            | Self::Unanswered(_)
            | Self::Broken => false,
        }
    }
}

/// The word for [`limited`].
pub(super) const LIMITED: &str = "refused-too-often";

/// To a source that has been refused too often: not why, but when to come again. LiveKit obeys, so that a node that is
/// set up wrong slows down by itself.
pub(super) fn limited(wait: Duration) -> Answer {
    Answer {
        status: StatusCode::TOO_MANY_REQUESTS,
        word: LIMITED,
        result: AnswerResult::Refused,
        retry_after: Some(wait.max(Duration::from_secs(1))),
        detail: "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_millis(millis))
    }

    fn source(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn a_source_may_be_refused_so_often_at_once_and_then_once_an_interval() {
        let refusals = Refusals::default();
        let refuse = |now| refusals.count(source(1), 60, at(now));
        for _ in 0..600 {
            assert_eq!(refuse(5_000), Verdict::Told);
        }
        assert_eq!(refuse(5_000), Verdict::FirstBeyond(Duration::from_secs(1)));
        assert_eq!(refuse(5_400), Verdict::Beyond(Duration::from_millis(600)));
        assert_eq!(refuse(6_000), Verdict::Told);
        assert_eq!(refuse(6_000), Verdict::Beyond(Duration::from_secs(1)));
        // Whole again, and so the next time beyond is a first one.
        for _ in 0..600 {
            assert_eq!(refuse(1_000_000), Verdict::Told);
        }
        assert!(matches!(refuse(1_000_000), Verdict::FirstBeyond(_)));
    }

    #[test]
    fn each_source_has_its_own_allowance_and_an_ipv6_network_has_one() {
        let refusals = Refusals::default();
        let refuse = |address: &str| {
            let mut last = Verdict::Told;
            for _ in 0..6 {
                last = refusals.count(address.parse().unwrap(), 1, at(0));
            }
            last
        };
        assert_eq!(refuse("192.0.2.1"), Verdict::Told);
        assert_ne!(refuse("::ffff:192.0.2.1"), Verdict::Told);
        assert_eq!(refuse("192.0.2.2"), Verdict::Told);
        assert_eq!(refuse("2001:db8::1"), Verdict::Told);
        assert_ne!(refuse("2001:db8::ffff:1"), Verdict::Told);
        assert_eq!(refuse("2001:db8:0:1::1"), Verdict::Told);
    }

    #[test]
    fn without_a_limit_all_are_told() {
        let refusals = Refusals::default();
        for _ in 0..10_000 {
            assert_eq!(refusals.count(source(1), 0, at(0)), Verdict::Told);
        }
        assert!(refusals.lock().by_source.is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_has_been_quiet() {
        let refusals = Refusals::default();
        let max = u32::try_from(SOURCES_MAX).unwrap();
        for number in 0..max {
            assert_eq!(refusals.count(source(number), 2, at(0)), Verdict::Told);
        }
        // The others share one allowance of twenty; the known ones keep theirs.
        for other in 0..20 {
            assert_eq!(refusals.count(source(max + other), 2, at(0)), Verdict::Told);
        }
        assert_ne!(refusals.count(source(max + 20), 2, at(0)), Verdict::Told);
        assert_eq!(refusals.count(source(7), 2, at(0)), Verdict::Told);
        assert_eq!(refusals.lock().by_source.len(), SOURCES_MAX);
        // Half a minute later all but one are whole again.
        assert_eq!(refusals.count(source(max + 21), 2, at(30_001)), Verdict::Told);
        assert_eq!(refusals.lock().by_source.len(), 2);
    }
}
