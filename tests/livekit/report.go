package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/livekit/protocol/webhook"
)

// kinds is the order of the tables. Others come after.
var kinds = []string{
	webhook.EventRoomStarted, webhook.EventRoomFinished, webhook.EventParticipantJoined, webhook.EventParticipantLeft,
	webhook.EventParticipantConnectionAborted, webhook.EventTrackPublished, webhook.EventTrackUnpublished,
	webhook.EventEgressStarted, webhook.EventEgressUpdated, webhook.EventEgressEnded, webhook.EventIngressStarted,
	webhook.EventIngressEnded,
}

// A kind is what came of all events of one type.
type kind struct {
	event    string
	events   int // at the backend, by the table of identities
	keys     int // at the gateways, by their own keys
	sent     int // copies: at the gateways, or, without them, at the backend
	ids      int // that they carried
	arrived  int // copies at the backend
	refused  int // by it
	accepted int
	marked   int // of the accepted, those that say that they may be duplicates
}

// Counted is what came of one scenario.
type counted struct {
	scenario   scenario
	kinds      []kind
	events     []*received
	lines      []logLine
	unverified []string
}

// count puts together what the backend and the gateways saw.
func (s *site) count(scenario scenario, lines []logLine) counted {
	result := counted{scenario: scenario, lines: lines}
	byEvent := map[string]*kind{}
	of := func(event string) *kind {
		if byEvent[event] == nil {
			byEvent[event] = &kind{event: event}
		}
		return byEvent[event]
	}
	s.backend.count(func(now *tally) {
		result.unverified = now.unverified
		for _, each := range now.events {
			result.events = append(result.events, each)
			kind := of(each.event)
			kind.events++
			kind.arrived += each.copies
			kind.refused += each.refused
			kind.accepted += each.accepted
			kind.marked += each.marked
			if s.gateways == nil {
				kind.sent += each.copies
				kind.ids += len(each.ids)
			}
		}
	})
	keys, ids := map[string]bool{}, map[string]bool{}
	for _, line := range lines {
		kind := of(line.Event)
		kind.sent++
		if !keys[line.Key] {
			keys[line.Key] = true
			kind.keys++
		}
		if !ids[line.ID] {
			ids[line.ID] = true
			kind.ids++
		}
	}
	for _, kind := range byEvent {
		result.kinds = append(result.kinds, *kind)
	}
	slices.SortFunc(result.kinds, func(a, b kind) int { return place(a.event) - place(b.event) })
	return result
}

func place(event string) int {
	if i := slices.Index(kinds, event); i >= 0 {
		return i
	}
	return len(kinds)
}

// A sheet is what has been checked.
type sheet struct {
	passed int
	failed int
}

// check is one check; `wrong` lists what speaks against it.
func (s *sheet) check(where, what string, wrong []string) {
	word := "ok"
	if len(wrong) > 0 {
		word = "FAILED"
		s.failed++
	} else {
		s.passed++
	}
	fmt.Printf("%-8s%-12s%s\n", word, where, what)
	for _, each := range wrong[:min(5, len(wrong))] {
		fmt.Printf("%20s%s\n", "", each)
	}
	if len(wrong) > 5 {
		fmt.Printf("%20sand %d more\n", "", len(wrong)-5)
	}
}

func (s *site) check(sheet *sheet, result counted, stage *stage) {
	where := result.scenario.short
	caused := fmt.Sprintf("all %d events that the play caused reached the backend, and no other", len(result.events))
	sheet.check(where, caused, unexpected(result.kinds, stage.expected))
	sheet.check(where, result.scenario.cause, wrongIn(result.kinds, result.scenario.sent))
	sheet.check(where, "LiveKit's own receiver verified all that reached it", result.unverified)
	if s.gateways == nil {
		return
	}
	if result.scenario.first == hangsUp {
		sheet.check(where, "the backend accepted each event once more, and that copy was marked", notOnce(result.events, 1))
	} else {
		sheet.check(where, "the backend accepted each event exactly once, unmarked", notOnce(result.events, 0))
	}
	sheet.check(where, "the gateways tell as many events apart as the table of identities does",
		wrongIn(result.kinds, func(k kind) bool { return k.keys == k.events }))
	sheet.check(where, "their metrics count each copy once, as received and as answered", s.miscounted(len(result.lines)))
}

func unexpected(kinds []kind, expected map[string]int) (wrong []string) {
	came := map[string]int{}
	for _, kind := range kinds {
		came[kind.event] = kind.events
		if kind.events != expected[kind.event] {
			wrong = append(wrong, fmt.Sprintf("%s: %d events, not %d", kind.event, kind.events, expected[kind.event]))
		}
	}
	for event, events := range expected {
		if _, found := came[event]; !found {
			wrong = append(wrong, fmt.Sprintf("%s: no event, not %d", event, events))
		}
	}
	if len(kinds) == 0 {
		wrong = append(wrong, "no event at all")
	}
	return wrong
}

func wrongIn(kinds []kind, right func(kind) bool) (wrong []string) {
	for _, kind := range kinds {
		if !right(kind) {
			wrong = append(wrong, fmt.Sprintf("%+v", kind))
		}
	}
	return wrong
}

// notOnce tells which events were not accepted once unmarked, and as often again as there
// were faults, marked.
func notOnce(events []*received, faults int) (wrong []string) {
	for _, each := range events {
		if each.accepted != 1+faults || each.marked != faults {
			wrong = append(wrong, each.String())
		}
	}
	return wrong
}

// miscounted holds the metrics of the gateways, which count from their start, against their logs.
func (s *site) miscounted(copies int) (wrong []string) {
	s.gateways.copies += copies
	for _, name := range []string{"oncehook_webhooks_received_total", "oncehook_webhooks_answered_total"} {
		sum, err := s.gateways.counters(name)
		if err != nil {
			wrong = append(wrong, err.Error())
		}
		if sum != s.gateways.copies {
			wrong = append(wrong, fmt.Sprintf("%s: %d, not %d", name, sum, s.gateways.copies))
		}
	}
	return wrong
}

// idle tells which gateway got no copy of all those.
func idle(results []counted) (wrong []string) {
	copies := make([]int, gatewayCount)
	for _, result := range results {
		for _, line := range result.lines {
			copies[line.gateway]++
		}
	}
	for gateway, copies := range copies {
		if copies == 0 {
			wrong = append(wrong, fmt.Sprintf("gateway %d got no copy", gateway))
		}
	}
	return wrong
}

// printFacts prints what the identities rest on, and what the gateways made of the copies.
func (s *site) printFacts(results []counted) {
	published, tracks := 0, map[string]bool{}
	endings, gatewaysOf := map[string]int{}, map[string]map[int]bool{}
	for _, result := range results {
		for _, each := range result.events {
			if each.event == webhook.EventTrackPublished {
				published++
				tracks[each.track] = true
			}
		}
		for _, line := range result.lines {
			endings[line.Result]++
			if gatewaysOf[line.Key] == nil {
				gatewaysOf[line.Key] = map[int]bool{}
			}
			gatewaysOf[line.Key][line.gateway] = true
		}
	}
	fmt.Printf("%d of %d published tracks had the sid of one before\n", published-len(tracks), published)
	if s.gateways == nil {
		return
	}
	both := 0
	for _, gateways := range gatewaysOf {
		both += len(gateways) / gatewayCount
	}
	conflicts, err := s.gateways.counters("oncehook_key_conflicts_total")
	if err != nil {
		fmt.Println(err)
	}
	fmt.Printf("the gateways' results: %v; %d events came to both; %d copies had other content than the first\n",
		endings, both, conflicts)
}

// printTables prints what came of all scenarios: by event, and by cause.
func printTables(direct bool, server server, results []counted, took time.Duration) {
	mode := "behind two gateways"
	if direct {
		mode = "without a gateway"
	}
	today := time.Now().Format(time.DateOnly)
	fmt.Printf("\nlivekit-server %s %s, %s, %s\n\n", server.version, mode, today, took.Round(time.Second))
	var all []kind
	for _, result := range results {
		for _, kind := range result.kinds {
			i := slices.IndexFunc(all, sameEvent(kind))
			if i < 0 {
				all = append(all, kind)
				continue
			}
			all[i] = plus(all[i], kind)
		}
	}
	slices.SortFunc(all, func(a, b kind) int { return place(a.event) - place(b.event) })
	table(direct, "event", all)
	fmt.Println()
	var causes []kind
	for _, result := range results {
		sum := kind{event: result.scenario.label}
		for _, kind := range result.kinds {
			sum = plus(sum, kind)
		}
		causes = append(causes, sum)
	}
	table(direct, "cause of copies", causes)
	fmt.Println()
}

func sameEvent(a kind) func(kind) bool {
	return func(b kind) bool { return a.event == b.event }
}

func plus(a, b kind) kind {
	a.events += b.events
	a.sent += b.sent
	a.ids += b.ids
	a.arrived += b.arrived
	a.refused += b.refused
	a.accepted += b.accepted
	a.marked += b.marked
	return a
}

func table(direct bool, first string, rows []kind) {
	columns := []string{
		first, "events", "copies at the gateway", "their ids", "copies at the backend", "accepted by it", "marked",
	}
	values := func(k kind) []int { return []int{k.events, k.sent, k.ids, k.arrived, k.accepted, k.marked} }
	if direct {
		columns = []string{first, "events", "copies at the backend", "their ids", "accepted by it"}
		values = func(k kind) []int { return []int{k.events, k.arrived, k.ids, k.accepted} }
	}
	fmt.Printf("| %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---:|", len(columns)-1))
	sum := kind{event: "all"}
	for _, row := range rows {
		sum = plus(sum, row)
	}
	for _, row := range append(slices.Clone(rows), sum) {
		name := row.event
		if first == "event" && row.event != sum.event {
			name = "`" + name + "`"
		}
		fmt.Printf("| %s |", name)
		for _, value := range values(row) {
			fmt.Printf(" %d |", value)
		}
		fmt.Println()
	}
}
