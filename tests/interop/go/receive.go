package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/webhook"
)

const bodyBytesMax = 4 << 20

// A received line tells of one request and what livekit/protocol's receiver made of it.
type received struct {
	Outcome           string `json:"outcome"` // accepted or refused
	Reason            string `json:"reason,omitempty"`
	Event             string `json:"event,omitempty"`
	ID                string `json:"id,omitempty"`
	SHA256            string `json:"sha256"`
	Attempt           string `json:"attempt,omitempty"`
	IdempotencyKey    string `json:"idempotency_key,omitempty"`
	PossibleDuplicate string `json:"possible_duplicate,omitempty"`
	Protocol          string `json:"protocol"`
}

// receive serves until it is ended from outside.
func receive(arguments []string) error {
	flags := flag.NewFlagSet("receive", flag.ExitOnError)
	address := flags.String("listen", "127.0.0.1:0", "where to listen")
	key := flags.String("key", "", "API key")
	secret := flags.String("secret", "", "API secret")
	certificate := flags.String("tls-certificate", "", "PEM file; with it the receiver speaks TLS and HTTP/2")
	certificateKey := flags.String("tls-key", "", "PEM file of the certificate's key")
	_ = flags.Parse(arguments)
	if *key == "" || *secret == "" {
		return errors.New("--key and --secret are needed")
	}

	provider := auth.NewSimpleKeyProvider(*key, *secret)
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	server := http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answer(w, r, provider)
		}),
	}
	if *certificate != "" {
		return server.ServeTLS(listener, *certificate, *certificateKey)
	}
	return server.Serve(listener)
}

func answer(w http.ResponseWriter, r *http.Request, provider auth.KeyProvider) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyBytesMax))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	digest := sha256.Sum256(body)
	line := received{
		SHA256:            hex.EncodeToString(digest[:]),
		Attempt:           r.Header.Get("Oncehook-Attempt"),
		IdempotencyKey:    r.Header.Get("Idempotency-Key"),
		PossibleDuplicate: r.Header.Get("Oncehook-Possible-Duplicate"),
		Protocol:          r.Proto,
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	event, err := webhook.ReceiveWebhookEvent(r, provider)
	if err != nil {
		line.Outcome, line.Reason = "refused", err.Error()
		printLine(line)
		http.Error(w, "refused", http.StatusUnauthorized)
		return
	}
	line.Outcome, line.Event, line.ID = "accepted", event.Event, event.Id
	printLine(line)
}
