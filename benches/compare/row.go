package main

import (
	"crypto/tls"
	"fmt"
	"time"
)

// connections is how many, or how many resources over HTTP/2, there are at a time.
const connections = 32

// rateOf is the fixed rate, in requests a second.
const rateOf = 2000

// A row is one thing that is measured.
type row struct {
	Name  string `json:"name"`
	About string `json:"about"`
	load  load
	shape shape
	// count of requests in a run; a slow contender is cut off by the time limit before.
	count int
	quick bool // part of --quick
	peers bool // with the Go and Node recipes
}

func rows() []row {
	const kib = 1 << 10
	small := shape{bytes: 920, copies: 1}
	closed := func(p protocol) load { return load{protocol: p, workers: connections} }
	return []row{
		{"h2-fresh", "fresh event, HTTP/2 as LiveKit sends it: 3 nodes, 32 resources", closed(http2Nodes), small, 16000, true, true},
		{"h1-fresh", "fresh event, HTTP/1.1, 32 connections", closed(http1Kept), small, 16000, true, true},
		{"h1-thrice", "each event three times, distinct ids, one after the other", closed(http1Kept), shape{bytes: 920, copies: 3}, 16002, true, true},
		{"h2-at-once", "each event from 3 nodes at the same time, distinct ids, HTTP/2, 30 resources",
			load{protocol: http2Nodes, workers: 30, atOnce: true}, shape{bytes: 920, copies: 3}, 16002, false, false},
		{"h1-retries", "each event three times, same id", closed(http1Kept), shape{bytes: 920, copies: 3, sameID: true}, 16002, false, false},
		{"h1-2.5k", "fresh event of 2.5 KB", closed(http1Kept), shape{bytes: 2500, copies: 1}, 14000, false, false},
		{"h1-16k", "fresh event of 16 KB", closed(http1Kept), shape{bytes: 16 * kib, copies: 1}, 8000, false, false},
		{"h1-256k", "fresh event of 256 KB", closed(http1Kept), shape{bytes: 256 * kib, copies: 1}, 1000, false, false},
		{"h1-new", "fresh event, a new TLS connection each", closed(http1New), small, 2500, true, false},
		{"h1-new-x25519", "the same, and the sender offers X25519 alone, which all contenders speak",
			load{protocol: http1New, workers: connections, groups: []tls.CurveID{tls.X25519}}, small, 2500, false, false},
		{"h1-rate", fmt.Sprintf("fresh event, HTTP/1.1, 32 connections, %d a second", rateOf),
			load{protocol: http1Kept, workers: connections, rate: rateOf}, small, 3000, true, true},
	}
}

// takes tells whether the contender is part of the row.
func (r row) takes(c *contender) bool {
	if c.noHTTP2 && r.load.protocol == http2Nodes {
		return false
	}
	return r.peers || (c.name != goPeer && c.name != nodePeer)
}

// A sample is one contender's run of one row in one round.
type sample struct {
	Round     int            `json:"round"`
	Seconds   float64        `json:"seconds"`
	Requests  int            `json:"requests"`
	Troubles  map[string]int `json:"troubles,omitempty"`
	CPU       float64        `json:"cpu_us"`       // a request, of all the server's processes
	Redis     float64        `json:"redis_cpu_us"` // a request
	Rate      float64        `json:"requests_per_second"`
	P50       float64        `json:"p50_us"`
	P99       float64        `json:"p99_us"`
	Events    int            `json:"events"`     // of which a copy was answered 2xx
	Delivered int            `json:"deliveries"` // to the backend, of whatever event
	Repeated  int            `json:"repeated"`   // events that it was given more than once
	Missing   int            `json:"missing"`    // events that were answered 2xx, and that it was never given
	SameID    int            `json:"repeated_ids"`
}

// measure runs one row against one contender.
func measure(w *world, r row, c *contender, events, warmup [][]signed, limit time.Duration) (sample, error) {
	defer c.forgetLogs()
	clients := r.load.clients(c.target)
	defer func() {
		for _, client := range clients {
			client.close()
		}
	}()
	warm := r.load
	warm.rate, warm.limit = 0, limit/4
	if over := warm.run(clients, warm.plan(warmup)); over.answers == 0 {
		return sample{}, fmt.Errorf("%s, %s: no request succeeded: %v\n%s", r.Name, c.name, over.troubles, c.tail())
	}
	if err := w.fresh(); err != nil {
		return sample{}, err
	}
	l := r.load
	l.limit = limit
	plans := l.plan(events)
	before, redisBefore, err := clocks(c.process, w.redis)
	if err != nil {
		return sample{}, err
	}
	seen := l.run(clients, plans)
	after, redisAfter, err := clocks(c.process, w.redis)
	if err != nil {
		return sample{}, err
	}
	given, err := w.tally()
	if err != nil {
		return sample{}, err
	}
	n := float64(max(seen.requests(), 1))
	s := sample{
		Seconds: seen.seconds, Requests: seen.requests(), Troubles: seen.troubles,
		CPU: micros(after-before) / n, Redis: micros(redisAfter-redisBefore) / n, Rate: n / seen.seconds,
		P50: micros(seen.percentile(0.5)), P99: micros(seen.percentile(0.99)),
		Events: len(seen.answered), Delivered: given.Requests,
	}
	audit(&s, seen, given)
	return s, nil
}

// audit compares what was answered with what the backend was given.
func audit(s *sample, seen outcome, given tally) {
	for key := range seen.answered {
		if given.Keys[key] == 0 {
			s.Missing++
		}
	}
	for _, n := range given.Keys {
		if n > 1 {
			s.Repeated++
		}
	}
	for _, n := range given.IDs {
		if n > 1 {
			s.SameID++
		}
	}
}

// broken says in what the sample contradicts the contender's claim; "" if in nothing.
func (s sample) broken(c *contender, r row) string {
	switch {
	case s.Missing > 0:
		return fmt.Sprintf("%d events were answered 2xx and never delivered", s.Missing)
	case len(s.Troubles) > 0:
		return fmt.Sprintf("troubles: %v", s.Troubles)
	case c.claims == oncePerEvent && s.Repeated > 0:
		return fmt.Sprintf("%d events were delivered more than once", s.Repeated)
	case c.claims == oncePerID && s.SameID > 0:
		return fmt.Sprintf("%d ids were delivered more than once", s.SameID)
	case c.claims == passesAll && s.Delivered != s.Requests:
		return fmt.Sprintf("%d requests, %d deliveries by a plain proxy: the measurement is wrong", s.Requests, s.Delivered)
	}
	return ""
}

func clocks(server, redis *process) (time.Duration, time.Duration, error) {
	first, err := server.cpu()
	if err != nil {
		return 0, 0, err
	}
	second, err := redis.cpu()
	return first, second, err
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
