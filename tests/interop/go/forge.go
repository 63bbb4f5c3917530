package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"flag"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/utils/guid"
	"github.com/livekit/protocol/utils/protojson"
	"github.com/livekit/protocol/webhook"
)

// A forged line tells of one request that must be refused and what came back.
type forged struct {
	How    string `json:"how"`
	ID     string `json:"id"`
	Status int    `json:"status"`
}

// forge posts what an attacker could: each request is wrong in one way.
func forge(arguments []string) error {
	flags := flag.NewFlagSet("forge", flag.ExitOnError)
	url := flags.String("url", "", "where to post")
	key := flags.String("key", "", "API key")
	secret := flags.String("secret", "", "API secret")
	ca := flags.String("ca", "", "PEM file of the CA to trust")
	_ = flags.Parse(arguments)
	if *url == "" || *key == "" || *secret == "" {
		return errors.New("--url, --key and --secret are needed")
	}
	if err := trust(*ca); err != nil {
		return err
	}

	for how, tokenOf := range map[string]func(body []byte) (string, error){
		"altered body": func(body []byte) (string, error) {
			return sign(*key, *secret, bytes.Replace(body, []byte("Sophie"), []byte("Mallory"), 1))
		},
		"wrong secret": func(body []byte) (string, error) { return sign(*key, "not "+*secret, body) },
		"unknown key":  func(body []byte) (string, error) { return sign("not"+*key, *secret, body) },
		"old token": func(body []byte) (string, error) {
			then := time.Now().Add(-time.Hour)
			claims := jwt.MapClaims{
				"iss": *key, "sha256": digestOf(body), "nbf": then.Unix(), "exp": then.Add(5 * time.Minute).Unix(),
			}
			return jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(*secret))
		},
		"join token": func([]byte) (string, error) {
			return auth.NewAccessToken(*key, *secret).SetIdentity("guest").SetValidFor(time.Hour).
				SetVideoGrant(&auth.VideoGrant{RoomJoin: true, Room: "interop"}).ToJWT()
		},
		"no token": func([]byte) (string, error) { return "", nil },
	} {
		event := samples(guid.New(""), time.Now())[1].event
		event.Id, event.CreatedAt = guid.New("EV_"), time.Now().Unix()
		body, err := protojson.Marshal(event)
		if err != nil {
			return err
		}
		token, err := tokenOf(body)
		if err != nil {
			return err
		}
		status, err := post(*url, token, body)
		if err != nil {
			return err
		}
		printLine(forged{How: how, ID: event.Id, Status: status})
	}
	return nil
}

// sign makes the token that a notifier makes for this body.
func sign(key, secret string, body []byte) (string, error) {
	return auth.NewAccessToken(key, secret).SetValidFor(5 * time.Minute).SetSha256(digestOf(body)).ToJWT()
}

func digestOf(body []byte) string {
	digest := sha256.Sum256(body)
	return base64.StdEncoding.EncodeToString(digest[:])
}

func post(url, token string, body []byte) (int, error) {
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", webhook.ContentType)
	if token != "" {
		request.Header.Set("Authorization", token)
	}
	client := http.Client{Timeout: 15 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}
