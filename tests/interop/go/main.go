// Command interop holds the Go ends of the interop test: `send` posts through
// livekit/protocol's own notifier, `forge` posts what no LiveKit node would sign,
// and `receive` is a backend that uses livekit/protocol's own receiver. `pace` is one
// LiveKit node of the campaign: the same notifier, at a pace.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

func main() {
	commands := map[string]func([]string) error{"send": send, "forge": forge, "receive": receive, "pace": pace}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: interop send|forge|receive|pace [flags]")
		os.Exit(64)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
}

var stdout sync.Mutex

// printLine writes one JSON line; several goroutines may call it.
func printLine(value any) {
	line, err := json.Marshal(value)
	if err != nil {
		panic(err) // only plain structs come here
	}
	stdout.Lock()
	defer stdout.Unlock()
	fmt.Println(string(line))
}
