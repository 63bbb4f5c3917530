package main

import (
	"fmt"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/webhook"
)

// A sample is one thing that happened, before any node has told it: the id and the
// time of emission are missing.
type sample struct {
	name  string
	event *livekit.WebhookEvent
	// identified: the event says by itself what happened, so that copies with other
	// ids are known to be copies. The rest is known by its id alone.
	identified bool
}

// samples makes events of every kind about one room, whose name no other call uses. They
// happened at now: whoever makes them again with the same words has the same events.
func samples(subject string, now time.Time) []sample {
	s := scene{subject: subject, now: now}
	all := []sample{
		{webhook.EventRoomStarted, &livekit.WebhookEvent{Room: s.room()}, true},
		{webhook.EventParticipantJoined, s.participantEvent(livekit.ParticipantInfo_JOINED), true},
		{webhook.EventTrackPublished, s.trackEvent(1), true},
		{webhook.EventTrackUnpublished, s.trackEvent(1), true},
		// The same track again: a distinct event, told apart by its version only.
		{webhook.EventTrackPublished, s.trackEvent(2), true},
		{webhook.EventParticipantConnectionAborted, s.participantEvent(livekit.ParticipantInfo_DISCONNECTED), true},
		{webhook.EventParticipantLeft, s.participantEvent(livekit.ParticipantInfo_DISCONNECTED), true},
		{webhook.EventEgressStarted, s.egressEvent(livekit.EgressStatus_EGRESS_STARTING, 0), true},
		// Two reports of one state: distinct events, told apart by updatedAt only.
		{webhook.EventEgressUpdated, s.egressEvent(livekit.EgressStatus_EGRESS_ACTIVE, 1), true},
		{webhook.EventEgressUpdated, s.egressEvent(livekit.EgressStatus_EGRESS_ACTIVE, 2), true},
		{webhook.EventEgressEnded, s.egressEvent(livekit.EgressStatus_EGRESS_COMPLETE, 3), true},
		{webhook.EventIngressStarted, s.ingressEvent(livekit.IngressState_ENDPOINT_PUBLISHING, 1), true},
		{webhook.EventIngressEnded, s.ingressEvent(livekit.IngressState_ENDPOINT_INACTIVE, 1), true},
		// The same ingress used again: a distinct event, told apart by startedAt only.
		{webhook.EventIngressStarted, s.ingressEvent(livekit.IngressState_ENDPOINT_PUBLISHING, 2), true},
		{webhook.EventAgentJobPending, s.jobEvent(livekit.JobStatus_JS_PENDING), false},
		{webhook.EventAgentJobStarted, s.jobEvent(livekit.JobStatus_JS_RUNNING), true},
		{webhook.EventAgentJobEnded, s.jobEvent(livekit.JobStatus_JS_SUCCESS), true},
		{"recording_finished", &livekit.WebhookEvent{Room: s.room()}, false},
		{"of_a_later_livekit", &livekit.WebhookEvent{Room: s.room()}, false},
		{webhook.EventRoomFinished, &livekit.WebhookEvent{Room: s.room()}, true},
	}
	for i := range all {
		all[i].event.Event = all[i].name
		all[i].name = fmt.Sprintf("%02d %s", i+1, all[i].name)
	}
	return all
}

// A scene is the room that the events of one run are about.
type scene struct {
	subject string
	now     time.Time
}

func (s scene) room() *livekit.Room {
	return &livekit.Room{
		Sid: "RM_" + s.subject, Name: "interop-" + s.subject, EmptyTimeout: 300, DepartureTimeout: 20,
		CreationTime: s.now.Unix(), CreationTimeMs: s.now.UnixMilli(), TurnPassword: "turn-password-of-the-room",
		Metadata:      "{\"title\": \"Große Pause — 休憩 🎧\", \"html\": \"<a href='/?a=1&b=2'>\u2028\"}",
		EnabledCodecs: []*livekit.Codec{{Mime: "audio/opus"}, {Mime: "video/VP8"}},
	}
}

func (s scene) participant(state livekit.ParticipantInfo_State) *livekit.ParticipantInfo {
	return &livekit.ParticipantInfo{
		Sid: "PA_" + s.subject, Identity: "söphie \"the host\"", Name: "Sophie", State: state,
		JoinedAt: s.now.Unix(), JoinedAtMs: s.now.UnixMilli(), Version: 3, IsPublisher: true,
		Permission: &livekit.ParticipantPermission{CanPublish: true, CanSubscribe: true},
		Attributes: map[string]string{"seat": "1"},
	}
}

func (s scene) participantEvent(state livekit.ParticipantInfo_State) *livekit.WebhookEvent {
	return &livekit.WebhookEvent{Room: s.room(), Participant: s.participant(state)}
}

func (s scene) trackEvent(version int64) *livekit.WebhookEvent {
	participant := s.participant(livekit.ParticipantInfo_ACTIVE)
	return &livekit.WebhookEvent{
		Room: &livekit.Room{Sid: "RM_" + s.subject, Name: "interop-" + s.subject},
		Participant: &livekit.ParticipantInfo{
			Sid: participant.Sid, Identity: participant.Identity, Name: participant.Name,
		},
		Track: &livekit.TrackInfo{
			Sid: "TR_" + s.subject, Type: livekit.TrackType_VIDEO, Source: livekit.TrackSource_CAMERA,
			Width: 1280, Height: 720, MimeType: "video/VP8", Mid: "1",
			Version: &livekit.TimedVersion{UnixMicro: s.now.UnixMicro() + version},
		},
	}
}

func (s scene) egressEvent(status livekit.EgressStatus, updates int64) *livekit.WebhookEvent {
	info := &livekit.EgressInfo{
		EgressId: "EG_" + s.subject, RoomId: "RM_" + s.subject, RoomName: "interop-" + s.subject,
		Status: status, StartedAt: s.now.UnixNano(), UpdatedAt: s.now.UnixNano() + updates,
		Request: &livekit.EgressInfo_RoomComposite{RoomComposite: &livekit.RoomCompositeEgressRequest{
			RoomName: "interop-" + s.subject, Layout: "speaker",
			FileOutputs: []*livekit.EncodedFileOutput{{Filepath: "recording.mp4"}},
		}},
	}
	if status == livekit.EgressStatus_EGRESS_COMPLETE {
		info.EndedAt = info.UpdatedAt
		info.FileResults = []*livekit.FileInfo{{Filename: "recording.mp4", Duration: 61_000_000_000, Size: 1 << 33}}
	}
	return &livekit.WebhookEvent{EgressInfo: info}
}

func (s scene) ingressEvent(status livekit.IngressState_Status, use int64) *livekit.WebhookEvent {
	return &livekit.WebhookEvent{IngressInfo: &livekit.IngressInfo{
		IngressId: "IN_" + s.subject, Name: "camera", InputType: livekit.IngressInput_WHIP_INPUT,
		RoomName: "interop-" + s.subject, ParticipantIdentity: "camera", Reusable: true,
		State: &livekit.IngressState{
			Status: status, ResourceId: "RS_" + s.subject, RoomId: "RM_" + s.subject,
			StartedAt: s.now.UnixNano() + use,
		},
	}}
}

func (s scene) jobEvent(status livekit.JobStatus) *livekit.WebhookEvent {
	return &livekit.WebhookEvent{
		Room: &livekit.Room{Sid: "RM_" + s.subject, Name: "interop-" + s.subject},
		Job: &livekit.Job{
			Id: "AJ_" + s.subject, DispatchId: "AD_" + s.subject, Type: livekit.JobType_JT_ROOM,
			AgentName: "notetaker", State: &livekit.JobState{Status: status, StartedAt: s.now.UnixNano()},
		},
	}
}
