package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// requestLimit is how long one request may take; LiveKit's sender gives it less.
const requestLimit = 10 * time.Second

// A protocol is how requests travel.
type protocol string

const (
	http2Nodes protocol = "HTTP/2"             // one connection a node, a stream a resource: LiveKit's way
	http1Kept  protocol = "HTTP/1.1"           // a keep-alive connection each
	http1New   protocol = "HTTP/1.1, new each" // a TLS connection for every request
	nodes               = 3                    // of LiveKit
	userAgent           = "Go-http-client/1.1" // as LiveKit's sender calls itself
	mediaType           = "application/webhook+json"
)

// A target is a contender's listener, and whom to trust.
type target struct {
	port   int
	roots  *x509.CertPool
	groups []tls.CurveID
}

func (t target) address() string { return fmt.Sprintf("127.0.0.1:%d", t.port) }

func (t target) tls(protocols ...string) *tls.Config {
	// No session cache: every connection is a full handshake, as from a node that has just started.
	return &tls.Config{RootCAs: t.roots, ServerName: "localhost", MinVersion: tls.VersionTLS13, NextProtos: protocols,
		CurvePreferences: t.groups}
}

// A client sends one request at a time for one resource.
type client interface {
	send(signed) (status int, err error)
	close()
}

// A load is what is sent in one run.
type load struct {
	protocol protocol
	workers  int
	rate     float64 // requests a second of all workers; 0: closed loop
	limit    time.Duration
	// groups that the handshake offers; none: Go's own choice, which is LiveKit's.
	groups []tls.CurveID
	// atOnce: the copies of an event come from the nodes at the same time; else one after the other.
	atOnce bool
}

// An outcome is what the generator saw.
type outcome struct {
	seconds   float64
	answers   int            // of status 2xx
	troubles  map[string]int // every other status, and every error, by its name
	latencies []time.Duration
	attempted map[string]bool // events of which a copy was sent
	answered  map[string]bool // events of which a copy was answered 2xx
}

// plan deals events to workers, before the clock runs.
func (l load) plan(events [][]signed) [][]signed {
	plans := make([][]signed, l.workers)
	if !l.atOnce {
		for i, copies := range events {
			plans[i%l.workers] = append(plans[i%l.workers], copies...)
		}
		return plans
	}
	resources := l.workers / nodes
	for i, copies := range events {
		for node, copy := range copies {
			worker := (i%resources)*nodes + node
			plans[worker] = append(plans[worker], copy)
		}
	}
	return plans
}

func (l load) clients(t target) []client {
	t.groups = l.groups
	made := make([]client, l.workers)
	var shared []client
	if l.protocol == http2Nodes {
		for range nodes {
			shared = append(shared, newHTTP2(t))
		}
	}
	for i := range made {
		switch l.protocol {
		case http2Nodes:
			made[i] = shared[i%nodes]
		case http1Kept:
			made[i] = &http1{target: t}
		case http1New:
			made[i] = &http1{target: t, once: true}
		}
	}
	return made
}

// run sends each worker's plan to its end, or until the limit.
func (l load) run(clients []client, plans [][]signed) outcome {
	results := make([]outcome, l.workers)
	var all sync.WaitGroup
	start := time.Now()
	for i := range plans {
		results[i] = outcome{troubles: map[string]int{}, latencies: make([]time.Duration, 0, len(plans[i])),
			attempted: make(map[string]bool, len(plans[i])), answered: make(map[string]bool, len(plans[i]))}
		all.Go(func() { l.work(i, clients[i], plans[i], start, &results[i]) })
	}
	all.Wait()
	return merge(results, time.Since(start))
}

func (l load) work(worker int, c client, plan []signed, start time.Time, seen *outcome) {
	for i, event := range plan {
		began := time.Now()
		// Only between events: one of which some copies were sent would count as half a duplicate.
		if began.Sub(start) > l.limit && (i == 0 || plan[i-1].key != event.key) {
			return
		}
		if l.rate > 0 {
			due := start.Add(time.Duration(float64(i*l.workers+worker) / l.rate * float64(time.Second)))
			if wait := time.Until(due); wait > 0 {
				time.Sleep(wait)
				began = time.Now() // that the generator overslept is not the server's doing
			} else {
				began = due // that the answer before was late is
			}
		}
		seen.attempted[event.key] = true
		status, err := c.send(event)
		switch {
		case err != nil:
			seen.troubles[kind(err)]++
		case status/100 != 2:
			seen.troubles[fmt.Sprintf("status %d", status)]++
		default:
			seen.latencies = append(seen.latencies, time.Since(began))
			seen.answered[event.key] = true
			seen.answers++
		}
	}
}

func merge(results []outcome, took time.Duration) outcome {
	all := outcome{seconds: took.Seconds(), troubles: map[string]int{}, attempted: map[string]bool{}, answered: map[string]bool{}}
	for _, r := range results {
		all.answers += r.answers
		all.latencies = append(all.latencies, r.latencies...)
		for name, n := range r.troubles {
			all.troubles[name] += n
		}
		for key := range r.attempted {
			all.attempted[key] = true
		}
		for key := range r.answered {
			all.answered[key] = true
		}
	}
	slices.Sort(all.latencies)
	return all
}

// requests is how many were sent, whatever came back.
func (o outcome) requests() int {
	n := o.answers
	for _, count := range o.troubles {
		n += count
	}
	return n
}

func (o outcome) percentile(p float64) time.Duration {
	if len(o.latencies) == 0 {
		return 0
	}
	return o.latencies[min(int(p*float64(len(o.latencies))), len(o.latencies)-1)]
}

// kind names an error without what differs from one to the next, so that they can be counted.
func kind(err error) string {
	var network net.Error
	switch {
	case errors.As(err, &network) && network.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		return "time-out"
	case errors.Is(err, syscall.ECONNRESET):
		return "connection reset"
	case errors.Is(err, syscall.EPIPE):
		return "broken pipe"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed before the answer"
	}
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return text
}
