//! The fields of a webhook that a key may be made of, by the names that a template gives them.

use std::fmt;
use std::str::FromStr;

/// A field of a webhook, under its protojson path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// `event`
    Event,
    /// `id`
    Id,
    /// `createdAt`, in seconds
    CreatedAt,
    /// `room.sid`
    RoomSid,
    /// `room.name`
    RoomName,
    /// `participant.sid`
    ParticipantSid,
    /// `participant.identity`
    ParticipantIdentity,
    /// `track.sid`
    TrackSid,
    /// `track.version.unixMicro`
    TrackUnixMicro,
    /// `track.version.ticks`
    TrackTicks,
    /// `egressInfo.egressId`
    EgressId,
    /// `egressInfo.status`
    EgressStatus,
    /// `egressInfo.updatedAt`, in nanoseconds
    EgressUpdatedAt,
    /// `ingressInfo.ingressId`
    IngressId,
    /// `ingressInfo.state.resourceId`
    IngressResourceId,
    /// `ingressInfo.state.startedAt`, in nanoseconds
    IngressStartedAt,
    /// `ingressInfo.state.status`
    IngressStatus,
    /// `job.id`
    JobId,
    /// `job.state.status`
    JobStatus,
    /// `job.state.startedAt`, in nanoseconds
    JobStartedAt,
}

impl Field {
    /// All of them, in the order of the type.
    pub const ALL: [Self; 20] = [
        Self::Event,
        Self::Id,
        Self::CreatedAt,
        Self::RoomSid,
        Self::RoomName,
        Self::ParticipantSid,
        Self::ParticipantIdentity,
        Self::TrackSid,
        Self::TrackUnixMicro,
        Self::TrackTicks,
        Self::EgressId,
        Self::EgressStatus,
        Self::EgressUpdatedAt,
        Self::IngressId,
        Self::IngressResourceId,
        Self::IngressStartedAt,
        Self::IngressStatus,
        Self::JobId,
        Self::JobStatus,
        Self::JobStartedAt,
    ];

    /// Its protojson path.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Id => "id",
            Self::CreatedAt => "createdAt",
            Self::RoomSid => "room.sid",
            Self::RoomName => "room.name",
            Self::ParticipantSid => "participant.sid",
            Self::ParticipantIdentity => "participant.identity",
            Self::TrackSid => "track.sid",
            Self::TrackUnixMicro => "track.version.unixMicro",
            Self::TrackTicks => "track.version.ticks",
            Self::EgressId => "egressInfo.egressId",
            Self::EgressStatus => "egressInfo.status",
            Self::EgressUpdatedAt => "egressInfo.updatedAt",
            Self::IngressId => "ingressInfo.ingressId",
            Self::IngressResourceId => "ingressInfo.state.resourceId",
            Self::IngressStartedAt => "ingressInfo.state.startedAt",
            Self::IngressStatus => "ingressInfo.state.status",
            Self::JobId => "job.id",
            Self::JobStatus => "job.state.status",
            Self::JobStartedAt => "job.state.startedAt",
        }
    }

    /// Whether zero is one of its values, so that a body without the field has it: an enum's first name, a clock's first
    /// tick, and a job that has not been given to a worker.
    pub(super) const fn zero_counts(self) -> bool {
        matches!(
            self,
            Self::TrackTicks
                | Self::EgressStatus
                | Self::IngressStatus
                | Self::JobStatus
                | Self::JobStartedAt
        )
    }
}

impl FromStr for Field {
    /// The known path that is nearest, if one is near.
    type Err = Option<&'static str>;

    fn from_str(path: &str) -> Result<Self, Self::Err> {
        if let Some(field) = Self::ALL.into_iter().find(|field| field.path() == path) {
            return Ok(field);
        }
        let near = |field: &Self| strsim::jaro_winkler(field.path(), path);
        let best = Self::ALL.into_iter().max_by(|a, b| near(a).total_cmp(&near(b)));
        Err(best.filter(|field| near(field) > 0.8).map(Self::path))
    }
}

/// What a field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A string, or the name of an enum's value that is newer than our table.
    Text(&'a str),
    /// A number, or an enum's value by its number.
    Number(i64),
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
        }
    }
}
