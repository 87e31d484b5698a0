package webhook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Endpoint gets events.
type Endpoint struct {
	// ID is the same in each process that has the endpoint, see [HashAddress]. Required.
	ID string
	// Name is the name for people, see [NameOf]. The bus has it. Required.
	Name string
	// Send sends an event, and returns the answer. The context ends after Timeout, or when the
	// sender is to end. Required.
	Send func(context.Context, Event) Answer
	// Timeout is the longest time of an attempt. Required.
	Timeout time.Duration
	// AtOnce is the most attempts at once. Required.
	AtOnce int
	// Command reports that the endpoint is a command. It gets each event once.
	Command bool
}

// Answer is what became of an attempt.
type Answer struct {
	// Delivered reports that the endpoint has taken the event.
	Delivered bool
	// Final reports that there is no use in another attempt.
	Final bool
	// Text is the answer in words.
	Text string
	// Status is the HTTP status; 0: there was none.
	Status int
	// RetryAfter is the pause that the endpoint asks for; 0: it asks for none.
	RetryAfter time.Duration
}

// HashAddress returns the id of an endpoint.
func HashAddress(address string) string {
	sum := sha256.Sum256([]byte(address))
	return hex.EncodeToString(sum[:8])
}

// ParseURL reads the address of an endpoint. The error completes a sentence that begins with
// the address.
func ParseURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("it is not a URL")
	}

	port, portErr := strconv.Atoi(u.Port())
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("must begin with http:// or https://")
	case u.User != nil:
		return nil, errors.New("must have no user or password: events are signed, and the receiver verifies that")
	case u.Hostname() == "" || u.Opaque != "":
		return nil, errors.New("it names no host")
	case u.Port() != "" && (portErr != nil || port < 1 || port > 65535), strings.HasSuffix(u.Host, ":"):
		return nil, errors.New("its port is not a number from 1 to 65535")
	case u.Fragment != "":
		return nil, errors.New("must have no # part, which is never sent")
	}

	return u, nil
}

// NameOfText returns the name of an address that a person gave and that may be no URL: [NameOf] without a
// user and a password. It is empty if secrets cannot be told apart in it.
func NameOfText(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Opaque != "" {
		return ""
	}

	name := NameOf(u) // u.Host has no user
	if u.Scheme == "" {
		name = strings.TrimPrefix(strings.TrimPrefix(name, ":"), "//")
	}

	return name
}

// maxPathPart is the longest part of a path in the name of an endpoint. Longer ones are secrets
// more often than names.
const maxPathPart = 16

// NameOf returns the name of an endpoint for people: its address without the parts that may be
// secret, which are the query and long parts of the path.
func NameOf(u *url.URL) string {
	parts := strings.Split(u.EscapedPath(), "/")
	for i, part := range parts {
		if len(part) > maxPathPart {
			parts[i] = part[:4] + "..."
		}
	}

	name := u.Scheme + "://" + u.Host + strings.Join(parts, "/")
	if u.RawQuery != "" {
		name += "?..."
	}

	return name
}
