//! LiveKit's nodes: each event's copies, sent and sent again as go-retryablehttp does, through a balancer that knows
//! which gateways are up. Every attempt and every answer is recorded.
//!
//! Time is compressed together with the gateways' leases: the attempts' schedule by [`Load::pace`], while a
//! `Retry-After`, which is in whole seconds, is obeyed as it is.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oncehook::webhook::event::EventKind;
use oncehook::webhook::sample::{self, Subject};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::history::{Attempt, End, Recorder, Told};
use crate::random::Random;
use crate::support::gateway::API_KEY;
use crate::support::sender::{self, Sender, Signed};

/// What is sent: events that are known by what happened, so that copies may carry ids of their own.
const KINDS: [EventKind; 4] = [
    EventKind::EgressEnded,
    EventKind::TrackPublished,
    EventKind::RoomFinished,
    EventKind::ParticipantJoined,
];

/// go-retryablehttp's waits between its five attempts.
const BACK_OFF: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// The gateways that senders are sent to.
#[derive(Default)]
pub(crate) struct Balancer(Mutex<Vec<(usize, SocketAddr)>>);

impl Balancer {
    pub(crate) fn add(&self, gateway: usize, address: SocketAddr) {
        self.0.lock().unwrap().push((gateway, address));
    }

    pub(crate) fn remove(&self, gateway: usize) {
        self.0.lock().unwrap().retain(|(each, _)| *each != gateway);
    }

    pub(crate) fn pick(&self, turn: u64) -> Option<(usize, SocketAddr)> {
        let up = self.0.lock().unwrap();
        up.get(usize::try_from(turn).unwrap() % up.len().max(1)).copied()
    }
}

/// What is to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) events: u64,
    pub(crate) copies: u32,
    /// Events begun each second; `None`: as fast as `lanes` for each node allow.
    pub(crate) per_second: Option<u64>,
    pub(crate) lanes: u64,
    /// Copies of an event begin within so many milliseconds.
    pub(crate) spread: u64,
    /// All copies carry the same bytes and the same token, as retries do; else each has its own id.
    pub(crate) same_bytes: bool,
    /// How many of a hundred copies lose their sender while they wait for the answer.
    pub(crate) gone_percent: u64,
    /// What the sender's waits are multiplied by.
    pub(crate) pace: f64,
}

impl Load {
    /// `events` over some seconds, in time compressed to a third.
    pub(crate) fn paced(events: u64, per_second: u64) -> Self {
        Self {
            events,
            copies: 3,
            per_second: Some(per_second),
            lanes: 0,
            spread: 400,
            same_bytes: false,
            gone_percent: 0,
            pace: 1.0 / 3.0,
        }
    }
}

/// All nodes.
pub(crate) struct Senders {
    recorder: Arc<Recorder>,
    balancer: Arc<Balancer>,
    seed: u64,
    load: Load,
    signed: Mutex<HashMap<u64, Signed>>,
}

/// One node's connections.
#[derive(Default)]
struct Node(Mutex<HashMap<usize, Arc<Sender>>>);

impl Node {
    fn to(&self, gateway: usize, address: SocketAddr) -> Arc<Sender> {
        let mut senders = self.0.lock().unwrap();
        let sender = senders
            .entry(gateway)
            .or_insert_with(|| Arc::new(Sender::to(&format!("http://{address}/webhook"))));
        Arc::clone(sender)
    }
}

impl Senders {
    /// Begins to send; the tasks end with the last answer.
    pub(crate) fn start(
        recorder: Arc<Recorder>,
        balancer: Arc<Balancer>,
        seed: u64,
        load: Load,
    ) -> JoinSet<()> {
        let senders = Arc::new(Self { recorder, balancer, seed, load, signed: Mutex::default() });
        let mut tasks = JoinSet::new();
        match senders.load.per_second {
            None => senders.in_lanes(&mut tasks),
            Some(rate) => {
                tasks.spawn(senders.at_rate(rate));
            }
        }
        tasks
    }

    /// As fast as possible: each node has lanes, each lane one connection to each gateway.
    fn in_lanes(self: Arc<Self>, tasks: &mut JoinSet<()>) {
        for lane in 0..self.load.lanes * u64::from(self.load.copies) {
            tasks.spawn(Arc::clone(&self).lane(lane));
        }
    }

    async fn lane(self: Arc<Self>, lane: u64) {
        let Load { copies, lanes, events, .. } = self.load;
        let node = Node::default();
        let copy = u32::try_from(lane % u64::from(copies)).unwrap();
        let mut event = lane / u64::from(copies);
        while event < events {
            self.deliver(&node, event, copy).await;
            event += lanes;
        }
    }

    async fn at_rate(self: Arc<Self>, rate: u64) {
        let nodes: Vec<Arc<Node>> = (0..self.load.copies).map(|_| Arc::default()).collect();
        let mut deliveries = JoinSet::new();
        let mut ticks =
            tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate).unwrap());
        for event in 0..self.load.events {
            ticks.tick().await;
            let mut random = self.random(event, 1);
            for (copy, node) in (0..).zip(&nodes) {
                let late = random.millis(0, self.load.spread);
                deliveries.spawn(Arc::clone(&self).late(late, Arc::clone(node), event, copy));
            }
        }
        while let Some(ended) = deliveries.join_next().await {
            ended.expect("a sender does not panic");
        }
    }

    async fn late(self: Arc<Self>, late: Duration, node: Arc<Node>, event: u64, copy: u32) {
        sleep(late).await;
        self.deliver(&node, event, copy).await;
    }

    fn random(&self, event: u64, purpose: u64) -> Random {
        Random::new(self.seed, event << 8 | purpose)
    }

    fn signed(&self, event: u64, copy: u32) -> Signed {
        let kind = KINDS[usize::try_from(event).unwrap() % KINDS.len()];
        if !self.load.same_bytes {
            return sender::event(kind, event, &format!("EV_{event}_{copy}"));
        }
        let mut signed = self.signed.lock().unwrap();
        signed
            .entry(event)
            .or_insert_with(|| sender::event(kind, event, &format!("EV_{event}_0")))
            .clone()
    }

    /// One copy, up to five times.
    async fn deliver(&self, node: &Node, event: u64, copy: u32) {
        let signed = self.signed(event, copy);
        let mut random = self.random(event, 2 + u64::from(copy));
        let leaves = (random.below(100) < self.load.gone_percent).then(|| random.millis(0, 30));
        let mut end = End::GivenUp;
        for number in 1..=5 {
            let turn = self.seed + event + u64::from(copy) + u64::from(number);
            let Some((gateway, address)) = self.balancer.pick(turn) else {
                self.wait(number, None).await;
                continue;
            };
            let sender = node.to(gateway, address);
            let sent = self.recorder.now();
            let (told, retry_after) = post(&sender, &signed, leaves).await;
            let ended = self.recorder.now();
            let attempt = Attempt { event, copy, number, gateway, sent, ended, told: told.clone() };
            self.recorder.write().attempts.push(attempt);
            if let Some(final_end) = end_after(&told) {
                end = final_end;
                break;
            }
            self.wait(number, retry_after).await;
        }
        self.recorder.write().ends.insert((event, copy), end);
    }

    async fn wait(&self, number: u32, retry_after: Option<Duration>) {
        let Some(wait) = BACK_OFF.get(usize::try_from(number).unwrap() - 1) else { return };
        sleep(retry_after.unwrap_or(wait.mul_f64(self.load.pace))).await;
    }
}

async fn post(
    sender: &Sender,
    signed: &Signed,
    leaves: Option<Duration>,
) -> (Told, Option<Duration>) {
    let posted = match leaves {
        None => sender.try_post(signed).await,
        Some(after) => match timeout(after, sender.try_post(signed)).await {
            Ok(posted) => posted,
            Err(_) => return (Told::HungUp, None),
        },
    };
    let Ok(told) = posted else { return (Told::Nothing, None) };
    let seconds =
        told.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    let obeyed = matches!(told.status, 429 | 503);
    (Told::Status(told.status), seconds.filter(|_| obeyed).map(Duration::from_secs))
}

/// Whether go-retryablehttp is done after this.
const fn end_after(told: &Told) -> Option<End> {
    match told {
        Told::HungUp => Some(End::Gone),
        Told::Status(200..=299) => Some(End::Acknowledged),
        Told::Nothing | Told::Status(429 | 500 | 502..) => None,
        Told::Status(_) => Some(End::Dismissed),
    }
}

/// Sends what nobody signed, again and again: wrong secrets, altered bodies, no body digest that fits.
pub(crate) async fn forge(recorder: Arc<Recorder>, balancer: Arc<Balancer>, seed: u64) {
    let node = Node::default();
    let mut random = Random::new(seed, u64::MAX);
    for number in 0_u64.. {
        sleep(random.millis(20, 60)).await;
        let Some((gateway, address)) = balancer.pick(number) else { continue };
        let subject = Subject::numbered(number, oncehook::clock::unix());
        let body = sample::body(EventKind::RoomStarted, &subject, "EV_forged", 1_795_574_895);
        let signed = match number % 3 {
            0 => Signed::by(API_KEY, "another-secret-of-at-least-thirty-two-characters", body),
            1 => Signed::by("APIunknown", "a-secret-of-at-least-thirty-two-characters", body),
            _ => Signed { token: Signed::new(body).token, body: "{\"id\":\"EV_forged\"}".into() },
        };
        let told = node.to(gateway, address).try_post(&signed).await;
        let mut history = recorder.write();
        history.forged += 1;
        // Nothing, and what is said of any request while the gateway ends, is no belief.
        history.believed += u64::from(told.is_ok_and(|told| told.status < 400));
    }
}
