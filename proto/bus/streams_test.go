package bus_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
)

var limits = bus.Limits{WorkBytes: 1 << 20, ResultsBytes: 1 << 20}

func TestEnsureStreamsIdempotent(t *testing.T) {
	t.Parallel()

	_, js := prototest.Server(t)
	m := manifest("r")
	if err := bus.EnsureStreams(t.Context(), js, m, limits); err != nil {
		t.Fatal(err)
	}

	if _, err := js.Publish(t.Context(), proto.WorkSubject("r", "org/n", "0-0"), []byte("x")); err != nil {
		t.Fatal(err)
	}

	if err := bus.EnsureStreams(t.Context(), js, m, limits); err != nil {
		t.Fatalf("the second time: %v", err)
	}

	for _, model := range m.Models() {
		c, err := js.Consumer(t.Context(), proto.WorkStream("r"), proto.ConsumerName(model))
		if err != nil {
			t.Fatal(err)
		}

		want := map[string]uint64{"m": 0, "org/n": 1}[model]
		prototest.Poll(t, time.Minute, fmt.Sprintf("%d shards that wait for %s", want, model), func() bool {
			info, err := c.Info(t.Context())
			return err == nil && info.NumPending == want // the server counts after it has stored
		})
	}

	// Two processes may start at once with results already there.
	if _, err := js.Publish(t.Context(), proto.ResultsSubject("r", "0-0"), []byte("x")); err != nil {
		t.Error(err)
	}
}

func TestEnsureStreamsLimits(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name          string
		keep          bool
		work, results int64
	}{
		{"results are purged when the stream fills", false, 1 << 20, 2 << 20},
		{"results stay, and nothing bounds them", true, 1 << 20, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			_, js := prototest.Server(t)
			m := manifest("r")
			m.Policy.KeepResults = tt.keep
			must(t, bus.EnsureStreams(t.Context(), js, m, bus.Limits{WorkBytes: 1 << 20, ResultsBytes: 2 << 20}))

			// Another process, with other settings, uses the existing streams as they are.
			m.Policy.KeepResults = !tt.keep
			must(t, bus.EnsureStreams(t.Context(), js, m, bus.Limits{WorkBytes: 3 << 20, ResultsBytes: 4 << 20}))

			for name, want := range map[string]int64{
				proto.WorkStream("r"):    tt.work,
				proto.ResultsStream("r"): tt.results,
			} {
				stream, err := js.Stream(t.Context(), name)
				must(t, err)
				if cfg := stream.CachedInfo().Config; cfg.MaxBytes != want || cfg.Discard != jetstream.DiscardNew {
					t.Errorf("%s holds %d bytes and discards the %v; want %d, and new ones refused",
						name, cfg.MaxBytes, cfg.Discard, want)
				}
			}
		})
	}
}

func TestModels(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff([]string{"m", "org/n"}, manifest("r").Models()); diff != "" {
		t.Errorf("models (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{""}, proto.Manifest{}.Models()); diff != "" {
		t.Errorf("a run without models (-want +got):\n%s", diff)
	}
}

func TestResetConsumersFreesShards(t *testing.T) {
	t.Parallel()

	_, js := prototest.Server(t)
	m := manifest("r")
	if err := bus.ResetConsumers(t.Context(), js, m); err != nil {
		t.Fatalf("before there are streams: %v", err)
	}

	if err := bus.EnsureStreams(t.Context(), js, m, limits); err != nil {
		t.Fatal(err)
	}

	if _, err := js.Publish(t.Context(), proto.WorkSubject("r", "m", "0-0"), []byte("shard")); err != nil {
		t.Fatal(err)
	}

	pull := func(wait time.Duration) (data []byte) {
		c, err := js.Consumer(t.Context(), proto.WorkStream("r"), proto.ConsumerName("m"))
		if err != nil {
			t.Fatal(err)
		}

		batch, err := c.Fetch(1, jetstream.FetchMaxWait(wait))
		if err != nil {
			t.Fatal(err)
		}

		for msg := range batch.Messages() {
			data = msg.Data()
		}

		return data
	}
	if got := pull(5 * time.Second); string(got) != "shard" {
		t.Fatalf("pulled %q", got)
	}

	if got := pull(50 * time.Millisecond); got != nil {
		t.Fatalf("the shard is out and still delivered: %q", got)
	}

	if err := bus.ResetConsumers(t.Context(), js, m); err != nil {
		t.Fatal(err)
	}

	if err := bus.EnsureStreams(t.Context(), js, m, limits); err != nil {
		t.Fatal(err)
	}

	if got := pull(5 * time.Second); string(got) != "shard" { // well before AckWait
		t.Errorf("after the reset pulled %q", got)
	}
}

func TestDeleteStreams(t *testing.T) {
	t.Parallel()

	_, js := prototest.Server(t)
	if err := bus.DeleteStreams(t.Context(), js, "r"); err != nil {
		t.Fatalf("nothing to delete: %v", err)
	}

	if err := bus.EnsureStreams(t.Context(), js, manifest("r"), limits); err != nil {
		t.Fatal(err)
	}

	if err := bus.EnsureStreams(t.Context(), js, manifest("other"), limits); err != nil {
		t.Fatal(err)
	}

	if err := bus.New(js).Objects("r").Put(t.Context(), "x", []byte("x")); err != nil {
		t.Fatal(err)
	}

	if err := bus.DeleteStreams(t.Context(), js, "r"); err != nil {
		t.Fatal(err)
	}

	var left []string
	names := js.StreamNames(t.Context())
	for name := range names.Name() {
		left = append(left, name)
	}

	if len(left) != len(bus.RunStreamConfigs("other", limits)) { // those of the other run
		t.Errorf("streams left: %v", left)
	}

	if _, err := js.Stream(t.Context(), proto.WorkStream("other")); err != nil {
		t.Errorf("another run's stream: %v", err)
	}
}

func TestObjects(t *testing.T) {
	t.Parallel()

	_, js := prototest.Server(t)
	o := bus.New(js).Objects("r")
	if err := o.Delete(t.Context(), "x"); err != nil {
		t.Errorf("delete before there is a store: %v", err)
	}

	if err := bus.EnsureStreams(t.Context(), js, manifest("r"), limits); err != nil {
		t.Fatal(err)
	}

	small := nats.NewMsg("s")
	small.Data = []byte("small")
	if err := o.Offload(t.Context(), small, "x", 1<<20); err != nil {
		t.Fatal(err)
	}

	if small.Header.Get(proto.HeaderObject) != "" {
		t.Error("a small payload went to the store")
	}

	if string(small.Data) != "small" {
		t.Errorf("payload %q", small.Data)
	}

	want := bytes.Repeat([]byte("large"), 1<<18)
	for range 2 { // the second time it is there already
		large := nats.NewMsg("s")
		large.Data = want
		if err := o.Offload(t.Context(), large, "x", 1<<20); err != nil {
			t.Fatal(err)
		}

		if large.Header.Get(proto.HeaderObject) != "x" || len(large.Data) != 0 {
			t.Fatalf("message with %d bytes and header %v", len(large.Data), large.Header)
		}

		got, err := o.Get(t.Context(), large.Header.Get(proto.HeaderObject))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("payload of %d bytes, %v", len(got), err)
		}
	}

	for range 2 { // a process that crashed in between deletes again
		if err := o.Delete(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
	}

	if _, err := o.Get(t.Context(), "x"); !errors.Is(err, jetstream.ErrObjectNotFound) {
		t.Errorf("a deleted object: %v", err)
	}
}
