package worker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

const patience = 30 * time.Second

// bench is a bus with a run of one model, and a worker for it.
type bench struct {
	t      *testing.T
	js     jetstream.JetStream
	server *Server
	cfg    Config
}

func newBench(t *testing.T, url string) *bench {
	t.Helper()
	_, js := prototest.Server(t)
	m := proto.Manifest{
		Schema: proto.ManifestSchema, Run: "r", State: proto.StateInProgress,
		Input: proto.Input{Requests: 1, Models: map[string]int{"m": 1}},
	}
	if err := proto.MakeBuckets(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	runs, err := proto.OpenRuns(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.EnsureStreams(t.Context(), js, m, proto.Limits{WorkBytes: 64 << 20, ResultsBytes: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := runs.Create(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	server, err := NewServer(url, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return &bench{t: t, js: js, server: server, cfg: Config{
		JS: js, Run: "r", Server: server, Limiter: NewFixedLimit(8), Attempts: 50,
	}}
}

// publish stores a shard.
func (b *bench) publish(id string, requests ...proto.Request) {
	b.t.Helper()
	codec, err := proto.NewCodec()
	if err != nil {
		b.t.Fatal(err)
	}
	defer codec.Close()
	msg := codec.EncodeShard("r", "m", proto.Shard{ID: id, Requests: requests})
	if err := proto.NewObjects(b.js, "r").Offload(b.t.Context(), msg, "shard-"+id, b.js.Conn().MaxPayload()); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.js.PublishMsg(b.t.Context(), msg); err != nil {
		b.t.Fatal(err)
	}
}

// chats makes requests with the numbers from first to last.
func chats(first, last uint32) (requests []proto.Request) {
	for seq := first; seq <= last; seq++ {
		requests = append(requests, proto.Request{
			Seq: seq, CustomID: fmt.Appendf(nil, `"c-%d"`, seq), URL: "/v1/chat/completions",
			Body: fmt.Appendf(nil, `{"model":"m","messages":[{"role":"user","content":"question %d"}]}`, seq),
		})
	}
	return requests
}

// start runs the worker. The returned function stops it and waits for its end.
func (b *bench) start() (w *Worker, stop func()) {
	w = New(b.cfg)
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

// results reads all result lines on the bus, by request.
func (b *bench) results() map[uint32][]string {
	b.t.Helper()
	stream, err := b.js.Stream(b.t.Context(), proto.ResultsStream("r"))
	if err != nil {
		b.t.Fatal(err)
	}
	got := map[uint32][]string{}
	for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
		msg, err := stream.GetMsg(b.t.Context(), seq)
		if err != nil {
			b.t.Fatal(err)
		}
		seqs, err := proto.ResultSeqs(msg.Header)
		if errors.Is(err, proto.ErrFormat) {
			continue // a test put it there
		}
		payload, err := proto.NewObjects(b.js, "r").Payload(b.t.Context(), msg.Header, msg.Data)
		if err != nil {
			b.t.Fatal(err)
		}
		lines, err := proto.SplitLines(payload, len(seqs))
		if err != nil {
			b.t.Fatal(err)
		}
		for i, seq := range seqs {
			got[seq] = append(got[seq], string(lines[i]))
		}
	}
	return got
}

// waiting is the number of shards that are not acknowledged.
func (b *bench) waiting() uint64 {
	b.t.Helper()
	stream, err := b.js.Stream(b.t.Context(), proto.WorkStream("r"))
	if err != nil {
		b.t.Fatal(err)
	}
	return stream.CachedInfo().State.Msgs
}

// finish waits until all shards are done and checks that the first n requests have
// one line each, and that the worker holds nothing any more.
func (b *bench) finish(w *Worker, stop func(), n int) map[uint32][]string {
	b.t.Helper()
	prototest.Poll(b.t, patience, "the acknowledgement of all shards", func() bool { return b.waiting() == 0 })
	stop()
	got := b.results()
	for seq := range uint32(n) {
		if len(got[seq]) != 1 {
			b.t.Errorf("request %d has %d lines", seq, len(got[seq]))
		}
	}
	if len(got) != n {
		b.t.Errorf("results of %d requests, want %d", len(got), n)
	}
	if open, slots := w.open.Load(), len(b.cfg.Limiter.(FixedLimit).slots); open != 0 || slots != 0 || w.stats.InFlight.Load() != 0 {
		b.t.Errorf("%d requests are held, %d slots taken, %d in flight at the end", open, slots, w.stats.InFlight.Load())
	}
	return got
}

// gauge is a handler that knows how many requests it has had at once.
type gauge struct {
	http.Handler
	now, most atomic.Int64
}

func (g *gauge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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

// serve starts an HTTP server and returns its URL.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}
