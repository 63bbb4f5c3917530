package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/webhook"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/pion/webrtc/v4"
)

const (
	eventLimit       = 40 * time.Second // for an event to reach the backend; LiveKit tries for 15
	moveLimit        = time.Minute
	connectLimit     = 15 * time.Second
	trackBitsASecond = 16_000
	guestsARoom      = 2
)

// A room is one that this program has made on a node of its choice.
type room struct {
	stage  *stage
	name   string
	host   *node
	signal *node // whom its participants talk to
	guests []*guest
}

// A guest is a participant, and what is known of it so far.
type guest struct {
	room        *room
	identity    string
	connection  *lksdk.Room
	track       *lksdk.LocalTrackPublication
	joined      int
	published   int
	unpublished int
}

// openRoom makes a room that `host` is to hold.
func (s *stage) openRoom(ctx context.Context, name string, host, signal *node) (*room, error) {
	opened := &room{stage: s, name: name, host: host, signal: signal}
	for i := range guestsARoom {
		opened.guests = append(opened.guests, &guest{room: opened, identity: fmt.Sprintf("%s-guest-%d", name, i)})
	}
	client := lksdk.NewRoomServiceClient(signal.url(), apiKey, apiSecret)
	request := &livekit.CreateRoomRequest{Name: name, NodeId: host.id}
	if _, err := client.CreateRoom(ctx, request); err != nil {
		return opened, fmt.Errorf("%s: %w", name, err)
	}
	s.expect(webhook.EventRoomStarted, 1)
	return opened, s.await(ctx, webhook.EventRoomStarted, name, 1)
}

// each lets all guests do something, one after the other.
func (r *room) each(ctx context.Context, do func(*guest, context.Context) error) error {
	for _, guest := range r.guests {
		if err := do(guest, ctx); err != nil {
			return fmt.Errorf("%s: %w", guest.identity, err)
		}
	}
	return nil
}

// visit is a guest's whole stay, but for its end.
func (g *guest) visit(ctx context.Context) error {
	for _, step := range []func(context.Context) error{g.join, g.publish, g.unpublish, g.publish} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (g *guest) join(ctx context.Context) error {
	if g.connection == nil {
		if err := g.connect(ctx); err != nil {
			return fmt.Errorf("join: %w", err)
		}
	}
	g.joined++
	g.room.stage.expect(webhook.EventParticipantJoined, 1)
	return g.room.stage.await(ctx, webhook.EventParticipantJoined, g.identity, g.joined)
}

func (g *guest) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	connection := lksdk.NewRoom(&lksdk.RoomCallback{})
	who := lksdk.ConnectInfo{
		APIKey: apiKey, APISecret: apiSecret, RoomName: g.room.name, ParticipantIdentity: g.identity,
	}
	err := connection.JoinWithContext(ctx, g.room.signal.url(), who, lksdk.WithAutoSubscribe(false),
		lksdk.WithDisableRegionDiscovery(), lksdk.WithConnectTimeout(connectLimit))
	if err == nil {
		g.connection = connection
	}
	return err
}

// publish publishes the guest's microphone: the same track in LiveKit's eyes each time.
func (g *guest) publish(ctx context.Context) error {
	opus := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48_000, Channels: 2}
	track, err := lksdk.NewLocalTrack(opus)
	if err != nil {
		return err
	}
	if err := track.StartWrite(lksdk.NewNullSampleProvider(trackBitsASecond), nil); err != nil {
		return err
	}
	publication, err := g.connection.LocalParticipant.PublishTrack(track, &lksdk.TrackPublicationOptions{
		Name: "microphone", Source: livekit.TrackSource_MICROPHONE,
	})
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	g.track = publication
	g.published++
	g.room.stage.expect(webhook.EventTrackPublished, 1)
	return g.room.stage.await(ctx, webhook.EventTrackPublished, g.identity, g.published)
}

func (g *guest) unpublish(ctx context.Context) error {
	if err := g.connection.LocalParticipant.UnpublishTrack(g.track.SID()); err != nil {
		return fmt.Errorf("unpublish: %w", err)
	}
	g.track = nil
	return g.unpublishes(ctx)
}

func (g *guest) unpublishes(ctx context.Context) error {
	g.unpublished++
	g.room.stage.expect(webhook.EventTrackUnpublished, 1)
	return g.room.stage.await(ctx, webhook.EventTrackUnpublished, g.identity, g.unpublished)
}

// leave ends what the guest still publishes, too.
func (g *guest) leave(ctx context.Context) error {
	g.connection.Disconnect()
	g.connection = nil
	if g.track != nil {
		g.track = nil
		if err := g.unpublishes(ctx); err != nil {
			return err
		}
	}
	g.room.stage.expect(webhook.EventParticipantLeft, 1)
	return g.room.stage.await(ctx, webhook.EventParticipantLeft, g.identity, 1)
}

// lose forgets the connection to a node that has died.
func (g *guest) lose(context.Context) error {
	g.connection.Disconnect()
	g.connection, g.track = nil, nil
	return nil
}

// rejoin comes back under the same identity.
func (g *guest) rejoin(ctx context.Context) error {
	if err := g.join(ctx); err != nil {
		return err
	}
	return g.publish(ctx)
}

// move brings the room's guests back after its node has died: they try until the fleet has
// noticed that, and given the room to another node.
func (r *room) move(ctx context.Context) error {
	if err := r.each(ctx, (*guest).lose); err != nil {
		return err
	}
	first := r.guests[0]
	var failed error
	err := waitUntil(ctx, moveLimit, func() (bool, error) {
		failed = first.connect(ctx)
		return failed == nil, nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", first.identity, errors.Join(err, failed))
	}
	return r.each(ctx, (*guest).rejoin)
}

// close waits for the end that LiveKit makes of a room that all have left.
func (r *room) close(ctx context.Context) error {
	if err := r.each(ctx, (*guest).leave); err != nil {
		return err
	}
	r.stage.expect(webhook.EventRoomFinished, 1)
	return r.stage.await(ctx, webhook.EventRoomFinished, r.name, 1)
}
