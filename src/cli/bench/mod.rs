//! `oncehook bench`: load on an installation of the user's own, and an audit of exactly once.
//!
//! How copies are sent is left to [`load`], whether each event arrived once to [`audit`], how long requests took to
//! [`latency`], how all that is told to [`report`], and meanwhile to [`progress`].

mod audit;
mod latency;
mod load;
mod progress;
mod report;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::Stdio;
use crate::cli::backend::{self, Arrival, Backend, Manner};
use crate::cli::exit::{Ending, Exit, Failure};
use crate::cli::listen;
use crate::cli::options::{self, Credentials, Format};
use crate::cli::sender::{self, Target};
use crate::cli::trigger::plan::{self, Events, Signer};
use crate::clock;
use crate::config::units;
use crate::webhook::event::EventKind;

use audit::{Audit, Witness};
use load::{Ids, Load};
use progress::Progress;
use report::Outcome;

/// What is told and arrives, and waits to be counted.
const QUEUE_MAX: usize = 4096;

/// What `--metadata` may ask for: escaped, it still fits into a body that a gateway takes unless told otherwise.
const METADATA_BYTES_MAX: usize = 1 << 20;

const AFTER_HELP: &str = "\
THE EVENTS REACH THE BACKEND: they are signed and look genuine. Their rooms are
called oncehook-bench-RUN-N, so that a backend can tell and ignore them; with
--listen this command is itself the backend, and counts what arrives.

Every run is bounded by --events, by --duration too if it is given, and ends with
Ctrl-C: what was sent until then is judged. Each copy is retried as LiveKit does.

Without --listen the gateway's own word, Oncehook-Status, is all there is to judge
by. The exit code is 0 only if every event was delivered, and none of them twice
without the mark Oncehook-Possible-Duplicate.

Examples:
  oncehook bench --to http://127.0.0.1:8443/webhook
      a thousand events, three copies each, under ids of their own
  oncehook bench --listen 127.0.0.1:8080 --to https://127.0.0.1:8443/webhook --insecure
      the same, where the gateway's route leads to 127.0.0.1:8080
  oncehook bench --events 100000 --rate 2000 --duration 30s --connections 64 --to URL
      2,000 requests a second, for half a minute
  oncehook bench --format json --to URL | jq .audit";

/// Send many events with copies, and audit that each arrived once
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Where to send: the gateway's webhook path
    #[arg(long, value_name = "URL")]
    to: Target,
    /// Be the backend: listen here, where the gateway's route leads, and count what arrives
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// How many events to send
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    events: u32,
    /// How many copies of each
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=100))]
    copies: u16,
    /// All copies of an event carry the same id [default: each has its own, as if from another node]
    #[arg(long)]
    same_id: bool,
    /// An event, such as `room_started`; `all` in turn; or those of a `session`
    #[arg(long, value_name = "EVENT", default_value = "participant_joined")]
    event: Events,
    /// How much metadata participants have, at most 1MiB: it makes the bodies of their events larger
    #[arg(long, value_name = "SIZE", default_value = "16B", value_parser = metadata_bytes)]
    metadata: usize,
    /// Connections, each with one request under way
    #[arg(long, value_name = "COUNT", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Requests a second, all connections together [default: as fast as they are answered]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Begin no request after this time, whatever is left
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    duration: Option<Duration>,
    /// How long to wait at the end for what has been acknowledged and not arrived: a queue delivers later
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = options::duration, requires = "listen")]
    settle: Duration,
    #[command(flatten)]
    credentials: Credentials,
    #[command(flatten)]
    sending: sender::Sending,
    /// How to print the result: text, or json, one object
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", hide_possible_values = true)]
    format: Format,
}

/// Sends, audits, and prints the result.
pub fn run(args: &Args, stdio: &mut Stdio<'_>) -> Ending {
    super::block_on_all_cores(bench(args, stdio))
}

async fn bench(args: &Args, stdio: &mut Stdio<'_>) -> Ending {
    let load = Arc::new(args.load()?);
    let mut witness = args.witness(&load).await?;
    args.warn(&load, stdio)?;
    let (sender, mut told) = mpsc::channel(QUEUE_MAX);
    let stop = CancellationToken::new();
    let mut workers = JoinSet::new();
    for node in args.sending.nodes(&args.to, args.connections.into())? {
        workers.spawn(Arc::clone(&load).work(node, stop.clone(), sender.clone()));
    }
    drop(sender);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut outcome = Outcome::new(Audit::new(args.events, args.copies, witness.kind()));
    let mut progress = Progress::new(load.requests());
    loop {
        tokio::select! {
            one = told.recv() => match one {
                Some(one) => outcome.told(&one),
                None => break,
            },
            Some(arrival) = witness.arrivals.recv() => outcome.audit.arrived(load.run(), &arrival),
            () = progress.due() => progress.draw(stdio.talk, &outcome)?,
            _ = interrupt.recv() => stop.cancel(),
            _ = terminate.recv() => stop.cancel(),
        }
    }
    outcome.took = clock::monotonic().since(load.began());
    while let Some(worker) = workers.join_next().await {
        let ended = worker.map_err(|error| Failure::new(Exit::Software, error))?;
        ended.map_err(|error| Failure::new(Exit::Usage, error))?;
    }
    witness.end(args.settle, load.run(), &mut outcome.audit).await;
    progress.clear(stdio.talk)?;
    report::print(args.format, &outcome, args.listen, stdio)
}

impl Args {
    fn load(&self) -> Result<Load, Failure> {
        let ids = if self.same_id { Ids::Same } else { Ids::Distinct };
        let known_by_id = |kind: &EventKind| kind.fields().is_empty();
        if let (Ids::Distinct, Some(kind)) =
            (ids, self.event.kinds().iter().find(|k| known_by_id(k)))
        {
            let all = "copies of such an event are known by their id alone";
            return Err(Failure::message(Exit::Usage, format!("{}: {all}", kind.name()))
                .with_hint("--same-id gives all copies of an event the same id"));
        }
        let signer = Signer {
            api_key: self.credentials.api_key.clone(),
            secret: self.credentials.secret()?,
        };
        Ok(Load::new(
            signer,
            load::Options {
                kinds: self.event.kinds().to_vec(),
                ids,
                events: self.events,
                copies: self.copies,
                metadata_bytes: self.metadata,
                rate: self.rate,
                duration: self.duration,
            },
        ))
    }

    /// Starts the backend, if this command is to be it.
    async fn witness(&self, load: &Load) -> Result<Seeing, Failure> {
        let (sender, arrivals) = mpsc::channel(QUEUE_MAX);
        let (stop, mut serving) = (CancellationToken::new(), JoinSet::new());
        if let Some(address) = self.listen {
            let taken = |error| Failure::listening(address, error);
            let (listener, _) = backend::bind(address).await.map_err(taken)?;
            let verifier = listen::verifier(&load.signer().api_key, load.signer().secret.clone())?;
            let backend = Backend::new(listener, None, verifier, manner(), sender);
            serving.spawn(backend.serve(stop.clone()));
        }
        Ok(Seeing { arrivals, serving, stop })
    }

    fn warn(&self, load: &Load, stdio: &mut Stdio<'_>) -> Result<(), Failure> {
        self.sending.warn(&self.to, stdio)?;
        if self.listen.is_none() {
            writeln!(
                stdio.talk,
                "the backend behind {} gets up to {} events; their rooms are called {}-N",
                self.to,
                self.events,
                load.rooms()
            )?;
        }
        Ok(())
    }
}

/// The backend, if this command is it; otherwise nothing ever arrives.
struct Seeing {
    arrivals: mpsc::Receiver<Arrival>,
    serving: JoinSet<()>,
    stop: CancellationToken,
}

impl Seeing {
    fn kind(&self) -> Witness {
        if self.serving.is_empty() { Witness::Words } else { Witness::Backend }
    }

    /// Waits up to `settle` for events that are missing, then ends the backend and counts what came last.
    async fn end(&mut self, settle: Duration, run: u64, audit: &mut Audit) {
        let limit = tokio::time::sleep(settle);
        tokio::pin!(limit);
        while !self.serving.is_empty() && audit.is_waiting() {
            tokio::select! {
                () = &mut limit => break,
                Some(arrival) = self.arrivals.recv() => audit.arrived(run, &arrival),
            }
        }
        self.stop.cancel();
        loop {
            tokio::select! {
                Some(arrival) = self.arrivals.recv() => audit.arrived(run, &arrival),
                ended = self.serving.join_next() => if ended.is_none() { break },
            }
        }
        while let Ok(arrival) = self.arrivals.try_recv() {
            audit.arrived(run, &arrival);
        }
    }
}

/// The backend accepts all that is genuine, at once.
fn manner() -> Manner {
    Manner {
        status: StatusCode::OK,
        fail_status: StatusCode::INTERNAL_SERVER_ERROR,
        fail_rate: 0,
        seed: 0,
        fail_first: 0,
        fail_events: Vec::new(),
        delay: Duration::ZERO,
    }
}

fn metadata_bytes(text: &str) -> Result<usize, String> {
    let bytes = units::size(text).map_err(|fault| fault.to_string())?;
    if bytes <= METADATA_BYTES_MAX { Ok(bytes) } else { Err("more than 1MiB".to_owned()) }
}

/// A number for this run, which its ids and rooms carry.
fn number() -> u64 {
    plan::number() % 100_000_000
}
