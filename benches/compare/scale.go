package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	scaleReplicas  = 3
	scaleEvents    = 12000 // in a run
	scaleWorkers   = 30    // of an event from all nodes: ten resources of three nodes
	scaleRunLimit  = 3 * time.Second
	scaleFillLimit = 90 * time.Second
	memoryChunk    = 20000 // events signed at a time: they take some 2 KB each
	memoryRecords  = 1_000_000
	memoryLimit    = 90 * time.Second
	memoryLong     = 15 * time.Minute // with --long, which fills all of scaleFills
	memoryWarm     = 2000
	memoryBytes    = "4GiB" // more than the records' worth: nothing is evicted
	countedBytes   = 256    // what the memory store counts a record as (RECORD_BYTES of store/memory.rs)
	// spareBytes is what must be left of the machine's memory, and roomBytes more than a record takes in Redis while its
	// hash tables double.
	spareBytes = 512 << 20
	roomBytes  = 220
)

// scaleFills are how many settled records there are when the load begins.
func scaleFills() []int { return []int{0, 10_000, 100_000, 1_000_000, 10_000_000} }

// A scaleRun is the median of some rounds of one load.
type scaleRun struct {
	Samples []sample `json:"samples"`
	Copies  int      `json:"copies"` // requests an event
}

// A replicaRow is some gateways on one Redis.
type replicaRow struct {
	Replicas int      `json:"replicas"`
	About    string   `json:"about"`
	Run      scaleRun `json:"run"`
}

// A recordRow is a store with so many records.
type recordRow struct {
	Records int      `json:"records"`
	Bytes   float64  `json:"bytes_per_record"` // 0: there is none
	Run     scaleRun `json:"run"`
	// Beside is the same load, round by round, on an empty Redis: what both cost more is the machine's doing.
	Beside  scaleRun `json:"beside_empty"`
	Skipped string   `json:"skipped,omitempty"` // why it was not measured
}

// A scale is what --scale has found.
type scale struct {
	Rounds   int          `json:"rounds"`
	Replicas []replicaRow `json:"replicas"`
	Redis    []recordRow  `json:"redis"`
	Memory   []recordRow  `json:"memory"`
}

// measureScale is all of --scale, in at most some six minutes.
func (b *bench) measureScale(ctx context.Context) error {
	found := &scale{Rounds: b.rounds}
	b.report.Scale = found
	for _, part := range []func(context.Context, *scale) error{b.scaleOut, b.scaleRedis, b.scaleMemory} {
		if err := part(ctx, found); err != nil {
			return err
		}
	}
	return nil
}

// oncehooks starts so many gateways with one store.
func (b *bench) oncehooks(count int, store string) ([]*contender, error) {
	var started []*contender
	for i := range count {
		all := contenders("")
		c := all[slices.IndexFunc(all, func(c *contender) bool { return c.short == "oncehook-redis" })]
		c.short, c.store = fmt.Sprintf("scale-%d-of-%d", i+1, b.world.redisPort), store
		if err := c.start(b.world); err != nil {
			stopAll(started)
			return nil, err
		}
		started = append(started, c)
		b.report.TLS[c.name] = c.TLS
	}
	return started, nil
}

func stopAll(gateways []*contender) {
	for _, c := range gateways {
		c.stop()
	}
}

// scaleOut measures one to three gateways on one Redis.
func (b *bench) scaleOut(ctx context.Context, found *scale) error {
	gateways, err := b.oncehooks(scaleReplicas, inRedis)
	defer func() { stopAll(gateways) }()
	if err != nil {
		return err
	}
	loads := []scaleLoad{
		{"fresh events, 32 connections spread over the replicas", load{protocol: http1Kept, workers: connections}, 1},
		{"each event from 3 nodes at the same time, distinct ids, to different replicas",
			load{protocol: http1Kept, workers: scaleWorkers, atOnce: true}, nodes},
	}
	for _, l := range loads {
		for count := range scaleReplicas {
			found.Replicas = append(found.Replicas, replicaRow{Replicas: count + 1, About: l.about, Run: scaleRun{Copies: l.copies}})
		}
	}
	for range b.rounds {
		for i := range found.Replicas {
			row := &found.Replicas[i]
			if err := b.world.fresh(); err != nil {
				return err
			}
			if err := b.scaleOne(ctx, row.About, gateways[:row.Replicas], loads[i/scaleReplicas], &row.Run); err != nil {
				return err
			}
		}
	}
	return nil
}

// A scaleLoad is a load, and how many copies of each event are in it.
type scaleLoad struct {
	about  string
	load   load
	copies int
}

// scaleOne is one run against some gateways at once. What is in the store stays.
func (b *bench) scaleOne(ctx context.Context, about string, gateways []*contender, l scaleLoad, into *scaleRun) error {
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	clients := make([]client, l.load.workers)
	for i := range clients {
		// Of an event from all nodes, each node's copies have a gateway of their own, as far as there are some.
		clients[i] = &http1{target: gateways[(i%nodes)%len(gateways)].target}
		if !l.load.atOnce {
			clients[i] = &http1{target: gateways[i%len(gateways)].target}
		}
		defer clients[i].close()
	}
	s := shape{bytes: 920, copies: l.copies}
	l.load.limit = scaleRunLimit
	l.load.run(clients, l.load.plan(makeEvents(2*connections, s, b.seed())))
	if err := b.world.forgetDeliveries(); err != nil {
		return err
	}
	plans := l.load.plan(makeEvents(scaleEvents/l.copies, s, b.seed()))
	before, redisBefore, err := b.scaleClocks(gateways)
	if err != nil {
		return err
	}
	seen := l.load.run(clients, plans)
	after, redisAfter, err := b.scaleClocks(gateways)
	if err != nil {
		return err
	}
	given, err := b.world.tally()
	if err != nil {
		return err
	}
	// An event, not a request, is the unit here: its copies are part of what it costs.
	n := float64(max(len(seen.attempted), 1))
	found := sample{Round: len(into.Samples), Seconds: seen.seconds, Requests: seen.requests(), Troubles: seen.troubles,
		CPU: micros(after-before) / n, Redis: micros(redisAfter-redisBefore) / n, Rate: n / seen.seconds,
		P50: micros(seen.percentile(0.5)), P99: micros(seen.percentile(0.99)), Events: len(seen.answered), Delivered: given.Requests}
	audit(&found, seen, given)
	into.Samples = append(into.Samples, found)
	line := fmt.Sprintf("%s, replicas: %d: %.1f µs and Redis %.1f µs an event, %.0f/s", about, len(gateways), found.CPU, found.Redis, found.Rate)
	if broken := found.broken(&contender{claims: oncePerEvent}, row{}); broken != "" {
		b.report.Broken = append(b.report.Broken, fmt.Sprintf("%s, replicas: %d: %s", about, len(gateways), broken))
		line += "; NOT AS CLAIMED: " + broken
	}
	b.say("%s", line)
	for _, c := range gateways {
		c.forgetLogs()
	}
	return nil
}

// seed is another one for each set of events of a benchmark.
func (b *bench) seed() uint64 {
	b.seeds++
	return 1<<40 + b.seeds
}

func (b *bench) scaleClocks(gateways []*contender) (time.Duration, time.Duration, error) {
	var sum time.Duration
	for _, c := range gateways {
		spent, err := c.cpu()
		if err != nil {
			return 0, 0, err
		}
		sum += spent
	}
	redis, err := b.world.redis.cpu()
	return sum, redis, err
}

// scaleRedis measures a Redis that holds more and more settled records.
func (b *bench) scaleRedis(ctx context.Context, found *scale) error {
	gateways, err := b.oncehooks(1, inRedis)
	defer func() { stopAll(gateways) }()
	if err != nil {
		return err
	}
	beside, err := b.emptyBeside()
	defer beside.end()
	if err != nil {
		return err
	}
	for _, records := range scaleFills() {
		row := recordRow{Records: records, Run: scaleRun{Copies: 1}}
		if available := memoryAvailable(); available < int64(records)*roomBytes+spareBytes {
			row.Skipped = fmt.Sprintf("%d MiB of memory are available", available>>20)
		} else if err := b.scaleRedisAt(ctx, gateways, beside, &row); err != nil {
			return err
		}
		found.Redis = append(found.Redis, row)
	}
	return nil
}

// A besides is another gateway with another Redis, which stays empty but for what the load leaves.
type besides struct {
	world    world
	gateways []*contender
}

func (b *bench) emptyBeside() (*besides, error) {
	beside := &besides{world: b.world}
	beside.world.redis = nil
	if err := beside.world.startRedis(); err != nil {
		return beside, err
	}
	own := b.world
	b.world = beside.world
	defer func() { b.world = own }()
	var err error
	beside.gateways, err = b.oncehooks(1, inRedis)
	return beside, err
}

func (s *besides) end() {
	stopAll(s.gateways)
	if s.world.redis != nil {
		s.world.redis.stop()
	}
}

// measure is one round of it, in which the bench takes its world for its own.
func (s *besides) measure(ctx context.Context, b *bench, l scaleLoad, into *scaleRun) error {
	own := b.world
	b.world = s.world
	defer func() { b.world = own }()
	if err := b.world.fresh(); err != nil {
		return err
	}
	return b.scaleOne(ctx, "beside, an empty Redis", s.gateways, l, into)
}

// scaleRedisAt fills an emptied Redis, and measures.
func (b *bench) scaleRedisAt(ctx context.Context, gateways []*contender, beside *besides, row *recordRow) error {
	if err := b.world.fresh(); err != nil {
		return err
	}
	empty, err := b.world.redisMemory()
	if err != nil {
		return err
	}
	about := fmt.Sprintf("Redis with %s records", thousands(row.Records))
	b.say("filling: %s", about)
	if row.Records > 0 {
		if err := b.world.fillRedis(ctx, row.Records); err != nil {
			return err
		}
		b.say("filled: %s", about)
		used, err := b.world.settledMemory(row.Records)
		if err != nil {
			return err
		}
		row.Bytes = float64(used-empty) / float64(row.Records)
		b.say("%s: %.1f bytes each", about, row.Bytes)
	}
	return b.scaleRounds(ctx, about, gateways, beside, row)
}

// scaleRounds sends the same load to each store with its records. What it adds to them stays.
func (b *bench) scaleRounds(ctx context.Context, about string, gateways []*contender, beside *besides, row *recordRow) error {
	l := scaleLoad{about, load{protocol: http1Kept, workers: connections}, 1}
	for range b.rounds {
		if err := beside.measure(ctx, b, l, &row.Beside); err != nil {
			return err
		}
		if err := b.scaleOne(ctx, about, gateways, l, &row.Run); err != nil {
			return err
		}
	}
	return nil
}

// scaleMemory measures a gateway whose own memory holds more and more records. They come as events, as nothing else
// writes them, for as long as there is time.
func (b *bench) scaleMemory(ctx context.Context, found *scale) error {
	beside, err := b.emptyBeside()
	defer beside.end()
	if err != nil {
		return err
	}
	limit := memoryLimit
	if b.long {
		limit = memoryLong
	}
	end := time.Now().Add(limit)
	for _, records := range scaleFills() {
		row := recordRow{Records: records, Run: scaleRun{Copies: 1}}
		if records > memoryRecords && !b.long {
			row.Skipped = "the events that would fill it take ten minutes: --long"
		} else if err := b.scaleMemoryAt(ctx, beside, &row, end); err != nil {
			return err
		}
		found.Memory = append(found.Memory, row)
	}
	return nil
}

// scaleMemoryAt fills a gateway that was just started, and measures.
func (b *bench) scaleMemoryAt(ctx context.Context, beside *besides, row *recordRow, end time.Time) error {
	gateways, err := b.oncehooks(1, inMemory+"\n\n[store.memory]\nbytes_max = \""+memoryBytes+"\"")
	defer func() { stopAll(gateways) }()
	if err != nil {
		return err
	}
	about := fmt.Sprintf("memory store with %s records", thousands(row.Records))
	b.say("filling: %s", about)
	// Pools and buffers grow to their size first, so that they do not count as records.
	if _, err := b.fillMemory(ctx, gateways[0], memoryWarm, time.Now().Add(scaleRunLimit)); err != nil {
		return err
	}
	base, err := gateways[0].resident()
	if err != nil {
		return err
	}
	if row.Records > 0 {
		if row.Records, err = b.fillMemory(ctx, gateways[0], row.Records, end); err != nil {
			return err
		}
		resident, err := gateways[0].resident()
		if err != nil {
			return err
		}
		row.Bytes = float64(resident-base) / float64(max(row.Records, 1))
		about = fmt.Sprintf("memory store with %s records", thousands(row.Records)) // that there was time for
		b.say("%s: %.0f bytes each", about, row.Bytes)
	}
	return b.scaleRounds(ctx, about, gateways, beside, row)
}

// fillMemory has a gateway settle so many fresh events, until the deadline. It says how many it settled.
func (b *bench) fillMemory(ctx context.Context, c *contender, count int, end time.Time) (int, error) {
	settled := 0
	clients := make([]client, connections)
	for i := range clients {
		clients[i] = &http1{target: c.target}
		defer clients[i].close()
	}
	for settled < count && time.Now().Before(end) {
		if ctx.Err() != nil {
			return settled, errors.New("interrupted")
		}
		l := load{protocol: http1Kept, workers: connections, limit: time.Until(end)}
		seen := l.run(clients, l.plan(makeEvents(min(memoryChunk, count-settled), shape{bytes: 0, copies: 1}, b.seed())))
		if len(seen.troubles) > 0 {
			return settled, fmt.Errorf("filling the memory store: %v\n%s", seen.troubles, c.tail())
		}
		settled += seen.answers
		c.forgetLogs()
		if err := b.world.forgetDeliveries(); err != nil {
			return settled, err
		}
	}
	return settled, nil
}

// memoryAvailable is how many bytes processes may still take without swapping.
func memoryAvailable() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return math.MaxInt64
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return math.MaxInt64
}
