// Fleet runs real LiveKit fleets and counts what they send.
//
// Three livekit-server nodes on one Redis post their webhooks over TLS to the address
// that two oncehook gateways share; LiveKit's own Go receiver stands behind them.
// Participants come, publish and go, workers report, a node is killed. For each type of
// event it prints how many events there were, how many copies of them came to the
// gateways, and how many to the backend. With --direct the nodes post to the receiver
// itself.
//
// Everything listens on 127.0.0.1; only the participants send their media to there from the
// address of another interface, since LiveKit's SDK gathers no loopback candidates. What
// the program has started it ends, by its process id.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	lksdk "github.com/livekit/server-sdk-go/v2"

	"github.com/livekit/protocol/logger"
)

const (
	buildLimit    = 20 * time.Minute // of all that is built, from cold
	scenarioLimit = 3 * time.Minute
)

type options struct {
	project string
	target  string
	direct  bool
	keep    bool
	servers []server
	only    []scenario
}

func main() {
	options, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(64)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	quiet()
	sheet := &sheet{}
	if err := run(ctx, options, sheet); err != nil {
		sheet.check("", "the run came to its end", []string{err.Error()})
	}
	fmt.Printf("\n%d passed, %d failed\n", sheet.passed, sheet.failed)
	if sheet.failed > 0 || sheet.passed == 0 {
		stop()
		os.Exit(1)
	}
}

func parse(arguments []string) (options, error) {
	var parsed options
	var version, only string
	flags := flag.NewFlagSet("tests/livekit/run", flag.ExitOnError)
	flags.StringVar(&parsed.project, "project", ".", "the project's folder (the script tells it)")
	flags.StringVar(&parsed.target, "target", "target", "where to build (the script tells it)")
	flags.BoolVar(&parsed.direct, "direct", false, "without gateways")
	flags.BoolVar(&parsed.keep, "keep", false, "keep the folder with all logs and configurations")
	flags.StringVar(&version, "server", "", "one version of livekit-server: "+known(servers, server.name))
	flags.StringVar(&only, "only", "", "one cause of copies: "+known(scenarios, scenario.name))
	if err := flags.Parse(arguments); err != nil {
		return parsed, err
	}
	var err, more error
	parsed.servers, err = chosen(servers, server.name, version)
	parsed.only, more = chosen(scenarios, scenario.name, only)
	if flags.NArg() > 0 {
		more = errors.Join(more, fmt.Errorf("%s: not understood", flags.Arg(0)))
	}
	return parsed, errors.Join(err, more)
}

func known[T any](all []T, name func(T) string) string {
	names := make([]string, len(all))
	for i, each := range all {
		names[i] = name(each)
	}
	return strings.Join(names, ", ")
}

// chosen is the one that has the name, or all if none is asked for.
func chosen[T any](all []T, name func(T) string, asked string) ([]T, error) {
	if asked == "" {
		return all, nil
	}
	i := slices.IndexFunc(all, func(each T) bool { return name(each) == asked })
	if i < 0 {
		return nil, fmt.Errorf("%s: not known, but %s are", asked, known(all, name))
	}
	return all[i : i+1], nil
}

// quiet silences LiveKit's and pion's own logs: what went wrong comes back as an error.
func quiet() {
	lksdk.SetLogger(logger.GetDiscardLogger())
	log.SetOutput(io.Discard)
}

func run(ctx context.Context, options options, sheet *sheet) error {
	began := time.Now()
	binaries, err := build(ctx, options)
	if err != nil {
		return err
	}
	fmt.Printf("built in %s\n", time.Since(began).Round(time.Second))
	for _, server := range options.servers {
		if err := runServer(ctx, options, binaries, server, sheet); err != nil {
			return fmt.Errorf("livekit-server %s: %w", server.version, err)
		}
	}
	return nil
}

// runServer runs every scenario with one version of livekit-server.
func runServer(ctx context.Context, options options, binaries binaries, server server, sheet *sheet) (failed error) {
	folder, err := os.MkdirTemp("", "oncehook-fleet-")
	if err != nil {
		return err
	}
	before := sheet.failed
	defer func() {
		if options.keep || failed != nil || sheet.failed > before {
			fmt.Printf("logs and configurations: %s\n", folder)
		} else {
			_ = os.RemoveAll(folder)
		}
	}()

	site, err := openSite(ctx, options, binaries, server, folder)
	if err != nil {
		return err
	}
	defer func() { failed = errors.Join(failed, site.close()) }()
	began := time.Now()
	var counts []counted
	for _, scenario := range options.only {
		count, err := site.run(ctx, scenario, sheet)
		if err != nil {
			return fmt.Errorf("%s: %w", scenario.label, err)
		}
		counts = append(counts, count)
	}
	if site.gateways != nil && len(options.only) == len(scenarios) {
		sheet.check("all", "both gateways took part", idle(counts))
	}
	printTables(options.direct, server, counts, time.Since(began))
	site.printFacts(counts)
	return nil
}

func logPath(folder, name string) string { return filepath.Join(folder, name+".log") }
