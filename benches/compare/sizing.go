package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
)

// markdown writes the tables of --scale. The report has the machine and the versions.
func (s *scale) markdown(w io.Writer, r report) {
	fmt.Fprintf(w, "%s. %s, Linux %s. All gateways share core %s: more of them cannot do more events a second here; what is "+
		"seen is whether they cost more. %d rounds: median (min – max), or the median.\n", r.Date, r.Machine["cpu"], r.Machine["kernel"], r.Machine["server core"], s.Rounds)
	fmt.Fprintln(w, "\n### Replicas on one Redis")
	fmt.Fprintln(w, "\n| | replicas | gateway CPU an event (all replicas), µs | Redis CPU an event, µs | events/s | deliveries an event | troubles |")
	fmt.Fprintln(w, "|---|--:|--:|--:|--:|--:|---|")
	for _, row := range s.Replicas {
		fmt.Fprintf(w, "| %s | %d | %s | %s | %.0f | %s | %s |\n", row.About, row.Replicas, row.Run.spread(cpu),
			row.Run.spread(redisCPU), row.Run.median(rate), times(row.Run.deliveries()), troubles(row.Run.Samples))
	}
	fmt.Fprintln(w, "\n### Remembered events: Redis")
	fmt.Fprintln(w, "\n| settled records | bytes each (used_memory) | gateway CPU an event, µs | to one with an empty Redis | Redis CPU an event, µs | to an empty Redis | events/s | deliveries an event |")
	fmt.Fprintln(w, "|--:|--:|--:|--:|--:|--:|--:|--:|")
	records(w, s.Redis, true)
	fmt.Fprintln(w, "\n### Remembered events: the memory store")
	fmt.Fprintln(w, "\n| settled records | bytes each (resident) | gateway CPU an event, µs | to one with an empty Redis | events/s | deliveries an event |")
	fmt.Fprintln(w, "|--:|--:|--:|--:|--:|--:|")
	records(w, s.Memory, false)
	s.sizing(w)
	fmt.Fprintln(w, "\nWith:")
	fmt.Fprintln(w)
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		if strings.HasPrefix(name, "oncehook") || name == "Redis" {
			fmt.Fprintf(w, "- %s: %s\n", name, r.Versions[name])
		}
	}
	for _, line := range r.Broken {
		fmt.Fprintf(w, "- **Not as claimed**: %s\n", line)
	}
}

func records(w io.Writer, rows []recordRow, redis bool) {
	for _, row := range rows {
		if row.Skipped != "" {
			empty := " | | | |"
			if redis {
				empty += " | |"
			}
			fmt.Fprintf(w, "| %s | not measured: %s |%s\n", thousands(row.Records), row.Skipped, empty)
			continue
		}
		bytes := "–"
		if row.Bytes > 0 {
			bytes = fmt.Sprintf("%.0f", row.Bytes)
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s |", thousands(row.Records), bytes, row.Run.spread(cpu), row.toEmpty(cpu))
		if redis {
			fmt.Fprintf(w, " %s | %s |", row.Run.spread(redisCPU), row.toEmpty(redisCPU))
		}
		fmt.Fprintf(w, " %.0f | %s |\n", row.Run.median(rate), times(row.Run.deliveries()))
	}
}

// sizing is what Redis needs, from what a record was measured to take.
func (s *scale) sizing(w io.Writer) {
	each := s.bytesEach()
	if each == 0 {
		return
	}
	fmt.Fprintln(w, "\n### How much memory")
	fmt.Fprintf(w, "\nOne record an event, whatever the number of its copies, for as long as the window. Redis: %.0f bytes each, the most "+
		"above from 100,000 records on. `bytes_max`: what `store.memory.bytes_max` has to be if one gateway remembers them itself (%d bytes "+
		"counted each).\n", each, countedBytes)
	fmt.Fprintln(w, "\n| events a minute | window | records | Redis | `bytes_max` |")
	fmt.Fprintln(w, "|--:|--:|--:|--:|--:|")
	for _, perMinute := range []int{1000, 10_000, 100_000} {
		for _, hours := range []int{1, 24} {
			count := perMinute * 60 * hours
			fmt.Fprintf(w, "| %s | %d h | %s | %s | %s |\n", thousands(perMinute), hours, thousands(count), size(float64(count)*each),
				size(float64(count)*countedBytes))
		}
	}
}

// bytesEach is the most that a record was seen to take in Redis, where there were enough for buffers not to matter; 0 if
// none was measured.
func (s *scale) bytesEach() float64 {
	var most float64
	for _, row := range s.Redis {
		if row.Records >= 100_000 {
			most = max(most, row.Bytes)
		}
	}
	return most
}

func size(bytes float64) string {
	if bytes >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", bytes/(1<<30))
	}
	return fmt.Sprintf("%.0f MiB", math.Ceil(bytes/(1<<20)))
}

// thousands writes a number with commas.
func thousands(n int) string {
	text := fmt.Sprint(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

func redisCPU(s sample) float64 { return s.Redis }
func rate(s sample) float64     { return s.Rate }

func (r scaleRun) median(what func(sample) float64) float64 { return median(of(r.Samples, what)) }

func (r scaleRun) spread(what func(sample) float64) string {
	values := of(r.Samples, what)
	return fmt.Sprintf("%.1f (%.1f – %.1f)", median(values), least(values), largest(values))
}

// toEmpty is what it cost to what the same cost on an empty Redis in the same round.
func (r recordRow) toEmpty(what func(sample) float64) string {
	var ratios []float64
	for i, s := range r.Run.Samples {
		if i < len(r.Beside.Samples) && what(r.Beside.Samples[i]) > 0 {
			ratios = append(ratios, what(s)/what(r.Beside.Samples[i]))
		}
	}
	if len(ratios) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f (%.2f – %.2f)", median(ratios), slices.Min(ratios), slices.Max(ratios))
}

// deliveries an event: all rounds' together, so that a single one too many shows.
func (r scaleRun) deliveries() float64 {
	delivered, events := 0, 0
	for _, s := range r.Samples {
		delivered += s.Delivered
		events += s.Events
	}
	return float64(delivered) / float64(max(events, 1))
}
