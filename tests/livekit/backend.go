package main

import (
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

// A manner is how the backend treats the first copy of each event.
type manner int

const (
	accepts manner = iota
	refuses        // with 500
	hangsUp        // after it has taken it, without an answer
)

// A tally is what came to the backend during one scenario.
type tally struct {
	first      manner
	events     map[string]*received // by identity
	unverified []string
}

// Received is what came of one event.
type received struct {
	event    string
	subject  string
	track    string // its sid
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
		now:  newTally(accepts),
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

func newTally(first manner) *tally {
	return &tally{first: first, events: map[string]*received{}}
}

// begin starts a new count.
func (b *backend) begin(first manner) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.now = newTally(first)
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
	switch b.now.take(event, r.Header.Get("Oncehook-Possible-Duplicate") != "") {
	case accepts:
	case refuses:
		http.Error(w, "the first copy of each event is refused", http.StatusInternalServerError)
	case hangsUp:
		panic(http.ErrAbortHandler)
	}
}

// take counts one copy and says how it is to be treated.
func (t *tally) take(event *livekit.WebhookEvent, marked bool) manner {
	name := identity(event)
	each := t.events[name]
	if each == nil {
		each = &received{
			event: event.Event, subject: subject(event), track: event.GetTrack().GetSid(), ids: map[string]bool{},
		}
		t.events[name] = each
	}
	each.copies++
	each.ids[event.Id] = true
	now := accepts
	if each.copies == 1 {
		now = t.first
	}
	if now == refuses {
		each.refused++
		return now
	}
	each.accepted++
	if marked {
		each.marked++
	}
	return now
}

func (r *received) String() string {
	return fmt.Sprintf("%s of %s: accepted %d times, %d of them marked, under %d ids",
		r.event, r.subject, r.accepted, r.marked, len(r.ids))
}
