//! The world of the simulation: senders with LiveKit's schedule, replicas that share exchanges, stores, a backend, and
//! what befalls them. Time is virtual, in milliseconds; every choice comes from the seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use oncehook::claim::Owner;
use oncehook::claim::exchange::{Effect, Input, OnAmbiguous, OnStoreError, Place, Terms};
use oncehook::claim::record::{Operation, Record, StoreTime};
use oncehook::clock::Monotonic;

use super::claim_protocol::{Mutant, Protocol, Run, Told, terms};
use super::claim_random::Random;

/// How long a store operation may take before it is given up.
pub(crate) const STORE_TIMEOUT: u64 = 250;
/// How long a forward may take.
pub(crate) const UPSTREAM_TIMEOUT: u64 = 8_000;
/// go-retryablehttp's pauses: attempts at 0, 1, 3, 7 and 15 s.
pub(crate) const PAUSES: [u64; 4] = [1_000, 2_000, 4_000, 8_000];
/// How long an unfinished operation is retried for, and how often.
pub(crate) const BACKGROUND: (u64, u64) = (10_000, 500);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Happening {
    /// A sender posts.
    Attempt {
        sender: usize,
    },
    /// An operation reaches the shared store; the reply is on its way, if anybody still waits for it.
    Apply {
        exchange: usize,
        awaited: bool,
    },
    /// What came of an effect is taken in.
    Resume {
        exchange: usize,
    },
    /// The first byte is about to be written.
    Write {
        exchange: usize,
    },
    /// The backend accepts a request.
    Accept {
        marked: bool,
    },
    /// An unfinished operation is tried again.
    Background {
        exchange: usize,
        until: u64,
    },
    Crash {
        replica: usize,
    },
}

pub(crate) struct Sending {
    pub(crate) exchange: usize,
    pub(crate) replica: usize,
    pub(crate) run: Run,
    pub(crate) owner: Owner,
    /// Who waits for the answer; the first is the one that it was begun for.
    pub(crate) senders: Vec<usize>,
    pub(crate) begun: u64,
    pub(crate) stalled: bool,
    /// What `Resume` will feed back.
    pub(crate) input: Option<Input>,
    pub(crate) written: bool,
    pub(crate) alive: bool,
    pub(crate) unfinished: Option<Operation>,
}

#[derive(Default)]
pub(crate) struct Sender {
    pub(crate) attempts: usize,
    pub(crate) told: Option<Told>,
}

pub(crate) struct Replica {
    pub(crate) local: Record,
    pub(crate) cut_off_until: u64,
    /// Since when it has failed to reach the store.
    pub(crate) out_since: Option<u64>,
    /// The exchange that copies share.
    pub(crate) active: Option<usize>,
}

/// How the backend takes this event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Accepting,
    Refusing,
}

/// What has come of the event; see the model's state for the same words.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) accepted: u64,
    pub(crate) unmarked: u64,
    pub(crate) excuses: u64,
    pub(crate) faults: u64,
    pub(crate) forwards: u64,
    pub(crate) followers: u64,
    pub(crate) collapsed: u64,
    pub(crate) duplicates: u64,
    pub(crate) recorded: bool,
    pub(crate) forgotten: bool,
}

pub(crate) struct Fleet {
    pub(crate) protocol: Protocol,
    pub(crate) terms: Terms,
    pub(crate) random: Random,
    pub(crate) now: u64,
    pub(crate) agenda: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    pub(crate) entries: u64,
    pub(crate) shared: Record,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) senders: Vec<Sender>,
    pub(crate) exchanges: Vec<Sending>,
    pub(crate) late: BTreeMap<usize, Operation>,
    pub(crate) faults_left: u64,
    pub(crate) fault_chance: u64,
    pub(crate) failure_chance: u64,
    pub(crate) mood: Mood,
    pub(crate) tally: Tally,
    pub(crate) trace: Vec<String>,
    pub(crate) broken: Option<String>,
}

impl Replica {
    pub(crate) fn new() -> Self {
        Self { local: Record::Vacant, cut_off_until: 0, out_since: None, active: None }
    }
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.unmarked += other.unmarked;
        self.excuses += other.excuses;
        self.faults += other.faults;
        self.forwards += other.forwards;
        self.followers += other.followers;
        self.collapsed += other.collapsed;
        self.duplicates += other.duplicates;
        self.recorded |= other.recorded;
        self.forgotten |= other.forgotten;
    }

    /// A simulation in which nothing goes wrong shows nothing.
    pub(crate) fn has_seen_everything(&self) -> bool {
        let marked = self.accepted - self.unmarked;
        let counted =
            [self.unmarked, marked, self.faults, self.followers, self.collapsed, self.duplicates];
        counted.iter().all(|count| *count > 0) && self.forwards > self.accepted && self.forgotten
    }
}

impl Fleet {
    pub(crate) fn new(seed: u64, protocol: Protocol) -> Self {
        let mut random = Random::new(seed);
        let on_store_error = match random.between(0, 3) {
            0 => OnStoreError::Local,
            1 => OnStoreError::Reject,
            _ => OnStoreError::RejectThenLocal(Duration::from_secs(1)),
        };
        let on_ambiguous =
            if random.percent(12) { OnAmbiguous::Suppress } else { OnAmbiguous::Retry };
        let replicas = random.between(1, 5);
        let mut fleet = Self {
            protocol,
            terms: Terms { on_ambiguous, ..terms(on_store_error) },
            now: 0,
            agenda: BinaryHeap::new(),
            entries: 0,
            shared: Record::Vacant,
            replicas: (0..replicas).map(|_| Replica::new()).collect(),
            senders: Vec::new(),
            exchanges: Vec::new(),
            late: BTreeMap::new(),
            faults_left: if random.percent(20) { 0 } else { random.between(1, 5) },
            fault_chance: random.between(3, 30),
            failure_chance: if random.percent(40) { 0 } else { random.between(5, 60) },
            mood: if random.percent(8) { Mood::Refusing } else { Mood::Accepting },
            random,
            tally: Tally::default(),
            trace: Vec::new(),
            broken: None,
        };
        for _ in 0..fleet.random.between(1, 5) {
            let range = if fleet.random.percent(70) { 1_000 } else { 30_000 };
            let at = fleet.random.between(0, range);
            fleet.add_sender(at);
        }
        fleet
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.faults_left == 0
            && self.tally.faults == 0
            && self.failure_chance == 0
            && self.mood == Mood::Accepting
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.mood == Mood::Refusing
    }

    fn add_sender(&mut self, at: u64) {
        self.senders.push(Sender::default());
        self.at(at, Happening::Attempt { sender: self.senders.len() - 1 });
    }

    pub(crate) fn at(&mut self, at: u64, happening: Happening) {
        self.entries += 1;
        self.agenda.push(Reverse((at.max(self.now), self.entries, happening)));
    }

    pub(crate) fn note(&mut self, line: &str) {
        self.trace.push(format!("{:>6} {line}", self.now));
    }

    pub(crate) fn store_time(&self) -> StoreTime {
        StoreTime(7_000_000 + self.now)
    }

    pub(crate) fn monotonic(&self) -> Monotonic {
        Monotonic::from_origin(Duration::from_millis(self.now))
    }

    pub(crate) fn strikes(&mut self) -> bool {
        let struck = self.faults_left > 0 && self.random.percent(self.fault_chance);
        if struck {
            self.faults_left -= 1;
            self.tally.faults += 1;
        }
        struck
    }

    /// All is well from now on; one more sender comes when every lease has lapsed.
    pub(crate) fn heal(&mut self) {
        (self.faults_left, self.failure_chance) = (0, 0);
        self.now += 15_000;
        self.add_sender(self.now);
    }

    /// Runs until nothing is left to happen, or an invariant is broken.
    pub(crate) fn run(&mut self, check: fn(&Self) -> Option<String>) {
        const HAPPENINGS_MAX: u32 = 100_000;
        for _ in 0..HAPPENINGS_MAX {
            let Some(Reverse((at, _, happening))) = self.agenda.pop() else { return };
            self.now = at;
            self.note(&format!("{happening:?}"));
            self.happen(happening);
            if self.broken.is_none() {
                self.broken = check(self);
            }
            if self.broken.is_some() {
                return;
            }
        }
        self.broken = Some("it does not end".to_owned());
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Attempt { sender } => self.attempt(sender),
            Happening::Apply { exchange, awaited } => self.arrive_at_store(exchange, awaited),
            Happening::Resume { exchange } if self.exchanges[exchange].alive => {
                let input = self.exchanges[exchange].input.take().expect("an input");
                self.step(exchange, input);
            }
            Happening::Write { exchange } if self.exchanges[exchange].alive => self.write(exchange),
            Happening::Resume { .. } | Happening::Write { .. } => {}
            Happening::Accept { marked } => {
                self.tally.accepted += 1;
                self.tally.unmarked += u64::from(!marked);
            }
            Happening::Background { exchange, until } => self.background(exchange, until),
            Happening::Crash { replica } => self.crash(replica),
        }
    }

    fn attempt(&mut self, sender: usize) {
        self.senders[sender].attempts += 1;
        let replica = self.random.index(self.replicas.len());
        if self.strikes() {
            self.befall(replica);
        }
        if let Some(exchange) = self.replicas[replica].active {
            self.tally.followers += 1;
            if self.protocol.has(Mutant::FollowersEarly) {
                self.tell(sender, Told::Collapsed);
            } else {
                self.exchanges[exchange].senders.push(sender);
            }
            return;
        }
        let own = u128::from(self.random.next()) << 64 | u128::from(self.random.next());
        let owner = self.protocol.owner(own, replica);
        let run = Run::start(self.terms, owner, self.monotonic());
        let exchange = self.exchanges.len();
        self.exchanges.push(Sending {
            exchange,
            replica,
            run,
            owner,
            senders: vec![sender],
            begun: self.now,
            stalled: false,
            input: None,
            written: false,
            alive: true,
            unfinished: None,
        });
        self.replicas[replica].active = Some(exchange);
        self.perform(exchange);
    }

    /// A fault of a whole replica, or of the store.
    fn befall(&mut self, replica: usize) {
        match self.random.between(0, 3) {
            0 => {
                let at = self.now + self.random.between(0, 12_000);
                self.at(at, Happening::Crash { replica });
            }
            1 => {
                self.note(&format!("replica {replica} is cut off"));
                self.tally.excuses += 1;
                self.replicas[replica].cut_off_until = self.now + self.random.between(500, 15_000);
            }
            _ => {
                self.note("the store forgets");
                self.tally.excuses += 1;
                self.tally.forgotten = true;
                self.shared = Record::Vacant;
            }
        }
    }

    /// Begins the outstanding effect.
    pub(crate) fn perform(&mut self, exchange: usize) {
        match self.exchanges[exchange].run.effect {
            Effect::Store(Place::Shared, operation) => self.ask(exchange, operation),
            Effect::Store(Place::Local, operation) => {
                let (owner, now) = (self.exchanges[exchange].owner, self.store_time());
                let slot = &mut self.replicas[self.exchanges[exchange].replica].local;
                let reply = self.protocol.apply(slot, owner, &operation, now);
                self.resume(exchange, 0, Input::Replied(reply));
            }
            Effect::Wait(wait) => {
                let wait = u64::try_from(wait.as_millis()).expect("a short wait") + 1;
                self.resume(exchange, wait, Input::Woke);
            }
            Effect::Forward { .. } => {
                let stall = self.stall(exchange);
                self.at(self.now + stall, Happening::Write { exchange });
            }
            Effect::Answer(answer) => {
                let sending = &mut self.exchanges[exchange];
                (sending.alive, sending.unfinished) = (false, answer.unfinished);
                let told = Told::of(answer.conclusion, sending.run.waited);
                let (senders, took) =
                    (std::mem::take(&mut sending.senders), self.now - sending.begun);
                if took > 9_500 && !sending.stalled {
                    self.broken = Some(format!("answered after {took} ms"));
                }
                self.replicas[self.exchanges[exchange].replica].active = None;
                for sender in senders {
                    self.tell(sender, told);
                }
                self.at(
                    self.now,
                    Happening::Background { exchange, until: self.now + BACKGROUND.0 },
                );
            }
        }
    }
}
