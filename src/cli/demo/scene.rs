//! What the demo plays: scenes from the life of a fleet, each with the webhooks that its nodes send.

use secrecy::SecretString;

use crate::cli::trigger::Concurrency;
use crate::cli::trigger::plan::{Posting, Signer, number};
use crate::clock;
use crate::webhook::event::EventKind;
use crate::webhook::sample::Subject;
use crate::webhook::verify::SignError;

/// The event that the sample backend fails once.
pub const FAILED_ONCE: EventKind = EventKind::TrackPublished;

/// The events of a busy day, in turn.
const BUSY: [EventKind; 8] = [
    EventKind::RoomStarted,
    EventKind::ParticipantJoined,
    EventKind::EgressStarted,
    EventKind::EgressUpdated,
    EventKind::EgressEnded,
    EventKind::IngressEnded,
    EventKind::ParticipantLeft,
    EventKind::RoomFinished,
];

/// How often the backend should have each event of a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The backend gets it exactly once.
    Once,
    /// It is not LiveKit's: the backend never sees it.
    Never,
}

/// A scene.
pub struct Scene {
    /// What happens, in a sentence.
    pub title: &'static str,
    /// The name of its events.
    pub event: &'static str,
    /// What tells two events of this kind apart.
    pub fields: &'static str,
    /// Whether the copies have one id or several.
    pub ids: &'static str,
    /// When the copies of one event are sent.
    pub concurrency: Concurrency,
    /// Each event's copies.
    pub events: Vec<Vec<Posting>>,
    /// What should become of them.
    pub expected: Expected,
}

/// Who plays, and how long.
pub struct Cast {
    /// LiveKit's own key.
    pub signer: Signer,
    /// How many nodes there are; at least two.
    pub nodes: usize,
    /// How many copies of each event each node sends on the busy day.
    pub copies: usize,
    /// How many events the busy day has.
    pub events: usize,
}

/// All scenes, in order.
pub fn scenes(cast: &Cast) -> Result<Vec<Scene>, SignError> {
    let everybody: Vec<usize> = (0..cast.nodes).collect();
    Ok(vec![
        Scene {
            title: "The answer got lost, and the node sends the same webhook again, twice",
            event: EventKind::ParticipantJoined.name(),
            fields: "room.sid, participant.sid",
            ids: "same",
            concurrency: Concurrency::Sequential,
            events: vec![cast.same(EventKind::ParticipantJoined, 3)?],
            expected: Expected::Once,
        },
        Scene {
            title: "A node dies, and each node that takes its room over announces it anew",
            event: EventKind::RoomStarted.name(),
            fields: "room.sid",
            ids: "distinct",
            concurrency: Concurrency::Sequential,
            events: vec![cast.distinct(EventKind::RoomStarted, &everybody)?],
            expected: Expected::Once,
        },
        Scene {
            title: "An egress worker repeats its last report to all nodes, and all tell of it at once",
            event: EventKind::EgressEnded.name(),
            fields: "egressId, status",
            ids: "distinct",
            concurrency: Concurrency::Simultaneous,
            events: vec![cast.distinct(EventKind::EgressEnded, &everybody)?],
            expected: Expected::Once,
        },
        Scene {
            title: "Two people join one room in the same second: two events, not one",
            event: EventKind::ParticipantJoined.name(),
            fields: "room.sid, participant.sid",
            ids: "distinct",
            concurrency: Concurrency::Simultaneous,
            events: cast.two_in_a_second(&everybody)?,
            expected: Expected::Once,
        },
        Scene {
            title: "The backend fails the first attempt with 500, and the nodes try again a second later",
            event: FAILED_ONCE.name(),
            fields: "room, participant and track sid, track.version",
            ids: "distinct",
            concurrency: Concurrency::Simultaneous,
            events: vec![cast.distinct(FAILED_ONCE, &everybody)?],
            expected: Expected::Once,
        },
        Scene {
            title: "A stranger signs with a secret that is not LiveKit's",
            event: EventKind::RoomFinished.name(),
            fields: "-",
            ids: "same",
            concurrency: Concurrency::Simultaneous,
            events: vec![cast.forged()?],
            expected: Expected::Never,
        },
        Scene {
            title: "A busy day: many events, each told of by every node at once",
            event: "eight kinds",
            fields: "as above, for each kind its own",
            ids: "distinct",
            concurrency: Concurrency::Simultaneous,
            events: cast.busy(&everybody)?,
            expected: Expected::Once,
        },
    ])
}

impl Cast {
    /// One webhook, sent by the first node so many times.
    fn same(&self, kind: EventKind, times: usize) -> Result<Vec<Posting>, SignError> {
        let posting = self.signer.mint(&subject(), kind, 0, clock::unix())?;
        Ok(vec![posting; times])
    }

    /// One event, told of by each node under an id of its own.
    fn distinct(&self, kind: EventKind, nodes: &[usize]) -> Result<Vec<Posting>, SignError> {
        self.told_by(&subject(), kind, nodes)
    }

    fn told_by(
        &self,
        subject: &Subject,
        kind: EventKind,
        nodes: &[usize],
    ) -> Result<Vec<Posting>, SignError> {
        nodes.iter().map(|&node| self.signer.mint(subject, kind, node, clock::unix())).collect()
    }

    fn two_in_a_second(&self, nodes: &[usize]) -> Result<Vec<Vec<Posting>>, SignError> {
        let (now, first) = (clock::unix(), subject());
        let another = subject();
        let second = Subject {
            participant: another.participant,
            participant_sid: another.participant_sid,
            ..first.clone()
        };
        let told = |subject: &Subject| {
            let by =
                |&node: &usize| self.signer.mint(subject, EventKind::ParticipantJoined, node, now);
            nodes.iter().take(2).map(by).collect::<Result<Vec<_>, _>>()
        };
        Ok(vec![told(&first)?, told(&second)?])
    }

    fn forged(&self) -> Result<Vec<Posting>, SignError> {
        let api_key = self.signer.api_key.clone();
        let stranger = Signer { api_key, secret: SecretString::from("a guess") };
        Ok(vec![stranger.mint(&subject(), EventKind::RoomFinished, 0, clock::unix())?])
    }

    fn busy(&self, nodes: &[usize]) -> Result<Vec<Vec<Posting>>, SignError> {
        let kinds = BUSY.iter().cycle().take(self.events);
        kinds
            .map(|&kind| {
                let told = self.distinct(kind, nodes)?;
                Ok(std::iter::repeat_n(told, self.copies).flatten().collect())
            })
            .collect()
    }
}

fn subject() -> Subject {
    Subject::numbered(number(), clock::unix())
}
