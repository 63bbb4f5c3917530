package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
)

const (
	gatewayCount = 2
	dialLimit    = probeLimit
)

// Gateways are two oncehook processes that share a Redis and an address.
type gateways struct {
	redis     *process
	processes []*process
	admins    []int
	offsets   []int64 // of what has been read of the logs
	balancer  *balancer
	copies    int // logged so far
}

func startGateways(ctx context.Context, binary, folder string, made certificates, backendPort int) (*gateways, error) {
	redis, address, err := startRedis(ctx, folder, "redis-oncehook")
	g := &gateways{redis: redis, offsets: make([]int64, gatewayCount)}
	if err != nil {
		return g, err
	}
	ports, err := freePorts(2 * gatewayCount)
	if err != nil {
		return g, err
	}
	for i := range gatewayCount {
		name, listen, admin := fmt.Sprintf("oncehook-%d", i), ports[2*i], ports[2*i+1]
		path, err := writePrivate(folder, name+".toml", fmt.Sprintf(gatewayConfiguration,
			listen, made.certificate, made.key, admin, apiKey, apiSecret, backendPort, address))
		if err != nil {
			return g, err
		}
		started, err := start(folder, name, nil, binary, "run", "--config", path)
		if err != nil {
			return g, err
		}
		g.processes, g.admins = append(g.processes, started), append(g.admins, admin)
		ready := fmt.Sprintf("http://127.0.0.1:%d/readyz", admin)
		if err := started.ready(ctx, func() bool { return answers(ready) }); err != nil {
			return g, err
		}
	}
	g.balancer, err = startBalancer(ports[0], ports[2])
	return g, err
}

const gatewayConfiguration = `[listen]
address = "127.0.0.1:%d"

[[tls.certificate]]
certificate_file = "%s"
key_file = "%s"

[admin]
address = "127.0.0.1:%d"

[keys]
%s = "%s"

[[route]]
path = "/webhook"
backend = "http://127.0.0.1:%d/webhook"

[store.redis]
url = "redis://%s/0"

[shutdown]
drain_delay = "0s"
`

func (g *gateways) stop() error {
	if g == nil {
		return nil
	}
	g.balancer.stop()
	var failed error
	for _, each := range g.processes {
		failed = errors.Join(failed, each.stop())
	}
	return errors.Join(failed, g.redis.stop())
}

// A logLine is what a gateway's log says of one copy.
type logLine struct {
	Message string `json:"message"`
	Result  string `json:"result"`
	Event   string `json:"event"`
	ID      string `json:"id"`
	Key     string `json:"key"`
	gateway int
}

// news reads what the gateways have logged of copies since it was called last.
func (g *gateways) news() ([]logLine, error) {
	var lines []logLine
	for i, each := range g.processes {
		log, err := os.Open(each.log)
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(io.NewSectionReader(log, g.offsets[i], 1<<40))
		_ = log.Close()
		if err != nil {
			return nil, err
		}
		whole := text[:bytes.LastIndexByte(text, '\n')+1]
		g.offsets[i] += int64(len(whole))
		for line := range bytes.Lines(whole) {
			parsed := logLine{gateway: i}
			if json.Unmarshal(line, &parsed) == nil && parsed.Message == "webhook" {
				lines = append(lines, parsed)
			}
		}
	}
	return lines, nil
}

// counters adds up the metrics of one name over both gateways.
func (g *gateways) counters(name string) (sum int, failed error) {
	for _, admin := range g.admins {
		response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", admin))
		if err != nil {
			return 0, err
		}
		lines := bufio.NewScanner(response.Body)
		for lines.Scan() {
			series, value, _ := strings.Cut(lines.Text(), " ")
			if series != name && !strings.HasPrefix(series, name+"{") {
				continue
			}
			number, err := strconv.Atoi(value)
			failed = errors.Join(failed, err)
			sum += number
		}
		failed = errors.Join(failed, lines.Err(), response.Body.Close())
	}
	return sum, failed
}

// A balancer gives the gateways one address: it passes each TCP connection on to
// one of them, drawn by lot, and leaves TLS to them. (In turn would not do: Go's client often
// opens two connections at once and keeps the first.)
type balancer struct {
	listener net.Listener
	port     int
	mutex    sync.Mutex
	open     map[net.Conn]bool
}

func startBalancer(ports ...int) (*balancer, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &balancer{listener: listener, port: listener.Addr().(*net.TCPAddr).Port, open: map[net.Conn]bool{}}
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			go b.pass(from, ports[rand.IntN(len(ports))])
		}
	}()
	return b, nil
}

func (b *balancer) pass(from net.Conn, port int) {
	defer b.keep(from)()
	to, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), dialLimit)
	if err != nil {
		return
	}
	defer b.keep(to)()
	ended := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
		go func() {
			_, _ = io.Copy(way[1], way[0])
			ended <- struct{}{}
		}()
	}
	<-ended
}

// keep notes a connection until the function that it returns closes it.
func (b *balancer) keep(connection net.Conn) (closed func()) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.open[connection] = true
	return func() {
		b.mutex.Lock()
		defer b.mutex.Unlock()
		delete(b.open, connection)
		_ = connection.Close()
	}
}

func (b *balancer) stop() {
	if b == nil {
		return
	}
	_ = b.listener.Close()
	b.mutex.Lock()
	defer b.mutex.Unlock()
	for connection := range b.open {
		_ = connection.Close()
	}
}
