package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A server is one version of livekit-server. Each has a Go module of its own, since one
// module cannot hold two versions of one package; from 1.13.6 on it cannot be had this
// way, because it replaces pion's modules by forks that the module proxy does not carry.
type server struct {
	version string
	folder  string
}

func (s server) name() string { return s.version }

var servers = []server{
	{version: "1.13.5", folder: "server-1.13"},
	{version: "1.7.2", folder: "server-1.7"},
}

const serverPackage = "github.com/livekit/livekit-server/cmd/server"

// Binaries are the programs under test.
type binaries struct {
	gateway string
	livekit map[string]string
}

func build(ctx context.Context, options options) (binaries, error) {
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	built := binaries{livekit: map[string]string{}}
	for _, server := range options.servers {
		fmt.Printf("building livekit-server %s\n", server.version)
		module := filepath.Join(options.project, "tests", "livekit", server.folder)
		binary := filepath.Join(options.target, "livekit", "livekit-server-"+server.version)
		if err := command(ctx, module, "go", "build", "-trimpath", "-o", binary, serverPackage); err != nil {
			return built, err
		}
		built.livekit[server.version] = binary
	}
	if options.direct {
		return built, nil
	}
	fmt.Println("building oncehook")
	built.gateway = filepath.Join(options.target, "debug", "oncehook")
	return built, command(ctx, options.project, "cargo", "build", "--locked", "--bin", "oncehook")
}

// command runs one command to its end; its output is told only if it fails.
func command(ctx context.Context, folder string, arguments ...string) error {
	command := exec.CommandContext(ctx, arguments[0], arguments[1:]...)
	command.Dir = folder
	command.Env = os.Environ()
	output, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(arguments, " "), err, last(output, 4000))
	}
	return nil
}

func last(text []byte, bytes int) []byte {
	return text[max(0, len(text)-bytes):]
}
