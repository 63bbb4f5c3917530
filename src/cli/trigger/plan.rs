//! Which webhooks are sent: events, the copies of each, their ids and their signatures.

use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;

use crate::cli::options;
use crate::cli::sender::Signed;
use crate::clock::{self, UnixTime};
use crate::webhook::event::EventKind;
use crate::webhook::sample::{self, Subject};
use crate::webhook::verify::{SignError, sign};

/// How long LiveKit's tokens are valid.
const LIFETIME: Duration = Duration::from_mins(5);

/// A room's life with an egress, in the order in which LiveKit tells it.
const SESSION: [EventKind; 9] = [
    EventKind::RoomStarted,
    EventKind::ParticipantJoined,
    EventKind::TrackPublished,
    EventKind::EgressStarted,
    EventKind::EgressUpdated,
    EventKind::EgressEnded,
    EventKind::TrackUnpublished,
    EventKind::ParticipantLeft,
    EventKind::RoomFinished,
];

/// Which events a run consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events(Vec<EventKind>);

impl Events {
    /// The events, in order.
    pub fn kinds(&self) -> &[EventKind] {
        &self.0
    }
}

impl FromStr for Events {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "all" => Ok(Self(EventKind::ALL.to_vec())),
            "session" => Ok(Self(SESSION.to_vec())),
            name => options::event(name).map(|kind| Self(vec![kind])),
        }
    }
}

/// Which copies of an event share an `id` and `createdAt`, and with them their bytes and their token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// All of them: one webhook, sent again.
    Same,
    /// Those of one node: what LiveKit does.
    EachNode,
    /// None.
    EachCopy,
}

/// What is sent.
pub struct Plan {
    /// The events of one run.
    pub events: Events,
    /// The room's name; a new one for each run if there is none.
    pub room: Option<String>,
    /// Which copies share an id.
    pub ids: Ids,
    /// Nodes that send each event.
    pub nodes: u32,
    /// Copies that each node sends.
    pub copies: u32,
    /// Who signs.
    pub signer: Signer,
}

/// Who signs: a LiveKit server, or somebody who pretends to be one.
pub struct Signer {
    /// The API key.
    pub api_key: String,
    /// Its secret.
    pub secret: SecretString,
}

/// One copy of an event, and the node that sends it.
#[derive(Clone, Debug)]
pub struct Posting {
    /// Counts from 0.
    pub node: usize,
    /// The event.
    pub kind: EventKind,
    /// Its `id`.
    pub id: String,
    /// The webhook.
    pub webhook: Signed,
}

impl Plan {
    /// A room that no other run has, with participants, tracks and the rest.
    pub fn subject(&self) -> Subject {
        let mut subject = Subject::numbered(number(), clock::unix());
        subject.room = self.room.clone().unwrap_or(subject.room);
        subject
    }

    /// The copies of one event, in the order in which nodes take turns.
    pub fn postings(&self, subject: &Subject, kind: EventKind) -> Result<Vec<Posting>, SignError> {
        let mut postings: Vec<Posting> = Vec::new();
        for copy in 0..self.copies {
            for node in 0..usize::try_from(self.nodes).unwrap_or(usize::MAX) {
                let like = match self.ids {
                    Ids::Same => postings.first(),
                    Ids::EachNode if copy > 0 => postings.get(node),
                    Ids::EachNode | Ids::EachCopy => None,
                };
                let posting = match like {
                    Some(like) => Posting { node, ..like.clone() },
                    None => self.signer.mint(subject, kind, node, clock::unix())?,
                };
                postings.push(posting);
            }
        }
        Ok(postings)
    }
}

impl Signer {
    /// A webhook as a node emits it at `now`, with an id that no other has.
    pub fn mint(
        &self,
        subject: &Subject,
        kind: EventKind,
        node: usize,
        now: UnixTime,
    ) -> Result<Posting, SignError> {
        let id = format!("EV_{:012}", number());
        let body = sample::body(kind, subject, &id, now.seconds());
        let authorization = sign(&self.api_key, &self.secret, &body, now, LIFETIME)?;
        Ok(Posting { node, kind, id, webhook: Signed { body: body.into(), authorization } })
    }
}

/// A number of at most twelve digits that is not said twice.
pub fn number() -> u64 {
    // Without the system's randomness numbers would repeat, and events be taken for copies; time is the next best.
    let nanos = || {
        u64::try_from(clock::unix().since_epoch().as_nanos() & u128::from(u64::MAX))
            .unwrap_or_default()
    };
    getrandom::u64().unwrap_or_else(|_| nanos()) % 1_000_000_000_000
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn plan(ids: Ids) -> Plan {
        Plan {
            events: "session".parse().unwrap(),
            room: None,
            ids,
            nodes: 3,
            copies: 2,
            signer: Signer { api_key: "devkey".to_owned(), secret: SecretString::from("secret") },
        }
    }

    #[test]
    fn copies_share_an_id_as_they_are_told_to() {
        for (ids, expected) in [(Ids::Same, 1), (Ids::EachNode, 3), (Ids::EachCopy, 6)] {
            let plan = plan(ids);
            let postings = plan.postings(&plan.subject(), EventKind::EgressEnded).unwrap();
            let told: BTreeSet<_> = postings.iter().map(|posting| posting.id.clone()).collect();
            let bodies: BTreeSet<_> =
                postings.iter().map(|posting| posting.webhook.body.clone()).collect();
            assert_eq!(
                (postings.len(), told.len(), bodies.len()),
                (6, expected, expected),
                "{ids:?}"
            );
            let by: Vec<_> = postings.iter().map(|posting| posting.node).collect();
            assert_eq!(by, [0, 1, 2, 0, 1, 2], "{ids:?}");
        }
    }

    #[test]
    fn a_node_sends_its_own_webhook_again() {
        let plan = plan(Ids::EachNode);
        let postings = plan.postings(&plan.subject(), EventKind::RoomStarted).unwrap();
        for node in 0..3 {
            assert_eq!(
                postings[node].webhook.authorization,
                postings[node + 3].webhook.authorization
            );
        }
    }

    #[test]
    fn a_run_is_an_event_or_all_or_a_session() {
        assert_eq!("room_started".parse::<Events>().unwrap().kinds(), [EventKind::RoomStarted]);
        assert_eq!("all".parse::<Events>().unwrap().kinds(), EventKind::ALL);
        let session: Events = "session".parse().unwrap();
        assert_eq!(session.kinds().first(), Some(&EventKind::RoomStarted));
        assert_eq!(session.kinds().last(), Some(&EventKind::RoomFinished));
        assert!("rooms".parse::<Events>().is_err());
    }
}
