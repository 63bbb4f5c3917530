package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"

	"github.com/hashicorp/go-cleanhttp"
)

// An http2 client is one node of LiveKit: its transport, and therefore one connection for all its resources.
type http2 struct {
	url string
	of  *http.Client
}

func newHTTP2(t target) *http2 {
	// LiveKit's sender takes this transport from go-retryablehttp. Its retries are left out: they would hide errors.
	transport := cleanhttp.DefaultPooledTransport()
	transport.TLSClientConfig = t.tls("h2", "http/1.1")
	return &http2{url: "https://" + t.address() + "/webhook", of: &http.Client{Transport: transport, Timeout: requestLimit}}
}

func (c *http2) send(event signed) (int, error) {
	request, err := http.NewRequest(http.MethodPost, c.url, bytes.NewReader(event.body))
	if err != nil {
		return 0, err
	}
	request.Host = "localhost"
	request.Header.Set("Authorization", event.token)
	request.Header.Set("Content-Type", mediaType)
	response, err := c.of.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0, err
	}
	if response.ProtoMajor != 2 {
		return 0, fmt.Errorf("answered over %s", response.Proto)
	}
	return response.StatusCode, nil
}

func (c *http2) close() { c.of.CloseIdleConnections() }
