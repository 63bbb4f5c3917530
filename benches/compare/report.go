package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
)

// A report is all that one benchmark has found.
type report struct {
	Date     string                         `json:"date"`
	Machine  map[string]string              `json:"machine"`
	Versions map[string]string              `json:"versions"`
	TLS      map[string]string              `json:"tls"`
	Rounds   int                            `json:"rounds"`
	Limit    float64                        `json:"seconds_limit"`
	Tracer   string                         `json:"tracer"`
	Order    []string                       `json:"contenders"`
	Rows     []row                          `json:"rows"`
	Samples  map[string]map[string][]sample `json:"samples"`  // by row and contender
	Syscalls map[string]map[string]float64  `json:"syscalls"` // a request, by row and contender
	Weights  map[string]footprint           `json:"footprints"`
	Broken   []string                       `json:"broken"`          // what contradicts a contender's claim
	Scale    *scale                         `json:"scale,omitempty"` // of --scale, which has nothing of the above but Broken
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

func of(samples []sample, what func(sample) float64) []float64 {
	values := make([]float64, 0, len(samples))
	for _, s := range samples {
		values = append(values, what(s))
	}
	return values
}

// ratios divides what two contenders had in the same round.
func (r report) ratios(row, one, other string, what func(sample) float64) []float64 {
	var found []float64
	for _, a := range r.Samples[row][one] {
		for _, b := range r.Samples[row][other] {
			if a.Round == b.Round && what(b) > 0 {
				found = append(found, what(a)/what(b))
			}
		}
	}
	return found
}

func cpu(s sample) float64 { return s.CPU }
func p50(s sample) float64 { return s.P50 }

// markdown writes all tables.
func (r report) markdown(w io.Writer) {
	if r.Scale != nil {
		r.Scale.markdown(w, r)
		return
	}
	fmt.Fprintf(w, "%s. %s, Linux %s. %s. %d rounds.\n", r.Date, r.Machine["cpu"], r.Machine["kernel"], r.Machine["cores"], r.Rounds)
	r.targets(w)
	for _, row := range r.Rows {
		r.table(w, row)
	}
	r.weights(w)
	r.appendix(w)
}

func (r report) table(w io.Writer, row row) {
	if len(r.Samples[row.Name]) == 0 {
		return
	}
	fmt.Fprintf(w, "\n### %s: %s\n\n", row.Name, row.About)
	fmt.Fprintln(w, "| | CPU a request, µs | to nginx: median (min – max) | requests/s | p50, ms | p99, ms | Redis CPU a request, µs | deliveries an event | troubles |")
	fmt.Fprintln(w, "|---|--:|--:|--:|--:|--:|--:|--:|---|")
	for _, name := range r.Order {
		samples := r.Samples[row.Name][name]
		if len(samples) == 0 {
			continue
		}
		to := "–"
		if ratios := r.ratios(row.Name, name, plainNginx, cpu); len(ratios) > 0 {
			to = fmt.Sprintf("%.2f (%.2f – %.2f)", median(ratios), slices.Min(ratios), slices.Max(ratios))
		}
		redis := "–"
		if m := median(of(samples, func(s sample) float64 { return s.Redis })); m >= 0.5 {
			redis = fmt.Sprintf("%.1f", m)
		}
		each := median(of(samples, func(s sample) float64 { return float64(s.Delivered) / float64(max(s.Events, 1)) }))
		fmt.Fprintf(w, "| %s | %.1f | %s | %.0f | %.2f | %.2f | %s | %s | %s |\n", name, median(of(samples, cpu)), to,
			median(of(samples, func(s sample) float64 { return s.Rate })), median(of(samples, p50))/1e3,
			median(of(samples, func(s sample) float64 { return s.P99 }))/1e3, redis, times(each), troubles(samples))
	}
}

func times(n float64) string {
	if n == 1 {
		return "1"
	}
	return fmt.Sprintf("%.3f", n)
}

func troubles(samples []sample) string {
	all := map[string]int{}
	for _, s := range samples {
		for name, n := range s.Troubles {
			all[name] += n
		}
		if s.Missing > 0 {
			all["answered and never delivered"] += s.Missing
		}
	}
	if len(all) == 0 {
		return "none"
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		parts = append(parts, fmt.Sprintf("%d × %s", all[name], name))
	}
	return strings.Join(parts, ", ")
}

func (r report) weights(w io.Writer) {
	if len(r.Weights)+len(r.Syscalls) == 0 {
		return
	}
	fmt.Fprintln(w, "\n### Memory and system calls")
	fmt.Fprintf(w, "\n| | idle, MiB | an idle TLS connection, KiB: after a request | after the handshake | system calls a request, HTTP/1.1 | HTTP/2 |\n")
	fmt.Fprintln(w, "|---|--:|--:|--:|--:|--:|")
	for _, name := range r.Order {
		fmt.Fprintf(w, "| %s |", name)
		if weight, found := r.Weights[name]; found {
			fmt.Fprintf(w, " %.1f | %.1f | %.1f |", float64(weight.Idle)/(1<<20), weight.PerConnection/(1<<10), weight.PerHandshake/(1<<10))
		} else {
			fmt.Fprint(w, " – | – | – |")
		}
		for _, row := range []string{"h1-fresh", "h2-fresh"} {
			if calls, found := r.Syscalls[row][name]; found {
				fmt.Fprintf(w, " %.2f |", calls)
			} else {
				fmt.Fprint(w, " – |")
			}
		}
		fmt.Fprintln(w)
	}
}

// A goal is one line of what oncehook is held to.
type goal struct {
	about          string
	target, bound  float64
	unit           string
	value          float64
	least, largest float64
}

// goals are the figures that oncehook's speed is judged by; NaN where a row was not run.
func (r report) goals() []goal {
	none := math.NaN()
	ratio := func(about string, target, bound float64, row, one, other string, what func(sample) float64) goal {
		values := r.ratios(row, one, other, what)
		if len(values) == 0 {
			return goal{about, target, bound, "", none, none, none}
		}
		return goal{about, target, bound, "", median(values), slices.Min(values), slices.Max(values)}
	}
	weight, calls := none, none
	if found, ok := r.Weights[oncehookMemory]; ok {
		weight = found.PerConnection / (1 << 10)
	}
	if found, ok := r.Syscalls["h1-fresh"][oncehookRedis]; ok {
		calls = found
	}
	redis := of(r.Samples["h1-fresh"][oncehookRedis], func(s sample) float64 { return s.Redis })
	return []goal{
		ratio("fresh event, HTTP/2 as LiveKit sends it, Redis", 0.9, 1.1, "h2-fresh", oncehookRedis, plainNginx, cpu),
		ratio("the same, memory", 0.8, 0.95, "h2-fresh", oncehookMemory, plainNginx, cpu),
		ratio("fresh event, Redis", 1.0, 1.25, "h1-fresh", oncehookRedis, plainNginx, cpu),
		ratio("fresh event, memory", 0.95, 1.15, "h1-fresh", oncehookMemory, plainNginx, cpu),
		ratio("each event three times, distinct ids, Redis", 0.8, 0.95, "h1-thrice", oncehookRedis, plainNginx, cpu),
		ratio("16 KB, Redis", 1.3, 1.5, "h1-16k", oncehookRedis, plainNginx, cpu),
		ratio("256 KB, Redis", 1.2, 1.3, "h1-256k", oncehookRedis, plainNginx, cpu),
		ratio("a new TLS connection each, Redis", 0.5, 0.6, "h1-new", oncehookRedis, plainNginx, cpu),
		ratio("p50 at 2,000 a second, Redis", 1.25, 1.4, "h1-rate", oncehookRedis, plainNginx, p50),
		{"an idle TLS connection, memory", 28, 33, " KiB", weight, weight, weight},
		ratio("fresh event, HTTP/2, Redis, to nginx + Lua", 0.5, 0.6, "h2-fresh", oncehookRedis, luaPeer, cpu),
		ratio("fresh event, HTTP/2, Redis, to Go", 0.3, 0.4, "h2-fresh", oncehookRedis, goPeer, cpu),
		ratio("fresh event, HTTP/1.1, Redis, to Node", 0.05, 0.07, "h1-fresh", oncehookRedis, nodePeer, cpu),
		{"Redis CPU an event, HTTP/1.1", 6, 8, " µs", median(redis), least(redis), largest(redis)},
		{"system calls a request, HTTP/1.1, 32 connections, Redis", 4.8, 5.3, "", calls, calls, calls},
	}
}

func least(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	return slices.Min(values)
}

func largest(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	return slices.Max(values)
}

func (r report) targets(w io.Writer) {
	fmt.Fprintln(w, "\n### What oncehook is held to")
	fmt.Fprintln(w, "\nRatios are of CPU a request to plain nginx in the same round, unless another peer or measure is named.")
	fmt.Fprintln(w, "\n| | median (min – max) | target | first bound | |")
	fmt.Fprintln(w, "|---|--:|--:|--:|---|")
	for _, g := range r.goals() {
		if math.IsNaN(g.value) {
			fmt.Fprintf(w, "| %s | not run | %g%s | %g%s | |\n", g.about, g.target, g.unit, g.bound, g.unit)
			continue
		}
		verdict := "over both"
		switch {
		case g.value <= g.target:
			verdict = "target"
		case g.value <= g.bound:
			verdict = "bound"
		}
		text := fmt.Sprintf("%.2f%s", g.value, g.unit)
		if g.least != g.largest {
			text += fmt.Sprintf(" (%.2f – %.2f)", g.least, g.largest)
		}
		fmt.Fprintf(w, "| %s | %s | %g%s | %g%s | %s |\n", g.about, text, g.target, g.unit, g.bound, g.unit, verdict)
	}
}

func (r report) appendix(w io.Writer) {
	fmt.Fprintln(w, "\n### With what")
	fmt.Fprintln(w)
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		fmt.Fprintf(w, "- %s: %s\n", name, r.Versions[name])
	}
	for _, name := range r.Order {
		if agreed, found := r.TLS[name]; found {
			fmt.Fprintf(w, "- TLS of %s: %s\n", name, agreed)
		}
	}
	if r.Tracer != "" {
		fmt.Fprintf(w, "- System calls were counted with %s.\n", r.Tracer)
	}
	for _, line := range r.Broken {
		fmt.Fprintf(w, "- **Not as claimed**: %s\n", line)
	}
}
