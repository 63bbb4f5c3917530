package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

const (
	apiKey    = "APIcompare"
	apiSecret = "compare-secret-of-at-least-thirty-two-characters"

	// tokenMinutes is how long LiveKit's sender signs for.
	tokenMinutes = 5
)

// A shape is what the events of a scenario are like.
type shape struct {
	bytes  int
	copies int
	// sameID: the copies are retries of one report, byte for byte; else each is another node's, with its own id.
	sameID bool
}

// A signed event is one copy, ready to be sent.
type signed struct {
	key   string // of the event, the same for all its copies
	token string
	body  []byte
}

// makeEvents signs count events. The same seed gives the same bodies; only the tokens' times differ.
func makeEvents(count int, s shape, seed uint64) [][]signed {
	random := rand.New(rand.NewPCG(seed, uint64(s.bytes)))
	now := time.Now()
	template := padding(s.bytes, random)
	events := make([][]signed, count)
	for i := range events {
		// The seed makes keys of different runs differ: what one run left in a store cannot answer another.
		key := fmt.Sprintf("PA_%08x%07x", uint32(seed*0x9e3779b97f4a7c15>>32), i)
		id := name("EV_", random)
		copies := make([]signed, s.copies)
		for c := range copies {
			if c > 0 && s.sameID {
				copies[c] = copies[0]
				continue
			}
			if c > 0 {
				id = name("EV_", random)
			}
			body := body(key, id, now, template)
			copies[c] = signed{key: key, token: sign(body, now), body: body}
		}
		events[i] = copies
	}
	return events
}

func name(prefix string, random *rand.Rand) string {
	const alphabet = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	letters := make([]byte, 12)
	for i := range letters {
		letters[i] = alphabet[random.IntN(len(alphabet))]
	}
	return prefix + string(letters)
}

// body is a participant_joined as LiveKit 1.13 writes it (protojson, which puts a blank after each comma).
func body(key, id string, now time.Time, metadata string) []byte {
	var b strings.Builder
	b.Grow(len(metadata) + 1024)
	seconds := strconv.FormatInt(now.Unix(), 10)
	millis := strconv.FormatInt(now.UnixMilli(), 10)
	b.WriteString(`{"event":"participant_joined", "room":{"sid":"RM_x576ZD4NuPoY", "name":"room-0", "emptyTimeout":300, ` +
		`"departureTimeout":20, "creationTime":"` + seconds + `", "creationTimeMs":"` + millis + `", ` +
		`"turnPassword":"wW6JJiXt5dAXSYC5g2ikYNvVkMFXfUjST12WYwAoN6C", "enabledCodecs":[{"mime":"audio/opus"}, ` +
		`{"mime":"audio/red"}, {"mime":"video/VP8"}, {"mime":"video/H264"}, {"mime":"video/VP9"}, ` +
		`{"mime":"video/AV1"}, {"mime":"video/rtx"}]}, "participant":{"sid":"` + key + `", "identity":"p0", ` +
		`"state":"ACTIVE", "metadata":"` + metadata + `", "joinedAt":"` + seconds + `", "joinedAtMs":"` + millis + `", ` +
		`"name":"参加者", "version":2, "permission":{"canSubscribe":true, "canPublish":true, "canPublishData":true}}, ` +
		`"id":"` + id + `", "createdAt":"` + seconds + `"}`)
	return []byte(b.String())
}

// padding is metadata, JSON in a string as applications put it there, that brings a body to the size.
func padding(size int, random *rand.Rand) string {
	length := size - len(body("PA_000000000000000", "EV_000000000000", time.Now(), ""))
	if length < 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString(`{`)
	for b.Len() < length-64 {
		fmt.Fprintf(&b, `\"%s\":\"%s\",`, name("k", random), name("v", random))
	}
	if rest := length - b.Len() - len(`\"k\":\"\"}`); rest >= 0 {
		b.WriteString(`\"k\":\"` + strings.Repeat("x", rest) + `\"}`)
	}
	return b.String()
}

// sign makes the token that LiveKit sends: HS256, the body's SHA-256 as a claim.
func sign(body []byte, now time.Time) string {
	digest := sha256.Sum256(body)
	claims := fmt.Sprintf(`{"iss":%q,"exp":%d,"nbf":%d,"iat":%d,"sha256":%q}`, apiKey,
		now.Add(tokenMinutes*time.Minute).Unix(), now.Unix(), now.Unix(),
		base64.StdEncoding.EncodeToString(digest[:]))
	signed := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, []byte(apiSecret))
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
