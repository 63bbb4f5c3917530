//! How the copies are sent: so many connections, each with one request under way, as fast as answers come or at a
//! rate.
//!
//! The copies of an event follow each other in the order of sending, so that different connections carry them at about
//! the same time. What an event's number, copy and run are is written into its `id`, from where [`read_id`] has it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cli::sender::{ATTEMPTS_MAX, Attempt, Next, Node, Signed};
use crate::cli::trigger::plan::Signer;
use crate::clock::{self, Monotonic, UnixTime};
use crate::webhook::event::EventKind;
use crate::webhook::sample::{self, PARTICIPANT_METADATA, Subject};
use crate::webhook::verify::{SignError, sign};

/// How long LiveKit's tokens are valid.
const LIFETIME: Duration = Duration::from_mins(5);
/// Events in a run have numbers below this.
const EVENTS_END: u64 = 10_000_000;

/// Which copies of an event share an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ids {
    /// All: the same body each time.
    Same,
    /// None, as if each came from another node.
    Distinct,
}

/// What is sent, and how fast.
pub(super) struct Options {
    /// The events' kinds, in turn; at least one.
    pub(super) kinds: Vec<EventKind>,
    pub(super) ids: Ids,
    pub(super) events: u32,
    pub(super) copies: u16,
    /// Bytes of the metadata that participants have.
    pub(super) metadata_bytes: usize,
    /// Requests a second; none is as fast as answers come.
    pub(super) rate: Option<u32>,
    /// After this nothing new is sent.
    pub(super) duration: Option<Duration>,
}

/// What all connections share.
pub(super) struct Load {
    signer: Signer,
    options: Options,
    metadata: String,
    run: u64,
    began: Monotonic,
    began_unix: UnixTime,
    next: AtomicU64,
}

/// One attempt, and what came of it.
#[derive(Debug)]
pub(super) struct Told {
    /// The event's number, from 0.
    pub(super) event: usize,
    pub(super) attempt: Attempt,
    /// From when it was due to the end of the answer: what waits for a free connection counts.
    pub(super) latency: Duration,
}

impl Load {
    /// A load that begins now.
    pub(super) fn new(signer: Signer, options: Options) -> Self {
        let (began, began_unix) = (clock::monotonic(), clock::unix());
        let metadata = metadata(options.metadata_bytes);
        let (run, next) = (super::number(), AtomicU64::new(0));
        Self { signer, options, metadata, run, began, began_unix, next }
    }

    pub(super) fn signer(&self) -> &Signer {
        &self.signer
    }

    pub(super) fn began(&self) -> Monotonic {
        self.began
    }

    pub(super) fn run(&self) -> u64 {
        self.run
    }

    /// Copies to send, retries not counted.
    pub(super) fn requests(&self) -> u64 {
        u64::from(self.options.events) * u64::from(self.options.copies)
    }

    /// How the names of all rooms begin.
    pub(super) fn rooms(&self) -> String {
        format!("oncehook-bench-{}", self.run)
    }

    /// Sends copy after copy over one node's connection, until none is left, the time is up or `stop`; what is under
    /// way then is sent to its end, retries included.
    pub(super) async fn work(
        self: std::sync::Arc<Self>,
        node: Node,
        stop: CancellationToken,
        told: mpsc::Sender<Told>,
    ) -> Result<(), SignError> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.requests() || stop.is_cancelled() {
                return Ok(());
            }
            let due = self.due(number);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(due.since(clock::monotonic())) => {}
            }
            let elapsed = clock::monotonic().since(self.began);
            if self.options.duration.is_some_and(|duration| elapsed >= duration) {
                return Ok(());
            }
            self.post(&node, number, due, &told).await?;
        }
    }

    /// When the `number`th copy is due: now, if there is no rate.
    fn due(&self, number: u64) -> Monotonic {
        let Some(rate) = self.options.rate else { return clock::monotonic() };
        let nanos = number.saturating_mul(1_000_000_000) / u64::from(rate);
        self.began.plus(Duration::from_nanos(nanos))
    }

    async fn post(
        &self,
        node: &Node,
        number: u64,
        due: Monotonic,
        told: &mpsc::Sender<Told>,
    ) -> Result<(), SignError> {
        let copies = u64::from(self.options.copies);
        let (event, copy) = (number / copies, number % copies);
        let webhook = self.webhook(event, copy)?;
        let mut late = clock::monotonic().since(due);
        for attempt in 1..=ATTEMPTS_MAX {
            let attempt = node.attempt(&webhook, attempt).await;
            let (next, latency) = (attempt.next, attempt.duration + late);
            late = Duration::ZERO;
            let event = usize::try_from(event).unwrap_or(usize::MAX);
            // Whoever counted has left; what is under way is sent all the same.
            told.send(Told { event, attempt, latency }).await.ok();
            let Next::Retry(wait) = next else { break };
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// A copy of an event. With the same id its body is the same each time; the token is the copy's own, so that a
    /// long run outlasts no token.
    fn webhook(&self, event: u64, copy: u64) -> Result<Signed, SignError> {
        let kinds = &self.options.kinds;
        let turn = usize::try_from(event).unwrap_or_default() % kinds.len().max(1);
        let kind = kinds.get(turn).copied().unwrap_or(EventKind::Other);
        let mut subject = Subject::numbered(self.run * EVENTS_END + event, self.began_unix);
        subject.room = format!("{}-{event}", self.rooms());
        subject.participant_metadata.clone_from(&self.metadata);
        let now = clock::unix();
        let (copy, created_at) = match self.options.ids {
            Ids::Same => (0, self.began_unix),
            Ids::Distinct => (copy, now),
        };
        let body = sample::body(kind, &subject, &id(self.run, event, copy), created_at.seconds());
        let authorization = sign(&self.signer.api_key, &self.signer.secret, &body, now, LIFETIME)?;
        Ok(Signed { body: body.into(), authorization })
    }
}

/// So many bytes of the samples' own metadata, again and again: most of them letters, some to be escaped.
fn metadata(bytes: usize) -> String {
    PARTICIPANT_METADATA.chars().cycle().take(bytes).collect()
}

fn id(run: u64, event: u64, copy: u64) -> String {
    format!("EV_bench-{run}-{event}-{copy}")
}

/// The number of the event of `run` whose copy carries `id`; none for what this run did not send.
pub(super) fn read_id(run: u64, id: &str) -> Option<usize> {
    let (of, rest) = id.strip_prefix("EV_bench-")?.split_once('-')?;
    let (event, _copy) = rest.split_once('-')?;
    (of.parse() == Ok(run)).then(|| event.parse().ok())?
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;
    use serde_json::Value;

    use super::*;

    fn load(ids: Ids, rate: Option<u32>) -> Load {
        let signer = Signer { api_key: "devkey".to_owned(), secret: SecretString::from("secret") };
        let kinds = vec![EventKind::ParticipantJoined, EventKind::EgressEnded];
        let (events, copies, metadata_bytes, duration) = (4, 3, 1000, None);
        Load::new(signer, Options { kinds, ids, events, copies, metadata_bytes, rate, duration })
    }

    #[test]
    fn an_id_tells_its_event_and_its_run() {
        assert_eq!(read_id(7, &id(7, 41, 2)), Some(41));
        assert_eq!(read_id(8, &id(7, 41, 2)), None);
        for foreign in ["EV_000000000001", "EV_bench-", "EV_bench-7", "EV_bench-7-x-1", ""] {
            assert_eq!(read_id(7, foreign), None, "{foreign}");
        }
    }

    #[test]
    fn copies_share_their_body_only_if_they_share_their_id() {
        let same = load(Ids::Same, None);
        assert_eq!(same.webhook(1, 0).unwrap().body, same.webhook(1, 2).unwrap().body);
        assert_ne!(same.webhook(1, 0).unwrap().body, same.webhook(2, 0).unwrap().body);
        let distinct = load(Ids::Distinct, None);
        assert_ne!(distinct.webhook(1, 0).unwrap().body, distinct.webhook(1, 2).unwrap().body);
    }

    #[test]
    fn participants_have_as_much_metadata_as_they_are_told() {
        let load = load(Ids::Same, None);
        let metadata = |event| {
            let body: Value =
                serde_json::from_slice(&load.webhook(event, 0).unwrap().body).unwrap();
            body["participant"]["metadata"].as_str().map(str::len)
        };
        assert_eq!((metadata(0), metadata(1)), (Some(1000), None));
        assert_eq!(super::metadata(16), PARTICIPANT_METADATA);
    }

    #[test]
    fn a_rate_says_when_each_copy_is_due() {
        let load = load(Ids::Same, Some(4));
        assert_eq!(load.due(0), load.began);
        assert_eq!(load.due(6).since(load.began), Duration::from_millis(1500));
        assert_eq!(load.requests(), 12);
    }
}
