package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	idleConnections = 1000
	tracedRequests  = 2000
	tracedSeconds   = 6
)

// A footprint is what a contender takes besides time.
type footprint struct {
	Idle          int64   `json:"idle_bytes"`           // after its start, one request served
	PerHandshake  float64 `json:"bytes_per_handshake"`  // a connection that was opened and has sent nothing
	PerConnection float64 `json:"bytes_per_connection"` // a connection that has had one request answered
}

// weigh starts the contender anew, since what a load leaves free would hide what connections take.
func weigh(w *world, c *contender) (footprint, error) {
	if err := c.start(*w); err != nil {
		return footprint{}, err
	}
	defer c.stop()
	events := makeEvents(idleConnections+1, shape{bytes: 920, copies: 1}, 0x1d1e)
	first := &http1{target: c.target}
	defer first.close()
	if status, err := first.send(events[idleConnections][0]); err != nil || status != 200 {
		return footprint{}, fmt.Errorf("%s: status %d, %v", c.name, status, err)
	}
	idle, err := c.resident()
	if err != nil {
		return footprint{}, err
	}
	open := make([]*http1, idleConnections)
	for i := range open {
		open[i] = &http1{target: c.target}
		defer open[i].close()
		if err := open[i].connect(); err != nil {
			return footprint{}, fmt.Errorf("%s, connection %d: %w", c.name, i, err)
		}
	}
	shaken, err := c.resident()
	if err != nil {
		return footprint{}, err
	}
	for i, connection := range open {
		if connection.connection == nil {
			continue
		}
		if status, err := connection.send(events[i][0]); err != nil || status != 200 || connection.connection == nil {
			return footprint{}, fmt.Errorf("%s, request on connection %d: status %d, %v", c.name, i, status, err)
		}
	}
	served, err := c.resident()
	return footprint{Idle: idle, PerHandshake: float64(shaken-idle) / idleConnections,
		PerConnection: float64(served-idle) / idleConnections}, err
}

// countSyscalls is how many a request takes, of all the server's processes, in a closed loop of a run of its own, and in
// what that run contradicts the contender's claim. No two rows may have the same seed: what a contender remembers of one,
// it would not forward in the other.
func countSyscalls(w *world, r row, c *contender, seed uint64) (calls float64, tool, broken string, err error) {
	defer c.forgetLogs()
	clients := r.load.clients(c.target)
	defer func() {
		for _, client := range clients {
			client.close()
		}
	}()
	warm := r.load
	warm.limit = time.Second
	warm.run(clients, warm.plan(makeEvents(connections*4, r.shape, seed+1<<32)))
	if err := w.fresh(); err != nil {
		return 0, "", "", err
	}
	t, err := trace(c)
	if err != nil {
		return 0, "", "", err
	}
	traced := r.load
	traced.limit = tracedSeconds * time.Second
	seen := traced.run(clients, traced.plan(makeEvents(tracedRequests, r.shape, seed)))
	total, err := t.stop()
	if err != nil {
		return 0, t.tool, "", fmt.Errorf("%s: %w", c.name, err)
	}
	given, err := w.tally()
	if err != nil {
		return 0, t.tool, "", err
	}
	s := sample{Requests: seen.requests(), Troubles: seen.troubles, Events: len(seen.answered), Delivered: given.Requests}
	audit(&s, seen, given)
	return float64(total) / float64(max(seen.answers, 1)), t.tool, s.broken(c, r), nil
}

// A tracer counts the system calls of running processes: perf if it may, which hardly slows them; else strace.
type tracer struct {
	tool    string
	command *exec.Cmd
	output  string
	said    bytes.Buffer
}

func trace(c *contender) (*tracer, error) {
	t := &tracer{tool: "strace", output: filepath.Join(filepath.Dir(c.log), "syscalls")}
	_ = os.Remove(t.output)
	var pids []string
	for _, pid := range tree(c.pid) {
		pids = append(pids, strconv.Itoa(pid))
	}
	arguments := []string{"-c", "-f", "-o", t.output}
	for _, pid := range pids {
		arguments = append(arguments, "-p", pid)
	}
	if exec.Command("perf", "stat", "-e", "raw_syscalls:sys_enter", "true").Run() == nil {
		t.tool = "perf"
		arguments = []string{"stat", "-x", ";", "-o", t.output, "-e", "raw_syscalls:sys_enter", "-p", strings.Join(pids, ",")}
	}
	t.command = exec.Command(t.tool, arguments...)
	t.command.Stdout, t.command.Stderr = &t.said, &t.said
	t.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := t.command.Start(); err != nil {
		return nil, err
	}
	return t, t.attached(c)
}

// attached waits until the tool has its hands on the processes. Neither tool says so: strace is seen in the processes'
// status; perf has its counters open soon after it sleeps.
func (t *tracer) attached(c *contender) error {
	for end := time.Now().Add(startLimit); time.Now().Before(end); time.Sleep(pollEvery) {
		if t.tool == "perf" {
			links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", t.command.Process.Pid))
			counters := 0
			for _, link := range links {
				if to, _ := os.Readlink(link); strings.Contains(to, "perf_event") {
					counters++
				}
			}
			if state, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", t.command.Process.Pid)); counters > 0 && bytes.Contains(state, []byte(") S ")) {
				return nil
			}
			continue
		}
		if status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid)); bytes.Contains(status, []byte(fmt.Sprintf("TracerPid:\t%d\n", t.command.Process.Pid))) {
			return nil
		}
	}
	return fmt.Errorf("%s did not attach within %v", t.tool, startLimit)
}

// stop ends the tool, and reads how many calls it has seen.
func (t *tracer) stop() (int, error) {
	_ = t.command.Process.Signal(syscall.SIGINT)
	_ = t.command.Wait() // both end with the signal that they were sent
	text, err := os.ReadFile(t.output)
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, t.said.String())
	}
	for line := range strings.Lines(string(text)) {
		if t.tool == "perf" && strings.Contains(line, "raw_syscalls") {
			fields, err := csv.NewReader(strings.NewReader(strings.ReplaceAll(line, ";", ","))).Read()
			if err != nil {
				return 0, err
			}
			return strconv.Atoi(fields[0])
		}
		// % time, seconds, usecs/call, calls, errors if there were any, "total".
		if fields := strings.Fields(line); t.tool == "strace" && len(fields) >= 5 && fields[len(fields)-1] == "total" {
			return strconv.Atoi(fields[3])
		}
	}
	return 0, fmt.Errorf("%s counted nothing: %s %s", t.tool, text, t.said.String())
}
