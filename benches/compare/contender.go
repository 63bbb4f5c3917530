package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"
)

// A claim is what a contender says about copies.
type claim int

const (
	passesAll    claim = iota // a plain proxy
	oncePerID                 // copies with one id are one
	oncePerEvent              // copies are one whatever their id
)

const (
	plainNginx     = "nginx"
	oncehookMemory = "oncehook, memory"
	oncehookRedis  = "oncehook, Redis"
	luaPeer        = "nginx + Lua"
	goPeer         = "Go"
	nodePeer       = "Node"
)

// What oncehook's [store] says.
const (
	inMemory = `kind = "memory"`
	inRedis  = "kind = \"redis\"\n\n[store.redis]\nurl = \"redis://127.0.0.1:REDIS_PORT/0\""
)

// A contender is one server under test.
type contender struct {
	name    string
	short   string // for --only, and for its files
	claims  claim
	noHTTP2 bool
	files   []string // templates, rendered into its folder
	command func(world, params) []string
	store   string // oncehook's [store]

	*process
	target target
	TLS    string // what a connection agreed on
}

// params is what a template, or a peer's environment, can name.
type params struct {
	Folder, Sources              string
	Port, BackendPort, RedisPort int
	AdminPort                    int
	Key, Secret                  string
	Certificate, CertificateKey  string
	Store                        string
	Root                         bool
}

// contenders are all of them, with another build of oncehook beside the one to measure if there is a path to it.
func contenders(before string) []*contender {
	nginx := func(file string) func(world, params) []string {
		return func(_ world, p params) []string {
			return []string{"nginx", "-p", p.Folder, "-e", p.Folder + "/logs/error.log", "-c", filepath.Join(p.Folder, file)}
		}
	}
	oncehook := func(w world, p params) []string {
		return []string{w.oncehook, "run", "--config", filepath.Join(p.Folder, "oncehook.toml")}
	}
	all := []*contender{
		{name: plainNginx, short: "nginx", files: []string{"nginx.conf"}, command: nginx("nginx.conf")},
		{name: "HAProxy", short: "haproxy", files: []string{"haproxy.cfg"}, command: func(_ world, p params) []string {
			return []string{"haproxy", "-db", "-f", filepath.Join(p.Folder, "haproxy.cfg")}
		}},
		{name: luaPeer, short: "lua", claims: oncePerID, files: []string{"nginx-lua.conf"}, command: nginx("nginx-lua.conf")},
		{name: goPeer, short: "go", claims: oncePerID, command: func(w world, _ params) []string {
			return []string{w.goPeer}
		}},
		{name: nodePeer, short: "node", claims: oncePerID, noHTTP2: true, command: func(w world, _ params) []string {
			return []string{"node", filepath.Join(w.sources, "node", "recipe.js")}
		}},
		{name: oncehookMemory, short: "oncehook-memory", claims: oncePerEvent, files: []string{"oncehook.toml"},
			command: oncehook, store: inMemory},
		{name: oncehookRedis, short: "oncehook-redis", claims: oncePerEvent, files: []string{"oncehook.toml"},
			command: oncehook, store: inRedis},
	}
	if before == "" {
		return all
	}
	other := func(w world, p params) []string {
		w.oncehook = before
		return oncehook(w, p)
	}
	return append(all,
		&contender{name: "oncehook before, memory", short: "before-memory", claims: oncePerEvent, files: []string{"oncehook.toml"},
			command: other, store: inMemory},
		&contender{name: "oncehook before, Redis", short: "before-redis", claims: oncePerEvent, files: []string{"oncehook.toml"},
			command: other, store: inRedis})
}

// start renders the contender's files, and waits until it has answered a handshake.
func (c *contender) start(w world) error {
	p, err := c.params(w)
	if err != nil {
		return err
	}
	for _, file := range c.files {
		if err := render(filepath.Join(w.sources, file), filepath.Join(p.Folder, file), p); err != nil {
			return err
		}
	}
	environment, err := json.Marshal(p)
	if err != nil {
		return err
	}
	c.process, err = launch(c.short, w.serverCore, p.Folder, []string{"COMPARE_PEER=" + string(environment), "NODE_ENV=production"},
		c.command(w, p)...)
	if err != nil {
		return err
	}
	c.target = target{port: p.Port, roots: w.roots}
	return c.await("a TLS handshake", func() bool {
		dialer := &net.Dialer{Timeout: time.Second}
		connection, err := tls.DialWithDialer(dialer, "tcp", c.target.address(), c.target.tls("http/1.1"))
		if err != nil {
			return false
		}
		state := connection.ConnectionState()
		c.TLS = fmt.Sprintf("%s, %s, %s", tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite), state.CurveID)
		return connection.Close() == nil || true
	})
}

func (c *contender) params(w world) (params, error) {
	p := params{
		Folder: filepath.Join(w.folder, c.short), Sources: w.sources,
		BackendPort: w.backendPort, RedisPort: w.redisPort, Key: apiKey, Secret: apiSecret,
		Certificate: w.certificate, CertificateKey: w.certificateKey, Root: os.Getuid() == 0,
		Store: strings.ReplaceAll(c.store, "REDIS_PORT", strconv.Itoa(w.redisPort)),
	}
	if err := os.MkdirAll(p.Folder, 0o700); err != nil {
		return p, err
	}
	pair, err := w.pairFile()
	if err != nil {
		return p, err
	}
	if err := os.WriteFile(filepath.Join(p.Folder, "certificate.pem"), pair, 0o600); err != nil {
		return p, err
	}
	var first, second error
	p.Port, first = freePort()
	p.AdminPort, second = freePort()
	return p, errors.Join(first, second)
}

func render(from, to string, p params) error {
	parsed, err := template.ParseFiles(from)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := parsed.Execute(&text, p); err != nil {
		return err
	}
	return os.WriteFile(to, text.Bytes(), 0o600)
}

// forgetLogs empties what the contender has logged, so that a long benchmark does not fill the disk. Whoever writes
// appends, and goes on at the start.
func (c *contender) forgetLogs() {
	for _, name := range []string{c.short + ".log", "access.log"} {
		path := filepath.Join(filepath.Dir(c.log), name)
		if _, err := os.Stat(path); err == nil {
			_ = os.Truncate(path, 0)
		}
	}
}
