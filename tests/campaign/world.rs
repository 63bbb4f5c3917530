//! The parts of one scenario, and what is looked at once it is quiet: gateways as processes, each with a proxy or a link
//! of its own to one Redis, or with a fleet of them; a backend; senders; and forgers all along.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::{JoinSet, block_in_place};
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::checker::{Report, check};
use crate::front::Front;
use crate::history::{Recorder, Told};
use crate::nodes::{self, Node};
use crate::observe::{self, Footprint};
use crate::random::Random;
use crate::senders::{Balancer, Load, Senders, forge};
use crate::servers::{Servers, Wanted};
use crate::support::gateway::{Gateway, Surroundings};
use crate::support::proxy::Proxy;
use crate::support::redis::{RedisServer, Settings};

/// A third of the defaults, for senders whose waits are a third of LiveKit's.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// How long a scenario may take to come to rest.
const REST: Duration = Duration::from_secs(30);

/// What a gateway may have open beyond what it began with: its own connections to Redis and to the backend.
const DESCRIPTORS_MORE: usize = 12;

/// What a gateway's memory may have grown by, beside what it remembers of each event.
const MEMORY_MORE: u64 = 64 * 1024 * 1024;
const MEMORY_EACH: u64 = 4 * 1024;

/// Which scenario, how much of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) scenario: &'static str,
    pub(crate) seed: u64,
    /// Instead of the scenario's own number.
    pub(crate) events: Option<u64>,
    /// CI's selection: less of what takes long.
    pub(crate) short: bool,
    /// It was asked for by its name: that it cannot be run here is a failure.
    pub(crate) named: bool,
    /// Keep the gateways' logs, whatever they say.
    pub(crate) logs: bool,
}

impl Plan {
    pub(crate) fn events(&self, default: u64) -> u64 {
        self.events.unwrap_or(default)
    }
}

/// What a scenario is set up with.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) gateways: usize,
    /// Lines of the gateways' configuration, besides [`Setup::configuration`].
    pub(crate) more: String,
    pub(crate) servers: Wanted,
}

impl Default for Setup {
    /// Three gateways, times a third of the defaults, `reject` while the store is out.
    fn default() -> Self {
        Self {
            gateways: 3,
            more: COMPRESSED.to_owned() + REJECT,
            servers: Wanted::Alone(Settings::default()),
        }
    }
}

/// Times a third of the defaults, or nearly.
pub(crate) const COMPRESSED: &str = "claim.lease = \"3s\"\nclaim.guard = \"1s\"\nclaim.join_wait = \"1s\"\n\
    upstream.timeout = \"1500ms\"\nupstream.connect_timeout = \"500ms\"\n\
    store.redis.operation_timeout = \"500ms\"\nstore.redis.breaker_probe_interval = \"200ms\"\n";

/// Nobody decides alone.
pub(crate) const REJECT: &str = "store.on_store_error = \"reject\"\n";

/// Everybody does, at once.
pub(crate) const LOCAL: &str = "store.on_store_error = \"local\"\n";

/// One gateway, and what stands between it and Redis.
pub(crate) struct Member {
    pub(crate) gateway: Gateway,
    proxy: Option<Proxy>,
    baseline: Footprint,
    running: bool,
}

impl Member {
    /// What stands before the one server.
    pub(crate) fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("the server stands alone")
    }
}

/// All of it.
pub(crate) struct World {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) plan: Plan,
    pub(crate) backend: Backend,
    pub(crate) servers: Servers,
    pub(crate) members: Vec<Member>,
    setup: Setup,
    balancer: Arc<Balancer>,
    /// Of the gateways.
    pids: Arc<Mutex<Vec<u32>>>,
    load: JoinSet<()>,
    stop: CancellationToken,
}

impl World {
    pub(crate) async fn start(plan: Plan, setup: Setup) -> Self {
        let recorder = Arc::new(Recorder::new());
        let servers = Servers::start(setup.servers.clone()).await;
        let backend = Backend::start(Arc::clone(&recorder)).await;
        let (balancer, stop) = (Arc::new(Balancer::default()), CancellationToken::new());
        let load = JoinSet::new();
        let mut world = Self {
            recorder,
            plan,
            backend,
            servers,
            members: Vec::new(),
            setup,
            balancer,
            pids: Arc::default(),
            load,
            stop,
        };
        for _ in 0..world.setup.gateways {
            world.join(&Surroundings::default()).await;
        }
        let forging = forge(Arc::clone(&world.recorder), Arc::clone(&world.balancer), plan.seed);
        tokio::spawn(world.stop.clone().run_until_cancelled_owned(forging));
        observe::overload(Arc::clone(&world.recorder), Arc::clone(&world.pids), world.stop.clone());
        world
    }

    /// The one server, in scenarios that asked for one.
    pub(crate) fn redis(&self) -> &RedisServer {
        match &self.servers {
            Servers::Alone(redis) | Servers::Apart(redis, _) => redis,
            Servers::Sentinels(_) | Servers::Cluster(_) => panic!("there are several"),
        }
    }

    /// The same, to be killed.
    pub(crate) fn redis_mut(&mut self) -> &mut RedisServer {
        match &mut self.servers {
            Servers::Alone(redis) | Servers::Apart(redis, _) => redis,
            Servers::Sentinels(_) | Servers::Cluster(_) => panic!("there are several"),
        }
    }

    pub(crate) fn random(&self) -> Random {
        Random::new(self.plan.seed, 0xFA)
    }

    /// Starts one more gateway, and lets senders come to it.
    pub(crate) async fn join(&mut self, surroundings: &Surroundings) -> usize {
        let proxy = match self.servers.behind_proxy() {
            Some(server) => Some(Proxy::to(server).await),
            None => None,
        };
        let configuration = self.configuration(proxy.as_ref());
        let gateway = block_in_place(|| Gateway::start_in(surroundings, &configuration));
        let number = self.members.len();
        self.balancer.add(number, gateway.address());
        self.pids.lock().unwrap().push(gateway.pid());
        let baseline = Footprint::of(gateway.pid());
        self.members.push(Member { gateway, proxy, baseline, running: true });
        number
    }

    fn configuration(&self, proxy: Option<&Proxy>) -> String {
        let mut text = self.setup.more.clone();
        let store = match proxy {
            Some(proxy) => {
                format!("store.kind = \"redis\"\nstore.redis.url = {:?}\n", proxy.url())
            }
            None => self.servers.configuration(self.members.len()),
        };
        text.push_str(&store);
        for (key, value) in [
            ("tls.enabled", "false"),
            ("shutdown.drain_delay", "\"300ms\""),
            ("shutdown.grace", "\"10s\""),
            ("limits.connections_per_source_max", "4096"),
        ] {
            writeln!(text, "{key} = {value}").unwrap();
        }
        write!(text, "[[route]]\npath = \"/webhook\"\nbackend = {:?}\n", self.backend.url())
            .unwrap();
        text
    }

    pub(crate) fn send(&mut self, load: Load) {
        let (recorder, balancer) = (Arc::clone(&self.recorder), Arc::clone(&self.balancer));
        self.load = Senders::start(recorder, balancer, self.plan.seed, load);
    }

    /// The same with LiveKit's own sender, a process for each copy; the first event happens in a second or two.
    pub(crate) async fn send_by(&mut self, program: &Path, load: &Load) {
        let (seed, begin) = (self.plan.seed, nodes::soon());
        for number in 0..load.copies {
            let (recorder, balancer) = (Arc::clone(&self.recorder), Arc::clone(&self.balancer));
            let front = Front::start(Arc::clone(&recorder), balancer, number, seed).await;
            let node = Node { number, seed, begin, load: load.clone() };
            self.load.spawn(node.send(program.to_owned(), front, recorder));
        }
    }

    /// Whether senders still have something to send or to wait for.
    pub(crate) fn is_busy(&mut self) -> bool {
        while self.load.try_join_next().is_some() {}
        !self.load.is_empty()
    }

    /// `kill -9`: senders get no answer, and come no more.
    pub(crate) fn kill(&mut self, number: usize) {
        let began = self.recorder.now();
        let member = &mut self.members[number];
        member.gateway.kill();
        member.running = false;
        self.balancer.remove(number);
        self.recorder.fault(self.recorder.over("a gateway is killed", began));
    }

    /// SIGTERM: it finishes what it has begun. Senders come until it closes its port, as behind a real balancer.
    pub(crate) async fn end(&mut self, number: usize) {
        self.members[number].gateway.signal("TERM");
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.balancer.remove(number);
        let member = &mut self.members[number];
        let status = block_in_place(|| member.gateway.wait());
        member.running = false;
        if !status.success() {
            self.recorder.complain(format!("gateway {number} ended with {status}"));
        }
    }

    /// SIGSTOP or SIGCONT.
    pub(crate) fn signal(&self, number: usize, signal: &str) {
        self.members[number].gateway.signal(signal);
    }

    /// Waits until every gateway asks the store again: until then an outage is not over for those behind it.
    pub(crate) async fn recovered(&self) {
        for Member { gateway, .. } in self.members.iter().filter(|member| member.running) {
            let rested = observe::degraded(gateway, 0.0, REST).await;
            assert!(rested, "a gateway does not find that the store is back");
        }
    }

    /// Waits until each of these gateways has found out that it has no store.
    pub(crate) async fn degraded(&self, gateways: &[usize]) {
        for number in gateways {
            let noticed = observe::degraded(&self.members[*number].gateway, 1.0, REST).await;
            assert!(noticed, "gateway {number} does not find that the store is out");
        }
    }

    /// Waits for the senders, then until all is quiet, and holds everything against the guarantee.
    pub(crate) async fn finish(mut self) -> Report {
        while let Some(ended) = self.load.join_next().await {
            ended.expect("a sender does not panic");
        }
        self.stop.cancel();
        let events = self.recorder.write().ends.len() as u64;
        for number in 0..self.members.len() {
            if self.members[number].running {
                self.look_at(number, events).await;
            }
            observe::log(&self.members[number].gateway.log(), number, &self.recorder);
        }
        // A fail-over may forget how a lease ended, though it knows of the claim: `wait_replicas` is for claims.
        let forgotten = self.servers.fail_over()
            || self.recorder.write().faults.iter().any(|fault| fault.forgets);
        let left = self.servers.leases(REST, forgotten).await;
        if !left.is_empty() {
            self.recorder.complain(format!("leases are left in the store: {left:?}"));
        }
        let report = check(&self.recorder.write());
        if self.plan.logs || !report.violations.is_empty() {
            self.keep_logs();
        }
        report
    }

    /// For whoever has to find out why.
    fn keep_logs(&self) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        for (number, member) in self.members.iter().enumerate() {
            let Plan { scenario, seed, .. } = self.plan;
            let file = folder.join(format!("campaign-{scenario}-{seed}-gateway-{number}.log"));
            std::fs::write(&file, member.gateway.log().join("\n")).expect("the log is kept");
        }
    }

    /// A gateway that survived: is it as it was, and do its figures add up?
    async fn look_at(&self, number: usize, events: u64) {
        let Member { gateway, baseline, .. } = &self.members[number];
        let rested = observe::rest(gateway, baseline.descriptors + DESCRIPTORS_MORE, REST).await;
        if let Err(restless) = rested {
            self.recorder.complain(format!("gateway {number} does not come to rest: {restless}"));
        }
        let now = Footprint::of(gateway.pid());
        let bound = baseline.memory + MEMORY_MORE + MEMORY_EACH * events;
        if now.memory > bound {
            self.recorder.complain(format!("gateway {number} has grown to {} bytes", now.memory));
        }
        let figures = observe::metrics(gateway).await;
        for complaint in complaints(&figures, self.answers_of(number)) {
            self.recorder.complain(format!("gateway {number}: {complaint}"));
        }
    }

    /// How many answers senders had from a gateway.
    fn answers_of(&self, number: usize) -> u64 {
        let history = self.recorder.write();
        let answered = |told: &Told| matches!(told, Told::Status(_));
        let of_it = history.attempts.iter().filter(|attempt| attempt.gateway == number);
        of_it.filter(|attempt| answered(&attempt.told)).count() as u64
    }
}

/// What does not add up in a gateway's metrics.
fn complaints(figures: &BTreeMap<String, f64>, answers: u64) -> Vec<String> {
    let of = |family: &str| figures.get(family).copied().unwrap_or_default();
    let (received, answered) =
        (of("oncehook_webhooks_received_total"), of("oncehook_webhooks_answered_total"));
    let mut found = Vec::new();
    if (received - answered).abs() > 0.0 {
        found.push(format!("received {received}, answered {answered}"));
    }
    if answered < answers as f64 {
        found.push(format!("says that it answered {answered}, but senders have {answers} answers"));
    }
    for family in ["oncehook_exchange_panics_total", "oncehook_service_panics_total"] {
        if of(family) > 0.0 {
            found.push(format!("{family} is {}", of(family)));
        }
    }
    found
}
