//! `oncehook trigger`: sends signed sample events as LiveKit nodes would, copies and retries included.
//!
//! Which webhooks are sent is decided in [`plan`], how a node sends them in [`super::sender`], how that is told in
//! [`report`].

pub mod plan;
pub mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cli::Stdio;
use crate::cli::exit::{Ending, Exit, Failure};
use crate::cli::options::{Credentials, Format};
use crate::cli::sender::{self, ATTEMPTS_MAX, Next, Node, Target};
use crate::webhook::verify::SignError;

use plan::{Events, Ids, Plan, Posting, Signer};
use report::{Report, Sums};

/// Attempts that wait to be printed.
const REPORTS_MAX: usize = 1024;

const AFTER_HELP: &str = "\
A node retries as LiveKit does: 5xx, 429 and broken connections at 0, 1, 3, 7
and 15 s. It takes 3xx, 501 and every 4xx but 429 for success; what is lost that
way is printed as LOST IN SILENCE. The exit code is 0 only if every copy was
acknowledged with 2xx.

Examples:
  oncehook trigger room_started --to http://127.0.0.1:8080/webhook
  oncehook trigger egress_ended --nodes 3 --to https://127.0.0.1:8443/webhook --insecure
      three nodes tell of the same end, each under an id of its own
  oncehook trigger participant_joined --copies 5 --same-id --to URL
      one webhook, five times
  oncehook trigger session --to URL
      a room's whole life, in order
  oncehook trigger room_started --count 10000 --nodes 3 --format json --to URL
      30,000 copies of 10,000 events";

/// Send signed sample events, as LiveKit nodes would
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// An event, such as `room_started`; `all` of them; or a whole `session`, in order
    #[arg(value_name = "EVENT")]
    events: Events,
    /// Where to send
    #[arg(long, value_name = "URL")]
    to: Target,
    /// How many nodes send each event
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    nodes: u32,
    /// How many times each node sends it
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    copies: u32,
    /// Every copy has an id of its own [default: every node has, and its copies share it]
    #[arg(long, conflicts_with = "same_id")]
    distinct_id: bool,
    /// All copies are the same webhook, byte for byte
    #[arg(long)]
    same_id: bool,
    /// How many events, or sessions, to send
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// How many events, or sessions, are under way at a time
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    parallel: u32,
    /// When the copies of an event are sent: simultaneous, or sequential, each after the one before
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Concurrency::Simultaneous)]
    #[arg(hide_possible_values = true)]
    concurrency: Concurrency,
    /// Name of the room [default: a new one for each event or session]
    #[arg(long, value_name = "NAME")]
    room: Option<String>,
    #[command(flatten)]
    credentials: Credentials,
    #[command(flatten)]
    sending: sender::Sending,
    /// How to print attempts: text, or json, an object a line
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", hide_possible_values = true)]
    format: Format,
}

/// When the copies of one event are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Concurrency {
    /// All at once
    Simultaneous,
    /// Each when the one before is done with
    Sequential,
}

/// Sends, prints each attempt, and sums up.
pub fn run(args: &Args, stdio: &mut Stdio<'_>) -> Ending {
    super::block_on(trigger(args, stdio))
}

async fn trigger(args: &Args, stdio: &mut Stdio<'_>) -> Ending {
    args.sending.warn(&args.to, stdio)?;
    let nodes = args.sending.nodes(&args.to, args.nodes)?;
    let work = Arc::new(Work {
        plan: args.plan()?,
        nodes: nodes.into_iter().map(Arc::new).collect(),
        concurrency: args.concurrency,
        count: args.count,
        next: AtomicU64::new(0),
    });
    let (reports, mut received) = mpsc::channel(REPORTS_MAX);
    let mut workers = JoinSet::new();
    for _ in 0..u64::from(args.parallel).min(args.count) {
        workers.spawn(Arc::clone(&work).perform(reports.clone()));
    }
    drop(reports);
    let mut sums = Sums::default();
    report::heading(args.format, stdio)?;
    while let Some(report) = received.recv().await {
        sums.add(&report);
        report::line(args.format, &report, stdio)?;
    }
    while let Some(worker) = workers.join_next().await {
        worker.map_err(defect)?.map_err(|error| Failure::new(Exit::Usage, error))?;
    }
    report::sums(args.format, &sums, stdio)?;
    Ok(sums.exit())
}

impl Args {
    fn plan(&self) -> Result<Plan, Failure> {
        let ids = match (self.distinct_id, self.same_id) {
            (true, _) => Ids::EachCopy,
            (false, true) => Ids::Same,
            (false, false) => Ids::EachNode,
        };
        Ok(Plan {
            events: self.events.clone(),
            room: self.room.clone(),
            ids,
            nodes: self.nodes,
            copies: self.copies,
            signer: Signer {
                api_key: self.credentials.api_key.clone(),
                secret: self.credentials.secret()?,
            },
        })
    }
}

/// What all workers share.
struct Work {
    plan: Plan,
    nodes: Vec<Arc<Node>>,
    concurrency: Concurrency,
    count: u64,
    next: AtomicU64,
}

impl Work {
    /// Takes runs of the plan until none is left. The events of a run follow each other; runs do not wait for runs.
    async fn perform(self: Arc<Self>, reports: mpsc::Sender<Report>) -> Result<(), SignError> {
        while self.next.fetch_add(1, Ordering::Relaxed) < self.count {
            let subject = self.plan.subject();
            for &kind in self.plan.events.kinds() {
                let postings = self.plan.postings(&subject, kind)?;
                post_all(&self.nodes, postings, self.concurrency, &reports).await;
            }
        }
        Ok(())
    }
}

/// Posts the copies of one event and waits until each is acknowledged, lost or given up.
pub async fn post_all(
    nodes: &[Arc<Node>],
    postings: Vec<Posting>,
    concurrency: Concurrency,
    reports: &mpsc::Sender<Report>,
) {
    let mut under_way = JoinSet::new();
    for posting in postings {
        let Some(node) = nodes.get(posting.node) else { continue };
        under_way.spawn(post(Arc::clone(node), posting, reports.clone()));
        if concurrency == Concurrency::Sequential {
            under_way.join_next().await;
        }
    }
    while under_way.join_next().await.is_some() {}
}

async fn post(node: Arc<Node>, posting: Posting, reports: mpsc::Sender<Report>) {
    for number in 1..=ATTEMPTS_MAX {
        let attempt = node.attempt(&posting.webhook, number).await;
        let next = attempt.next;
        let report = Report {
            node: node.name().to_owned(),
            event: posting.kind,
            id: posting.id.clone(),
            attempt,
        };
        // Whoever printed has left; what is under way is sent all the same.
        reports.send(report).await.ok();
        let Next::Retry(wait) = next else { return };
        tokio::time::sleep(wait).await;
    }
}

fn defect(error: tokio::task::JoinError) -> Failure {
    Failure::new(Exit::Software, error)
}
