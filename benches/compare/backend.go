package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
)

// A tally is what the backend has been given since it was reset.
type tally struct {
	Requests int            `json:"requests"`
	Keys     map[string]int `json:"keys"` // deliveries of each event, whatever its id
	IDs      map[string]int `json:"ids"`  // deliveries of each id
}

func newTally() tally { return tally{Keys: map[string]int{}, IDs: map[string]int{}} }

type backend struct {
	lock  sync.Mutex
	tally tally
}

// runBackend serves until it is ended from outside. It prints its port. It is written over bare connections, and answers
// everything alike, so that most of what a request costs is the contender's.
func runBackend() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	b := &backend{tally: newTally()}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go b.serve(connection)
	}
}

func (b *backend) serve(connection net.Conn) {
	defer connection.Close()
	reader := bufio.NewReaderSize(connection, 32<<10)
	var body bytes.Buffer
	for {
		request, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		body.Reset()
		if _, err := io.Copy(&body, request.Body); err != nil {
			return
		}
		var answer []byte
		switch request.URL.Path {
		case "/tally":
			answer = b.report()
		case "/reset":
			b.reset()
		default:
			b.count(body.Bytes())
		}
		if _, err := fmt.Fprintf(connection, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer); err != nil {
			return
		}
		if request.Close {
			return
		}
	}
}

func (b *backend) count(body []byte) {
	key := between(body, `"participant":{"sid":"`, bytes.Index)
	id := between(body, `"id":"`, bytes.LastIndex)
	b.lock.Lock()
	defer b.lock.Unlock()
	b.tally.Requests++
	b.tally.Keys[key]++
	b.tally.IDs[id]++
}

func between(body []byte, prefix string, find func([]byte, []byte) int) string {
	start := find(body, []byte(prefix))
	if start < 0 {
		return ""
	}
	rest := body[start+len(prefix):]
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return ""
	}
	return string(rest[:end])
}

func (b *backend) report() []byte {
	b.lock.Lock()
	defer b.lock.Unlock()
	text, err := json.Marshal(b.tally)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return text
}

func (b *backend) reset() {
	b.lock.Lock()
	defer b.lock.Unlock()
	b.tally = newTally()
}
