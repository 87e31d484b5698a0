package modelserver

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ErrOutOfStep is returned where the server sends answers that belong to other requests.
var (
	ErrOutOfStep    = errors.New("the model server is out of step with its requests")
	errSpokeFirst   = fmt.Errorf("%w: it sends an answer before it is asked anything", ErrOutOfStep)
	errOtherRequest = fmt.Errorf("%w: the answer carries the id of another one", ErrOutOfStep)
)

// soonAfter is how soon after an answer a second one to the same request comes, if it
// comes. An answer that begins later than that on the same connection is its request's.
const soonAfter = 8 * time.Millisecond

// maxRest bounds how long a connection rests to show what is left over on it.
const maxRest = 20 * time.Millisecond

// doubt is what becomes of an answer.
type doubt int

const (
	accepted doubt = iota
	lastOne        // it is, but the connection is not used again
	refused        // it may be another request's
	apart          // likewise, and its connection is watched for the proof
)

// doubts decides whether an answer may be that of another request: it carries the id of
// one; more came than was asked for; it came so soon after the answer before that the
// server can hardly have worked on it; it repeats that answer; or another is left over after
// it. The last three are looked into with good servers as well, so that they are bounded,
// and cost a request or a wait.
func (w *wire) doubts(c *conn, a Answer, id, digest uint64, begin, began time.Time) doubt {
	if otherRequest(a, id, digest) {
		w.outOfStep("an answer carries the id of another request")
		return refused
	}

	repeats := c.repeats(a.Body) && a.Status == http.StatusOK
	first := c.uses == 1 && c.watched // nothing came before the request: what comes first is the answer
	switch {
	case c.in.Buffered() > 0 && c.look() == stray:
		w.outOfStep("more bytes came than one answer")
		if !first {
			return refused
		}
	case first:
	case a.Status == http.StatusRequestTimeout && c.uses > 1: // it says that no request came
		return refused
	case w.once.Load(): // this connection may have been out of step, too
		return refused
	case began.Sub(c.since) < soonAfter && (!w.fast() || a.Status >= 300):
		switch {
		case a.Status >= 300 && a.Status != http.StatusBadRequest:
			return lastOne // most are tried again, or looked into; the next request has another connection
		case !w.spend(&w.soon):
			return lastOne
		case !w.fast():
			return apart
		case c.await(w.rest()) == stray:
			w.outOfStep("a refusal came before the answer")
			return refused
		}
	case repeats && w.mayRepeat(begin, began):
		if c.await(min(2*w.took(), 10*time.Second)+10*time.Millisecond) == stray {
			w.outOfStep("an answer came twice")
			return refused
		}
	case w.mayHide(c):
		if c.await(w.rest()) == stray {
			w.outOfStep("an answer was left over")
			return refused
		}
	}

	return accepted
}

// learn notes how long an exchange took. The caller holds mu.
func (w *wire) learn(took time.Duration) {
	mean, least := w.took(), time.Duration(w.least.Load())
	if mean == 0 {
		mean = took
	}
	w.mean.Store(int64(mean + (took-mean)/8))
	w.least.Store(int64(min(took, least+min((took-least)/w.pace(), soonAfter/16))))
}

// clear notes that an answer was doubted and was right: the server is that fast at times. The
// caller holds mu.
func (w *wire) clear(took time.Duration) {
	w.cleared++
	w.least.Store(min(w.least.Load(), int64(took)))
}

// pace is how many answers it takes to forget a fast one. A server that is busy, or that
// keeps answers, is fast now and then; each time that this is found out costs a request.
func (w *wire) pace() time.Duration { return 64 << min(w.cleared, 6) }

// took is how long an exchange takes, about.
func (w *wire) took() time.Duration { return time.Duration(w.mean.Load()) }

// rest is how long a connection rests to show what is left over on it.
func (w *wire) rest() time.Duration {
	return min(2*w.took(), maxRest) + 2*time.Millisecond
}

// fast reports whether the server answers some requests so fast that this is no sign of
// anything. It counts as fast until it is known.
func (w *wire) fast() bool { return w.least.Load() < int64(soonAfter) }

// mayRepeat reports whether an answer that is the same as the last one came in less than
// half the usual time, or the server is too fast for that to tell anything; and whether
// there is allowance left to wait for another.
func (w *wire) mayRepeat(begin, began time.Time) bool {
	return (w.fast() || began.Sub(begin) < w.took()/2) && w.spend(&w.same)
}

// mayHide reports whether it is time to wait for an answer that is left over. A connection
// that is one answer ahead shows no sign of it while it is always busy. So it rests after
// its second, fourth, eighth answer, with a server that would send the next one meanwhile.
func (w *wire) mayHide(c *conn) bool {
	return c.uses > 1 && c.uses&(c.uses-1) == 0 && w.took() <= maxRest
}

// outOfStep notes that the server has sent what nobody asked for: from now on each of its
// connections is used for one request.
func (w *wire) outOfStep(how string) {
	if w.once.Swap(true) {
		return
	}

	w.log.Warn().Str("server", w.origin).Str("seen", how).
		Msg("the model server, or a proxy before it, sends answers that nobody asked for; using each connection for one request only")
	w.mu.Lock()
	defer w.mu.Unlock()

	for _, c := range w.idle {
		c.Close()
	}

	w.idle = nil
}

// watch waits, beside all else, for what comes on the connection of an answer that was
// doubted and took a time, so long as the right answer may still come there, and closes it.
func (w *wire) watch(c *conn, took time.Duration) {
	w.mu.Lock()
	w.apart[c] = struct{}{}
	w.mu.Unlock()

	go func() {
		seen := c.await(3*w.took() + 50*time.Millisecond)
		if seen == stray {
			w.outOfStep("a second answer came to one request")
		}

		w.mu.Lock()
		delete(w.apart, c)

		if seen == quiet {
			w.clear(took)
		}

		w.mu.Unlock()
		c.Close()
	}()
}

// allowance bounds how often something is done: at first so many times, and then once for
// so many answers.
type allowance struct{ left, most, price int }

func newAllowance(first, price int) allowance { return allowance{first * price, first * price, price} }

func (a *allowance) earn() { a.left = min(a.left+1, a.most) }

// spend takes from an allowance, and reports whether there was enough.
func (w *wire) spend(a *allowance) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a.left < a.price {
		return false
	}
	a.left -= a.price
	return true
}

// requestIDPrefix begins the ids of this process's requests, each of which is used once.
// Many servers and proxies send X-Request-Id back, and vLLM makes the id of its answer of it.
var (
	requestIDPrefix = "pm-" + processID() + "-"
	requestIDs      atomic.Uint64
)

func processID() string {
	var b [8]byte
	rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// nextRequestID is the id of a request with a digest.
func nextRequestID(digest uint64) uint64 {
	id := requestIDs.Add(1)
	recentRequests.add(id, digest)
	return id
}

// requestDigest is the same for requests that are the same but for their ids. It means
// nothing outside of this process.
func requestDigest(path string, body []byte) uint64 {
	return 31*maphash.String(digestSeed, path) + maphash.Bytes(digestSeed, body)
}

var digestSeed = maphash.MakeSeed()

// digests are those of the latest requests. A proxy that keeps answers (nginx, LiteLLM) gives
// an answer, with the id of the request that it was for, to others that are the same.
type digests struct {
	mu   sync.Mutex
	ring [4096]struct{ id, digest uint64 } // by id, modulo its size
}

var recentRequests digests

func (d *digests) add(id, digest uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := &d.ring[id%uint64(len(d.ring))]
	at.id, at.digest = id, digest
}

// has reports whether a request is remembered with this digest.
func (d *digests) has(id, digest uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := d.ring[id%uint64(len(d.ring))]
	return at.id == id && at.digest == digest
}

// appendRequestID completes the header of a request up to its length.
func appendRequestID(b []byte, id uint64) []byte {
	return append(strconv.AppendUint(b, id, 36), "\r\nContent-Length: "...)
}

// otherRequest reports whether an answer carries the id of a request of ours that is neither
// the one with this id nor the same as that.
func otherRequest(a Answer, id, digest uint64) bool {
	if sent := a.Header["X-Request-Id"]; len(sent) > 0 && strings.HasPrefix(sent[0], requestIDPrefix) {
		return !answersRequest(sent[0], id, digest)
	}

	const most = 256 // an id is at the beginning
	if i := bytes.Index(a.Body[:min(len(a.Body), most)], []byte(requestIDPrefix)); i >= 0 {
		end := min(len(a.Body), i+len(requestIDPrefix)+maxDigits+1)
		return !answersRequest(string(a.Body[i:end]), id, digest)
	}

	return false
}

// maxDigits is how many digits an id has at most.
const maxDigits = 13

// answersRequest reports whether a text that begins with the id of a request of ours may
// stand in the answer to the one with this id.
func answersRequest(text string, id, digest uint64) bool {
	text = text[len(requestIDPrefix):]
	if n := strings.IndexFunc(text, func(r rune) bool {
		return !('0' <= r && r <= '9' || 'a' <= r && r <= 'z')
	}); n >= 0 {
		text = text[:n]
	}

	named, err := strconv.ParseUint(text, 36, 64)

	return err == nil && (named == id || recentRequests.has(named, digest))
}
