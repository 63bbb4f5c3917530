package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// An http1 client has one connection, kept or of one request. It is written by hand, since Go's pooled transport keeps
// one idle connection a core and would open new ones all the time.
type http1 struct {
	target target
	once   bool

	connection *tls.Conn
	reader     *bufio.Reader
	buffer     []byte
}

func (c *http1) send(event signed) (int, error) {
	if c.connection == nil {
		if err := c.connect(); err != nil {
			return 0, err
		}
	}
	status, kept, err := c.exchange(event)
	if err != nil || c.once || !kept {
		c.close()
	}
	return status, err
}

func (c *http1) connect() error {
	raw, err := net.DialTimeout("tcp", c.target.address(), requestLimit)
	if err != nil {
		return err
	}
	connection := tls.Client(raw, c.target.tls("http/1.1"))
	_ = connection.SetDeadline(time.Now().Add(requestLimit))
	if err := connection.Handshake(); err != nil {
		_ = raw.Close()
		return err
	}
	c.connection = connection
	if c.reader == nil {
		c.reader = bufio.NewReaderSize(connection, 4096)
	}
	c.reader.Reset(connection)
	return nil
}

func (c *http1) exchange(event signed) (status int, kept bool, err error) {
	_ = c.connection.SetDeadline(time.Now().Add(requestLimit))
	c.buffer = fmt.Appendf(c.buffer[:0], "POST /webhook HTTP/1.1\r\nHost: localhost\r\nUser-Agent: %s\r\n"+
		"Content-Length: %d\r\nAuthorization: %s\r\nContent-Type: %s\r\nAccept-Encoding: gzip\r\n\r\n",
		userAgent, len(event.body), event.token, mediaType)
	c.buffer = append(c.buffer, event.body...)
	if _, err := c.connection.Write(c.buffer); err != nil {
		return 0, false, err
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return 0, false, err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0, false, err
	}
	return response.StatusCode, !response.Close, nil
}

func (c *http1) close() {
	if c.connection != nil {
		_ = c.connection.Close()
		c.connection = nil
	}
}
