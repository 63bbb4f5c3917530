//! How the fleet's effects come out: store operations, forwards, waits, answers, and the faults that strike them.

use std::time::Duration;

use oncehook::claim::exchange::{Effect, Input, OnStoreError, Outcome};
use oncehook::claim::record::{Operation, Record, Reply};

use super::claim_fleet::{
    BACKGROUND, Fleet, Happening, Mood, PAUSES, Replica, STORE_TIMEOUT, Sending, UPSTREAM_TIMEOUT,
};
use super::claim_protocol::Told;

impl Sending {
    /// It was written, or its verdict is recorded nowhere else.
    pub(super) fn knows_alone(&self) -> bool {
        let settling = matches!(self.run.effect, Effect::Store(_, Operation::Settle { .. }));
        self.alive && (self.written || settling)
            || matches!(self.unfinished, Some(Operation::Settle { .. }))
    }
}

impl Fleet {
    pub(super) fn crash(&mut self, replica: usize) {
        let lost = self.exchanges.iter().filter(|sending| sending.replica == replica);
        let costs = lost.clone().any(Sending::knows_alone)
            || matches!(self.replicas[replica].local, Record::Settled { .. });
        self.tally.excuses += u64::from(costs);
        let dying: Vec<usize> =
            lost.filter(|sending| sending.alive).map(|sending| sending.exchange).collect();
        for exchange in dying {
            self.exchanges[exchange].alive = false;
            for sender in std::mem::take(&mut self.exchanges[exchange].senders) {
                self.tell(sender, Told::Retry { after: None });
            }
        }
        for sending in self.exchanges.iter_mut().filter(|sending| sending.replica == replica) {
            sending.unfinished = None;
        }
        self.replicas[replica] =
            Replica { cut_off_until: self.replicas[replica].cut_off_until, ..Replica::new() };
    }

    /// Asks the shared store; or fails to.
    pub(super) fn ask(&mut self, exchange: usize, operation: Operation) {
        let replica = self.exchanges[exchange].replica;
        if self.replicas[replica].cut_off_until > self.now {
            let since = *self.replicas[replica].out_since.get_or_insert(self.now);
            let outage = Duration::from_millis(self.now + STORE_TIMEOUT - since);
            self.resume(exchange, STORE_TIMEOUT, Input::StoreFailed { outage });
            return;
        }
        self.replicas[replica].out_since = None;
        let takes = self.random.between(1, 20);
        if !self.strikes() {
            self.at(self.now + takes, Happening::Apply { exchange, awaited: true });
            return;
        }
        self.note(&format!("the reply to {operation:?} of exchange {exchange} is lost"));
        let alone = self.terms.on_store_error != OnStoreError::Reject;
        self.tally.excuses += match operation {
            Operation::Claim { .. } => u64::from(alone),
            Operation::Settle { .. } => 1,
            Operation::Release { .. } => 0,
        };
        if self.random.percent(70) {
            let high = if self.random.percent(50) { 200 } else { 20_000 };
            let late = self.random.between(1, high);
            self.late.insert(exchange, operation);
            self.at(self.now + late, Happening::Apply { exchange, awaited: false });
        }
        self.resume(
            exchange,
            STORE_TIMEOUT,
            Input::StoreFailed { outage: Duration::from_millis(STORE_TIMEOUT) },
        );
    }

    pub(super) fn arrive_at_store(&mut self, exchange: usize, awaited: bool) {
        if !awaited {
            if let Some(operation) = self.late.remove(&exchange) {
                self.apply_shared(exchange, &operation);
            }
            return;
        }
        // It is on its way even if its replica has died meanwhile.
        let Effect::Store(_, operation) = self.exchanges[exchange].run.effect else { return };
        let reply = self.apply_shared(exchange, &operation);
        if self.exchanges[exchange].alive {
            let takes = self.random.between(1, 20);
            self.resume(exchange, takes, Input::Replied(reply));
        }
    }

    fn apply_shared(&mut self, exchange: usize, operation: &Operation) -> Reply {
        self.tally.recorded |= matches!(operation, Operation::Settle { .. });
        let (owner, now) = (self.exchanges[exchange].owner, self.store_time());
        let reply = self.protocol.apply(&mut self.shared, owner, operation, now);
        self.note(&format!("exchange {exchange}: {operation:?} -> {reply:?}"));
        reply
    }

    pub(super) fn background(&mut self, exchange: usize, until: u64) {
        let Some(operation) = self.exchanges[exchange].unfinished else { return };
        if self.replicas[self.exchanges[exchange].replica].cut_off_until <= self.now {
            self.apply_shared(exchange, &operation);
            self.exchanges[exchange].unfinished = None;
        } else if self.now < until {
            self.at(self.now + BACKGROUND.1, Happening::Background { exchange, until });
        }
    }

    /// Lets the exchange have `input` in a while, unless it stalls.
    pub(super) fn resume(&mut self, exchange: usize, takes: u64, input: Input) {
        self.exchanges[exchange].input = Some(input);
        let stall = self.stall(exchange);
        self.at(self.now + takes + stall, Happening::Resume { exchange });
    }

    pub(super) fn stall(&mut self, exchange: usize) -> u64 {
        if !self.random.percent(20) || !self.strikes() {
            return 0;
        }
        self.note(&format!("exchange {exchange} stalls"));
        self.tally.excuses += u64::from(self.exchanges[exchange].written);
        self.exchanges[exchange].stalled = true;
        self.random.between(7_000, 25_000)
    }

    pub(super) fn write(&mut self, exchange: usize) {
        let Effect::Forward { attempt, possible_duplicate: marked, deadline } =
            self.exchanges[exchange].run.effect
        else {
            unreachable!()
        };
        let unreached = self.random.percent(self.failure_chance / 4);
        if unreached || !self.protocol.may_write(deadline, self.monotonic()) {
            return self.resume(exchange, 0, Input::Forwarded(Outcome::Unreached));
        }
        self.tally.forwards += 1;
        self.note(&format!("exchange {exchange} forwards attempt {attempt}, marked: {marked}"));
        let left = u64::try_from(deadline.since(self.monotonic()).as_millis()).unwrap_or(u64::MAX);
        let budget = left.min(UPSTREAM_TIMEOUT);
        let slowest = if self.random.percent(30) { 4_000 } else { 100 };
        let takes = self.random.between(5, slowest);
        let answer_lost = self.strikes();
        let outcome = self.outcome();
        if matches!(outcome, Outcome::Delivered(_)) {
            self.exchanges[exchange].written = true;
        }
        if answer_lost || takes >= budget {
            self.tally.excuses += u64::from(matches!(outcome, Outcome::Delivered(_)));
            self.exchanges[exchange].written = false;
            let high = if self.random.percent(50) { 100 } else { 30_000 };
            let late = self.random.between(1, high);
            self.accept(outcome, late, marked);
            let gives_up = if self.random.percent(50) { takes.min(budget) } else { budget };
            return self.resume(exchange, gives_up, Input::Forwarded(Outcome::Ambiguous));
        }
        self.accept(outcome, takes / 2, marked);
        self.resume(exchange, takes, Input::Forwarded(outcome));
    }

    fn accept(&mut self, outcome: Outcome, takes: u64, marked: bool) {
        if matches!(outcome, Outcome::Delivered(_)) {
            self.at(self.now + takes, Happening::Accept { marked });
        }
    }

    /// What the backend makes of a request.
    fn outcome(&mut self) -> Outcome {
        if !self.random.percent(self.failure_chance) {
            return match self.mood {
                Mood::Accepting => Outcome::Delivered(200),
                Mood::Refusing => Outcome::Refused(410),
            };
        }
        match self.random.between(0, 4) {
            0 => Outcome::Overloaded { status: 503, retry_after: Some(Duration::from_secs(3)) },
            1 => Outcome::Overloaded { status: 429, retry_after: None },
            2 => Outcome::Misconfigured(401),
            _ => Outcome::Failed(Some(500)),
        }
    }

    pub(super) fn step(&mut self, exchange: usize, input: Input) {
        let now = self.monotonic();
        if matches!(input, Input::Replied(_)) && self.is_settling(exchange) {
            self.exchanges[exchange].written = false;
        }
        self.exchanges[exchange].run.step(self.protocol, input, now);
        self.perform(exchange);
    }

    fn is_settling(&self, exchange: usize) -> bool {
        matches!(self.exchanges[exchange].run.effect, Effect::Store(_, Operation::Settle { .. }))
    }

    /// What a sender does with what it is told.
    pub(super) fn tell(&mut self, sender: usize, told: Told) {
        self.note(&format!("sender {sender} is told {told:?}"));
        if told.acknowledges() && self.tally.accepted == 0 {
            self.broken = Some("a 2xx before the delivery".to_owned());
        }
        self.tally.collapsed += u64::from(told == Told::Collapsed);
        self.tally.duplicates += u64::from(told == Told::Duplicate);
        let attempts = self.senders[sender].attempts;
        match told {
            Told::Retry { after } if attempts <= PAUSES.len() => {
                // A header has whole seconds.
                let seconds = |after: Duration| after.as_millis().div_ceil(1_000);
                let pause = after.map_or(PAUSES[attempts - 1], |after| {
                    u64::try_from(seconds(after)).expect("a short pause") * 1_000
                });
                self.at(self.now + pause, Happening::Attempt { sender });
            }
            Told::Retry { .. } => self.senders[sender].told = Some(told),
            Told::Delivered | Told::Duplicate | Told::Collapsed | Told::Unknown | Told::Refused => {
                self.senders[sender].told = Some(told);
            }
        }
    }
}
