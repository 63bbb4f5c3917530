package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/logger"
	"github.com/livekit/protocol/utils/guid"
	"github.com/livekit/protocol/utils/protojson"
	"github.com/livekit/protocol/webhook"
)

// A sent line tells of one copy that one node posted and what came back.
type sent struct {
	Sample string `json:"sample"`
	Node   int    `json:"node"`
	Event  string `json:"event"`
	ID     string `json:"id"`
	SHA256 string `json:"sha256"`
	Status int    `json:"status"`
	Error  string `json:"error,omitempty"`
	// Dropped: the notifier gave it up before it posted it, for its age or a full queue.
	Dropped bool `json:"dropped,omitempty"`
}

// send posts every sample once from each of several nodes, each with a notifier of its
// own, as a fleet does: first with one id for all copies, then, where the event can be
// told by what it says, with an id of each node's own.
func send(arguments []string) error {
	flags := flag.NewFlagSet("send", flag.ExitOnError)
	url := flags.String("url", "", "where to post")
	key := flags.String("key", "", "API key")
	secret := flags.String("secret", "", "API secret")
	nodes := flags.Int("nodes", 3, "how many nodes post each event")
	limit := flags.Duration("timeout", time.Minute, "give up after")
	ca := flags.String("ca", "", "PEM file of the CA to trust")
	_ = flags.Parse(arguments)
	if err := trust(*ca); err != nil {
		return err
	}

	done := make(chan error, 1)
	go func() { done <- sendAll(*url, *key, *secret, *nodes) }()
	select {
	case err := <-done:
		return err
	case <-time.After(*limit):
		return fmt.Errorf("not everything was sent within %s", *limit)
	}
}

// trust makes a private CA known the way an operator does for LiveKit: the notifier has
// no option for it, but Go reads SSL_CERT_FILE before the first handshake.
func trust(ca string) error {
	if ca == "" {
		return nil
	}
	if _, err := os.Stat(ca); err != nil {
		return err
	}
	return os.Setenv("SSL_CERT_FILE", ca)
}

func sendAll(url, key, secret string, nodes int) error {
	if url == "" || key == "" || secret == "" {
		return errors.New("--url, --key and --secret are needed")
	}
	webhook.InitWebhookStats(nil) // the notifier counts, and needs its counters
	fleet := make([]*node, nodes)
	for i := range fleet {
		fleet[i] = newNode(i, webhook.ResourceURLNotifierParams{URL: url, APIKey: key, APISecret: secret})
	}
	createdAt := time.Now().Unix()
	for _, s := range samples(guid.New(""), time.Now()) {
		id := guid.New("EV_")
		for _, n := range fleet {
			n.emit(s.name+" same id", s.event, id, createdAt)
		}
	}
	for _, s := range samples(guid.New(""), time.Now()) {
		if !s.identified {
			continue
		}
		for i, n := range fleet {
			n.emit(s.name+" other ids", s.event, guid.New("EV_"), createdAt+int64(i))
		}
	}
	var failed error
	for _, n := range fleet {
		n.notifier.Stop(false) // waits until all is sent
		failed = errors.Join(failed, n.report())
	}
	return failed
}

// A node is one LiveKit server: its notifier, and what the notifier said of each event.
type node struct {
	logger.Logger
	number   int
	notifier *webhook.ResourceURLNotifier

	mutex  sync.Mutex
	copies []*sent
	byID   map[string]*sent
}

func newNode(number int, params webhook.ResourceURLNotifierParams) *node {
	n := &node{Logger: logger.GetDiscardLogger(), number: number, byID: map[string]*sent{}}
	params.Logger = n
	n.notifier = webhook.NewResourceURLNotifier(params)
	return n
}

func (n *node) emit(name string, event *livekit.WebhookEvent, id string, createdAt int64) {
	event = proto.CloneOf(event)
	event.Id, event.CreatedAt = id, createdAt
	line := &sent{Sample: name, Node: n.number, Event: event.Event, ID: id}
	// The notifier marshals with this very function, whose output is one and the same
	// throughout a process.
	body, err := protojson.Marshal(event)
	if err == nil {
		digest := sha256.Sum256(body)
		line.SHA256 = hex.EncodeToString(digest[:])
		n.mutex.Lock()
		n.copies = append(n.copies, line)
		n.byID[id] = line
		n.mutex.Unlock()
		err = n.notifier.QueueNotify(context.Background(), event)
	}
	if err != nil {
		n.mutex.Lock()
		line.Error = err.Error()
		n.mutex.Unlock()
	}
}

// Infow and Warnw are where the notifier tells what came of an event: it keeps the
// status from everyone but its log.
func (n *node) Infow(message string, fields ...any) { n.note(message, nil, fields) }

func (n *node) Warnw(message string, err error, fields ...any) { n.note(message, err, fields) }

func (n *node) note(message string, err error, fields []any) {
	values := map[any]any{}
	for i := 0; i+1 < len(fields); i += 2 {
		values[fields[i]] = fields[i+1]
	}
	id, _ := values["id"].(string)
	n.mutex.Lock()
	defer n.mutex.Unlock()
	line := n.byID[id]
	if line == nil {
		return
	}
	line.Status, _ = values["statusCode"].(int)
	line.Dropped = message == "dropped webhook"
	if message != "sent webhook" {
		line.Error = message
	}
	if err != nil {
		line.Error = err.Error()
	}
}

func (n *node) report() error {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	for _, line := range n.copies {
		if line.Status == 0 && line.Error == "" {
			return fmt.Errorf("node %d: the notifier said nothing of %s", n.number, line.ID)
		}
		printLine(line)
	}
	return nil
}
