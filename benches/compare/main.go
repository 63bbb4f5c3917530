// compare measures oncehook beside what operators would use instead: plain TLS proxies, and other ways of doing the same
// job. See docs/performance.md for what it does and what its figures mean; benches/compare/run builds and starts it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	quick, scale, long    bool
	rounds                int
	seconds               float64
	only                  string
	oncehook, before      string
	goPeer, sources       string
	output, write, render string
	serverCore, loadCore  int
}

func main() {
	// What is started dies with the thread that started it (Pdeathsig): that is this one, which lives until the end.
	runtime.LockOSThread()
	if len(os.Args) == 2 && os.Args[1] == "backend" {
		fail(runBackend())
		return
	}
	o := parse()
	if o.render != "" {
		fail(show(o.render, o.write))
		return
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	fail(benchmark(ctx, o))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func parse() options {
	var o options
	flag.BoolVar(&o.quick, "quick", false, "the most telling rows only, half the requests, 3 rounds: 3 minutes at most")
	flag.BoolVar(&o.scale, "scale", false, "instead: 1 to 3 replicas on one Redis, and up to 10 million remembered events: 6 minutes at most")
	flag.BoolVar(&o.long, "long", false, "with --scale: the memory store is filled with 10 million events, too: 15 minutes more")
	flag.IntVar(&o.rounds, "rounds", 0, "rounds (5; with --quick or --scale 3); each has every row and every contender")
	flag.Float64Var(&o.seconds, "seconds", 0, "limit of one run (2; with --quick 1); slow contenders are cut off there")
	flag.StringVar(&o.only, "only", "", "rows and contenders, comma between: h1-fresh,nginx,oncehook-redis; also syscalls, memory")
	flag.StringVar(&o.output, "json", "", "where the figures go (target/compare/TIME.json)")
	flag.StringVar(&o.write, "write", "", "a Markdown file whose part between the compare (or scale) marks is replaced, such as docs/performance.md")
	flag.StringVar(&o.render, "render", "", "run nothing: the tables of these figures (a JSON file)")
	flag.StringVar(&o.oncehook, "oncehook", "", "the program to measure (this tree, as ./release builds it)")
	flag.Bool("plain", false, "measure a plain cargo build --release instead: made sooner, but slower (run builds it)")
	flag.StringVar(&o.before, "before", "", "another build of oncehook to measure beside it: before-memory, before-redis")
	flag.StringVar(&o.goPeer, "go-peer", "", "the Go recipe (run builds it)")
	flag.StringVar(&o.sources, "sources", "", "the folder of the peers' files (run copies it)")
	flag.IntVar(&o.serverCore, "server-core", 0, "the core of the servers")
	flag.IntVar(&o.loadCore, "load-core", 1, "the core of the load generator, the backend and Redis")
	flag.Usage = usage
	flag.Parse()
	o.rounds = orElse(o.rounds, o.quick || o.scale, 5, 3)
	if o.seconds == 0 {
		o.seconds = float64(orElse(0, o.quick, 2, 1))
	}
	return o
}

func orElse(given int, quick bool, full, short int) int {
	switch {
	case given > 0:
		return given
	case quick:
		return short
	}
	return full
}

func usage() {
	fmt.Fprintln(flag.CommandLine.Output(), "Usage: benches/compare/run [--quick] [--only NAMES] [--write docs/performance.md]\n       "+
		"benches/compare/run --scale [--write docs/performance.md]\n\nRows:")
	for _, r := range rows() {
		fmt.Fprintf(flag.CommandLine.Output(), "  %-12s %s\n", r.Name, r.About)
	}
	fmt.Fprintln(flag.CommandLine.Output(), "\nContenders:")
	for _, c := range contenders("") {
		fmt.Fprintf(flag.CommandLine.Output(), "  %-16s %s\n", c.short, c.name)
	}
	fmt.Fprintln(flag.CommandLine.Output(), "\nFlags:")
	flag.PrintDefaults()
}

// A bench is one benchmark under way.
type bench struct {
	options
	world      world
	rows       []row
	contenders []*contender
	weigh      bool
	count      bool
	report     report
	seeds      uint64 // of events that were made
}

func benchmark(ctx context.Context, o options) error {
	for _, path := range []*string{&o.oncehook, &o.goPeer, &o.sources, &o.before} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path) // each server has a working folder of its own
		if err != nil {
			return err
		}
		*path = absolute
	}
	if o.long && !o.scale {
		return errors.New("--long is for --scale: add that")
	}
	if o.scale && o.only != "" {
		return errors.New("--scale has no rows or contenders to choose: leave --only out")
	}
	b := &bench{options: o}
	if err := b.choose(); err != nil {
		return err
	}
	if err := pinSelf(o.loadCore); err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	b.world = world{folder: folder, sources: o.sources, oncehook: o.oncehook, goPeer: o.goPeer,
		serverCore: o.serverCore, loadCore: o.loadCore}
	defer b.world.end()
	if err := b.world.build(); err != nil {
		return err
	}
	b.begin()
	measured := b.measureAll
	if o.scale {
		measured = b.measureScale
	}
	if err := measured(ctx); err != nil {
		return err
	}
	return b.conclude()
}

// choose keeps the rows and contenders that were asked for.
func (b *bench) choose() error {
	b.rows, b.contenders, b.weigh, b.count = rows(), contenders(b.before), true, true
	if b.quick {
		b.rows = slices.DeleteFunc(b.rows, func(r row) bool { return !r.quick })
		for i := range b.rows {
			if b.rows[i].load.rate == 0 {
				b.rows[i].count /= 2
			}
		}
	}
	if b.only == "" {
		return nil
	}
	asked := map[string]bool{}
	for name := range strings.SplitSeq(b.only, ",") {
		asked[strings.TrimSpace(name)] = false
	}
	wants := func(name string) bool {
		_, found := asked[name]
		if found {
			asked[name] = true
		}
		return found
	}
	all := rows()
	b.weigh, b.count = wants("memory"), wants("syscalls")
	rest := slices.DeleteFunc(all, func(r row) bool { return !wants(r.Name) })
	few := slices.DeleteFunc(contenders(b.before), func(c *contender) bool { return !wants(c.short) })
	for name, known := range asked {
		if !known {
			return fmt.Errorf("--only: nothing is called %q; --help lists the rows and contenders", name)
		}
	}
	switch {
	case len(rest) > 0:
		b.rows = rest
	case b.weigh || b.count:
		b.rows = nil
	}
	if len(few) > 0 {
		b.contenders = few
	}
	return nil
}

func (b *bench) begin() {
	b.report = report{Date: time.Now().UTC().Format("2006-01-02"), Machine: machine(b.serverCore, b.loadCore), Versions: versions(b.oncehook),
		TLS: map[string]string{}, Rounds: b.rounds, Limit: b.seconds, Rows: b.rows,
		Samples: map[string]map[string][]sample{}, Syscalls: map[string]map[string]float64{}, Weights: map[string]footprint{}}
	for _, c := range b.contenders {
		b.report.Order = append(b.report.Order, c.name)
	}
}

func (b *bench) measureAll(ctx context.Context) error {
	if b.weigh {
		for _, c := range b.contenders {
			b.say("memory of %s", c.name)
			weight, err := weigh(&b.world, c)
			if err != nil {
				return err
			}
			b.report.Weights[c.name] = weight
		}
	}
	if len(b.rows) == 0 && !b.count {
		return nil
	}
	for _, c := range b.contenders {
		if err := c.start(b.world); err != nil {
			return err
		}
		defer c.stop()
		b.report.TLS[c.name] = c.TLS
	}
	if err := b.warm(); err != nil {
		return err
	}
	for round := range b.rounds {
		for number, r := range b.rows {
			if err := b.round(ctx, round, number, r); err != nil {
				return err
			}
		}
	}
	if b.count {
		return b.countAll(ctx)
	}
	return nil
}

// warm lets each contender compile, fill its pools and grow before anything counts.
func (b *bench) warm() error {
	for _, c := range b.contenders {
		b.say("warming %s", c.name)
		r := row{Name: "warm-up", load: load{protocol: http1Kept, workers: connections}, shape: shape{bytes: 920, copies: 1}}
		few := makeEvents(connections, r.shape, 1)
		if _, err := measure(&b.world, r, c, makeEvents(3000, r.shape, 2), few, 2*time.Second); err != nil {
			return err
		}
	}
	return nil
}

// round runs one row against every contender, each round in another order, all with the same events.
func (b *bench) round(ctx context.Context, round, number int, r row) error {
	seed := uint64(round*100 + number + 10)
	events := makeEvents(r.count/r.shape.copies, r.shape, seed)
	warmup := makeEvents(5*connections, shape{bytes: r.shape.bytes, copies: r.shape.copies}, seed+1<<32)
	if r.load.protocol == http1New || r.shape.bytes > 100<<10 {
		warmup = warmup[:connections]
	}
	limit := time.Duration(b.seconds * float64(time.Second))
	for i := range b.contenders {
		c := b.contenders[(i+round)%len(b.contenders)]
		if !r.takes(c) {
			continue
		}
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		s, err := measure(&b.world, r, c, events, warmup, limit)
		if err != nil {
			return err
		}
		s.Round = round
		if b.report.Samples[r.Name] == nil {
			b.report.Samples[r.Name] = map[string][]sample{}
		}
		b.report.Samples[r.Name][c.name] = append(b.report.Samples[r.Name][c.name], s)
		line := fmt.Sprintf("round %d, %s, %s: %.1f µs, %.0f/s", round+1, r.Name, c.name, s.CPU, s.Rate)
		if broken := s.broken(c, r); broken != "" {
			b.report.Broken = append(b.report.Broken, fmt.Sprintf("%s, %s, round %d: %s", r.Name, c.name, round+1, broken))
			line += "; NOT AS CLAIMED: " + broken
		}
		b.say("%s", line)
	}
	return nil
}

func (b *bench) countAll(ctx context.Context) error {
	for number, r := range rows() {
		if r.Name != "h1-fresh" && r.Name != "h2-fresh" {
			continue
		}
		b.report.Syscalls[r.Name] = map[string]float64{}
		for _, c := range b.contenders {
			if !r.takes(c) {
				continue
			}
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			calls, tool, broken, err := countSyscalls(&b.world, r, c, uint64(0x57ace00+number))
			if err != nil {
				return err
			}
			line := fmt.Sprintf("system calls, %s, %s: %.2f a request", r.Name, c.name, calls)
			if broken != "" {
				b.report.Broken = append(b.report.Broken, fmt.Sprintf("%s, %s, system calls: %s", r.Name, c.name, broken))
				line += "; NOT AS CLAIMED: " + broken
			}
			b.say("%s", line)
			b.report.Syscalls[r.Name][c.name], b.report.Tracer = calls, tool
		}
	}
	return nil
}

func (b *bench) say(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", arguments...)
}

// conclude keeps the figures, and shows them. A contender that did not do as it claims makes the benchmark fail.
func (b *bench) conclude() error {
	text, err := json.MarshalIndent(b.report, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.output), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(b.output, text, 0o644); err != nil {
		return err
	}
	b.say("figures: %s", b.output)
	if err := show(b.output, b.write); err != nil {
		return err
	}
	if len(b.report.Broken) > 0 {
		return fmt.Errorf("not as claimed:\n  %s", strings.Join(b.report.Broken, "\n  "))
	}
	return nil
}

const (
	beginMark = "<!-- compare: begin, written by benches/compare/run --write -->"
	endMark   = "<!-- compare: end -->"

	scaleBeginMark = "<!-- scale: begin, written by benches/compare/run --scale --write -->"
	scaleEndMark   = "<!-- scale: end -->"
)

// show prints the tables of a JSON file, or puts them into a Markdown file.
func show(from, into string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	var tables strings.Builder
	r.markdown(&tables)
	fmt.Print(tables.String())
	if into == "" {
		return nil
	}
	page, err := os.ReadFile(into)
	if err != nil {
		return err
	}
	first, last := beginMark, endMark
	if r.Scale != nil {
		first, last = scaleBeginMark, scaleEndMark
	}
	before, rest, begins := strings.Cut(string(page), first)
	_, after, ends := strings.Cut(rest, last)
	if !begins || !ends {
		return fmt.Errorf("%s lacks the lines %q and %q", into, first, last)
	}
	return os.WriteFile(into, []byte(before+first+"\n"+tables.String()+last+after), 0o644)
}

func machine(serverCore, loadCore int) map[string]string {
	found := map[string]string{
		"server core": fmt.Sprint(serverCore),
		"cores":       fmt.Sprintf("Servers on core %d; load generator, backend and Redis on core %d; of %d cores", serverCore, loadCore, onlineCores()),
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				found["cpu"] = strings.TrimSpace(value)
			}
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		found["kernel"] = strings.TrimSpace(string(text))
	}
	return found
}

// onlineCores is how many the machine has; Go's own number is only how many this process may use.
func onlineCores() int {
	folders, _ := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*")
	return len(folders)
}

func versions(oncehook string) map[string]string {
	found := map[string]string{"Go": runtime.Version()}
	if oncehook, err := filepath.Abs(oncehook); err == nil {
		found["oncehook's build"] = filepath.Base(filepath.Dir(oncehook)) // release-pgo, or release with --plain
	}
	for name, command := range map[string][]string{
		"nginx": {"nginx", "-v"}, "HAProxy": {"haproxy", "-v"}, "Node": {"node", "--version"},
		"Redis": {"redis-server", "--version"}, "oncehook": {oncehook, "version"},
		"oncehook's commit": {"git", "-C", filepath.Dir(oncehook), "describe", "--always", "--dirty"},
	} {
		if text, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err == nil {
			first, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
			found[name] = first
		}
	}
	maps.DeleteFunc(found, func(_, version string) bool { return version == "" })
	return found
}
