package main

import (
	"fmt"
	"strings"

	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/webhook"
)

// identity says which event a webhook tells of: the table "What makes two webhooks the
// same event" in README.md, written a second time, so that the gateway's answer to that
// question can be held against it.
func identity(event *livekit.WebhookEvent) string {
	fields := identifying(event)
	for _, field := range fields {
		if field == "" {
			fields = nil
		}
	}
	if fields == nil {
		fields = []string{"id", event.Id}
	}
	return strings.Join(append([]string{event.Event}, fields...), " ")
}

func identifying(event *livekit.WebhookEvent) []string {
	room, participant, track := event.GetRoom(), event.GetParticipant(), event.GetTrack()
	egress, ingress := event.GetEgressInfo(), event.GetIngressInfo()
	switch event.Event {
	case webhook.EventRoomStarted, webhook.EventRoomFinished:
		return []string{room.GetSid()}
	case webhook.EventParticipantJoined, webhook.EventParticipantLeft, webhook.EventParticipantConnectionAborted:
		return []string{room.GetSid(), participant.GetSid()}
	case webhook.EventTrackPublished, webhook.EventTrackUnpublished:
		version := fmt.Sprint(track.GetVersion().GetUnixMicro(), ".", track.GetVersion().GetTicks())
		return []string{room.GetSid(), participant.GetSid(), track.GetSid(), version}
	case webhook.EventEgressStarted, webhook.EventEgressEnded:
		return []string{egress.GetEgressId(), egress.GetStatus().String()}
	case webhook.EventEgressUpdated:
		return []string{egress.GetEgressId(), egress.GetStatus().String(), fmt.Sprint(egress.GetUpdatedAt())}
	case webhook.EventIngressStarted, webhook.EventIngressEnded:
		state := ingress.GetState()
		return []string{
			ingress.GetIngressId(), state.GetResourceId(), fmt.Sprint(state.GetStartedAt()), state.GetStatus().String(),
		}
	default:
		return nil
	}
}

// subject is what the scripts know an event by: whom or what it happened to.
func subject(event *livekit.WebhookEvent) string {
	switch {
	case event.GetEgressInfo() != nil:
		return event.GetEgressInfo().EgressId
	case event.GetIngressInfo() != nil:
		return event.GetIngressInfo().IngressId
	case event.GetParticipant() != nil:
		return event.GetParticipant().Identity
	default:
		return event.GetRoom().GetName()
	}
}
