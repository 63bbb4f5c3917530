// The recipe in Go: LiveKit's receiver, SET NX in Redis, and the key taken back if the backend failed. Go's server speaks
// HTTP/2 and HTTP/1.1.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/webhook"
	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/livekit/protocol/livekit"
)

const (
	bodyBytesMax = 2 << 20
	remembered   = time.Hour
)

type settings struct {
	Port, BackendPort, RedisPort int
	Key, Secret                  string
	Certificate, CertificateKey  string
}

type peer struct {
	keys    auth.KeyProvider
	redis   *redis.Client
	forward *http.Client
	backend string
}

func main() {
	var s settings
	if err := json.Unmarshal([]byte(os.Getenv("COMPARE_PEER")), &s); err != nil {
		log.Fatal("COMPARE_PEER: ", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 512
	p := &peer{
		keys:    auth.NewSimpleKeyProvider(s.Key, s.Secret),
		redis:   redis.NewClient(&redis.Options{Addr: fmt.Sprintf("127.0.0.1:%d", s.RedisPort)}),
		forward: &http.Client{Transport: transport, Timeout: 8 * time.Second},
		backend: fmt.Sprintf("http://127.0.0.1:%d/webhook", s.BackendPort),
	}
	server := http.Server{Addr: fmt.Sprintf("127.0.0.1:%d", s.Port), Handler: p, ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout: 2 * time.Minute}
	log.Fatal(server.ListenAndServeTLS(s.Certificate, s.CertificateKey))
}

func (p *peer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, bodyBytesMax)
	body, err := webhook.Receive(r, p.keys)
	if err != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var event livekit.WebhookEvent
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true, AllowPartial: true}).Unmarshal(body, &event); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	key := "go:" + event.Id
	err = p.redis.SetArgs(r.Context(), key, "1", redis.SetArgs{Mode: "NX", TTL: remembered}).Err()
	if err == redis.Nil {
		w.WriteHeader(http.StatusOK)
		return
	}
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	status := p.pass(r, body)
	if status >= http.StatusInternalServerError {
		p.redis.Del(r.Context(), key)
	}
	w.WriteHeader(status)
}

// pass gives the backend the event, and returns its answer's status.
func (p *peer) pass(r *http.Request, body []byte) int {
	forwarded, err := http.NewRequestWithContext(r.Context(), http.MethodPost, p.backend, bytes.NewReader(body))
	if err != nil {
		return http.StatusInternalServerError
	}
	forwarded.Header.Set("Authorization", r.Header.Get("Authorization"))
	forwarded.Header.Set("Content-Type", r.Header.Get("Content-Type"))
	answer, err := p.forward.Do(forwarded)
	if err != nil {
		return http.StatusBadGateway
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return http.StatusBadGateway
	}
	return answer.StatusCode
}
