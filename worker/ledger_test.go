package worker

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// ledger is a handler that records which requests of [makeRequests] it gets.
type ledger struct {
	http.Handler
	gate chan struct{} // if not nil, each request waits for an element or its close

	mu       sync.Mutex
	begun    []call // in the order of arrival
	answered map[call]int
	cut      int // requests whose client went away
}

type call struct {
	run   string
	index uint32
}

func newLedger(h http.Handler) *ledger { return &ledger{Handler: h, answered: map[call]int{}} }

// newGate returns a ledger that holds each request until its gate lets it pass.
func newGate(h http.Handler) *ledger {
	l := newLedger(h)
	l.gate = make(chan struct{})
	return l
}

func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}

	_, text, found := bytes.Cut(body, []byte(`"content":"`))
	if !found {
		l.Handler.ServeHTTP(w, r) // a question about the models
		return
	}

	var c call
	fmt.Sscanf(string(text), "%s question %d", &c.run, &c.index)
	l.mu.Lock()
	l.begun = append(l.begun, c)
	l.mu.Unlock()

	if l.gate != nil {
		select {
		case <-l.gate:
		case <-r.Context().Done():
		}
	}

	if r.Context().Err() == nil {
		r.Body = io.NopCloser(bytes.NewReader(body))
		l.Handler.ServeHTTP(w, r)
	}

	l.mu.Lock()
	defer l.mu.Unlock()

	if r.Context().Err() == nil {
		l.answered[c]++
	} else {
		l.cut++
	}
}

// calls returns the requests that have begun, in the order of arrival.
func (l *ledger) calls() []call {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.begun)
}

// countRun returns the number of a run's requests that have begun.
func (l *ledger) countRun(run string) int { return countCalls(run, l.calls()) }

func countCalls(run string, calls []call) (n int) {
	for _, c := range calls {
		if c.run == run {
			n++
		}
	}
	return n
}

// cutCount returns the number of requests whose client went away before the answer.
func (l *ledger) cutCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// undoubtedTime is the time that a server must take at least for each answer of a test that
// calls checkOnce. An answer sooner than 8 ms after the one before it may be doubted, once the
// server has been slow (a busy machine is enough for that), and its request is then sent again.
const undoubtedTime = 20 * time.Millisecond

// checkOnce checks that each of the first n requests of a run was answered exactly once. The
// server must take undoubtedTime for an answer.
func (l *ledger) checkOnce(t *testing.T, run string, n int) {
	t.Helper()

	l.mu.Lock()
	defer l.mu.Unlock()

	for index := range uint32(n) {
		if times := l.answered[call{run, index}]; times != 1 {
			t.Errorf("request %d of %s was answered %d times", index, run, times)
		}
	}
}

// concurrencyGauge is a handler that records the most requests that it had at once.
type concurrencyGauge struct {
	http.Handler
	now, most atomic.Int64
}

func (g *concurrencyGauge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost { // a question about the server
		g.Handler.ServeHTTP(w, r)
		return
	}

	now := g.now.Add(1)
	defer g.now.Add(-1)

	for {
		most := g.most.Load()
		if now <= most || g.most.CompareAndSwap(most, now) {
			break
		}
	}

	g.Handler.ServeHTTP(w, r)
}

// startServer starts an HTTP server and returns its URL.
func startServer(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// isFirstTry reports whether a line is from the first attempt that counts. The client may doubt an answer
// that comes very soon after another, and then it sends the request again.
func isFirstTry(line string) bool {
	return strings.Contains(line, `"attempts":1,`) ||
		strings.Contains(line, `"attempts":2,`) && strings.Contains(line, `doubted`)
}
