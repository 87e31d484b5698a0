package notice

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is the longest time that a test waits for something that must happen.
const patience = 20 * time.Second

// quick is the interval between two looks of a source in tests.
const quick = 5 * time.Millisecond

// watching is a call of Watch in a test.
type watching struct {
	t       *testing.T
	notices chan Notice
	log     lockedBuffer
	stop    func()
}

// startWatching watches sources until the test ends.
func startWatching(t *testing.T, grace time.Duration, sources ...Source) *watching {
	t.Helper()

	w := &watching{
		t:       t,
		notices: make(chan Notice, 100),
	}

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Watch(ctx, Config{
			Sources:  sources,
			Grace:    grace,
			Announce: func(n Notice) { w.notices <- n },
			Log:      zerolog.New(&w.log).Level(zerolog.DebugLevel),
		})
	}()

	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Watch returns %v", err)
		}
	})
	t.Cleanup(w.stop)

	return w
}

// expect waits for a notice. Its deadline must be about the time left away.
func (w *watching) expect(source, reason string, left time.Duration) {
	w.t.Helper()

	select {
	case n := <-w.notices:
		if n.Source != source || n.Reason != reason {
			w.t.Errorf("%s says %q, want %s, %q", n.Source, n.Reason, source, reason)
		}

		if d := time.Until(n.Deadline); d > left+2*time.Second || d < left-patience {
			w.t.Errorf("%s leaves %s, want %s", n.Source, d, left)
		}
	case <-time.After(patience):
		w.t.Fatalf("no notice; the log:\n%s", w.log.String())
	}
}

// expectLog waits for a text in the log.
func (w *watching) expectLog(text string) {
	w.t.Helper()

	for end := time.Now().Add(patience); !strings.Contains(w.log.String(), text); {
		if time.Now().After(end) {
			w.t.Fatalf("the log does not say %q:\n%s", text, w.log.String())
		}
		time.Sleep(quick)
	}
}

// expectNone ends the watch and ensures that there was no notice.
func (w *watching) expectNone() {
	w.t.Helper()

	w.stop()
	select {
	case n := <-w.notices:
		w.t.Errorf("a notice: %+v", n)
	default:
	}
}

// lockedBuffer is a buffer that several goroutines use.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// metadataService is a metadata service in a test: paths with the answer of each. Others are not found.
type metadataService struct {
	*httptest.Server

	mu      sync.Mutex
	answers map[string]string
	asked   map[string]int // answered requests, by path
	refuses func(*http.Request) int
	header  http.Header // of every answer
}

// startService starts a service. refuses returns the status for a request that a real service would refuse, or 0.
func startService(t *testing.T, refuses func(*http.Request) int) *metadataService {
	m := &metadataService{
		answers: map[string]string{},
		asked:   map[string]int{},
		refuses: refuses,
		header:  http.Header{},
	}
	m.Server = httptest.NewServer(http.HandlerFunc(m.serve))
	t.Cleanup(m.Close)

	return m
}

func (m *metadataService) serve(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()

	for name, values := range m.header {
		w.Header()[name] = values
	}

	if status := m.refuses(r); status != 0 {
		w.WriteHeader(status)
		return
	}

	m.asked[r.URL.Path]++
	text, ok := m.answers[r.URL.Path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}

	w.Write([]byte(text))
}

// set has the service answer with a text at a path.
func (m *metadataService) set(path, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers[path] = text
}

// awaitAsked waits until a path was asked for a number of times from now on.
func (m *metadataService) awaitAsked(t *testing.T, path string, times int) {
	t.Helper()

	count := func() int {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.asked[path]
	}

	before := count()
	for end := time.Now().Add(patience); count() < before+times; {
		if time.Now().After(end) {
			t.Fatalf("%s was asked for %d times, want %d", path, count()-before, times)
		}
		time.Sleep(quick)
	}
}
