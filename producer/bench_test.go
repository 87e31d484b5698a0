package producer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
)

// bench is a run on a bus of its own, ready to be published.
type bench struct {
	js   jetstream.JetStream
	runs *bus.RunStore
	m    proto.Manifest
}

func newBench(t *testing.T, text string, s proto.Settings, workBytes int64) *bench {
	t.Helper()
	_, js := prototest.Server(t)
	return addRun(t, js, "r", writeFile(t, "in", text), s, workBytes)
}

func addRun(t *testing.T, js jetstream.JetStream, run, file string, s proto.Settings, workBytes int64) *bench {
	t.Helper()

	in, _, err := Validate(t.Context(), Source{Files: []string{file}}, s, nil)
	if err != nil {
		t.Fatal(err)
	}

	b := &bench{js: js, m: proto.Manifest{
		Schema:   proto.SchemaFor(s),
		Run:      run,
		State:    proto.StateInProgress,
		Input:    in,
		Settings: s,
	}}
	if err := bus.EnsureStreams(t.Context(), js, b.m, bus.Limits{
		WorkBytes:    workBytes,
		ResultsBytes: 1 << 20,
	}); err != nil {
		t.Fatal(err)
	}

	if err = bus.CreateBuckets(t.Context(), js, bus.Limits{}); err != nil {
		t.Fatal(err)
	}

	opened, err := bus.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}

	b.runs = opened.Runs
	if err := b.runs.Create(t.Context(), b.m); err != nil {
		t.Fatal(err)
	}

	return b
}

// mustNew returns a producer.
func mustNew(t *testing.T, cfg Config) *Producer {
	t.Helper()

	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}

	return p
}

// start runs a new producer; stop ends it and returns the error of Run.
func (b *bench) start(t *testing.T, change ...func(*Config)) (p *Producer, stop func() error) {
	t.Helper()

	cfg := Config{JS: b.js, Run: b.m.Run, Log: zerolog.Nop()}
	for _, change := range change {
		change(&cfg)
	}

	p = mustNew(t, cfg)
	p.windowRequests, p.checkpointEvery = 1000, 0 // small windows, and all checkpoints that there are
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	ended := false
	var err error
	stop = func() error {
		if !ended {
			cancel()
			err, ended = <-done, true
		}
		return err
	}

	t.Cleanup(func() { stop() })

	return p, stop
}

func (b *bench) published(t *testing.T) bool {
	t.Helper()
	m, err := b.runs.Get(t.Context(), b.m.Run)
	if err != nil {
		t.Fatal(err)
	}
	return m.Publish.Done
}

// publish lets one producer publish everything.
func (b *bench) publish(t *testing.T, change ...func(*Config)) {
	t.Helper()
	_, stop := b.start(t, change...)
	prototest.Poll(t, 20*time.Second, "the whole input in the stream", func() bool { return b.published(t) })
	stop()
}

// nextRound begins another round, as a collector that misses requests does. base is the work
// stream's sequence at that time.
func (b *bench) nextRound(t *testing.T, missing ...uint32) (base uint64) {
	t.Helper()

	data, err := roaring.BitmapOf(missing...).ToBytes()
	if err != nil {
		t.Fatal(err)
	}

	if err := bus.New(b.js).Objects(b.m.Run).Put(t.Context(), "missing-1", data); err != nil {
		t.Fatal(err)
	}

	base = b.state(t).LastSeq
	err = b.runs.Update(t.Context(), b.m.Run, func(m *proto.Manifest) error {
		m.Publish = proto.PublishState{Round: 1, FirstSequence: base, Missing: "missing-1"}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	return base
}

func (b *bench) state(t *testing.T) jetstream.StreamState {
	t.Helper()
	s, err := b.js.Stream(t.Context(), proto.WorkStream(b.m.Run))
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State
}

// take reads the stream's shards from a sequence on and, if ack is set, removes
// them as a worker does.
func (b *bench) take(t *testing.T, from uint64, ack bool) []proto.Shard {
	t.Helper()

	stream, err := b.js.Stream(t.Context(), proto.WorkStream(b.m.Run))
	if err != nil {
		t.Fatal(err)
	}

	var shards []proto.Shard
	for index := from; index <= stream.CachedInfo().State.LastSeq; index++ {
		msg, err := stream.GetMsg(t.Context(), index)
		if err != nil {
			t.Fatalf("shard %d: %v", index, err)
		}

		payload := msg.Data
		if name := msg.Header.Get(proto.HeaderObject); name != "" {
			if payload, err = bus.New(b.js).Objects(b.m.Run).Get(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}

		shard, err := proto.DecodeShard(msg.Header, payload)
		if err != nil {
			t.Fatal(err)
		}

		shards = append(shards, shard)
		if ack {
			if err := stream.DeleteMsg(t.Context(), index); err != nil {
				t.Fatal(err)
			}
		}
	}

	return shards
}

// outline returns the parts of the shards that two runs of one input must have in common.
func outline(shards []proto.Shard) []string {
	lines := make([]string, len(shards))
	for i, s := range shards {
		var indexes []uint32
		for _, r := range s.Requests {
			indexes = append(indexes, r.Index)
		}
		lines[i] = s.ID + ": " + proto.FormatIndexes(indexes)
	}

	return lines
}

func lines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"custom_id":"id-%d","model":"m%d","prompt":"%016x"}`+"\n", i, i%3, rand.Uint64())
	}
	return b.String()
}

var settings = proto.Settings{ShardSize: 16, ShardBytes: 64 << 10, Workers: 4}

// slotSettings are those of a run that began when slots were counted.
var slotSettings = proto.Settings{ShardSize: 16, ShardBytes: 64 << 10, Capacity: 4}
