package webhook

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/promptmill/promptmill/proto/bus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// memoryBucket is a bucket without a bus, for tests of time.
type memoryBucket struct {
	// mu guards the fields below.
	mu      sync.Mutex
	made    time.Time // zero: there is no bucket
	last    uint64
	entries map[string]memoryEntry
	down    bool // each call fails
}

type memoryEntry struct {
	value    []byte
	revision uint64
}

// errAway is the error of a bucket that is down.
var errAway = context.DeadlineExceeded

func (b *memoryBucket) Make(context.Context, bus.Limits) error {
	b.mu.Lock()
	defer b.mu.Unlock()

	if b.made.IsZero() {
		b.made, b.last, b.entries = time.Now(), 0, map[string]memoryEntry{}
	}

	return nil
}

func (b *memoryBucket) State(context.Context) (time.Time, uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()

	switch {
	case b.down:
		return time.Time{}, 0, errAway
	case b.made.IsZero():
		return time.Time{}, 0, jetstream.ErrStreamNotFound
	}

	return b.made, b.last, nil
}

func (b *memoryBucket) Changes(_ context.Context, after uint64) (changed []bus.Entry, last uint64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()

	if b.down {
		return nil, after, errAway
	}

	for key, e := range b.entries {
		if e.revision > after {
			changed = append(changed, bus.Entry{Key: key, Value: e.value})
		}
	}

	slices.SortFunc(changed, func(x, y bus.Entry) int { return strings.Compare(x.Key, y.Key) })

	return changed, max(after, b.last), nil
}

func (b *memoryBucket) Get(_ context.Context, key string) (value []byte, revision uint64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()

	e, ok := b.entries[key]
	switch {
	case b.down:
		return nil, 0, errAway
	case !ok:
		return nil, 0, jetstream.ErrKeyNotFound
	}

	return e.value, e.revision, nil
}

func (b *memoryBucket) Create(ctx context.Context, key string, value []byte) error {
	if _, _, err := b.Get(ctx, key); err == nil {
		return jetstream.ErrKeyExists
	}
	return b.Put(ctx, key, value)
}

func (b *memoryBucket) Update(_ context.Context, key string, value []byte, revision uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()

	if b.down {
		return errAway
	}

	if b.entries[key].revision != revision {
		return &jetstream.APIError{Code: 400, ErrorCode: jetstream.JSErrCodeStreamWrongLastSequence}
	}

	b.last++
	b.entries[key] = memoryEntry{value, b.last}

	return nil
}

func (b *memoryBucket) Put(_ context.Context, key string, value []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()

	if b.down {
		return errAway
	}

	b.last++
	b.entries[key] = memoryEntry{value, b.last}

	return nil
}

// setDown has each call of the bucket fail, or not any more.
func (b *memoryBucket) setDown(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
}

// lose loses the bucket with all its entries.
func (b *memoryBucket) lose() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.made, b.entries = time.Time{}, nil
}

// attempts records what an endpoint gets, and answers it.
type attempts struct {
	// mu guards the fields below.
	mu sync.Mutex
	// answer returns the answer to the n-th attempt, from 1.
	answer func(ctx context.Context, n int) Answer
	at     []time.Duration // since begun
	events []Event
	begun  time.Time
}

// endpoint returns an endpoint of a name whose attempts are recorded.
func (a *attempts) endpoint(name string) Endpoint {
	a.begun = time.Now()

	return Endpoint{
		ID:   HashAddress(name),
		Name: name,
		Send: func(ctx context.Context, e Event) Answer {
			a.mu.Lock()
			a.at, a.events = append(a.at, time.Since(a.begun)), append(a.events, e)
			n, answer := len(a.at), a.answer
			a.mu.Unlock()

			return answer(ctx, n)
		},
		Timeout: answerTime,
		AtOnce:  atOnce,
	}
}

// times returns the times of the attempts.
func (a *attempts) times() []time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.at)
}

// list returns the events that came.
func (a *attempts) list() []Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.events)
}

// answerWith changes the answer.
func (a *attempts) answerWith(answer func(ctx context.Context, n int) Answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

// taken answers each attempt with success, and refused none.
func taken(context.Context, int) Answer   { return Answer{Delivered: true, Status: 200, Text: "200 OK"} }
func refused(context.Context, int) Answer { return Answer{Status: 500, Text: "500"} }

// startSender starts a sender until the end of the test, or until stop is called.
func startSender(t *testing.T, b Bucket, endpoints ...Endpoint) (s *Sender, stop func()) {
	t.Helper()

	s, err := Open(t.Context(), Config{Bucket: b, Endpoints: endpoints, Process: "here"})
	must(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()

	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})

	t.Cleanup(stop)

	return s, stop
}
