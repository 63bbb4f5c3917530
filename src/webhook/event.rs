//! What LiveKit says happened, read from a verified body.

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
}
