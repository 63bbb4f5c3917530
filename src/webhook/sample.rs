//! Bodies of every kind, as livekit-server writes them (protojson, fields in the order of the `.proto` files): for
//! `oncehook trigger`, `oncehook demo` and tests. Signing them is left to [`super::verify::sign`].

use serde::Serialize;

use super::event::EventKind;
use crate::clock::UnixTime;

/// A participant's metadata, unless a subject is given another one: JSON in a string, as applications put it there.
pub const PARTICIPANT_METADATA: &str = r#"{"role":"guest"}"#;

/// What a sample is about. Two subjects with other ids make two events; one subject with two `id`s makes two copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// `room.name`
    pub room: String,
    /// `room.sid`, `RM_…`
    pub room_sid: String,
    /// `participant.identity`
    pub participant: String,
    /// `participant.sid`, `PA_…`
    pub participant_sid: String,
    /// `participant.metadata`, which in LiveKit's events is the application's own text
    pub participant_metadata: String,
    /// `track.sid`, `TR_…`
    pub track_sid: String,
    /// `track.version.unixMicro`
    pub track_unix_micro: i64,
    /// `track.version.ticks`; zero is left out
    pub track_ticks: i32,
    /// `egressInfo.egressId`, `EG_…`
    pub egress_id: String,
    /// `ingressInfo.ingressId`, `IN_…`
    pub ingress_id: String,
    /// `ingressInfo.state.resourceId`, `RS_…`
    pub ingress_resource_id: String,
    /// `job.id`, `AJ_…`
    pub job_id: String,
    /// When the egress, the ingress or the job started, in nanoseconds since the epoch
    pub started_at: i64,
    /// When it last reported, in nanoseconds since the epoch
    pub updated_at: i64,
}

impl Subject {
    /// One whose ids all carry `number`, and whose times are those of `at`.
    pub fn numbered(number: u64, at: UnixTime) -> Self {
        let nanos = i64::try_from(at.since_epoch().as_nanos()).unwrap_or(i64::MAX);
        Self {
            room: format!("room-{number}"),
            room_sid: format!("RM_{number:012}"),
            participant: format!("participant-{number}"),
            participant_sid: format!("PA_{number:012}"),
            participant_metadata: PARTICIPANT_METADATA.to_owned(),
            track_sid: format!("TR_AM{number:012}"),
            track_unix_micro: nanos / 1000,
            track_ticks: 0,
            egress_id: format!("EG_{number:012}"),
            ingress_id: format!("IN_{number:012}"),
            ingress_resource_id: format!("RS_{number:012}"),
            job_id: format!("AJ_{number:012}"),
            started_at: nanos,
            updated_at: nanos,
        }
    }
}

/// The body of one emission of an event: `id` (`EV_…`) and `created_at` (seconds) are its own.
///
/// Bodies of [`EventKind::Other`] have an event name that no LiveKit knows.
pub fn body(kind: EventKind, subject: &Subject, id: &str, created_at: u64) -> Vec<u8> {
    let created_at = created_at.to_string();
    let empty = Body { event: kind.name(), id, created_at, ..Body::default() };
    let body = match kind {
        EventKind::RoomStarted | EventKind::RoomFinished | EventKind::RecordingFinished => {
            Body { room: Some(whole_room(subject)), ..empty }
        }
        EventKind::ParticipantJoined
        | EventKind::ParticipantLeft
        | EventKind::ParticipantConnectionAborted => Body {
            room: Some(whole_room(subject)),
            participant: Some(whole_participant(subject, kind)),
            ..empty
        },
        EventKind::TrackPublished | EventKind::TrackUnpublished => Body {
            room: Some(Room { sid: &subject.room_sid, name: &subject.room, ..Room::default() }),
            participant: Some(Participant {
                sid: &subject.participant_sid,
                identity: &subject.participant,
                ..Participant::default()
            }),
            track: Some(track(subject)),
            ..empty
        },
        EventKind::EgressStarted | EventKind::EgressUpdated | EventKind::EgressEnded => {
            Body { egress_info: Some(egress(subject, kind)), ..empty }
        }
        EventKind::IngressStarted | EventKind::IngressEnded => {
            Body { ingress_info: Some(ingress(subject, kind)), ..empty }
        }
        EventKind::AgentJobStarted | EventKind::AgentJobEnded => {
            Body { job: Some(job(subject, kind)), ..empty }
        }
        EventKind::Other => empty,
    };
    // Structs of strings and numbers: there is nothing in them that JSON cannot say.
    serde_json::to_vec(&body).unwrap_or_default()
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<Room<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    participant: Option<Participant<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress_info: Option<EgressInfo<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress_info: Option<IngressInfo<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    track: Option<Track<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<Job<'a>>,
    id: &'a str,
    created_at: String,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Room<'a> {
    sid: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    creation_time: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    turn_password: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    enabled_codecs: &'static [Codec],
}

#[derive(Serialize)]
struct Codec {
    mime: &'static str,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Participant<'a> {
    sid: &'a str,
    identity: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    state: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    joined_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Track<'a> {
    sid: &'a str,
    name: &'static str,
    source: &'static str,
    mime_type: &'static str,
    version: TimedVersion,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TimedVersion {
    unix_micro: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ticks: Option<i32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EgressInfo<'a> {
    egress_id: &'a str,
    room_id: &'a str,
    room_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    started_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IngressInfo<'a> {
    ingress_id: &'a str,
    room_name: &'a str,
    state: IngressState<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IngressState<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    room_id: &'a str,
    started_at: String,
    updated_at: String,
    resource_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Job<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    room: Room<'a>,
    state: JobState,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobState {
    status: &'static str,
    started_at: String,
    updated_at: String,
}

fn whole_room(subject: &Subject) -> Room<'_> {
    Room {
        sid: &subject.room_sid,
        name: &subject.room,
        creation_time: (subject.started_at / 1_000_000_000).to_string(),
        turn_password: "sample-turn-password",
        enabled_codecs: &[Codec { mime: "audio/opus" }, Codec { mime: "video/VP8" }],
    }
}

fn whole_participant(subject: &Subject, kind: EventKind) -> Participant<'_> {
    let joined = kind == EventKind::ParticipantJoined;
    Participant {
        sid: &subject.participant_sid,
        identity: &subject.participant,
        state: if joined { "ACTIVE" } else { "DISCONNECTED" },
        metadata: &subject.participant_metadata,
        joined_at: (subject.started_at / 1_000_000_000).to_string(),
    }
}

fn track(subject: &Subject) -> Track<'_> {
    let ticks = Some(subject.track_ticks).filter(|ticks| *ticks != 0);
    Track {
        sid: &subject.track_sid,
        name: "mic",
        source: "MICROPHONE",
        mime_type: "audio/opus",
        version: TimedVersion { unix_micro: subject.track_unix_micro.to_string(), ticks },
    }
}

fn egress(subject: &Subject, kind: EventKind) -> EgressInfo<'_> {
    // Starting is the enum's zero, which protojson leaves out.
    let active = (kind == EventKind::EgressUpdated).then_some("EGRESS_ACTIVE");
    let status = active.or((kind == EventKind::EgressEnded).then_some("EGRESS_COMPLETE"));
    EgressInfo {
        egress_id: &subject.egress_id,
        room_id: &subject.room_sid,
        room_name: &subject.room,
        status,
        started_at: subject.started_at.to_string(),
        updated_at: status.map(|_| subject.updated_at.to_string()),
    }
}

fn ingress(subject: &Subject, kind: EventKind) -> IngressInfo<'_> {
    // An ended ingress is inactive: zero again.
    let started = kind == EventKind::IngressStarted;
    IngressInfo {
        ingress_id: &subject.ingress_id,
        room_name: &subject.room,
        state: IngressState {
            status: started.then_some("ENDPOINT_PUBLISHING"),
            room_id: &subject.room_sid,
            started_at: subject.started_at.to_string(),
            updated_at: subject.updated_at.to_string(),
            resource_id: &subject.ingress_resource_id,
        },
    }
}

fn job(subject: &Subject, kind: EventKind) -> Job<'_> {
    let started = kind == EventKind::AgentJobStarted;
    Job {
        id: &subject.job_id,
        kind: "JT_ROOM",
        room: Room { sid: &subject.room_sid, name: &subject.room, ..Room::default() },
        state: JobState {
            status: if started { "JS_RUNNING" } else { "JS_SUCCESS" },
            started_at: subject.started_at.to_string(),
            updated_at: subject.updated_at.to_string(),
        },
    }
}
