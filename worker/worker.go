package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
)

// Config is what a worker needs. JS, Server and Limiter are required.
type Config struct {
	JS       jetstream.JetStream
	Run      string // the one run to work for; empty: all that need a model of the server
	Server   *Server
	Limiter  Limiter
	Name     string        // in the results and in its announcement. Defaults to "worker".
	Host     string        // in its announcement
	Version  string        // of the program, in its announcement
	GPU      []proto.GPU   // of the host, in its announcement; nil: unknown
	Attempts int           // at most, for each request. Defaults to 5.
	Timeout  time.Duration // of one attempt. Defaults to 30 minutes.
	Grace    time.Duration // to finish what is in flight after a stop. Defaults to 30 s.
	Log      zerolog.Logger
}

// Stats is what a worker does. It may be read at any time.
type Stats struct {
	InFlight    atomic.Int64 // requests at the model server now
	Done        atomic.Int64 // requests that got their result
	Retries     atomic.Int64 // attempts that were or will be followed by another
	Shards      atomic.Int64 // acknowledged
	Redelivered atomic.Int64 // shards that came with a part of their results done
	Down        atomic.Bool  // the model server cannot be reached
	Stalled     atomic.Bool  // the bus does not take results
}

// Worker runs requests at one model server.
type Worker struct {
	cfg     Config
	codec   *proto.Codec
	runs    *proto.Runs
	queue   *queue
	feeds   feeds
	serving atomic.Pointer[[]string] // models of the server; nil: it does not tell
	stats   Stats

	latency  latency
	others   others        // the fetch loop's
	open     atomic.Int64  // requests held that have no result yet
	rate     rate          // of the fetch loop
	changed  chan struct{} // has one element after something changed for the fetch loop
	shards   sync.WaitGroup
	attempts sync.WaitGroup
}

// New returns a worker.
func New(cfg Config) *Worker {
	if cfg.Name == "" {
		cfg.Name = "worker"
	}
	if cfg.Attempts == 0 {
		cfg.Attempts = 5
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Minute
	}
	if cfg.Grace == 0 {
		cfg.Grace = 30 * time.Second
	}
	return &Worker{cfg: cfg, queue: newQueue(), feeds: feeds{runs: map[string]*feed{}}, changed: make(chan struct{}, 1)}
}

// Stats is what the worker does.
func (w *Worker) Stats() *Stats { return &w.stats }

// Run works until ctx ends. Then it takes no more work, finishes what is in flight
// within the grace period, hands back the rest and returns nil. It returns an error
// only when it cannot begin.
func (w *Worker) Run(ctx context.Context) error {
	var err error
	if w.codec, err = proto.NewCodec(); err != nil {
		return err
	}
	defer w.codec.Close()
	presence, err := w.openBus(ctx)
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	if ctx.Err() != nil {
		return nil
	}
	// Three ends, one after the other: of taking work (ctx), of requests in flight
	// (calls), and of talking to the bus (bus).
	calls, cutCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer cutCalls()
	bus, cutBus := context.WithCancel(context.WithoutCancel(ctx))
	defer cutBus()

	w.others.presence = presence
	w.ask(ctx)
	var loops sync.WaitGroup
	loops.Go(func() { w.watchServer(ctx) })
	loops.Go(func() { w.dispatch(ctx) })
	loops.Go(func() { w.fetch(ctx, bus) })
	loops.Go(func() { w.announce(ctx, presence) })
	loops.Go(func() { w.follow(ctx, calls) })
	<-ctx.Done()
	for _, t := range w.queue.close() {
		t.handBack()
	}
	loops.Wait()
	grace := time.AfterFunc(w.cfg.Grace, cutCalls)
	w.attempts.Wait()
	grace.Stop()
	last := time.AfterFunc(5*time.Second, cutBus)
	w.shards.Wait()
	last.Stop()
	return nil
}

// openBus opens the buckets that all runs share, waiting for somebody to make them.
func (w *Worker) openBus(ctx context.Context) (presence *proto.Presence, err error) {
	for said := false; ctx.Err() == nil; said = true {
		presence, err = withTimeout(ctx, func(ctx context.Context) (*proto.Presence, error) {
			if w.runs, err = proto.OpenRuns(ctx, w.cfg.JS); err != nil {
				return nil, err
			}
			return proto.OpenPresence(ctx, w.cfg.JS)
		})
		if err == nil {
			return presence, nil
		}
		if w.cfg.JS.Conn().IsClosed() {
			return nil, err
		}
		if !said {
			w.cfg.Log.Warn().Err(err).Msg("the bus has no runs yet; waiting")
		}
		sleep(ctx, time.Second)
	}
	return nil, nil
}

// dispatch gives each task a slot, in order.
func (w *Worker) dispatch(ctx context.Context) {
	for {
		t, ok := w.queue.pop(ctx)
		if !ok {
			return
		}
		for w.stats.Down.Load() && ctx.Err() == nil {
			sleep(ctx, 50*time.Millisecond)
		}
		if err := w.cfg.Limiter.Acquire(ctx); err != nil {
			t.handBack()
			return
		}
		if t.shard.feed.paused.Load() {
			w.cfg.Limiter.Release()
			t.handBack()
			continue
		}
		w.attempts.Go(func() { w.attempt(t.shard.feed.calls, t) })
	}
}

// attempt runs a task once, in a slot that it gives back.
func (w *Worker) attempt(ctx context.Context, t *task) {
	begin := time.Now()
	if t.attempts == 0 {
		t.first = begin
	}
	w.stats.InFlight.Add(1)
	call, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	scan := scanners.Get().(*proto.Scanner)
	j := judge(w.cfg.Server.post(call, t.Request), scan)
	scanners.Put(scan)
	cancel()
	w.stats.InFlight.Add(-1)
	w.cfg.Limiter.Release()
	latency := time.Since(begin)
	if ctx.Err() != nil && j.verdict != final { // cut off by the end of the grace period, or of the run
		t.handBack()
		return
	}
	if j.verdict == unsent {
		if w.stats.Down.CompareAndSwap(false, true) {
			w.cfg.Log.Warn().Str("server", w.cfg.Server.URL()).Err(errors.New(j.result.Err.Message)).Msg("model server is not reachable; waiting for it")
		}
		w.later(t, backoff(1))
		return
	}
	t.attempts++
	if j.verdict == final {
		w.latency.add(latency)
	}
	if j.verdict == final || t.attempts >= w.cfg.Attempts {
		t.finish(j.result, latency)
		return
	}
	w.stats.Retries.Add(1)
	w.cfg.Log.Debug().Uint32("seq", t.Seq).Str("reason", j.reason).Int("attempt", t.attempts).Msg("retry")
	w.later(t, max(j.after, backoff(t.attempts)))
}

// later queues a task again after a wait, or hands it back when the worker stops or
// its run is not worked for any more.
func (w *Worker) later(t *task, wait time.Duration) {
	if t.shard.feed.paused.Load() || !w.queue.pushAfter(t, wait) {
		t.handBack()
	}
}

var scanners = sync.Pool{New: func() any { return new(proto.Scanner) }}

// wake tells the fetch loop that something has changed.
func (w *Worker) wake() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// ahead is how much work is held beyond the slots, so that no slot waits for the bus:
// what the model answers in this time, as it has answered lately.
const ahead = 50 * time.Millisecond

// rate measures how many requests end in the time that is held ahead.
type rate struct {
	since time.Time
	ended int64 // at since
	ahead int
}

// measure brings the rate up to date.
func (r *rate) measure(ended int64, now time.Time) {
	if passed := now.Sub(r.since); passed >= 2*ahead {
		r.ahead = int(float64(ended-r.ended) * float64(ahead) / float64(passed))
		r.since, r.ended = now, ended
	}
}

// room is how many more requests the worker wants: so many that all slots are taken,
// and those held ahead. A pull brings whole shards, so it may come to hold the rest of
// a shard more. What waits for its next attempt takes no room, up to a bound.
func (w *Worker) room() int {
	w.rate.measure(w.stats.Done.Load(), time.Now())
	want := w.cfg.Limiter.Limit() + max(1, w.rate.ahead)
	held := int(w.open.Load())
	return min(want-(held-w.queue.delayed()), 8*want-held)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
