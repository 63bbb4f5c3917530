package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/livekit/protocol/webhook"
)

const (
	apiKey    = "APIfleet"
	apiSecret = "fleet-secret-of-at-least-thirty-two-characters"
	roomCount = 6
	silence   = 3 * time.Second // no copy for so long: all that was sent has come
)

// A scenario is one cause of copies, tried on a fleet of its own.
type scenario struct {
	short string
	label string // in the table
	urls  int    // how often the URL stands in the list
	first manner // how the backend treats each event's first copy
	play  func(*stage, context.Context) error
	cause string // what the fleet is to have sent
	sent  func(kind) bool
}

func (s scenario) name() string { return s.short }

var scenarios = []scenario{
	{
		short: "healthy", label: "nothing amiss", urls: 1, play: (*stage).meetings,
		cause: "a healthy fleet sent each event once",
		sent:  func(k kind) bool { return k.sent == k.events },
	},
	{
		short: "refused", label: "the backend refuses the first copy", urls: 1, first: refuses, play: (*stage).meetings,
		cause: "the backend refused each event once, and the fleet sent it again under its id",
		sent:  func(k kind) bool { return k.refused == k.events && k.sent == 2*k.events && k.ids == k.events },
	},
	{
		short: "unanswered", label: "the backend takes the first copy and hangs up", urls: 1, first: hangsUp,
		play:  (*stage).meetings,
		cause: "the backend took each event once without an answer, and the fleet sent it again under its id",
		sent:  func(k kind) bool { return k.sent == 2*k.events && k.ids == k.events },
	},
	{
		short: "listed", label: "the URL stands in the list three times", urls: 3, play: (*stage).meetings,
		cause: "the fleet sent each event three times under one id",
		sent:  func(k kind) bool { return k.sent == 3*k.events && k.ids == k.events },
	},
	{
		short: "killed", label: "a node is killed, its rooms go to another", urls: 1, play: (*stage).crash,
		cause: "the fleet announced the killed node's rooms again, under other ids",
		sent: func(k kind) bool {
			again := k.events
			if k.event == webhook.EventRoomStarted {
				again += roomCount / nodeCount
			}
			return k.sent == again && k.ids == again
		},
	},
	{
		short: "workers", label: "workers report each state three times", urls: 1, play: (*stage).work,
		cause: "the fleet sent each report of an egress update or end three times, under three ids",
		sent: func(k kind) bool {
			update := k.event == webhook.EventEgressUpdated || k.event == webhook.EventEgressEnded
			return k.sent >= k.events && k.ids == k.sent && (!update || k.sent == reports*k.events)
		},
	},
}

// A site is what outlives a fleet: LiveKit's Redis, the gateways, the backend.
type site struct {
	folder         string
	livekit        string // the server's binary
	livekitAddress string // its Redis
	certificates   certificates
	redis          *process
	gateways       *gateways // nil with --direct
	backend        *backend
	url            string // for webhook.urls
}

func openSite(ctx context.Context, options options, binaries binaries, server server, folder string) (*site, error) {
	s := &site{folder: folder, livekit: binaries.livekit[server.version]}
	if err := s.open(ctx, options.direct, binaries.gateway); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *site) open(ctx context.Context, direct bool, gateway string) (err error) {
	if s.certificates, err = makeCertificates(s.folder); err != nil {
		return err
	}
	if s.redis, s.livekitAddress, err = startRedis(ctx, s.folder, "redis-livekit"); err != nil {
		return err
	}
	if direct {
		if s.backend, err = startBackend(apiKey, apiSecret, &s.certificates); err != nil {
			return err
		}
		s.url = fmt.Sprintf("https://localhost:%d/webhook", s.backend.port)
		return nil
	}
	if s.backend, err = startBackend(apiKey, apiSecret, nil); err != nil {
		return err
	}
	s.gateways, err = startGateways(ctx, gateway, s.folder, s.certificates, s.backend.port)
	if err != nil {
		return err
	}
	s.url = fmt.Sprintf("https://localhost:%d/webhook", s.gateways.balancer.port)
	return nil
}

func (s *site) close() error {
	failed := errors.Join(s.gateways.stop(), s.redis.stop())
	if s.backend != nil {
		failed = errors.Join(failed, s.backend.server.Close())
	}
	return failed
}

// A stage is a fleet on which one scenario is played.
type stage struct {
	site  *site
	nodes []*node
	name  string

	mutex    sync.Mutex
	expected map[string]int // events that the play has caused, by their kind
}

// run plays one scenario on a fresh fleet and counts what came of it.
func (s *site) run(ctx context.Context, scenario scenario, sheet *sheet) (counted, error) {
	ctx, cancel := context.WithTimeout(ctx, scenarioLimit)
	defer cancel()
	s.backend.begin(scenario.first)
	stage := &stage{site: s, name: scenario.short, expected: map[string]int{}}
	var err error
	stage.nodes, err = s.startNodes(ctx, scenario.short, slices.Repeat([]string{s.url}, scenario.urls))
	if err == nil {
		err = scenario.play(stage, ctx)
	}
	var lines []logLine
	if err == nil {
		lines, err = s.settle(ctx)
	}
	stopNodes(stage.nodes)
	if err != nil {
		return counted{}, err
	}
	late, err := s.settle(ctx)
	if err != nil {
		return counted{}, err
	}
	result := s.count(scenario, append(lines, late...))
	s.check(sheet, result, stage)
	return result, nil
}

// settle waits until no copy has come for a while.
func (s *site) settle(ctx context.Context) ([]logLine, error) {
	var all []logLine
	seen, since := 0, time.Now()
	err := waitUntil(ctx, scenarioLimit, func() (bool, error) {
		copies := 0
		s.backend.count(func(now *tally) {
			for _, each := range now.events {
				copies += each.copies
			}
		})
		if s.gateways != nil {
			lines, err := s.gateways.news()
			if err != nil {
				return false, err
			}
			all = append(all, lines...)
			copies += len(all)
		}
		if copies != seen {
			seen, since = copies, time.Now()
		}
		return time.Since(since) > silence, nil
	})
	return all, err
}

// expect notes that events of one kind have been caused.
func (s *stage) expect(event string, events int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.expected[event] += events
}

// await waits until so many events of a kind and subject have been accepted by the backend.
func (s *stage) await(ctx context.Context, event, subject string, events int) error {
	err := waitUntil(ctx, eventLimit, func() (bool, error) {
		return s.site.backend.accepted(event, subject) >= events, nil
	})
	if err != nil {
		return fmt.Errorf("%s number %d of %s: %w", event, events, subject, err)
	}
	return nil
}

// meetings: in each room guests come, publish, unpublish, publish again and leave.
func (s *stage) meetings(ctx context.Context) error {
	return s.inRooms(ctx, func(ctx context.Context, room *room) error {
		if err := room.each(ctx, (*guest).visit); err != nil {
			return err
		}
		return room.close(ctx)
	})
}

// inRooms plays in all rooms at once. Each node holds as many as every other, and no guest
// talks to the last node or to the one that holds the room.
func (s *stage) inRooms(ctx context.Context, play func(context.Context, *room) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := make(chan error, roomCount)
	for i := range roomCount {
		go func() {
			host, signal := s.nodes[i%nodeCount], s.nodes[(i%nodeCount+1)%(nodeCount-1)]
			room, err := s.openRoom(ctx, fmt.Sprintf("%s-room-%d", s.name, i), host, signal)
			if err == nil {
				err = play(ctx, room)
			}
			ends <- err
		}()
	}
	var failed error
	for range roomCount {
		if err := <-ends; err != nil {
			failed = errors.Join(failed, err)
			cancel() // the others need not wait for what will not come
		}
	}
	return failed
}

// crash: while guests are in all rooms, the node that nobody talks to directly is killed.
// The fleet notices, and those whose rooms it held come back and find them elsewhere.
func (s *stage) crash(ctx context.Context) error {
	doomed := s.nodes[nodeCount-1]
	var present sync.WaitGroup
	present.Add(roomCount)
	killed := make(chan struct{})
	go func() {
		present.Wait()
		doomed.process.kill()
		close(killed)
	}()
	return s.inRooms(ctx, func(ctx context.Context, room *room) error {
		err := room.each(ctx, (*guest).visit)
		present.Done()
		if err != nil {
			return err
		}
		select {
		case <-killed:
		case <-ctx.Done():
			return ctx.Err()
		}
		if room.host == doomed {
			if err := room.move(ctx); err != nil {
				return err
			}
		}
		return room.close(ctx)
	})
}

// work: an egress worker and an ingress worker report to the fleet.
func (s *stage) work(ctx context.Context) error {
	worker, err := hireWorker(s.site.livekitAddress)
	if err != nil {
		return err
	}
	for range egressCount {
		if err = worker.egress(ctx, s); err != nil {
			return errors.Join(fmt.Errorf("egress: %w", err), worker.dismiss())
		}
	}
	if err = worker.ingress(ctx, s); err != nil {
		err = fmt.Errorf("ingress: %w", err)
	}
	return errors.Join(err, worker.dismiss())
}
