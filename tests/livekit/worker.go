package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/rpc"
	"github.com/livekit/protocol/utils/guid"
	"github.com/livekit/protocol/webhook"
	"github.com/livekit/psrpc"
	"github.com/livekit/psrpc/pkg/bus/redisbus"
)

const (
	reports     = 3 // of each state
	callsMax    = 5 // for one report, while no node responds at all
	egressCount = 4
	ingressRuns = 4 // of one ingress, which is used again and again
)

// A worker reports to the fleet as egress and ingress workers do: over psrpc on LiveKit's
// Redis, to whichever node takes the call. It says everything three times at once, as one
// does whose calls were not answered in time while the nodes were still at them.
type worker struct {
	client rpc.IOInfoClient
	redis  *redis.Client
}

func hireWorker(address string) (*worker, error) {
	connection := redis.NewClient(&redis.Options{Addr: address})
	client, err := rpc.NewIOInfoClient(redisbus.New(connection))
	if err != nil {
		return nil, errors.Join(err, connection.Close())
	}
	return &worker{client: client, redis: connection}, nil
}

func (w *worker) dismiss() error {
	w.client.Close()
	return w.redis.Close()
}

// report makes one call as often as a state is reported.
func report(ctx context.Context, call func(context.Context) error) error {
	ends := make(chan error, reports)
	for range reports {
		go func() { ends <- made(ctx, call) }()
	}
	var failed error
	for range reports {
		failed = errors.Join(failed, <-ends)
	}
	return failed
}

// made repeats a call that no node has offered to take, which is one that none has heard.
func made(ctx context.Context, call func(context.Context) error) (failed error) {
	for range callsMax {
		failed = call(ctx)
		if !errors.Is(failed, psrpc.ErrNoResponse) {
			break
		}
	}
	return failed
}

// egress is a recording from its start to its end.
func (w *worker) egress(ctx context.Context, stage *stage) error {
	began := time.Now()
	info := func(status livekit.EgressStatus) *livekit.EgressInfo {
		return &livekit.EgressInfo{
			RoomId: "RM_recorded", RoomName: "recorded", Status: status, StartedAt: began.UnixNano(),
		}
	}
	id := guid.New("EG_")
	state := info(livekit.EgressStatus_EGRESS_STARTING)
	state.EgressId = id
	err := report(ctx, func(ctx context.Context) error {
		_, err := w.client.CreateEgress(ctx, state)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", state.Status, err)
	}
	stage.expect(webhook.EventEgressStarted, 1)
	if err := stage.await(ctx, webhook.EventEgressStarted, id, 1); err != nil {
		return err
	}
	for i, step := range []struct {
		event  string
		status livekit.EgressStatus
	}{
		{webhook.EventEgressUpdated, livekit.EgressStatus_EGRESS_ACTIVE},
		{webhook.EventEgressUpdated, livekit.EgressStatus_EGRESS_ENDING},
		{webhook.EventEgressEnded, livekit.EgressStatus_EGRESS_COMPLETE},
	} {
		state := info(step.status)
		state.EgressId, state.UpdatedAt = id, time.Now().UnixNano()
		events := i + 1
		if step.event == webhook.EventEgressEnded {
			state.EndedAt, events = state.UpdatedAt, 1
		}
		err := report(ctx, func(ctx context.Context) error {
			_, err := w.client.UpdateEgress(ctx, state)
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", step.status, err)
		}
		stage.expect(step.event, 1)
		if err := stage.await(ctx, step.event, id, events); err != nil {
			return err
		}
	}
	return nil
}

// ingress is a stream that comes and goes several times under one id.
func (w *worker) ingress(ctx context.Context, stage *stage) error {
	id := guid.New("IN_")
	created := &livekit.IngressInfo{
		IngressId: id, StreamKey: guid.New("SK_"), RoomName: "streamed", InputType: livekit.IngressInput_RTMP_INPUT,
		State: &livekit.IngressState{},
	}
	err := made(ctx, func(ctx context.Context) error {
		_, err := w.client.CreateIngress(ctx, created)
		return err
	})
	if err != nil {
		return fmt.Errorf("creating: %w", err)
	}
	for run := range ingressRuns {
		began, resource := time.Now().UnixNano(), guid.New("RS_")
		for _, step := range []struct {
			event  string
			status livekit.IngressState_Status
		}{
			{webhook.EventIngressStarted, livekit.IngressState_ENDPOINT_PUBLISHING},
			{webhook.EventIngressEnded, livekit.IngressState_ENDPOINT_INACTIVE},
		} {
			request := &rpc.UpdateIngressStateRequest{IngressId: id, State: &livekit.IngressState{
				Status: step.status, RoomId: "RM_streamed", StartedAt: began, UpdatedAt: time.Now().UnixNano(),
				ResourceId: resource,
			}}
			err := report(ctx, func(ctx context.Context) error {
				_, err := w.client.UpdateIngressState(ctx, request)
				return err
			})
			if err != nil {
				return fmt.Errorf("%s: %w", step.status, err)
			}
			stage.expect(step.event, 1)
			if err := stage.await(ctx, step.event, id, run+1); err != nil {
				return err
			}
		}
	}
	return nil
}
