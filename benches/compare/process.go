package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	startLimit = 20 * time.Second
	stopLimit  = 10 * time.Second
	pollEvery  = 10 * time.Millisecond
)

// A process is a server that the benchmark has started, with all that it forked, on one core.
type process struct {
	name  string
	pid   int
	log   string // its standard output and error
	ended chan struct{}
	err   error
}

// launch starts a command on a core. taskset becomes the command, so the process id is the server's own.
func launch(name string, core int, folder string, environment []string, arguments ...string) (*process, error) {
	// In a folder of their own: oncehook watches those of its files, and would be told of each line that is logged there.
	path := filepath.Join(folder, "logs", name+".log")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	command := exec.Command("taskset", append([]string{"-c", strconv.Itoa(core)}, arguments...)...)
	command.Dir = folder
	command.Env = append(os.Environ(), environment...)
	command.Stdout, command.Stderr = log, log
	// Should the benchmark be killed, what it started goes with it.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p := &process{name: name, pid: command.Process.Pid, log: path, ended: make(chan struct{})}
	go func() {
		p.err = command.Wait()
		close(p.ended)
	}()
	return p, nil
}

// await polls until the condition holds, the process ends, or the limit.
func (p *process) await(what string, condition func() bool) error {
	for end := time.Now().Add(startLimit); time.Now().Before(end); time.Sleep(pollEvery) {
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended before %s: %v\n%s", p.name, what, p.err, p.tail())
		default:
		}
		if condition() {
			return nil
		}
	}
	return fmt.Errorf("%s: no %s within %v\n%s", p.name, what, startLimit, p.tail())
}

func (p *process) tail() string {
	text, _ := os.ReadFile(p.log)
	return string(text[max(0, len(text)-2000):])
}

func (p *process) stop() {
	_ = syscall.Kill(p.pid, syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(stopLimit):
		for _, pid := range tree(p.pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		<-p.ended
	}
}

// cpu is the time, user and system, of all the server's processes so far, threads that have ended included. It is the
// kernel's clock of a process: /proc/PID/stat shows the same, rounded to 10 ms.
func (p *process) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, pid := range tree(p.pid) {
		var spec unix.Timespec
		const scheduled = 2 // CPUCLOCK_SCHED of linux/posix-timers.h
		if err := unix.ClockGettime(int32(^pid<<3|scheduled), &spec); err != nil {
			return 0, fmt.Errorf("CPU time of %s, process %d: %w", p.name, pid, err)
		}
		sum += time.Duration(spec.Nano())
	}
	return sum, nil
}

// resident is the memory of all the server's processes, in bytes; pages that they share count in each.
func (p *process) resident() (int64, error) {
	var sum int64
	for _, pid := range tree(p.pid) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(text)) {
			var kib int64
			if n, _ := fmt.Sscanf(line, "Rss: %d kB", &kib); n == 1 {
				sum += kib << 10
			}
		}
	}
	return sum, nil
}

// tree is a process and all that it forked.
func tree(pid int) []int {
	found := []int{pid}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for field := range bytes.FieldsSeq(text) {
			if child, err := strconv.Atoi(string(field)); err == nil {
				found = append(found, tree(child)...)
			}
		}
	}
	return found
}

// pinSelf puts this process, the load generator, on its core.
func pinSelf(core int) error {
	if err := pin(os.Getpid(), core); err != nil {
		return err
	}
	runtime.GOMAXPROCS(1)
	return nil
}

// pin puts all threads of a process on a core.
func pin(pid, core int) error {
	var set unix.CPUSet
	set.Set(core)
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return err
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(filepath.Base(thread))
		if err != nil {
			return err
		}
		// A thread may have ended since. New ones inherit from who starts them.
		if err := unix.SchedSetaffinity(id, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("core %d: %w", core, err)
		}
	}
	return nil
}

// freePort finds a port for servers that cannot say which one they took. Another process may take it in between; then
// the server does not start, and says so.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.New("not a TCP listener")
	}
	return address.Port, nil
}
