//! Which node of a Cluster serves a record: a map of the slots that the nodes themselves correct.
//!
//! Every node is a [`Node`] with a connection and a breaker of its own: one that is down costs the others nothing. The
//! map is fetched when it is first needed, and again after anything that casts doubt on it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Value;

use super::link::{Address, Place};
use super::node::{Errand, Health, Node, Said, Terms};
use super::race;
use super::script::{Asking, Call};
use super::slots::{self, SLOTS, Slot};
use super::wire::{Source, Wire};
use crate::claim::record::Reply;
use crate::clock::{self, Monotonic};
use crate::store::StoreError;

/// How often an operation may be sent elsewhere: once by a stale map, once by a slot on its way, and once more each.
const REDIRECTS_MAX: u32 = 4;

/// How long the map stays as it is at least, whatever the nodes say.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// How many names are tried for a probe of one node; a node that serves fewer than one slot in a thousand may be missed.
const PROBE_NAMES_MAX: u32 = 10_000;

/// The nodes of a Cluster.
pub(super) struct Cluster {
    terms: Terms,
    seeds: Vec<(Wire, Address)>,
    map: Mutex<Map>,
    is_stale: AtomicBool,
    /// When the map was last asked for. Whoever holds it asks.
    refreshed: tokio::sync::Mutex<Option<Monotonic>>,
    /// Of the search for any node, as long as there is no map.
    health: Health,
}

/// One node, and where it listens.
pub(super) struct Member {
    pub(super) address: Address,
    pub(super) node: Node,
}

#[derive(Default)]
struct Map {
    members: HashMap<Address, Arc<Member>>,
    /// By slot; empty before the first answer.
    slots: Vec<Option<Arc<Member>>>,
}

impl Cluster {
    /// Connects to nothing yet.
    pub(super) fn new(seeds: Vec<Address>, terms: Terms) -> Self {
        let wire = |seed: &Address| {
            let place = Place::Tcp(seed.clone());
            Wire::new(Source::Place(Arc::clone(&terms.dialer), place), terms.patience)
        };
        let seeds = seeds.into_iter().map(|seed| (wire(&seed), seed)).collect();
        let health = Health::new("cluster".to_owned(), terms.breaker_failures);
        Self {
            terms,
            seeds,
            map: Mutex::default(),
            is_stale: AtomicBool::new(true),
            refreshed: tokio::sync::Mutex::default(),
            health,
        }
    }

    /// Has `call` performed by whoever serves it. Each of at most [`REDIRECTS_MAX`] redirections may cost as much again.
    pub(super) async fn perform(
        &self,
        call: &Call<'_>,
        errand: Errand,
    ) -> Result<Reply, StoreError> {
        let slot = Slot::of(call.name);
        let mut member = self.serving(slot, errand).await?;
        let mut asking = Asking::No;
        for _ in 0..=REDIRECTS_MAX {
            let said = member.node.perform(call, asking, errand).await;
            let target = match said.inspect_err(|error| self.doubt(error))? {
                Said::Reply(reply) => return Ok(reply),
                Said::Moved(target) => {
                    asking = Asking::No;
                    target
                }
                Said::Ask(target) => {
                    asking = Asking::Yes;
                    target
                }
            };
            let address = slots::target(&target, &member.address.host)
                .ok_or_else(|| StoreError::Unexpected(format!("a redirection to {target:?}")))?;
            member = match asking {
                Asking::Yes => self.member(&address),
                Asking::No => self.moved(slot, &address),
            };
        }
        Err(StoreError::Unavailable("each node of the cluster names another".to_owned()))
    }

    /// For every node that fails, the hash tag of a record to probe it with. The map comes first: the node may have been
    /// replaced.
    pub(super) async fn failing_tags(&self) -> Vec<String> {
        if self.health.wants_probe() || !self.failing().is_empty() {
            self.is_stale.store(true, Ordering::Relaxed);
            if let Err(error) = self.refresh().await {
                tracing::debug!(error = error.label(), "no node says who serves which slots");
            }
        }
        self.failing().iter().filter_map(|member| self.tag_of(member)).collect()
    }

    /// How long the node that has failed longest has done so.
    pub(super) fn outage(&self) -> Option<Duration> {
        let map = self.map();
        let of_nodes = map.members.values().filter_map(|member| member.node.health.outage());
        of_nodes.chain(self.health.outage()).max()
    }

    /// Every node that serves slots.
    pub(super) async fn members(&self) -> Result<Vec<Arc<Member>>, StoreError> {
        self.refresh().await?;
        Ok(self.map().members.values().cloned().collect())
    }

    /// The hash tag of a record that `member` serves, to probe it with.
    pub(super) fn tag_of(&self, member: &Arc<Member>) -> Option<String> {
        let map = self.map();
        (0..PROBE_NAMES_MAX).map(|number| format!("probe{number}")).find(|tag| {
            let serving = map.slots.get(Slot::of(tag).index()).and_then(Option::as_ref);
            serving.is_some_and(|serving| Arc::ptr_eq(serving, member))
        })
    }

    fn failing(&self) -> Vec<Arc<Member>> {
        let map = self.map();
        map.members.values().filter(|member| member.node.health.wants_probe()).cloned().collect()
    }

    async fn serving(&self, slot: Slot, errand: Errand) -> Result<Arc<Member>, StoreError> {
        if self.is_stale.load(Ordering::Relaxed) {
            if errand == Errand::Operation && self.health.is_open() {
                return Err(StoreError::Open);
            }
            self.refresh().await?;
        }
        let map = self.map();
        let member = map.slots.get(slot.index()).and_then(Option::as_ref);
        member.cloned().ok_or_else(|| {
            self.is_stale.store(true, Ordering::Relaxed);
            StoreError::Unavailable("no node is known to serve the slot".to_owned())
        })
    }

    /// Takes note of a failure after which somebody else may serve the slot.
    fn doubt(&self, error: &StoreError) {
        if error.spoils_connection() || matches!(error, StoreError::Open) {
            self.is_stale.store(true, Ordering::Relaxed);
        }
    }

    /// Takes note of who serves `slot` from now on; others may have moved with it.
    fn moved(&self, slot: Slot, address: &Address) -> Arc<Member> {
        let member = self.member(address);
        self.is_stale.store(true, Ordering::Relaxed);
        let mut map = self.map();
        if !map.slots.iter().flatten().any(|serving| serving.address == *address) {
            // It served nothing that we know of: a replica that took its master's place says so first by being pointed
            // at, and is asked before the map is read again.
            member.node.wire.inherited();
        }
        if let Some(serving) = map.slots.get_mut(slot.index()) {
            *serving = Some(Arc::clone(&member));
        }
        drop(map);
        member
    }

    fn member(&self, address: &Address) -> Arc<Member> {
        let mut map = self.map();
        let known = map.members.entry(address.clone());
        Arc::clone(known.or_insert_with(|| self.join(address)))
    }

    fn join(&self, address: &Address) -> Arc<Member> {
        let place = Place::Tcp(address.clone());
        let source = Source::Place(Arc::clone(&self.terms.dialer), place);
        Arc::new(Member {
            address: address.clone(),
            node: Node::new(source, address.to_string(), &self.terms),
        })
    }

    /// Fetches the map anew, unless nobody doubts it, or it is new. With a map that may do, nobody waits for another's
    /// fetching, nor fails with it.
    async fn refresh(&self) -> Result<(), StoreError> {
        let has_map = !self.map().slots.is_empty();
        let mut refreshed = match self.refreshed.try_lock() {
            Ok(refreshed) => refreshed,
            Err(_) if has_map => return Ok(()),
            Err(_) => self.refreshed.lock().await,
        };
        if !self.is_stale.load(Ordering::Relaxed) {
            return Ok(());
        }
        if refreshed.is_some_and(|at| clock::monotonic().since(at) < REFRESH_PAUSE) {
            let just_now = "no node could say just now who serves which slots";
            return if has_map {
                Ok(())
            } else {
                Err(StoreError::Unavailable(just_now.to_owned()))
            };
        }
        // Before the question: a doubt that arises meanwhile must stand.
        self.is_stale.store(false, Ordering::Relaxed);
        let began = clock::monotonic();
        let fetched = self.fetch().await;
        *refreshed = Some(clock::monotonic());
        if fetched.is_err() {
            self.is_stale.store(true, Ordering::Relaxed);
        }
        if has_map {
            return Ok(());
        }
        self.health.note(began, fetched.as_ref().err());
        fetched
    }

    /// Asks all nodes who serves which slots, then the ones that were named at the start.
    async fn fetch(&self) -> Result<(), StoreError> {
        let members: Vec<Arc<Member>> = self.map().members.values().cloned().collect();
        let of_members = members.iter().map(|member| ranges(&member.node.wire, &member.address));
        let ranges = match race::first(of_members).await {
            Ok(ranges) => ranges,
            Err(_) => race::first(self.seeds.iter().map(|(wire, at)| ranges(wire, at))).await?,
        };
        let mut slots: Vec<Option<Arc<Member>>> = vec![None; usize::from(SLOTS)];
        let mut serving = HashMap::new();
        for range in ranges {
            let member = self.member(&range.node);
            slots.get_mut(range.slots()).into_iter().flatten().for_each(|slot| {
                *slot = Some(Arc::clone(&member));
            });
            serving.insert(range.node, member);
        }
        let mut map = self.map();
        for (before, after) in map.slots.iter().zip(&slots) {
            // A slot that moved leaves a node that still serves others; a node that is gone has been replaced.
            if let (Some(before), Some(after)) = (before, after)
                && !serving.contains_key(&before.address)
            {
                after.node.wire.inherited();
            }
        }
        map.members = serving;
        map.slots = slots;
        Ok(())
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the node at the end of `wire` says about the slots; a map that serves none is no answer.
async fn ranges(wire: &Wire, address: &Address) -> Result<Vec<slots::Range>, StoreError> {
    let mut question = redis::cmd("CLUSTER");
    question.arg("SLOTS");
    let asked = wire.ask(async |link| question.query_async::<Value>(link.connection()).await).await;
    let (answer, _) = asked?;
    match slots::read(&answer, &address.host) {
        Some(ranges) if ranges.is_empty() => {
            Err(StoreError::Unavailable(format!("{address} knows of no slots that are served")))
        }
        Some(ranges) => Ok(ranges),
        None => Err(StoreError::Unexpected(format!("{answer:?} to CLUSTER SLOTS"))),
    }
}
