package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
)

const nodeCount = 3

// A node is one livekit-server.
type node struct {
	process *process
	id      string // as LiveKit calls it
	port    int
}

func (n *node) url() string { return fmt.Sprintf("http://127.0.0.1:%d", n.port) }

// The rooms are short-lived, so that their ends come within the test. The nodes have no
// address but 127.0.0.1, and name no STUN server elsewhere.
const nodeConfiguration = `port: %d
bind_addresses: ["127.0.0.1"]
redis:
  address: %s
rtc:
  udp_port: %d
  tcp_port: 0
  use_external_ip: false
  enable_loopback_candidate: true
  stun_servers: ["127.0.0.1:%d"]
  ips:
    includes: ["127.0.0.1/32"]
room:
  empty_timeout: 60
  departure_timeout: 1
keys:
  %s: %s
webhook:
  api_key: %s
  urls:
%s
logging:
  json: true
  level: info
`

// startNodes starts a fleet in which every node has the same list of webhook URLs.
func (s *site) startNodes(ctx context.Context, name string, urls []string) ([]*node, error) {
	var nodes []*node
	list := strings.Repeat("    - %s\n", len(urls))
	values := make([]any, len(urls))
	for i, url := range urls {
		values[i] = url
	}
	for i := range nodeCount {
		ports, err := freePorts(2)
		if err != nil {
			return nodes, err
		}
		name := fmt.Sprintf("%s-node-%d", name, i)
		path, err := writePrivate(s.folder, name+".yaml", fmt.Sprintf(nodeConfiguration,
			ports[0], s.livekitAddress, ports[1], ports[1], apiKey, apiSecret, apiKey,
			strings.TrimRight(fmt.Sprintf(list, values...), "\n")))
		if err != nil {
			return nodes, err
		}
		started, err := start(s.folder, name, []string{"SSL_CERT_FILE=" + s.certificates.ca},
			s.livekit, "--config", path, "--node-ip", "127.0.0.1")
		if err != nil {
			return nodes, err
		}
		nodes = append(nodes, &node{process: started, port: ports[0]})
	}
	for _, node := range nodes {
		if err := node.process.ready(ctx, func() bool { return answers(node.url()) }); err != nil {
			return nodes, err
		}
		if err := node.identify(); err != nil {
			return nodes, err
		}
	}
	return nodes, nil
}

var nodeID = regexp.MustCompile(`"nodeID": ?"(ND_\w+)"`)

// identify reads the node's id from the line that it logs when it starts.
func (n *node) identify() error {
	text, err := os.ReadFile(n.process.log)
	if err != nil {
		return err
	}
	found := nodeID.FindSubmatch(text)
	if found == nil {
		return fmt.Errorf("%s: its log does not tell its id", n.process.name)
	}
	n.id = string(found[1])
	return nil
}

// stopNodes ends the fleet. A node that does not end when asked is no failure of what is
// tested here; 1.7.2 sometimes does not.
func stopNodes(nodes []*node) {
	var all sync.WaitGroup
	for _, node := range nodes {
		all.Go(func() {
			if err := node.process.stop(); err != nil {
				fmt.Printf("note: %v\n", err)
			}
		})
	}
	all.Wait()
}
