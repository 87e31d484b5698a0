package worker

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
)

const patience = 2 * time.Minute

// testBed is a bus with runs, and the configuration of a worker for them.
type testBed struct {
	t    testing.TB
	node nats.InProcessConnProvider // for further connections
	js   jetstream.JetStream
	runs *bus.RunStore
	cfg  Config

	longPull time.Duration // of the worker; 0: as usual
}

// newEmptyBed starts a bus without a run and without the buckets that runs need.
func newEmptyBed(t testing.TB) *testBed {
	t.Helper()
	node, js := prototest.Server(t)
	return &testBed{t: t, node: node, js: js}
}

// newTestBed starts a bus that can have runs. The worker works for all of them.
func newTestBed(t testing.TB, url string) *testBed {
	t.Helper()
	b := newEmptyBed(t).withServer(url)
	b.createBuckets()
	return b
}

// newRunBed starts a bus with the run "r" of the model "m". The worker works for it alone.
func newRunBed(t testing.TB, url string) *testBed {
	t.Helper()
	b := newTestBed(t, url)
	b.addRun("r", 0, "m")
	b.cfg.Run = "r"
	return b
}

// withServer returns the same bus with another worker, at the model server with the URL.
func (b *testBed) withServer(url string) *testBed {
	b.t.Helper()

	server, err := modelserver.New(url, "")
	if err != nil {
		b.t.Fatal(err)
	}

	b.t.Cleanup(server.Close)
	other := *b
	other.cfg = Config{JS: b.js, Server: server, Limiter: limit.Fixed(8), Attempts: 50}

	return &other
}

func (b *testBed) createBuckets() {
	b.t.Helper()

	if err := bus.CreateBuckets(b.t.Context(), b.js, bus.Limits{}); err != nil {
		b.t.Fatal(err)
	}

	opened, err := bus.Open(b.t.Context(), b.js)
	if err != nil {
		b.t.Fatal(err)
	}

	runs := opened.Runs

	b.runs = runs
}

// addRun creates a run without shards.
func (b *testBed) addRun(run string, priority int, models ...string) {
	b.t.Helper()
	b.createRun(b.createStreams(run, priority, models...))
}

// createStreams creates the streams of a run. No worker sees the run yet.
func (b *testBed) createStreams(run string, priority int, models ...string) proto.Manifest {
	b.t.Helper()

	m := proto.Manifest{
		Schema: proto.ManifestSchema, Run: run, State: proto.StateInProgress,
		Policy: proto.RunPolicy{Priority: priority},
		Input:  proto.Input{Requests: 1 << 20, Models: map[string]int{}},
	}
	for _, model := range models {
		m.Input.Models[model] = 1
	}

	if err := bus.EnsureStreams(b.t.Context(), b.js, m, bus.Limits{
		WorkBytes:    64 << 20,
		ResultsBytes: 64 << 20,
	}); err != nil {
		b.t.Fatal(err)
	}

	return m
}

// createRun stores the manifest of a run, so that workers see it.
func (b *testBed) createRun(m proto.Manifest) {
	b.t.Helper()
	if err := b.runs.Create(b.t.Context(), m); err != nil {
		b.t.Fatal(err)
	}
}

// publishShard stores a shard of the run "r".
func (b *testBed) publishShard(id string, requests ...proto.Request) {
	b.t.Helper()
	b.publishShardTo("r", "m", id, b.js.Conn().MaxPayload(), requests...)
}

// publishShardTo stores a shard, in an object if the shard is larger than limit.
func (b *testBed) publishShardTo(run, model, id string, limit int64, requests ...proto.Request) {
	b.t.Helper()

	msg := proto.EncodeShard(run, model, proto.Shard{ID: id, Requests: requests})
	if err := bus.New(b.js).Objects(run).Offload(b.t.Context(), msg, proto.ShardObject(id), limit); err != nil {
		b.t.Fatal(err)
	}

	if _, err := b.js.PublishMsg(b.t.Context(), msg); err != nil {
		b.t.Fatal(err)
	}
}

// publishRange stores the requests from first up to end, in shards of size requests.
func (b *testBed) publishRange(run, model string, first, end, size uint32) {
	b.t.Helper()
	for ; first < end; first += size {
		b.publishShardTo(run, model, proto.ShardID(0, uint64(first)), b.js.Conn().MaxPayload(),
			makeRequests(run, model, first, min(first+size, end)-1)...)
	}
}

// makeRequests returns the requests with the indexes from first to last.
func makeRequests(run, model string, first, last uint32) (requests []proto.Request) {
	for index := first; index <= last; index++ {
		requests = append(requests, proto.Request{
			Index:    index,
			CustomID: fmt.Appendf(nil, `"c-%d"`, index),
			URL:      "/v1/chat/completions",
			Body: fmt.Appendf(nil, `{"model":%q,"messages":[{"role":"user","content":"%s question %d"}]}`,
				model, run, index),
		})
	}

	return requests
}

// chatRequests returns requests of the run "r".
func chatRequests(first, last uint32) []proto.Request { return makeRequests("r", "m", first, last) }

// newWorker returns a worker with a configuration that works.
func newWorker(t testing.TB, cfg Config) *Worker {
	t.Helper()

	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}

	return w
}

// noBus is the handle of a bus for a worker that does not run.
type noBus struct{ jetstream.JetStream }

// startWorker runs a worker, after the changes. The returned function stops it and waits for its
// end.
func (b *testBed) startWorker(change ...func(*Worker)) (w *Worker, stop func()) {
	w = newWorker(b.t, b.cfg)
	for _, c := range change {
		c(w)
	}

	if b.longPull > 0 {
		w.fetch.longPull = b.longPull
	}

	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stopped := false
	stop = func() {
		b.t.Helper()

		if stopped {
			return
		}

		stopped = true
		cancel()

		select {
		case err := <-done:
			if err != nil {
				b.t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			b.t.Error("the worker does not end")
		}
	}

	b.t.Cleanup(stop)

	return w, stop
}

// results reads all output lines of the run "r", by request index.
func (b *testBed) results() map[uint32][]string {
	b.t.Helper()
	return b.resultsOf("r")
}

// resultsOf reads all output lines of a run, by request index.
func (b *testBed) resultsOf(run string) map[uint32][]string {
	b.t.Helper()

	got := map[uint32][]string{}
	for _, msg := range b.resultMessages(run) {
		if proto.IsDeliveryNote(msg.Header) {
			continue
		}

		indexes, err := proto.ParseIndexes(msg.Header.Get(proto.HeaderIndexes), proto.MaxShardSize)
		if err != nil || len(indexes) == 0 || msg.Header.Get(proto.HeaderVersion) != proto.Version {
			continue // not a result: a test published it
		}

		payload, err := bus.New(b.js).Answers(run).Payload(b.t.Context(), msg.Header, msg.Data)
		if err != nil {
			b.t.Fatal(err)
		}

		lines, err := proto.SplitLines(payload, len(indexes))
		if err != nil {
			b.t.Fatal(err)
		}

		for i, index := range indexes {
			got[index] = append(got[index], string(lines[i]))
		}
	}

	return got
}

func (b *testBed) resultMessages(run string) (list []*jetstream.RawStreamMsg) {
	b.t.Helper()

	stream, err := b.js.Stream(b.t.Context(), proto.ResultsStream(run))
	if err != nil {
		b.t.Fatal(err)
	}

	for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
		msg, err := stream.GetMsg(b.t.Context(), seq)
		if err != nil {
			b.t.Fatal(err)
		}
		list = append(list, msg)
	}

	return list
}

// unackedShards returns the number of shards that are not acknowledged.
func (b *testBed) unackedShards(run string) uint64 {
	b.t.Helper()
	stream, err := b.js.Stream(b.t.Context(), proto.WorkStream(run))
	if err != nil {
		b.t.Fatal(err)
	}
	return stream.CachedInfo().State.Msgs
}

// workConsumer returns the consumer from which workers get the shards of a run for a model.
func (b *testBed) workConsumer(run, model string) jetstream.Consumer {
	b.t.Helper()
	c, err := b.js.Consumer(b.t.Context(), proto.WorkStream(run), proto.ConsumerName(model))
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// deliveredShards returns how many shards of a run for a model were delivered to workers.
func (b *testBed) deliveredShards(run, model string) uint64 {
	b.t.Helper()
	return b.workConsumer(run, model).CachedInfo().Delivered.Consumer
}

// awaitRun waits until all shards of a run are acknowledged.
func (b *testBed) awaitRun(run string) {
	b.t.Helper()
	prototest.Poll(b.t, patience, "the acknowledgement of all shards of "+run, func() bool {
		return b.unackedShards(run) == 0
	})
}

// awaitKnown waits until a worker knows a run.
func (b *testBed) awaitKnown(w *Worker, run string) {
	b.t.Helper()
	prototest.Poll(b.t, patience, "the worker to know the run "+run, func() bool {
		w.runs.mu.Lock()
		defer w.runs.mu.Unlock()
		return w.runs.byID[run] != nil
	})
}

// checkLines checks that the first n requests of a run have one line each, and returns them.
func (b *testBed) checkLines(run string, n int) map[uint32][]string {
	b.t.Helper()

	got := b.resultsOf(run)
	for index := range uint32(n) {
		if len(got[index]) != 1 {
			b.t.Errorf("request %d of %s has %d lines", index, run, len(got[index]))
		}
	}

	if len(got) != n {
		b.t.Errorf("results of %d requests of %s, want %d", len(got), run, n)
	}

	return got
}

// checkIdle checks that a worker holds nothing any more.
func (b *testBed) checkIdle(w *Worker) {
	b.t.Helper()
	held, slots, inFlight := w.jobs.held.load(), b.cfg.Limiter.InFlight(), w.stats.InFlight.Load()
	if held != 0 || slots != 0 || inFlight != 0 {
		b.t.Errorf("%d requests are held, %d slots taken, %d in flight at the end", held, slots, inFlight)
	}
}

// finishRun waits until all shards of the run "r" are acknowledged. It checks that the first n
// requests have one line each, and that the worker holds nothing any more.
func (b *testBed) finishRun(w *Worker, stop func(), n int) map[uint32][]string {
	b.t.Helper()
	b.awaitRun("r")
	stop()
	got := b.checkLines("r", n)
	b.checkIdle(w)
	return got
}

// finishAnswered is finishRun for a run whose requests all have an answer.
func (b *testBed) finishAnswered(w *Worker, stop func(), n int) {
	b.t.Helper()
	for index, lines := range b.finishRun(w, stop, n) {
		if !strings.Contains(lines[0], `"status_code":200`) {
			b.t.Errorf("request %d: %s", index, lines[0])
		}
	}
}
