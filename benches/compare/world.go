package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A world is what the contenders share: a backend, a Redis, a certificate, two cores.
type world struct {
	folder, sources             string
	oncehook, goPeer            string
	serverCore, loadCore        int
	certificate, certificateKey string
	roots                       *x509.CertPool
	backend, redis              *process
	backendPort, redisPort      int
}

// build makes the world, apart from the contenders.
func (w *world) build() error {
	if err := w.certify(); err != nil {
		return err
	}
	if err := w.startBackend(); err != nil {
		return err
	}
	return w.startRedis()
}

// certify makes a certificate of the kind that is cheapest to serve and most used, and whom to trust for it.
func (w *world) certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	w.roots = x509.NewCertPool()
	w.roots.AppendCertsFromPEM(public)
	w.certificate, w.certificateKey = filepath.Join(w.folder, "tls.crt"), filepath.Join(w.folder, "tls.key")
	if err := os.WriteFile(w.certificate, public, 0o600); err != nil {
		return err
	}
	return os.WriteFile(w.certificateKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
}

// pairFile is certificate and key in one, as HAProxy wants them.
func (w *world) pairFile() ([]byte, error) {
	public, err := os.ReadFile(w.certificate)
	if err != nil {
		return nil, err
	}
	private, err := os.ReadFile(w.certificateKey)
	return append(public, private...), err
}

func (w *world) startBackend() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	w.backend, err = launch("backend", w.loadCore, w.folder, nil, self, "backend")
	if err != nil {
		return err
	}
	return w.backend.await("its port", func() bool {
		text, _ := os.ReadFile(w.backend.log)
		w.backendPort, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil && strings.HasSuffix(string(text), "\n")
	})
}

func (w *world) startRedis() error {
	var err error
	if w.redisPort, err = freePort(); err != nil {
		return err
	}
	w.redis, err = launch("redis", w.loadCore, w.folder, nil, "redis-server", "--port", strconv.Itoa(w.redisPort),
		"--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", w.folder)
	if err != nil {
		return err
	}
	return w.redis.await("a PONG", func() bool {
		answer, err := w.ask("PING")
		return err == nil && answer == "+PONG"
	})
}

// ask sends Redis one command without arguments.
func (w *world) ask(command string) (string, error) {
	connection, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", w.redisPort), time.Second)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(requestLimit))
	if _, err := fmt.Fprintf(connection, "%s\r\n", command); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(connection).ReadString('\n')
	return strings.TrimSpace(line), err
}

// fresh empties Redis and the backend's tally before a run.
func (w *world) fresh() error {
	if answer, err := w.ask("FLUSHALL"); err != nil || answer != "+OK" {
		return fmt.Errorf("emptying Redis: %s %w", answer, err)
	}
	return w.forgetDeliveries()
}

// forgetDeliveries empties the backend's tally.
func (w *world) forgetDeliveries() error {
	response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/reset", w.backendPort))
	if err != nil {
		return err
	}
	return response.Body.Close()
}

func (w *world) tally() (tally, error) {
	var t tally
	response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/tally", w.backendPort))
	if err != nil {
		return t, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return t, err
	}
	return t, json.Unmarshal(text, &t)
}

func (w *world) end() {
	for _, p := range []*process{w.backend, w.redis} {
		if p != nil {
			p.stop()
		}
	}
}
