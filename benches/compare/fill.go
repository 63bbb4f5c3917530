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
	redisBatch  = 1000           // commands on their way at a time
	// redisCalm is how long Redis' memory stays as it is once its hash tables have grown, redisPatience how long that may
	// take.
	redisCalm     = time.Second
	redisPatience = 20 * time.Second
)

// settledRecord appends the command that writes a settled record as the gateway would: see store/redis/record.lua.
func settledRecord(to []byte, random *rand.Rand) []byte {
	var key [16]byte
	var value [12]byte
	binary.LittleEndian.PutUint64(key[:], random.Uint64())
	binary.LittleEndian.PutUint64(key[8:], random.Uint64())
	copy(value[:], "D200")
	binary.LittleEndian.PutUint64(value[4:], random.Uint64())
	name := redisPrefix + "{" + base64.RawURLEncoding.EncodeToString(key[:]) + "}"
	expiry := strconv.FormatInt(redisExpiry.Milliseconds(), 10)
	return fmt.Appendf(to, "*5\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n$2\r\nPX\r\n$%d\r\n%s\r\n",
		len(name), name, len(value), value[:], len(expiry), expiry)
}

// fillRedis writes settled records into an empty Redis.
func (w *world) fillRedis(ctx context.Context, records int) error {
	connection, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", w.redisPort), time.Second)
	if err != nil {
		return err
	}
	defer connection.Close()
	end := time.Now().Add(scaleFillLimit)
	_ = connection.SetDeadline(end.Add(requestLimit))
	random := rand.New(rand.NewPCG(uint64(records), 0xf111))
	replies := bufio.NewReader(connection)
	var batch []byte
	for missing := records; missing > 0; {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if time.Now().After(end) {
			return fmt.Errorf("Redis did not take %d records within %v", records, scaleFillLimit)
		}
		count := min(redisBatch, missing)
		batch = batch[:0]
		for range count {
			batch = settledRecord(batch, random)
		}
		if _, err := connection.Write(batch); err != nil {
			return err
		}
		for range count {
			if line, err := replies.ReadString('\n'); err != nil || line != "+OK\r\n" {
				return fmt.Errorf("filling Redis: %q %w", line, err)
			}
		}
		missing -= count
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
func (w *world) settledMemory() (int64, error) {
	// Redis moves what it holds to larger tables bit by bit, a millisecond each tick: with more ticks it is done sooner.
	if err := w.hertz(500); err != nil {
		return 0, err
	}
	var last int64
	since := time.Now()
	for end := time.Now().Add(redisPatience); time.Now().Before(end); time.Sleep(redisCalm / 10) {
		used, err := w.redisMemory()
		if err != nil {
			return 0, err
		}
		if difference := used - last; difference > 64<<10 || difference < -(64<<10) {
			last, since = used, time.Now()
		}
		if time.Since(since) > redisCalm {
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
