package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"
)

const (
	redisPrefix = "oncehook:"    // store.redis.prefix, as shipped
	redisExpiry = 24 * time.Hour // of a record
	redisBatch  = 500            // commands in a write
	// redisPatience is how long Redis may take to move everything to larger hash tables. Nothing says when it is done but
	// that the memory of the old ones is given back, at the end and in one piece, of two tables one after the other: they
	// count as moved when so long nothing has changed, a second and a microsecond for each record.
	redisPatience  = 40 * time.Second
	redisCalm      = time.Second
	redisCalmEach  = time.Microsecond
	redisPollEvery = 100 * time.Millisecond
)

// settledRecord appends the command that writes a settled record as the gateway would: see store/redis/record.lua.
func settledRecord(to []byte, random *rand.Rand) []byte {
	var key [16]byte
	var value [12]byte
	binary.LittleEndian.PutUint64(key[:], random.Uint64())
	binary.LittleEndian.PutUint64(key[8:], random.Uint64())
	copy(value[:], "D200")
	binary.LittleEndian.PutUint64(value[4:], random.Uint64())
	to = append(to, "*5\r\n$3\r\nSET\r\n$"...)
	to = strconv.AppendInt(to, int64(len(redisPrefix)+len("{}")+base64.RawURLEncoding.EncodedLen(len(key))), 10)
	to = append(to, "\r\n"+redisPrefix+"{"...)
	to = base64.RawURLEncoding.AppendEncode(to, key[:])
	to = append(to, "}\r\n$12\r\n"...)
	to = append(to, value[:]...)
	to = append(to, "\r\n$2\r\nPX\r\n$8\r\n"...)
	to = strconv.AppendInt(to, redisExpiry.Milliseconds(), 10) // eight digits
	return append(to, "\r\n"...)
}

// fillRedis writes settled records into an empty Redis, which has the servers' core for as long: they have nothing to do.
func (w *world) fillRedis(ctx context.Context, records int) error {
	if err := pin(w.redis.pid, w.serverCore); err != nil {
		return err
	}
	defer func() { _ = pin(w.redis.pid, w.loadCore) }() // fails only if Redis has ended, as what comes next will notice
	connection, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", w.redisPort), time.Second)
	if err != nil {
		return err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(scaleFillLimit))
	go func() {
		random := rand.New(rand.NewPCG(uint64(records), 0xf111))
		var batch []byte
		for missing := records; missing > 0 && ctx.Err() == nil; missing -= redisBatch {
			batch = batch[:0]
			for range min(redisBatch, missing) {
				batch = settledRecord(batch, random)
			}
			if _, err := connection.Write(batch); err != nil {
				return // whoever reads the answers sees that they end
			}
		}
	}()
	replies := bufio.NewReaderSize(connection, 64<<10)
	for i := range records {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if line, err := replies.ReadSlice('\n'); err != nil || string(line) != "+OK\r\n" {
			return fmt.Errorf("filling Redis, record %d of %d: %q %w", i+1, records, line, err)
		}
	}
	answer, err := w.ask("DBSIZE")
	if err == nil && answer != fmt.Sprintf(":%d", records) {
		err = fmt.Errorf("Redis has %s records, not %d", answer, records)
	}
	return err
}

func (w *world) hertz(hertz int) error {
	if answer, err := w.ask(fmt.Sprintf("CONFIG SET hz %d", hertz)); err != nil || answer != "+OK" {
		return fmt.Errorf("Redis' hz: %s %w", answer, err)
	}
	return nil
}

// settledMemory is Redis' memory after its tables have grown: while they do, the old ones count too.
func (w *world) settledMemory(records int) (int64, error) {
	// Redis moves what it holds to larger tables bit by bit, a millisecond each tick: with more ticks it is done sooner.
	if err := w.hertz(500); err != nil {
		return 0, err
	}
	var last int64
	since := time.Now()
	for end := time.Now().Add(redisPatience); time.Now().Before(end); time.Sleep(redisPollEvery) {
		used, err := w.redisMemory()
		if err != nil {
			return 0, err
		}
		if difference := used - last; difference > 64<<10 || difference < -(64<<10) {
			last, since = used, time.Now()
		}
		if time.Since(since) > redisCalm+time.Duration(records)*redisCalmEach {
			return last, w.hertz(10)
		}
	}
	return last, w.hertz(10)
}

// redisMemory is what Redis' allocator has given out, in bytes.
func (w *world) redisMemory() (int64, error) {
	connection, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", w.redisPort), time.Second)
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(requestLimit))
	if _, err := io.WriteString(connection, "INFO memory\r\n"); err != nil {
		return 0, err
	}
	reader := bufio.NewReader(connection)
	for range 100 {
		line, err := reader.ReadString('\n')
		if err != nil {
			return 0, err
		}
		if value, found := strings.CutPrefix(line, "used_memory:"); found {
			return strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, errors.New("Redis does not say used_memory")
}
