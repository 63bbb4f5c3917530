//! Who claims: a random id for each attempt.
//!
//! The operating system is asked for many ids at a time, since a system call for each is a hundredth of what an event
//! costs. What is kept for later would be there twice if a running machine were copied (a snapshot that is resumed twice),
//! and two copies of one event, one at each, could be claimed under one id: both would win. So the moment goes in as
//! well, to the nanosecond, which two machines hardly ever have in common.

use std::cell::RefCell;

use crate::claim::Owner;
use crate::clock::Monotonic;

/// How many ids are fetched at once.
const BATCH: usize = 64;

thread_local! {
    static STOCK: RefCell<Stock> = const { RefCell::new(Stock { ids: [[0; 16]; BATCH], left: 0 }) };
}

/// Ids that nobody has had.
struct Stock {
    ids: [[u8; 16]; BATCH],
    left: usize,
}

impl Stock {
    fn take(&mut self) -> Option<u128> {
        if self.left == 0 {
            getrandom::fill(self.ids.as_flattened_mut()).ok()?;
            self.left = BATCH;
        }
        self.left = self.left.checked_sub(1)?;
        self.ids.get(self.left).map(|id| u128::from_le_bytes(*id))
    }
}

/// A fresh id for one attempt to claim; `None` if the operating system gives no random numbers.
pub(super) fn fresh(now: Monotonic) -> Option<Owner> {
    let random = STOCK.with_borrow_mut(Stock::take)?;
    Some(Owner(random.wrapping_add(now.since_origin().as_nanos())))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_id_is_given_twice() {
        let now = Monotonic::default();
        let ids: HashSet<_> = (0..3 * BATCH).map(|_| fresh(now).unwrap()).collect();
        assert_eq!(ids.len(), 3 * BATCH);
        assert!(ids.iter().all(|id| id.0 > u128::from(u64::MAX)), "all of it is random");
    }

    #[test]
    fn other_threads_have_others() {
        let draw = || (0..BATCH).map(|_| fresh(Monotonic::default()).unwrap().0).collect();
        let mine: HashSet<u128> = draw();
        let theirs: HashSet<u128> = std::thread::spawn(draw).join().unwrap();
        assert!(mine.is_disjoint(&theirs));
    }

    #[test]
    fn a_copy_of_the_machine_has_others_a_nanosecond_later() {
        let stock = || Stock { ids: [[7; 16]; BATCH], left: BATCH };
        let at = |nanos| Monotonic::from_origin(Duration::from_nanos(nanos));
        let owner = |now| {
            STOCK.set(stock());
            fresh(now)
        };
        assert_eq!(owner(at(1)), owner(at(1)), "the test would show nothing else");
        assert_ne!(owner(at(1)), owner(at(2)));
    }
}
