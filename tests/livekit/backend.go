package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/webhook"
)

const headLimit = 10 * time.Second

// A backend is the service that webhooks are for: LiveKit's own receiver, which verifies
// each, and then counts it. Without a gateway it also ends TLS.
type backend struct {
	server *http.Server
	port   int
	keys   auth.KeyProvider

	mutex sync.Mutex
	now   *tally
}

// A tally is what came to the backend during one scenario.
type tally struct {
	refuseFirst bool
	events      map[string]*received // by identity
	unverified  []string
}

// Received is what came of one event.
type received struct {
	event    string
	subject  string
	copies   int
	refused  int
	accepted int
	marked   int // of the accepted, those that say that they may be a duplicate
	ids      map[string]bool
}

func startBackend(key, secret string, tls *certificates) (*backend, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &backend{
		port: listener.Addr().(*net.TCPAddr).Port,
		keys: auth.NewSimpleKeyProvider(key, secret),
		now:  newTally(false),
	}
	b.server = &http.Server{
		Handler: b, ReadHeaderTimeout: headLimit, ErrorLog: log.New(io.Discard, "", 0),
	}
	go func() {
		if tls != nil {
			_ = b.server.ServeTLS(listener, tls.certificate, tls.key)
		} else {
			_ = b.server.Serve(listener)
		}
	}()
	return b, nil
}

func newTally(refuseFirst bool) *tally {
	return &tally{refuseFirst: refuseFirst, events: map[string]*received{}}
}

// begin starts a new count.
func (b *backend) begin(refuseFirst bool) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.now = newTally(refuseFirst)
}

// count reads the present tally while it stands still.
func (b *backend) count(read func(*tally)) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	read(b.now)
}

// accepted is how many events of a kind that happened to one subject have been accepted.
func (b *backend) accepted(event, subject string) (events int) {
	b.count(func(now *tally) {
		for _, each := range now.events {
			if each.event == event && each.subject == subject && each.accepted > 0 {
				events++
			}
		}
	})
	return events
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	event, err := webhook.ReceiveWebhookEvent(r, b.keys)
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if err != nil {
		b.now.unverified = append(b.now.unverified, err.Error())
		http.Error(w, "not verified", http.StatusUnauthorized)
		return
	}
	if err := b.now.take(event, r.Header.Get("Oncehook-Possible-Duplicate") != ""); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// take counts one copy, and refuses it if it is the first of its event and those are to
// be refused.
func (t *tally) take(event *livekit.WebhookEvent, marked bool) error {
	name := identity(event)
	each := t.events[name]
	if each == nil {
		each = &received{event: event.Event, subject: subject(event), ids: map[string]bool{}}
		t.events[name] = each
	}
	each.copies++
	each.ids[event.Id] = true
	if t.refuseFirst && each.copies == 1 {
		each.refused++
		return errors.New("the first copy of each event is refused")
	}
	each.accepted++
	if marked {
		each.marked++
	}
	return nil
}

func (r *received) String() string {
	return fmt.Sprintf("%s of %s: accepted %d times, %d of them marked, under %d ids",
		r.event, r.subject, r.accepted, r.marked, len(r.ids))
}
