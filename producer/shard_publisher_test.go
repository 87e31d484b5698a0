package producer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

func TestRunPublishesAllOnce(t *testing.T) {
	t.Parallel()

	const n = 5000
	b := newBench(t, lines(n), settings, 64<<20)
	p, stop := b.start(t)
	prototest.Poll(t, 20*time.Second, "the whole input in the stream", func() bool { return b.published(t) })
	shards := b.take(t, 1, false)
	seen := make([]int, n)
	for i, s := range shards {
		if s.ID != proto.ShardID(0, uint64(i)) {
			t.Fatalf("message %d is shard %s", i, s.ID)
		}

		for _, r := range s.Requests {
			seen[r.Index]++
			if want := fmt.Sprintf(`"id-%d"`, r.Index); string(r.CustomID) != want {
				t.Errorf("request %d is %s", r.Index, r.CustomID)
			}
		}
	}

	for index, times := range seen {
		if times != 1 {
			t.Errorf("request %d is published %d times", index, times)
		}
	}

	if got := p.Stats().Shards.Load(); got != int64(len(shards)) {
		t.Errorf("stats count %d shards of %d", got, len(shards))
	}

	// The run's end ends the producer.
	err := b.runs.Update(t.Context(), "r", func(m *proto.Manifest) error {
		m.State = proto.StateCompleted
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	ended := make(chan error, 1)
	again := mustNew(t, Config{JS: b.js, Run: "r"})
	go func() { ended <- again.Run(t.Context()) }()
	if err := <-ended; err != nil {
		t.Errorf("a producer of an ended run: %v", err)
	}

	stop()
}

func TestRunContinuesAfterKill(t *testing.T) {
	t.Parallel()

	grouped := settings
	grouped.GroupByPrefix = true

	for _, tt := range []struct {
		name     string
		ack      bool // workers finish shards in between
		settings proto.Settings
	}{
		{"nothing was worked on", false, settings},
		{"workers have acknowledged some", true, settings},
		{"grouped by prefix", true, grouped},
		{"cut for slots", true, slotSettings},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			const n = 12_000
			b := newBench(t, lines(n), tt.settings, 64<<20)
			want := outline(b.reference(t))

			var got []proto.Shard
			kills := 0
			for !b.published(t) {
				p, stop := b.start(t)
				after := 1 + rand.Int64N(200)
				prototest.Poll(t, 20*time.Second, "progress", func() bool {
					return p.Stats().Shards.Load() >= after || b.published(t)
				})

				if err := stop(); !errors.Is(err, context.Canceled) {
					t.Fatalf("a killed producer: %v", err)
				}

				kills++
				if tt.ack {
					got = append(got, b.take(t, uint64(len(got))+1, true)...)
				}
			}

			got = append(got, b.take(t, uint64(len(got))+1, false)...)
			if kills < 2 {
				t.Errorf("the producer was killed %d times", kills)
			}

			if diff := cmp.Diff(want, outline(got)); diff != "" {
				t.Errorf("shards (-one producer +several):\n%.3000s", diff)
			}
		})
	}
}

// A producer continues at the checkpoint of the manifest, without reading from the start.
func TestRunContinuesAtCheckpoint(t *testing.T) {
	t.Parallel()

	grouped := settings
	grouped.GroupByPrefix = true

	for name, s := range map[string]proto.Settings{
		"in order": settings, "grouped by prefix": grouped, "cut for slots": slotSettings,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, lines(9000), s, 64<<20)
			b.publish(t)

			m, err := b.runs.Get(t.Context(), b.m.Run)
			if err != nil {
				t.Fatal(err)
			}

			point, want := m.Publish.Checkpoint, b.take(t, 1, false)
			if point.Shard == 0 || point.Index == 0 || int(point.Shard) >= len(want) {
				t.Fatalf("the manifest has no checkpoint: %+v", point)
			}

			// Another producer has published the shards before it, and that part of the input
			// is gone.
			file := b.m.Input.Files[0].Path
			other := addRun(t, b.js, "other", file, s, 64<<20)

			for _, shard := range want[:point.Shard] {
				if _, err := b.js.PublishMsg(t.Context(), proto.EncodeShard("other", "m0", shard)); err != nil {
					t.Fatal(err)
				}
			}

			err = other.runs.Update(t.Context(), "other", func(m *proto.Manifest) error {
				m.Publish.Checkpoint = point
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}

			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}

			copy(text[:point.Offset], strings.Repeat("-", int(point.Offset)))
			if err := os.WriteFile(file, text, 0o644); err != nil {
				t.Fatal(err)
			}

			other.publish(t, func(cfg *Config) { cfg.Validated = true }) // else the whole input is read
			if diff := cmp.Diff(outline(want), outline(other.take(t, 1, false))); diff != "" {
				t.Errorf("shards (-whole +from a point):\n%.3000s", diff)
			}
		})
	}
}

func TestRunWaitsForRoom(t *testing.T) {
	t.Parallel()

	const n = 2000
	b := newBench(t, lines(n), settings, 20<<10)
	p, _ := b.start(t)
	prototest.Poll(t, 20*time.Second, "a full stream", p.Stats().Full.Load)
	if b.published(t) {
		t.Fatal("the round is done with a full stream")
	}

	var got []proto.Shard
	prototest.Poll(t, patience, "the whole input in the stream", func() bool {
		got = append(got, b.take(t, uint64(len(got))+1, true)...)
		return b.published(t)
	})

	got = append(got, b.take(t, uint64(len(got))+1, true)...)
	var requests int
	for i, s := range got {
		requests += len(s.Requests)
		if s.ID != proto.ShardID(0, uint64(i)) {
			t.Fatalf("message %d is shard %s", i, s.ID)
		}
	}

	if requests != n {
		t.Errorf("%d requests of %d", requests, n)
	}

	prototest.Poll(t, patience, "the end of the stall", func() bool { return !p.Stats().Full.Load() })
}

// A shard that no empty stream could hold must not be waited for.
func TestRunRefusesAShardLargerThanTheStream(t *testing.T) {
	t.Parallel()

	noise := make([]byte, 30<<10)
	for i := range noise {
		noise[i] = 'a' + byte(rand.IntN(26))
	}

	b := newBench(t, `{"model":"m","prompt":"`+string(noise)+`"}`+"\n", settings, 10<<10)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	err := mustNew(t, Config{JS: b.js, Run: "r"}).Run(ctx)
	if err == nil || !strings.Contains(err.Error(), "does not fit into stream") {
		t.Errorf("error %v", err)
	}
}

func TestTwoProducersDoubleNothing(t *testing.T) {
	t.Parallel()

	const n = 6000
	b := newBench(t, lines(n), settings, 64<<20)
	reference := addRun(t, b.js, "reference", b.m.Input.Files[0].Path, settings, 64<<20)
	reference.publish(t)
	_, stop1 := b.start(t)
	_, stop2 := b.start(t)
	prototest.Poll(t, patience, "the whole input in the stream", func() bool { return b.published(t) })

	for _, stop := range []func() error{stop1, stop2} {
		if err := stop(); !errors.Is(err, context.Canceled) && !errors.Is(err, ErrSecondProducer) {
			t.Errorf("error %v", err)
		}
	}

	if diff := cmp.Diff(outline(reference.take(t, 1, false)), outline(b.take(t, 1, false))); diff != "" {
		t.Errorf("shards (-one producer +two at once):\n%.3000s", diff)
	}
}

// Another publisher to the stream is noticed.
func TestPublisherNoticesAnother(t *testing.T) {
	t.Parallel()

	b := newBench(t, lines(1), settings, 64<<20)
	p := &shardPublisher{js: b.js, stream: proto.WorkStream("r"), log: zerolog.Nop()}

	for i := range 2 {
		msg := proto.EncodeShard("r", "m0", proto.Shard{ID: proto.ShardID(9, uint64(i))})
		if _, err := b.js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
	}

	if err := p.publish(t.Context(), proto.EncodeShard("r", "m0", proto.Shard{ID: "0-0"})); err != nil {
		t.Fatal(err)
	}

	if err := p.flush(t.Context()); !errors.Is(err, ErrSecondProducer) {
		t.Errorf("error %v", err)
	}
}
