//! `oncehook demo`: a gateway, a sample backend and simulated nodes in one process, over real sockets and real TLS.
//!
//! It plays the scenes of [`scene`], keeps score in [`score`], tells what it means in [`frame`], and ends well only if
//! the backend got every event exactly once. The nodes are those of `trigger`, the backend is that of `listen`, the
//! gateway that of `run --dev` with a self-signed certificate.

pub mod frame;
pub mod scene;
pub mod score;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::app::{self, Running};
use crate::cli::Stdio;
use crate::cli::backend::{self, Arrival, Backend, Manner};
use crate::cli::exit::{Ending, Exit, Failure};
use crate::cli::options::{DEV_API_KEY, DEV_API_SECRET, Format};
use crate::cli::sender::{Client, Node, Protocol, Retries, Trust};
use crate::cli::trigger::plan::{Posting, Signer};
use crate::cli::trigger::report::Report;
use crate::cli::trigger::{Concurrency, post_all};
use crate::cli::{listen, run};
use crate::clock;
use crate::config::{self, Config, Overrides, Sources};
use crate::webhook::key::{self, Basis, Identity};
use crate::webhook::verify::Verifier;

use scene::{Cast, FAILED_ONCE, Scene};
use score::Score;

/// Where the gateway takes webhooks, and the backend too.
const PATH: &str = "/webhook";
/// Events of a scene that are under way at a time.
const PARALLEL: usize = 32;
/// Reports and arrivals that wait to be counted.
const QUEUE_MAX: usize = 1024;
/// A LiveKit node waits for ever; the demo does not.
const TIMEOUT: Duration = Duration::from_secs(15);

const AFTER_HELP: &str = "\
Everything happens on 127.0.0.1, on ports that the system chooses; nothing is
left behind. The exit code is 0 only if the backend got every event exactly once.

Examples:
  oncehook demo
  oncehook demo --events 5000 --nodes 5 --copies 2
  oncehook demo --format json | jq .";

/// Watch duplicates disappear: gateway, backend and nodes in one process
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Events of the busy day at the end
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    events: u32,
    /// Simulated LiveKit nodes
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u8).range(2..=32))]
    nodes: u8,
    /// How often each node sends each event of the busy day
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=16))]
    copies: u8,
    /// How to print scenes: text, or json, an object a line
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", hide_possible_values = true)]
    format: Format,
}

/// Plays all scenes.
pub fn run(args: &Args, stdio: &mut Stdio<'_>) -> Ending {
    super::block_on_all_cores(demo(args, stdio))
}

async fn demo(args: &Args, stdio: &mut Stdio<'_>) -> Ending {
    let began = clock::monotonic();
    let mut stage = Stage::build(args).await?;
    if args.format == Format::Text {
        frame::opening(&stage.places(), args, stdio)?;
    }
    let mut scores = Vec::new();
    for scene in scene::scenes(&stage.cast).map_err(|error| Failure::new(Exit::Software, error))? {
        let score = stage.play(scene).await;
        score.print(args.format, scores.len() + 1, stdio)?;
        scores.push(score);
    }
    let late = stage.end().await;
    let took = clock::monotonic().since(began);
    frame::closing(args.format, &scores, &late, took, stdio)
}

/// Everything that plays.
struct Stage {
    cast: Cast,
    nodes: Arc<[Arc<Node>]>,
    gateway: Running,
    backend: SocketAddr,
    /// Of the same key as the gateway's and the backend's.
    verifier: Verifier,
    arrivals: mpsc::Receiver<Arrival>,
    serving: JoinSet<()>,
    stop: CancellationToken,
}

/// Where to find everybody.
pub struct Places {
    gateway: SocketAddr,
    backend: SocketAddr,
}

impl Stage {
    async fn build(args: &Args) -> Result<Self, Failure> {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (listener, backend) =
            backend::bind(local).await.map_err(|error| Failure::listening(local, error))?;
        let (sender, arrivals) = mpsc::channel(QUEUE_MAX);
        let secret = || SecretString::from(DEV_API_SECRET);
        let verifier = listen::verifier(DEV_API_KEY, secret())?;
        let backend_itself =
            Backend::new(listener, Some(PATH.to_owned()), verifier, manner(), sender);
        let (stop, mut serving) = (CancellationToken::new(), JoinSet::new());
        serving.spawn(backend_itself.serve(stop.clone()));
        let gateway = app::start(settings(backend)?).await.map_err(run::not_started)?;
        let cast = Cast {
            signer: Signer { api_key: DEV_API_KEY.to_owned(), secret: secret() },
            nodes: usize::from(args.nodes),
            copies: usize::from(args.copies),
            events: usize::try_from(args.events).unwrap_or(usize::MAX),
        };
        let nodes = nodes(cast.nodes, gateway.address())?;
        let verifier = listen::verifier(DEV_API_KEY, secret())?;
        Ok(Self { cast, nodes, gateway, backend, verifier, arrivals, serving, stop })
    }

    fn places(&self) -> Places {
        Places { gateway: self.gateway.address(), backend: self.backend }
    }

    /// Sends a scene's webhooks, and counts what the nodes are told and what reaches the backend.
    async fn play(&mut self, scene: Scene) -> Score {
        let (sender, mut reports) = mpsc::channel(QUEUE_MAX);
        let mut score = Score::new(&scene, self.basis(&scene));
        let mut sending = JoinSet::new();
        sending.spawn(send(Arc::clone(&self.nodes), scene.events, scene.concurrency, sender));
        loop {
            tokio::select! {
                report = reports.recv() => match report {
                    Some(report) => score.told(&report),
                    None => break,
                },
                Some(arrival) = self.arrivals.recv() => score.arrived(&arrival),
            }
        }
        // The backend tells of an arrival before it answers: all that belong to this scene are here by now.
        while let Ok(arrival) = self.arrivals.try_recv() {
            score.arrived(&arrival);
        }
        score
    }

    /// What the gateway tells the scene's events by; nothing, if they are not LiveKit's.
    fn basis(&self, scene: &Scene) -> Option<Basis> {
        let webhook = &scene.events.first()?.first()?.webhook;
        let authorization = webhook.authorization.as_bytes();
        let signature = self.verifier.check_token(authorization, clock::unix()).ok()?;
        let webhook = self.verifier.check_body(signature, webhook.body.clone()).ok()?;
        Some(key::identify(&webhook, "", &Identity::Event).basis)
    }

    /// Ends everything, and hands over what reached the backend after the last scene: nothing should have.
    async fn end(mut self) -> Vec<Arrival> {
        self.gateway.stop().await;
        self.stop.cancel();
        while self.serving.join_next().await.is_some() {}
        let mut late = Vec::new();
        while let Some(arrival) = self.arrivals.recv().await {
            late.push(arrival);
        }
        late
    }
}

/// Sends the copies of each event as the scene says, so many events at a time.
async fn send(
    nodes: Arc<[Arc<Node>]>,
    events: Vec<Vec<Posting>>,
    concurrency: Concurrency,
    reports: mpsc::Sender<Report>,
) {
    let mut under_way = JoinSet::new();
    for postings in events {
        if under_way.len() >= PARALLEL {
            under_way.join_next().await;
        }
        let (nodes, reports) = (Arc::clone(&nodes), reports.clone());
        under_way.spawn(async move { post_all(&nodes, postings, concurrency, &reports).await });
    }
    while under_way.join_next().await.is_some() {}
}

/// The backend accepts everything, but fails one kind of event once.
fn manner() -> Manner {
    Manner {
        status: StatusCode::OK,
        fail_status: StatusCode::INTERNAL_SERVER_ERROR,
        fail_rate: 0,
        seed: 0,
        fail_first: 1,
        fail_events: vec![FAILED_ONCE],
        delay: Duration::from_millis(20),
    }
}

/// What `oncehook run --dev` would be told; nothing is taken from the environment.
fn settings(backend: SocketAddr) -> Result<Config, Failure> {
    let environment = [
        ("ONCEHOOK_TLS__ENABLED", "true"),
        ("ONCEHOOK_ADMIN__ADDRESS", "127.0.0.1:0"),
        ("ONCEHOOK_LOG__LEVEL", "error"),
        ("ONCEHOOK_SHUTDOWN__DRAIN_DELAY", "0s"),
    ];
    let environment =
        environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let overrides = Overrides {
        listen: Some("127.0.0.1:0".to_owned()),
        backend: Some(format!("http://{backend}{PATH}")),
        store: None,
        dev: true,
    };
    config::load(&Sources { file: None, environment, overrides }).map_err(run::misconfigured)
}

fn nodes(count: usize, gateway: SocketAddr) -> Result<Arc<[Arc<Node>]>, Failure> {
    let target = format!("https://{gateway}{PATH}").parse();
    let target = target.map_err(|error| Failure::new(Exit::Software, anyhow::Error::new(error)))?;
    let node = |number| {
        let client =
            Client::new(Clone::clone(&target), &Trust::Anything, Protocol::Negotiated, TIMEOUT)?;
        Ok(Arc::new(Node::new(format!("node-{number}"), client, Retries::AsLiveKit)))
    };
    let nodes: Result<Vec<_>, _> = (1..=count).map(node).collect();
    nodes
        .map(Arc::from)
        .map_err(|error: crate::cli::sender::TrustError| Failure::new(Exit::Software, error))
}
