package worker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/sim"
)

// flaky is a bus whose store of large answers fails a few times, as it does while a server of the
// cluster restarts.
type flaky struct {
	jetstream.JetStream
	failures atomic.Int64
}

func (f *flaky) PublishMsg(
	ctx context.Context, msg *nats.Msg, opts ...jetstream.PublishOpt,
) (*jetstream.PubAck, error) {
	if strings.Contains(msg.Subject, ".answers.") && f.failures.Add(-1) >= 0 {
		return nil, errors.New("no server")
	}
	return f.JetStream.PublishMsg(ctx, msg, opts...)
}

// bigAnswer is an answer that does not fit into a message.
var bigAnswer = []byte(`{"choices":[{"text":"` + strings.Repeat("x", 17<<20) + `"}]}`)

// bigAnswers is a model server that gives bigAnswer to each request of [makeRequests].
type bigAnswers struct{ runs atomic.Int64 }

func (s *bigAnswers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}

	// A question about the server, or a probe: a server that does not list its models in time is
	// sent an empty request.
	if !bytes.Contains(body, []byte(`"messages"`)) {
		http.NotFound(w, r)
		return
	}

	s.runs.Add(1)
	w.Write(bigAnswer)
}

// A result that does not fit into a message is stored although its stream was away.
func TestWorkerStoresBigResultLater(t *testing.T) {
	t.Parallel()

	b := newRunBed(t, startServer(t, new(bigAnswers)))
	f := &flaky{JetStream: b.js}
	f.failures.Store(1)
	b.cfg.JS = f
	b.publishShard("0-0", chatRequests(0, 0)...)
	w, stop := b.startWorker()
	b.finishRun(w, stop, 1)
	if f.failures.Load() >= 1 {
		t.Error("the stream of large answers was not asked")
	}
}

// A redelivered shard does not run a request that has its result, though the result does not fit
// into a message.
func TestWorkerKnowsBigResult(t *testing.T) {
	t.Parallel()

	server := new(bigAnswers)
	b := newRunBed(t, startServer(t, server))

	for delivery := range 2 {
		b.publishShard("0-0", chatRequests(0, 0)...)
		w, stop := b.startWorker()
		b.finishRun(w, stop, 1)
		if n := w.Stats().Redelivered.Load(); n != int64(delivery) {
			t.Errorf("delivery %d: %d shards count as redelivered", delivery, n)
		}
	}

	if n := server.runs.Load(); n != 1 {
		t.Errorf("the request was run %d times, want once", n)
	}
}

// A shard whose object is lost can never run: the collector has to find its requests
// missing, and does so only once the shard is off the bus.
func TestWorkerDropsShardWithoutObject(t *testing.T) {
	t.Parallel()

	for _, bucket := range []bool{false, true} {
		b := newRunBed(t, startServer(t, sim.New(sim.Config{})))
		if bucket {
			if err := bus.New(b.js).Objects("r").Put(t.Context(), "other", nil); err != nil {
				t.Fatal(err)
			}
		}

		msg := nats.NewMsg(proto.WorkSubject("r", "m", "0-0"))
		msg.Header = proto.EncodeResults("r", "0-0", []uint32{0}, nil).Header
		msg.Header.Set(proto.HeaderObject, proto.ShardObject("0-0"))
		if _, err := b.js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}

		_, stop := b.startWorker()
		prototest.Poll(t, patience/3, "the shard to be dropped", func() bool { return b.unackedShards("r") == 0 })
		stop()
	}
}

// Results name the object in which their requests came, so that it can be deleted.
func TestResultsNameTheirSource(t *testing.T) {
	t.Parallel()

	b := newRunBed(t, startServer(t, sim.New(sim.Config{})))
	b.publishShardTo("r", "m", "0-0", 0, chatRequests(0, 3)...) // all shards go into objects
	b.publishShard("0-1", chatRequests(4, 7)...)
	w, stop := b.startWorker()
	b.finishRun(w, stop, 8)

	for _, msg := range b.resultMessages("r") {
		want := ""
		if msg.Header.Get(proto.HeaderShard) == "0-0" {
			want = "work-0-0"
		}

		if got := msg.Header.Get(proto.HeaderSource); got != want {
			t.Errorf("the results of shard %s have the source %q, want %q",
				msg.Header.Get(proto.HeaderShard), got, want)
		}
	}
}
