//! What LiveKit says happened, read from a verified body: total, strict, borrowed.
//!
//! The fields are those of livekit/protocol (`livekit_webhook.proto` and the messages it names) that tell one event from
//! another; all else is skipped. Which of them make a key is said by [`EventKind::fields`], how by [`super::key`].

use std::borrow::Cow;

pub use super::field::{Field, Value};
use super::protojson::{Found, Named, message, read};
use crate::claim::Digest;

/// The events LiveKit names (livekit/protocol, `webhook/consts.go`), those of its old guides, and all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// `room_started`
    RoomStarted,
    /// `room_finished`
    RoomFinished,
    /// `participant_joined`
    ParticipantJoined,
    /// `participant_left`
    ParticipantLeft,
    /// `participant_connection_aborted`
    ParticipantConnectionAborted,
    /// `track_published`
    TrackPublished,
    /// `track_unpublished`
    TrackUnpublished,
    /// `egress_started`
    EgressStarted,
    /// `egress_updated`
    EgressUpdated,
    /// `egress_ended`
    EgressEnded,
    /// `ingress_started`
    IngressStarted,
    /// `ingress_ended`
    IngressEnded,
    /// `agent_job_started`
    AgentJobStarted,
    /// `agent_job_ended`
    AgentJobEnded,
    /// `recording_finished`, which only old guides name
    RecordingFinished,
    /// Any other name, or none
    Other,
}

impl EventKind {
    /// All of them, in the order of the type.
    pub const ALL: [Self; 16] = [
        Self::RoomStarted,
        Self::RoomFinished,
        Self::ParticipantJoined,
        Self::ParticipantLeft,
        Self::ParticipantConnectionAborted,
        Self::TrackPublished,
        Self::TrackUnpublished,
        Self::EgressStarted,
        Self::EgressUpdated,
        Self::EgressEnded,
        Self::IngressStarted,
        Self::IngressEnded,
        Self::AgentJobStarted,
        Self::AgentJobEnded,
        Self::RecordingFinished,
        Self::Other,
    ];

    /// LiveKit's name; `other` for [`EventKind::Other`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoomStarted => "room_started",
            Self::RoomFinished => "room_finished",
            Self::ParticipantJoined => "participant_joined",
            Self::ParticipantLeft => "participant_left",
            Self::ParticipantConnectionAborted => "participant_connection_aborted",
            Self::TrackPublished => "track_published",
            Self::TrackUnpublished => "track_unpublished",
            Self::EgressStarted => "egress_started",
            Self::EgressUpdated => "egress_updated",
            Self::EgressEnded => "egress_ended",
            Self::IngressStarted => "ingress_started",
            Self::IngressEnded => "ingress_ended",
            Self::AgentJobStarted => "agent_job_started",
            Self::AgentJobEnded => "agent_job_ended",
            Self::RecordingFinished => "recording_finished",
            Self::Other => "other",
        }
    }

    /// The kind that LiveKit calls `name`.
    pub fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|kind| kind.name() == name).unwrap_or(Self::Other)
    }

    /// What tells one event of this kind from another; empty if that is only known by its `id`.
    ///
    /// DESIGN.md, 4, has the reasons. One field is more than its table has: since protocol 1.53.1 a failed job is
    /// dispatched again under its old id (`JSR_RETRYING` in `livekit_agent.proto`, with `attempts` and
    /// `first_started_at`), so that only `startedAt` tells the second `agent_job_started` from the first.
    pub const fn fields(self) -> &'static [Field] {
        use Field as F;
        match self {
            Self::RoomStarted | Self::RoomFinished => &[F::Event, F::RoomSid],
            Self::ParticipantJoined
            | Self::ParticipantLeft
            | Self::ParticipantConnectionAborted => &[F::Event, F::RoomSid, F::ParticipantSid],
            Self::TrackPublished | Self::TrackUnpublished => &[
                F::Event,
                F::RoomSid,
                F::ParticipantSid,
                F::TrackSid,
                F::TrackUnixMicro,
                F::TrackTicks,
            ],
            Self::EgressStarted | Self::EgressEnded => &[F::Event, F::EgressId, F::EgressStatus],
            Self::EgressUpdated => &[F::Event, F::EgressId, F::EgressStatus, F::EgressUpdatedAt],
            Self::IngressStarted | Self::IngressEnded => &[
                F::Event,
                F::IngressId,
                F::IngressResourceId,
                F::IngressStartedAt,
                F::IngressStatus,
            ],
            Self::AgentJobStarted | Self::AgentJobEnded => {
                &[F::Event, F::JobId, F::JobStatus, F::JobStartedAt]
            }
            Self::RecordingFinished | Self::Other => &[],
        }
    }
}

message! { 'a,
    /// What LiveKit says happened: the fields that tell one event from another, and nothing else.
    Body<'a> {
        event: Cow<'a, str> = b"event",
        id: Cow<'a, str> = b"id",
        created_at: i64 = b"createdAt" | b"created_at",
        room: Room<'a> = b"room",
        participant: Participant<'a> = b"participant",
        track: Track<'a> = b"track",
        egress: EgressInfo<'a> = b"egressInfo" | b"egress_info",
        ingress: IngressInfo<'a> = b"ingressInfo" | b"ingress_info",
        job: Job<'a> = b"job",
    }
}
message! { 'a, Outline<'a> { id: Cow<'a, str> = b"id", } }
message! { 'a, Room<'a> { sid: Cow<'a, str> = b"sid", name: Cow<'a, str> = b"name", } }
message! { 'a, Participant<'a> { sid: Cow<'a, str> = b"sid", identity: Cow<'a, str> = b"identity", } }
message! { 'a, Track<'a> { sid: Cow<'a, str> = b"sid", version: TimedVersion = b"version", } }
message! { 'a, TimedVersion { unix_micro: i64 = b"unixMicro" | b"unix_micro", ticks: i64 = b"ticks", } }
message! { 'a,
    EgressInfo<'a> {
        egress_id: Cow<'a, str> = b"egressId" | b"egress_id",
        status: Named<'a> = b"status",
        updated_at: i64 = b"updatedAt" | b"updated_at",
    }
}
message! { 'a,
    IngressInfo<'a> {
        ingress_id: Cow<'a, str> = b"ingressId" | b"ingress_id",
        state: IngressState<'a> = b"state",
    }
}
message! { 'a,
    IngressState<'a> {
        status: Named<'a> = b"status",
        started_at: i64 = b"startedAt" | b"started_at",
        resource_id: Cow<'a, str> = b"resourceId" | b"resource_id",
    }
}
message! { 'a, Job<'a> { id: Cow<'a, str> = b"id", state: JobState<'a> = b"state", } }
message! { 'a,
    JobState<'a> { status: Named<'a> = b"status", started_at: i64 = b"startedAt" | b"started_at", }
}

/// What LiveKit says happened, as far as it tells one event from another. Borrows from the body. It has no
/// `Debug`: metadata and passwords of rooms are in there.
#[derive(Clone)]
pub struct Event<'a> {
    body: Body<'a>,
    digest: Option<Digest>,
}

impl<'a> Event<'a> {
    /// Reads a body. Total: of one that is no JSON object nothing is found, and whatever is there twice, of a wrong type
    /// or not UTF-8 is not found either.
    pub fn parse(body: &'a [u8]) -> Self {
        // What the strict pass gives up at (invalid UTF-8 or an impossible number in one of the fields) is skipped by
        // the second, which still finds the id: the next step of identification.
        if let Some((body, content)) = read(body) {
            return Self { body, digest: content.digest() };
        }
        let (id, digest) = match read(body) {
            Some((Outline { id }, content)) => (id, content.digest()),
            None => (Found::Absent, None),
        };
        Self { body: Body { id, ..Body::default() }, digest }
    }

    /// What its copies should agree on; `None` of what is no JSON object, or nested too deep: see `content`.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Which event it is.
    pub fn kind(&self) -> EventKind {
        match &self.body.event {
            Found::Once(name) => EventKind::from_name(name),
            Found::Absent | Found::Null | Found::Unusable => EventKind::Other,
        }
    }

    /// The `id`, if there is exactly one and it is not empty.
    pub fn id(&self) -> Option<&Cow<'a, str>> {
        match &self.body.id {
            Found::Once(id) if !id.is_empty() => Some(id),
            Found::Once(_) | Found::Absent | Found::Null | Found::Unusable => None,
        }
    }

    pub(super) fn into_id(self) -> Option<Cow<'a, str>> {
        self.body.id.once().filter(|id| !id.is_empty())
    }

    /// The value of a field, if it is there once and not empty.
    ///
    /// protojson leaves zeros out. Where zero is a value like any other (see [`Field::zero_counts`]) absent is zero;
    /// elsewhere zero is absent.
    pub fn value(&self, field: Field) -> Option<Value<'_>> {
        let room = self.body.room.as_ref();
        let participant = self.body.participant.as_ref();
        let track = self.body.track.as_ref();
        let version = track.then(|track| &track.version);
        let egress = self.body.egress.as_ref();
        let ingress = self.body.ingress.as_ref();
        let ingress_state = ingress.then(|ingress| &ingress.state);
        let job = self.body.job.as_ref();
        let job_state = job.then(|job| &job.state);
        let value = match field {
            Field::Event => text(self.body.event.as_ref()),
            Field::Id => text(self.body.id.as_ref()),
            Field::CreatedAt => number(self.body.created_at.as_ref()),
            Field::RoomSid => text(room.then(|room| &room.sid)),
            Field::RoomName => text(room.then(|room| &room.name)),
            Field::ParticipantSid => text(participant.then(|participant| &participant.sid)),
            Field::ParticipantIdentity => {
                text(participant.then(|participant| &participant.identity))
            }
            Field::TrackSid => text(track.then(|track| &track.sid)),
            Field::TrackUnixMicro => number(version.then(|version| &version.unix_micro)),
            Field::TrackTicks => number(version.then(|version| &version.ticks)),
            Field::EgressId => text(egress.then(|egress| &egress.egress_id)),
            Field::EgressStatus => named(egress.then(|egress| &egress.status), &EGRESS_STATUS),
            Field::EgressUpdatedAt => number(egress.then(|egress| &egress.updated_at)),
            Field::IngressId => text(ingress.then(|ingress| &ingress.ingress_id)),
            Field::IngressResourceId => text(ingress_state.then(|state| &state.resource_id)),
            Field::IngressStartedAt => number(ingress_state.then(|state| &state.started_at)),
            Field::IngressStatus => {
                named(ingress_state.then(|state| &state.status), &INGRESS_STATUS)
            }
            Field::JobId => text(job.then(|job| &job.id)),
            Field::JobStatus => named(job_state.then(|state| &state.status), &JOB_STATUS),
            Field::JobStartedAt => number(job_state.then(|state| &state.started_at)),
        }?;
        if value == Value::Number(0) && !field.zero_counts() { None } else { Some(value) }
    }
}

/// `EgressStatus`, `livekit_egress.proto`.
const EGRESS_STATUS: [&str; 7] = [
    "EGRESS_STARTING",
    "EGRESS_ACTIVE",
    "EGRESS_ENDING",
    "EGRESS_COMPLETE",
    "EGRESS_FAILED",
    "EGRESS_ABORTED",
    "EGRESS_LIMIT_REACHED",
];
/// `IngressState.Status`, `livekit_ingress.proto`.
const INGRESS_STATUS: [&str; 5] = [
    "ENDPOINT_INACTIVE",
    "ENDPOINT_BUFFERING",
    "ENDPOINT_PUBLISHING",
    "ENDPOINT_ERROR",
    "ENDPOINT_COMPLETE",
];
/// `JobStatus`, `livekit_agent.proto`.
const JOB_STATUS: [&str; 5] =
    ["JS_PENDING", "JS_RUNNING", "JS_SUCCESS", "JS_FAILED", "JS_CANCELLED"];

fn text<'a>(found: Found<&'a Cow<'_, str>>) -> Option<Value<'a>> {
    match found {
        Found::Once(text) if !text.is_empty() => Some(Value::Text(text)),
        Found::Once(_) | Found::Absent | Found::Null | Found::Unusable => None,
    }
}

fn number(found: Found<&i64>) -> Option<Value<'static>> {
    match found {
        Found::Once(number) => Some(Value::Number(*number)),
        Found::Absent | Found::Null => Some(Value::Number(0)),
        Found::Unusable => None,
    }
}

/// A status by its number, whichever way it was written. A name that is newer than the table stays a name: its copies
/// still share it.
fn named<'a>(found: Found<&'a Named<'_>>, names: &[&str]) -> Option<Value<'a>> {
    match found {
        Found::Once(Named::Number(number)) => Some(Value::Number(*number)),
        Found::Once(Named::Name(name)) => {
            let known = names.iter().position(|known| *known == name.as_ref());
            let known = known.and_then(|place| i64::try_from(place).ok());
            Some(known.map_or(Value::Text(name), Value::Number))
        }
        Found::Absent | Found::Null => Some(Value::Number(0)),
        Found::Unusable => None,
    }
}
