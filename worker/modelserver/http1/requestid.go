package http1

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"hash/maphash"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// requestIDPrefix starts the ids of this process's requests.
var (
	requestIDPrefix = "pm-" + newProcessID() + "-"
	lastRequestID   atomic.Uint64
	recentRequests  digestRing
	digestSeed      = maphash.MakeSeed()
)

// maxIDDigits is the greatest number of digits of an id in base 36.
const maxIDDigits = 13

// newProcessID returns random digits.
func newProcessID() string {
	var b [8]byte
	rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// RequestID is the id of a request, which is used once. Many servers and proxies return
// X-Request-Id, and vLLM makes the id of its answer from it.
type RequestID struct {
	number uint64
	digest uint64 // equal for requests with equal path and body
}

// NewRequestID returns the id of a request with a path and a body.
func NewRequestID(path string, body []byte) RequestID {
	id := RequestID{number: lastRequestID.Add(1), digest: digestRequest(path, body)}
	recentRequests.add(id)
	return id
}

// digestRequest returns a digest that means nothing outside of this process.
func digestRequest(path string, body []byte) uint64 {
	return 31*maphash.String(digestSeed, path) + maphash.Bytes(digestSeed, body)
}

// String returns the value of the header X-Request-Id.
func (id RequestID) String() string { return requestIDPrefix + strconv.FormatUint(id.number, 36) }

// appendDigits appends the digits after the prefix.
func (id RequestID) appendDigits(b []byte) []byte { return strconv.AppendUint(b, id.number, 36) }

// IsOther reports whether an answer carries the id of a request of this process that is neither
// this one nor equal to it.
func (id RequestID) IsOther(header http.Header, body []byte) bool {
	if sent := header["X-Request-Id"]; len(sent) > 0 && strings.HasPrefix(sent[0], requestIDPrefix) {
		return !id.isAnsweredBy(sent[0])
	}

	const searched = 256 // an id is at the beginning
	if i := bytes.Index(body[:min(len(body), searched)], []byte(requestIDPrefix)); i >= 0 {
		end := min(len(body), i+len(requestIDPrefix)+maxIDDigits+1)
		return !id.isAnsweredBy(string(body[i:end]))
	}

	return false
}

// isAnsweredBy reports whether a text that starts with the id of a request of this process may
// stand in the answer to this one.
func (id RequestID) isAnsweredBy(text string) bool {
	text = text[len(requestIDPrefix):]
	if n := strings.IndexFunc(text, func(r rune) bool {
		return !('0' <= r && r <= '9' || 'a' <= r && r <= 'z')
	}); n >= 0 {
		text = text[:n]
	}

	number, err := strconv.ParseUint(text, 36, 64)

	return err == nil && (number == id.number || recentRequests.contains(RequestID{number, id.digest}))
}

// digestRing remembers the latest requests. A proxy that keeps answers (nginx, LiteLLM) returns
// an answer, with the id of the request that it was for, to other requests that are equal.
type digestRing struct {
	mu   sync.Mutex
	ring [4096]RequestID // by number, modulo its size
}

// add remembers a request.
func (d *digestRing) add(id RequestID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ring[id.number%uint64(len(d.ring))] = id
}

// contains reports whether a request is remembered with this digest.
func (d *digestRing) contains(id RequestID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ring[id.number%uint64(len(d.ring))] == id
}
