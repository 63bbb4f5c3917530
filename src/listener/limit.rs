//! How many connections there may be, in all and from one source.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::telemetry::labels::ConnectionRejection;

/// Counts connections, and knows how many there may be.
#[derive(Debug)]
pub(super) struct Places {
    total_max: AtomicUsize,
    per_source_max: AtomicUsize,
    taken: Mutex<Taken>,
}

/// Bounded by `total_max`: a source without a connection has no entry.
#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

impl Places {
    pub(super) fn new(total_max: usize, per_source_max: usize) -> Arc<Self> {
        let (total_max, per_source_max) = (total_max.into(), per_source_max.into());
        Arc::new(Self { total_max, per_source_max, taken: Mutex::default() })
    }

    /// Other limits for the connections that come from now on; those that are open stay.
    pub(super) fn set_limits(&self, total_max: usize, per_source_max: usize) {
        self.total_max.store(total_max, Ordering::Relaxed);
        self.per_source_max.store(per_source_max, Ordering::Relaxed);
    }

    /// A place for a connection, given back when it is dropped. It counts for no source before
    /// [`Place::count_for`].
    pub(super) fn take(self: &Arc<Self>) -> Result<Place, ConnectionRejection> {
        let mut taken = self.lock();
        if taken.total >= self.total_max.load(Ordering::Relaxed) {
            return Err(ConnectionRejection::Total);
        }
        taken.total = taken.total.saturating_add(1);
        drop(taken);
        Ok(Place { places: Arc::clone(self), source: None })
    }

    fn count(&self, source: IpAddr) -> Result<(), ConnectionRejection> {
        let mut taken = self.lock();
        let of_source = taken.by_source.get(&source).copied().unwrap_or(0);
        if of_source >= self.per_source_max.load(Ordering::Relaxed) {
            return Err(ConnectionRejection::Source);
        }
        taken.by_source.insert(source, of_source.saturating_add(1));
        Ok(())
    }

    fn give_back(&self, source: Option<IpAddr>) {
        let mut taken = self.lock();
        taken.total = taken.total.saturating_sub(1);
        let Some(source) = source else { return };
        match taken.by_source.get_mut(&source) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => {
                taken.by_source.remove(&source);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    source: Option<IpAddr>,
}

impl Place {
    /// Counts for `address` from now on, once and for all.
    pub(super) fn count_for(&mut self, address: IpAddr) -> Result<(), ConnectionRejection> {
        if self.source.is_none() {
            let source = source(address);
            self.places.count(source)?;
            self.source = Some(source);
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.give_back(self.source);
    }
}

/// Whom an address counts for. Whoever has one IPv6 address has the 2^64 of its network (RFC 6177, RFC 4291 §2.5.4).
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn taken(places: &Arc<Places>, by: IpAddr) -> Result<Place, ConnectionRejection> {
        let mut place = places.take()?;
        place.count_for(by)?;
        Ok(place)
    }

    #[test]
    fn a_source_has_its_own_limit_and_gets_its_places_back() {
        let places = Places::new(3, 2);
        let first = taken(&places, address("192.0.2.1")).unwrap();
        let _second = taken(&places, address("::ffff:192.0.2.1")).unwrap();
        assert_eq!(taken(&places, address("192.0.2.1")).unwrap_err(), ConnectionRejection::Source);
        let _third = taken(&places, address("192.0.2.2")).unwrap();
        assert_eq!(taken(&places, address("192.0.2.3")).unwrap_err(), ConnectionRejection::Total);
        drop(first);
        let _again = taken(&places, address("192.0.2.1")).unwrap();
    }

    #[test]
    fn a_lower_limit_closes_nothing_and_admits_nobody_until_there_is_a_place() {
        let places = Places::new(2, 2);
        let first = taken(&places, address("192.0.2.1")).unwrap();
        let second = taken(&places, address("192.0.2.2")).unwrap();
        places.set_limits(1, 1);
        drop(first);
        assert_eq!(taken(&places, address("192.0.2.3")).unwrap_err(), ConnectionRejection::Total);
        drop(second);
        let _third = taken(&places, address("192.0.2.3")).unwrap();
    }

    #[test]
    fn one_ipv6_network_is_one_source() {
        let places = Places::new(10, 1);
        let _one = taken(&places, address("2001:db8::1")).unwrap();
        assert_eq!(
            taken(&places, address("2001:db8::ffff:1")).unwrap_err(),
            ConnectionRejection::Source
        );
        let _other = taken(&places, address("2001:db8:0:1::1")).unwrap();
    }

    #[test]
    fn nothing_is_remembered_of_a_source_that_left() {
        let places = Places::new(10, 10);
        drop(taken(&places, address("192.0.2.1")).unwrap());
        assert!(places.lock().by_source.is_empty());
        assert_eq!(places.lock().total, 0);
    }
}
