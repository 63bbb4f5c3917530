package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/livekit/protocol/webhook"
)

// A load is what the nodes of the campaign have to tell. All nodes are given the same
// one, so that they tell of the same events at nearly the same time.
type load struct {
	events    int
	perSecond int
	spread    time.Duration
	seed      uint64
	begin     time.Time
}

// A copyOf is one event as one node tells it: when it tells it, and under which id.
type copyOf struct {
	sample
	id        string
	createdAt int64
	due       time.Time
}

// pace posts one node's copies, through a notifier with LiveKit's own settings and times
// that are multiplied by --pace.
func pace(arguments []string) error {
	var told load
	var params webhook.ResourceURLNotifierParams
	flags := flag.NewFlagSet("pace", flag.ExitOnError)
	flags.StringVar(&params.URL, "url", "", "where to post")
	flags.StringVar(&params.APIKey, "key", "", "API key")
	flags.StringVar(&params.APISecret, "secret", "", "API secret")
	number := flags.Int("node", 0, "which node this is")
	flags.IntVar(&told.events, "events", 0, "how many events there are")
	flags.IntVar(&told.perSecond, "per-second", 50, "how many of them happen each second")
	flags.DurationVar(&told.spread, "spread", 0, "how late a node may tell of one")
	flags.Uint64Var(&told.seed, "seed", 1, "what is random is the same for the same seed")
	begin := flags.Int64("begin", 0, "when the first event happens, in seconds since 1970")
	times := flags.Float64("pace", 1, "what the notifier's times are multiplied by")
	limit := flags.Duration("timeout", time.Minute, "give up after")
	_ = flags.Parse(arguments)
	if params.URL == "" || params.APIKey == "" || params.APISecret == "" {
		return errors.New("--url, --key and --secret are needed")
	}
	if told.events < 1 || told.perSecond < 1 || *begin == 0 {
		return errors.New("--events, --per-second and --begin are needed, and above 0")
	}
	told.begin = time.Unix(*begin, 0)
	params.HTTPClientParams = compressed(*times)

	done := make(chan error, 1)
	go func() { done <- newPaced(*number, params).tell(told) }()
	select {
	case err := <-done:
		return err
	case <-time.After(*limit):
		return fmt.Errorf("not everything was sent within %s", *limit)
	}
}

// compressed multiplies the times that hold where LiveKit's configuration names none:
// go-retryablehttp's waits and the notifier's own limit for one attempt.
func compressed(times float64) webhook.HTTPClientParams {
	of := func(usual time.Duration) time.Duration { return time.Duration(float64(usual) * times) }
	return webhook.HTTPClientParams{
		RetryWaitMin: of(time.Second), RetryWaitMax: of(30 * time.Second), ClientTimeout: of(10 * time.Second),
	}
}

func newPaced(number int, params webhook.ResourceURLNotifierParams) *node {
	webhook.InitWebhookStats(nil) // the notifier counts, and needs its counters
	return newNode(number, params)
}

func (n *node) tell(told load) error {
	for _, each := range told.copies(n.number) {
		time.Sleep(time.Until(each.due))
		n.emit(each.name, each.event, each.id, each.createdAt)
	}
	n.notifier.Stop(false) // waits until all is sent
	return n.report()
}

// copies are what one node tells, in the order in which it does. Many rooms live at the
// same time, since the notifier posts what is about one room one after the other.
func (l load) copies(node int) []copyOf {
	kinds := len(samples("", l.begin))
	scenes := make([][]sample, (l.events+kinds-1)/kinds)
	for room := range scenes {
		scenes[room] = samples(fmt.Sprintf("C%06d", room), l.begin)
	}
	copies := make([]copyOf, l.events)
	for i := range copies {
		ofEvent := rand.New(rand.NewPCG(l.seed, uint64(i)))
		ofCopy := rand.New(rand.NewPCG(l.seed, uint64(node+1)<<32|uint64(i)))
		s := scenes[i%len(scenes)][i/len(scenes)]
		happened := l.begin.Add(time.Second * time.Duration(i) / time.Duration(l.perSecond))
		due := happened.Add(time.Duration(ofCopy.Int64N(int64(l.spread) + 1)))
		// Some copies are the same bytes, some differ in what says who told it and when.
		each := copyOf{s, fmt.Sprintf("EV_%d_0", i), happened.Unix(), due}
		if s.identified && ofEvent.IntN(3) > 0 {
			each.id, each.createdAt = fmt.Sprintf("EV_%d_%d", i, node), due.Unix()
		}
		copies[i] = each
	}
	slices.SortFunc(copies, func(a, b copyOf) int { return a.due.Compare(b.due) })
	return copies
}
