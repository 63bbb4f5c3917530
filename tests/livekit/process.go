package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	startLimit = 30 * time.Second
	stopLimit  = 15 * time.Second
	pollPause  = 20 * time.Millisecond
	probeLimit = 2 * time.Second
)

// A process is one that this program has started, and the only kind that it ends.
type process struct {
	name  string
	log   string
	run   *exec.Cmd
	ended chan struct{}
}

// start runs a program whose output, both streams, goes to a log in the folder.
func start(folder, name string, environment []string, arguments ...string) (*process, error) {
	path := logPath(folder, name)
	log, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	run := exec.Command(arguments[0], arguments[1:]...)
	run.Dir, run.Stdout, run.Stderr = folder, log, log
	run.Env = append(os.Environ(), environment...)
	if err := run.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	started := &process{name: name, log: path, run: run, ended: make(chan struct{})}
	go func() {
		_ = run.Wait()
		close(started.ended)
	}()
	return started, nil
}

// ready waits for what `holds` says, as long as the process lives, with a limit.
func (p *process) ready(ctx context.Context, holds func() bool) error {
	err := waitUntil(ctx, startLimit, func() (bool, error) {
		select {
		case <-p.ended:
			return false, errors.New("it ended")
		default:
			return holds(), nil
		}
	})
	if err != nil {
		return fmt.Errorf("%s: not ready: %w\n%s", p.name, err, p.told())
	}
	return nil
}

func (p *process) told() []byte {
	text, _ := os.ReadFile(p.log)
	return last(text, 2000)
}

// stop asks for the end, waits for it, and enforces it after a while.
func (p *process) stop() error {
	if p == nil {
		return nil
	}
	_ = p.run.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopLimit):
		p.kill()
		return fmt.Errorf("%s: did not end within %s", p.name, stopLimit)
	}
}

// kill is a crash: nothing in flight comes to its end.
func (p *process) kill() {
	_ = p.run.Process.Kill()
	<-p.ended
}

// waitUntil polls until the condition holds, fails, or the limit is over.
func waitUntil(ctx context.Context, limit time.Duration, holds func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	poll := time.NewTicker(pollPause)
	defer poll.Stop()
	for {
		done, err := holds()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited up to %s: %w", limit, ctx.Err())
		case <-poll.C:
		}
	}
}

// freePorts finds ports of 127.0.0.1 on which neither TCP nor UDP is taken.
func freePorts(count int) ([]int, error) {
	var ports []int
	for range 100 * count {
		if len(ports) == count {
			return ports, nil
		}
		stream, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		// Open until all are found, so that none comes twice.
		defer func() { _ = stream.Close() }()
		port := stream.Addr().(*net.TCPAddr).Port
		datagrams, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer func() { _ = datagrams.Close() }()
		ports = append(ports, port)
	}
	return nil, errors.New("no free ports")
}

// answers tells whether a URL answers with 200.
func answers(url string) bool {
	client := http.Client{Timeout: probeLimit}
	response, err := client.Get(url)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// startRedis starts a Redis that keeps nothing on disk.
func startRedis(ctx context.Context, folder, name string) (*process, string, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, "", err
	}
	address := fmt.Sprintf("127.0.0.1:%d", ports[0])
	started, err := start(folder, name, nil, "redis-server", "--bind", "127.0.0.1", "--port", fmt.Sprint(ports[0]),
		"--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", "--dir", folder)
	if err != nil {
		return nil, "", fmt.Errorf("%w (./test --install brings redis-server)", err)
	}
	return started, address, started.ready(ctx, func() bool {
		probe, err := net.DialTimeout("tcp", address, probeLimit)
		if err != nil {
			return false
		}
		return probe.Close() == nil
	})
}

func writePrivate(folder, name, text string) (string, error) {
	path := filepath.Join(folder, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}
