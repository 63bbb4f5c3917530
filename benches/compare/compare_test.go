package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/webhook"
)

func TestEventsAreWhatLiveKitsReceiverAccepts(t *testing.T) {
	for _, size := range []int{920, 2500, 16 << 10, 256 << 10} {
		for _, copies := range makeEvents(3, shape{bytes: size, copies: 2}, 7) {
			for _, copy := range copies {
				request, err := http.NewRequest(http.MethodPost, "/", bytes.NewReader(copy.body))
				if err != nil {
					t.Fatal(err)
				}
				request.Header.Set("Authorization", copy.token)
				event, err := webhook.ReceiveWebhookEvent(request, auth.NewSimpleKeyProvider(apiKey, apiSecret))
				if err != nil {
					t.Fatalf("%d bytes: %v", size, err)
				}
				if event.Participant.Sid != copy.key {
					t.Errorf("participant %s, key %s", event.Participant.Sid, copy.key)
				}
				if off := math.Abs(float64(len(copy.body)-size)) / float64(size); off > 0.05 {
					t.Errorf("%d bytes were asked for, %d made", size, len(copy.body))
				}
			}
		}
	}
}

func TestCopiesShareTheirKeyAndShareTheirIDOnlyAsRetries(t *testing.T) {
	distinct := makeEvents(2, shape{bytes: 920, copies: 2}, 1)
	if distinct[0][0].key != distinct[0][1].key || distinct[0][0].key == distinct[1][0].key {
		t.Error("keys of copies and of events are mixed up")
	}
	if bytes.Equal(distinct[0][0].body, distinct[0][1].body) {
		t.Error("two nodes sent the same id")
	}
	retries := makeEvents(1, shape{bytes: 920, copies: 2, sameID: true}, 1)
	if !bytes.Equal(retries[0][0].body, retries[0][1].body) {
		t.Error("a retry differs")
	}
	if other := makeEvents(2, shape{bytes: 920, copies: 2}, 2); other[0][0].key == distinct[0][0].key {
		t.Error("two seeds made the same event")
	}
}

func TestEveryCopyIsPlannedOnce(t *testing.T) {
	for _, r := range rows() {
		few := shape{bytes: 920, copies: r.shape.copies, sameID: r.shape.sameID}
		events := makeEvents(100, few, 3)
		planned := map[string]int{}
		for worker, plan := range r.load.plan(events) {
			for i, event := range plan {
				planned[event.key]++
				if !r.load.atOnce && few.copies > 1 && i%few.copies > 0 && plan[i-1].key != event.key {
					t.Fatalf("%s: worker %d takes copies apart", r.Name, worker)
				}
			}
		}
		for _, copies := range events {
			if planned[copies[0].key] != few.copies {
				t.Errorf("%s: %d of %d copies are planned", r.Name, planned[copies[0].key], few.copies)
			}
		}
	}
}

func TestABrokenClaimIsFound(t *testing.T) {
	sent := outcome{answered: map[string]bool{"a": true, "b": true}}
	for name, test := range map[string]struct {
		given  tally
		claims claim
		broken bool
	}{
		"each once":                       {tally{2, map[string]int{"a": 1, "b": 1}, map[string]int{"1": 1, "2": 1}}, oncePerEvent, false},
		"one never":                       {tally{1, map[string]int{"a": 1}, map[string]int{"1": 1}}, oncePerEvent, true},
		"one twice, by two ids":           {tally{3, map[string]int{"a": 2, "b": 1}, map[string]int{"1": 1, "2": 1, "3": 1}}, oncePerEvent, true},
		"the same, of one that knows ids": {tally{3, map[string]int{"a": 2, "b": 1}, map[string]int{"1": 1, "2": 1, "3": 1}}, oncePerID, false},
		"an id twice":                     {tally{3, map[string]int{"a": 2, "b": 1}, map[string]int{"1": 2, "2": 1}}, oncePerID, true},
		"a proxy that swallows":           {tally{2, map[string]int{"a": 1, "b": 1}, nil}, passesAll, true},
	} {
		s := sample{Requests: 3, Delivered: test.given.Requests}
		audit(&s, sent, test.given)
		if found := s.broken(&contender{claims: test.claims}, row{}); (found != "") != test.broken {
			t.Errorf("%s: %q", name, found)
		}
	}
	if (sample{Troubles: map[string]int{"status 503": 1}}).broken(&contender{}, row{}) == "" {
		t.Error("a shed request is passed over")
	}
}

func TestTheBackendCountsWhatItIsGiven(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	b := &backend{tally: newTally()}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go b.serve(connection)
		}
	}()
	url := "http://" + listener.Addr().String()
	event := makeEvents(1, shape{bytes: 920, copies: 2}, 9)[0]
	for _, body := range []io.Reader{
		bytes.NewReader(event[0].body),
		io.MultiReader(bytes.NewReader(event[1].body)), // of no known length: sent in chunks
		bytes.NewReader(event[1].body),
	} {
		response, err := http.Post(url+"/webhook", mediaType, body)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil || response.StatusCode != 200 {
			t.Fatal(response.Status, err)
		}
	}
	response, err := http.Get(url + "/tally")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var given tally
	if err := json.NewDecoder(response.Body).Decode(&given); err != nil {
		t.Fatal(err)
	}
	if given.Requests != 3 || given.Keys[event[0].key] != 3 || len(given.Keys) != 1 || len(given.IDs) != 2 {
		t.Errorf("%+v", given)
	}
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	r := report{Samples: map[string]map[string][]sample{"h1-fresh": {
		plainNginx:    {{Round: 0, CPU: 10}, {Round: 1, CPU: 20}, {Round: 2, CPU: 40}},
		oncehookRedis: {{Round: 2, CPU: 40}, {Round: 1, CPU: 22}, {Round: 0, CPU: 12}},
	}}}
	ratios := r.ratios("h1-fresh", oncehookRedis, plainNginx, cpu)
	if len(ratios) != 3 || math.Abs(median(ratios)-1.1) > 1e-9 {
		t.Errorf("%v", ratios)
	}
	for _, g := range r.goals() {
		if ran := !math.IsNaN(g.value); ran != (g.about == "fresh event, Redis" || g.about == "Redis CPU an event, HTTP/1.1") {
			t.Errorf("%s: %v", g.about, g.value)
		}
	}
}

// shown is what becomes of a page into which the tables of these figures are written.
func shown(t *testing.T, figures report, before string) (string, error) {
	t.Helper()
	folder := t.TempDir()
	page, file := filepath.Join(folder, "page.md"), filepath.Join(folder, "figures.json")
	text, err := json.Marshal(figures)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{file: text, page: []byte(before)} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := show(file, page); err != nil {
		return "", err
	}
	after, err := os.ReadFile(page)
	return string(after), err
}

func TestTablesGoBetweenTheMarks(t *testing.T) {
	s, err := shown(t, report{Date: "2026-01-02"}, "above\n"+beginMark+"\nold\n"+endMark+"\nbelow\n")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(s, "above\n") || !strings.HasSuffix(s, "\nbelow\n") || strings.Contains(s, "old") || !strings.Contains(s, "2026-01-02") {
		t.Error(s)
	}
	if _, err := shown(t, report{}, "no marks\n"); err == nil {
		t.Error("a page without marks was written")
	}
}

func TestAProcessIsWeighedWithItsChildren(t *testing.T) {
	runtime.LockOSThread() // what is started dies with the thread that started it
	defer runtime.UnlockOSThread()
	folder := t.TempDir()
	p, err := launch("burner", 0, folder, nil, "bash", "-c", "(for ((i = 0; i < 200000; i++)); do :; done; sleep 60) & wait")
	if err != nil {
		t.Fatal(err)
	}
	// bash waits for its child, which must not outlive the test.
	defer func() {
		for _, pid := range tree(p.pid) {
			if process, err := os.FindProcess(pid); err == nil {
				_ = process.Kill()
			}
		}
		<-p.ended
	}()
	if err := p.await("its child's work", func() bool {
		spent, err := p.cpu()
		return err == nil && len(tree(p.pid)) > 1 && spent > 50*time.Millisecond
	}); err != nil {
		t.Fatal(err)
	}
	spent, err := p.cpu()
	if err != nil {
		t.Fatal(err)
	}
	// The same as /proc shows, in ticks of 10 ms, for each of up to 3 processes.
	var ticks float64
	for _, pid := range tree(p.pid) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+2:]))
		var user, system float64
		fmt.Sscan(fields[11], &user)
		fmt.Sscan(fields[12], &system)
		ticks += user + system
	}
	if shown := ticks * 10e6; shown < float64(spent)-60e6 {
		t.Errorf("%v by the clocks, %v by /proc", spent, time.Duration(shown))
	}
}

func TestASettledRecordIsWhatTheGatewayWrites(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	reader := bufio.NewReader(bytes.NewReader(settledRecord(settledRecord(nil, random), random)))
	names := map[string]bool{}
	for range 2 {
		var words []string
		var count int
		if n, err := fmt.Fscanf(reader, "*%d\r\n", &count); n != 1 || count != 5 {
			t.Fatal(count, err)
		}
		for range count {
			var length int
			if n, err := fmt.Fscanf(reader, "$%d\r\n", &length); n != 1 {
				t.Fatal(err)
			}
			word := make([]byte, length+2)
			if _, err := io.ReadFull(reader, word); err != nil || string(word[length:]) != "\r\n" {
				t.Fatalf("%q %v", word, err)
			}
			words = append(words, string(word[:length]))
		}
		names[words[1]] = true
		if !regexp.MustCompile(`^oncehook:\{[A-Za-z0-9_-]{22}\}$`).MatchString(words[1]) || words[0] != "SET" {
			t.Errorf("%q", words)
		}
		if len(words[2]) != 12 || !strings.HasPrefix(words[2], "D200") || words[3] != "PX" || words[4] != "86400000" {
			t.Errorf("%q", words)
		}
	}
	if len(names) != 2 {
		t.Error("two records have one key")
	}
}

func TestScaleHasMarksOfItsOwnAndSizesFromWhatWasMeasured(t *testing.T) {
	run := scaleRun{Copies: 1, Samples: []sample{{CPU: 50, Redis: 6, Rate: 9000, Events: 10, Delivered: 10}, {CPU: 52, Redis: 8, Rate: 9100, Events: 10, Delivered: 11}}}
	before := beginMark + "\nkept\n" + endMark + "\n" + scaleBeginMark + "\nold\n" + scaleEndMark + "\nbelow\n"
	after, err := shown(t, report{Date: "2026-01-02", Scale: &scale{
		Rounds:   2,
		Replicas: []replicaRow{{Replicas: 2, About: "fresh", Run: run}},
		Redis: []recordRow{{Records: 10_000, Bytes: 500, Run: run}, {Records: 1_000_000, Bytes: 128, Run: run, Beside: scaleRun{Samples: []sample{{CPU: 25, Redis: 6}, {CPU: 52, Redis: 4}}}},
			{Records: 10_000_000, Skipped: "100 MiB of memory are available"}},
		Memory: []recordRow{{Records: 10_000, Bytes: 240, Run: run}},
	}}, before)
	if err != nil {
		t.Fatal(err)
	}
	for _, wanted := range []string{
		"kept", "below\n", "2026-01-02",
		"| fresh | 2 | 51.0 (50.0 – 52.0) | 7.0 (6.0 – 8.0) | 9050 | 1.050 | none |",
		"| 1,000,000 | 128 | 51.0 (50.0 – 52.0) | 1.50 (1.00 – 2.00) | 7.0 (6.0 – 8.0) | 1.50 (1.00 – 2.00) | 9050 | 1.050 |",
		"| 10,000,000 | not measured: 100 MiB of memory are available | | | | | | |",
		"| 1,000 | 1 h | 60,000 | 8 MiB | 15 MiB |",              // 60,000 records of 128 bytes are 7.3 MiB
		"| 100,000 | 24 h | 144,000,000 | 17.2 GiB | 34.3 GiB |", // not of 500: few records say little
	} {
		if !strings.Contains(after, wanted) {
			t.Errorf("no %q in\n%s", wanted, after)
		}
	}
	if strings.Contains(after, "old") {
		t.Error("the old tables are still there")
	}
}
