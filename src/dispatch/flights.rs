//! Which keys this process is busy with: copies of one event share one exchange.
//!
//! The first copy of a key leads; the others follow and are told what the leader is told. A leader that ends without
//! landing (a panic) lets its followers go, and the next copy leads. What an exchange does is left to the rest of
//! `dispatch`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use tokio::sync::SetOnce;

use crate::claim::{Digest, Key};

use super::Concluded;

/// Enough that two cores seldom meet at one.
const SHARDS: usize = 32;

/// What the leader says at the end; `None` if it ended without a conclusion.
type Word = Arc<SetOnce<Option<Concluded>>>;
type Shard = HashMap<Key, Flight, RandomState>;

/// One key on its way.
struct Flight {
    word: Word,
    /// Of the leader's content.
    digest: Digest,
}

/// Besides the followers, the flight and its leader hold the word.
const WITHOUT_FOLLOWERS: usize = 2;

impl Flight {
    fn followers(&self) -> usize {
        Arc::strong_count(&self.word).saturating_sub(WITHOUT_FOLLOWERS)
    }
}

/// The keys that are on their way.
pub(super) struct Flights {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    followers_max: AtomicUsize,
}

/// What a copy is, in relation to the others of its key.
pub(super) enum Boarded {
    /// The first: it performs the exchange and must [`Lead::land`].
    Lead(Lead),
    /// One that waits for the first.
    Follow(Follow),
    /// One too many.
    Full,
}

/// The first copy's place. Dropping it without landing lets the followers go empty-handed.
pub(super) struct Lead {
    flights: Arc<Flights>,
    key: Key,
    word: Word,
}

/// A later copy's place.
pub(super) struct Follow {
    word: Word,
    /// Of the leader's content: that is what will have been forwarded.
    pub(super) digest: Digest,
}

impl Flights {
    /// No keys yet; at most `followers_max` copies wait for each.
    pub(super) fn new(followers_max: usize) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let followers_max = AtomicUsize::new(followers_max);
        Arc::new(Self { shards, hasher: RandomState::default(), followers_max })
    }

    /// Another limit for the copies that come from now on.
    pub(super) fn set_followers_max(&self, followers_max: usize) {
        self.followers_max.store(followers_max, Ordering::Relaxed);
    }

    /// Joins the copies of `key`; `digest` is of this one's content.
    pub(super) fn board(self: &Arc<Self>, key: Key, digest: Digest) -> Boarded {
        let followers_max = self.followers_max.load(Ordering::Relaxed);
        let Some(mut shard) = self.shard(key) else { return Boarded::Full };
        match shard.entry(key) {
            Entry::Occupied(flight) if flight.get().followers() >= followers_max => Boarded::Full,
            Entry::Occupied(flight) => {
                let Flight { word, digest } = flight.get();
                Boarded::Follow(Follow { word: Arc::clone(word), digest: *digest })
            }
            Entry::Vacant(place) => {
                let word = Word::default();
                place.insert(Flight { word: Arc::clone(&word), digest });
                Boarded::Lead(Lead { flights: Arc::clone(self), key, word })
            }
        }
    }

    /// How many keys are on their way.
    pub(super) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len())
            .sum()
    }

    /// The shard of `key`; there always is one. A poisoned one is as good as any: nothing that holds the lock can leave
    /// the map half changed.
    fn shard(&self, key: Key) -> Option<MutexGuard<'_, Shard>> {
        let [low, ..] = self.hasher.hash_one(key).to_le_bytes();
        let shard = self.shards.get(usize::from(low) % SHARDS)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Lead {
    /// Tells the followers. Whoever arrives from now on leads an exchange of its own, so what was settled must be
    /// remembered before.
    pub(super) fn land(self, concluded: Concluded) {
        self.say(Some(concluded));
    }

    /// The first word counts.
    fn say(&self, word: Option<Concluded>) {
        self.word.set(word).ok();
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if let Some(mut shard) = self.flights.shard(self.key) {
            shard.remove(&self.key);
        }
        self.say(None);
    }
}

impl Follow {
    /// Waits for the leader's conclusion; `None` if it ended without one. Cancel safe.
    pub(super) async fn concluded(self) -> Option<Concluded> {
        *self.word.wait().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::exchange::{Conclusion, Outcome};

    const KEY: Key = Key([7; 16]);
    const OTHER: Key = Key([8; 16]);
    const DIGEST: Digest = Digest(9);

    fn delivered() -> Concluded {
        Concluded::of(Conclusion::Forwarded(Outcome::Delivered(200)))
    }

    #[tokio::test]
    async fn the_first_copy_leads_and_the_others_hear_of_it() {
        let flights = Flights::new(2);
        let Boarded::Lead(lead) = flights.board(KEY, DIGEST) else {
            panic!("the first copy leads")
        };
        let Boarded::Follow(second) = flights.board(KEY, DIGEST) else {
            panic!("the second follows")
        };
        assert!(
            matches!(flights.board(OTHER, DIGEST), Boarded::Lead(_)),
            "another key is another flight"
        );
        lead.land(delivered());
        assert_eq!(second.concluded().await, Some(delivered()));
        assert_eq!(flights.len(), 0);
        assert!(
            matches!(flights.board(KEY, DIGEST), Boarded::Lead(_)),
            "after the landing a copy leads again"
        );
    }

    #[tokio::test]
    async fn a_leader_that_is_dropped_lets_its_followers_go() {
        let flights = Flights::new(2);
        let Boarded::Lead(lead) = flights.board(KEY, DIGEST) else {
            panic!("the first copy leads")
        };
        let Boarded::Follow(second) = flights.board(KEY, DIGEST) else {
            panic!("the second follows")
        };
        drop(lead);
        assert_eq!(second.concluded().await, None);
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test]
    async fn followers_are_bounded() {
        let flights = Flights::new(1);
        let _lead = flights.board(KEY, DIGEST);
        let second = flights.board(KEY, DIGEST);
        assert!(matches!(second, Boarded::Follow(_)));
        assert!(matches!(flights.board(KEY, DIGEST), Boarded::Full));
        drop(second);
        assert!(
            matches!(flights.board(KEY, DIGEST), Boarded::Follow(_)),
            "a place that is given up is free again"
        );
    }
}
