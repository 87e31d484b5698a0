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

// Config is what a worker needs. JS, Run, Models, Server and Limiter are required.
type Config struct {
	JS       jetstream.JetStream
	Run      string
	Models   []string // of which it takes shards
	Server   *Server
	Limiter  Limiter
	Name     string        // in the results. Defaults to "worker".
	Attempts int           // at most, for each request. Defaults to 5.
	Timeout  time.Duration // of one attempt. Defaults to 30 minutes.
	Grace    time.Duration // to finish what is in flight after a stop. Defaults to 30 s.
	Log      zerolog.Logger
}

// Stats is what a worker does. It may be read at any time.
type Stats struct {
	InFlight    atomic.Int64 // requests at the model server now
	Retries     atomic.Int64 // attempts that were or will be followed by another
	Shards      atomic.Int64 // acknowledged
	Redelivered atomic.Int64 // shards that came with a part of their results done
	Down        atomic.Bool  // the model server cannot be reached
	Stalled     atomic.Bool  // the bus does not take results
}

// Worker runs the requests of one run.
type Worker struct {
	cfg     Config
	codec   *proto.Codec
	objects *proto.Objects
	results jetstream.Stream
	queue   *queue
	stats   Stats

	open      atomic.Int64  // requests held that have no result yet
	ended     atomic.Int64  // requests that got their result
	rate      rate          // of the fetch loop
	freed     chan struct{} // has one element after open went down
	shards    sync.WaitGroup
	attempts  sync.WaitGroup
	consumers map[string]jetstream.Consumer // by model; the fetch loop's
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
	return &Worker{
		cfg: cfg, objects: proto.NewObjects(cfg.JS, cfg.Run),
		queue: newQueue(), freed: make(chan struct{}, 1), consumers: map[string]jetstream.Consumer{},
	}
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
	if w.results, err = w.cfg.JS.Stream(ctx, proto.ResultsStream(w.cfg.Run)); err != nil {
		return fmt.Errorf("worker: look at stream %s: %w", proto.ResultsStream(w.cfg.Run), err)
	}
	// Three ends, one after the other: of taking work (ctx), of requests in flight
	// (calls), and of talking to the bus (bus).
	calls, cutCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer cutCalls()
	bus, cutBus := context.WithCancel(context.WithoutCancel(ctx))
	defer cutBus()

	var loops sync.WaitGroup
	loops.Go(func() { w.dispatch(ctx, calls) })
	loops.Go(func() { w.fetch(ctx, bus) })
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

// dispatch gives each task a slot, in order.
func (w *Worker) dispatch(ctx, calls context.Context) {
	for {
		t, ok := w.queue.pop(ctx)
		if !ok {
			return
		}
		if w.stats.Down.Load() {
			w.awaitServer(ctx)
		}
		if err := w.cfg.Limiter.Acquire(ctx); err != nil {
			t.handBack()
			return
		}
		w.attempts.Go(func() { w.attempt(calls, t) })
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
	if ctx.Err() != nil && j.verdict != final { // cut off by the end of the grace period
		t.handBack()
		return
	}
	if j.verdict == unsent {
		if w.stats.Down.CompareAndSwap(false, true) {
			w.cfg.Log.Warn().Str("server", w.cfg.Server.URL()).Err(errors.New(j.result.Err.Message)).Msg("model server is not reachable; waiting for it")
		}
		if !w.queue.pushAfter(t, backoff(1)) {
			t.handBack()
		}
		return
	}
	t.attempts++
	if j.verdict == final || t.attempts >= w.cfg.Attempts {
		t.finish(j.result, latency)
		return
	}
	w.stats.Retries.Add(1)
	w.cfg.Log.Debug().Uint32("seq", t.Seq).Str("reason", j.reason).Int("attempt", t.attempts).Msg("retry")
	if !w.queue.pushAfter(t, max(j.after, backoff(t.attempts))) {
		t.handBack()
	}
}

var scanners = sync.Pool{New: func() any { return new(proto.Scanner) }}

// credit adds to the number of requests held.
func (w *Worker) credit(n int) {
	w.open.Add(int64(n))
	if n < 0 {
		select {
		case w.freed <- struct{}{}:
		default:
		}
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

// room is how many more requests the worker wants to hold: as many as it has slots,
// and those held ahead. What waits for its next attempt takes no room, up to a bound.
func (w *Worker) room() int {
	slots := w.cfg.Limiter.Limit()
	w.rate.measure(w.ended.Load(), time.Now())
	want := slots + max(8, slots/4, w.rate.ahead)
	held := int(w.open.Load())
	return min(want-(held-w.queue.delayed()), 8*want-held)
}

// fetch pulls shards whenever there is room. The pull loop is our own, and asks for
// just what fits: nats.go's prefetching hoards what other workers could run.
func (w *Worker) fetch(ctx, bus context.Context) {
	wait := 500 * time.Millisecond
	if len(w.cfg.Models) > 1 {
		wait = 50 * time.Millisecond // each model has its turn
	}
	size := 1 // of the latest shard, in requests
	for turn := 0; ctx.Err() == nil; turn++ {
		for w.room() < min(size, w.cfg.Limiter.Limit()) || w.stats.Down.Load() {
			select {
			case <-w.freed:
			case <-time.After(time.Second): // a delayed task has come back, or the server
			case <-ctx.Done():
				return
			}
		}
		model := w.cfg.Models[turn%len(w.cfg.Models)]
		got, err := w.pull(ctx, bus, model, max(1, w.room()/size), wait)
		if got > 0 {
			size = got
		}
		if err != nil && ctx.Err() == nil {
			w.cfg.Log.Warn().Err(err).Msg("pull shards; trying on")
			sleep(ctx, time.Second)
		}
	}
}

// maxPull bounds the bytes of one pull, so that a slow link does not make the server
// drop the connection.
const maxPull = 32 << 20

// pull asks for up to n shards of a model and starts them. It returns the number of
// requests in the last one.
func (w *Worker) pull(ctx, bus context.Context, model string, n int, wait time.Duration) (size int, err error) {
	consumer, err := w.consumer(ctx, model)
	if err != nil {
		return 0, err
	}
	batch, err := consumer.Fetch(min(n, 256), jetstream.FetchMaxWait(wait), jetstream.FetchMaxBytes(max(maxPull, int(w.cfg.JS.Conn().MaxPayload()))))
	if err != nil {
		delete(w.consumers, model)
		return 0, fmt.Errorf("pull from %s: %w", proto.WorkStream(w.cfg.Run), err)
	}
	for msg := range batch.Messages() {
		if ctx.Err() != nil {
			msg.Nak()
			continue
		}
		if got := w.take(bus, msg); got > 0 {
			size = got
		}
	}
	if err := batch.Error(); err != nil {
		delete(w.consumers, model)
		return size, fmt.Errorf("pull from %s: %w", proto.WorkStream(w.cfg.Run), err)
	}
	return size, nil
}

// consumer returns the durable consumer of a model's shards.
func (w *Worker) consumer(ctx context.Context, model string) (jetstream.Consumer, error) {
	if c, ok := w.consumers[model]; ok {
		return c, nil
	}
	c, err := withTimeout(ctx, func(ctx context.Context) (jetstream.Consumer, error) {
		return w.cfg.JS.Consumer(ctx, proto.WorkStream(w.cfg.Run), proto.ConsumerName(model))
	})
	if err != nil {
		return nil, fmt.Errorf("look for consumer %s: %w", proto.ConsumerName(model), err)
	}
	w.consumers[model] = c
	return c, nil
}

// take starts to work on a shard and returns the number of its requests.
func (w *Worker) take(bus context.Context, msg jetstream.Msg) int {
	payload, err := w.objects.Payload(bus, msg.Headers(), msg.Data())
	if errors.Is(err, jetstream.ErrObjectNotFound) || errors.Is(err, jetstream.ErrBucketNotFound) {
		w.cfg.Log.Error().Err(err).Str("subject", msg.Subject()).Msg("drop a shard whose object is lost")
		msg.TermWithReason("its object is lost")
		return 0
	}
	if err != nil {
		w.cfg.Log.Warn().Err(err).Str("subject", msg.Subject()).Msg("hand shard back: cannot read its object")
		msg.NakWithDelay(time.Second)
		return 0
	}
	shard, err := w.codec.DecodeShard(msg.Headers(), payload)
	if err != nil {
		// Nobody can ever run it. Its requests are found missing, and published anew.
		w.cfg.Log.Error().Err(err).Str("subject", msg.Subject()).Msg("drop a shard that cannot be read")
		msg.TermWithReason("cannot be read: " + err.Error())
		return 0
	}
	w.credit(len(shard.Requests))
	h := &held{w: w, msg: msg, id: shard.ID}
	w.shards.Go(func() { h.run(bus, shard.Requests) })
	return len(shard.Requests)
}

// awaitServer waits until the model server gives an answer, whatever it says.
func (w *Worker) awaitServer(ctx context.Context) {
	for ctx.Err() == nil {
		if _, err := w.cfg.Server.Models(ctx); !errors.Is(err, ErrUnreachable) {
			w.stats.Down.Store(false)
			w.cfg.Log.Info().Str("server", w.cfg.Server.URL()).Msg("model server answers again")
			return
		}
		sleep(ctx, time.Second)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
