package producer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

func yielding(cfg *Config) { cfg.Yield = true }

// A producer that yields lets the stream grow by another's shards, and continues where
// the other stops.
func TestYield(t *testing.T) {
	t.Parallel()

	b := newBench(t, lines(2000), settings, 64<<20)
	want := b.reference(t)
	p, stop := b.start(t, yielding)

	// The other publishes a shard every tenth of a second, for longer than it takes to
	// believe that it has died.
	begun, last, next := time.Now(), time.Now(), 0
	slow := false
	prototest.Poll(t, patience, "the other producer", func() bool {
		pause := time.Since(last)
		if pause < 100*time.Millisecond && next > 0 {
			return false
		}

		slow = slow || pause > othersTime/2 // this machine is, so that yielding may end
		s := want[next]
		msg := proto.EncodeShard("r", fmt.Sprint("m", s.Requests[0].Index%3), s)
		if _, err := b.js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}

		last = time.Now()
		next++

		return time.Since(begun) > 2*othersTime+othersTime/2
	})

	if n := p.Stats().Shards.Load(); n > 0 && !slow {
		t.Errorf("it has published %d shards beside the other", n)
	}

	prototest.Poll(t, patience, "the rest of the input in the stream", func() bool { return b.published(t) })
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v, want context.Canceled", err)
	}

	if diff := cmp.Diff(outline(want), outline(b.take(t, 1, false))); diff != "" {
		t.Errorf("shards (-want +got):\n%.3000s", diff)
	}

	if n := p.Stats().Shards.Load(); n < int64(len(want)-next) && !slow {
		t.Errorf("it has published %d shards, want at least the %d that were left", n, len(want)-next)
	}
}

// Two producers that yield to each other also come to an end, and store each shard once.
func TestYieldToEachOther(t *testing.T) {
	t.Parallel()

	b := newBench(t, lines(6000), settings, 64<<20)
	want := b.reference(t)
	_, stop1 := b.start(t, yielding)
	_, stop2 := b.start(t, yielding)
	prototest.Poll(t, patience, "the whole input in the stream", func() bool { return b.published(t) })

	for _, stop := range []func() error{stop1, stop2} {
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v, want context.Canceled", err)
		}
	}

	if diff := cmp.Diff(outline(want), outline(b.take(t, 1, false))); diff != "" {
		t.Errorf("shards (-one producer +two):\n%.3000s", diff)
	}
}

// The input may have moved since the run began.
func TestFiles(t *testing.T) {
	t.Parallel()

	b := newBench(t, lines(500), settings, 64<<20)
	want := b.reference(t)

	moved := b.m.Input.Files[0].Path + ".moved"
	if err := os.Rename(b.m.Input.Files[0].Path, moved); err != nil {
		t.Fatal(err)
	}

	if err := b.run(t, once); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the new path: %v, want os.ErrNotExist", err)
	}

	fault := errors.New("the input cannot be copied")
	err := b.run(t, func(cfg *Config) {
		cfg.Files = func(context.Context) ([]string, error) { return nil, fault }
	})
	if !errors.Is(err, fault) {
		t.Errorf("Run: %v, want %v", err, fault)
	}

	err = b.run(t, func(cfg *Config) {
		cfg.Once = true
		cfg.Files = func(context.Context) ([]string, error) { return []string{moved}, nil }
	})
	if err != nil {
		t.Fatal(err)
	}

	if diff := cmp.Diff(outline(want), outline(b.take(t, 1, false))); diff != "" {
		t.Errorf("shards (-want +got):\n%.3000s", diff)
	}
}

// To find the files may mean to copy them from the bus, which is not done in vain.
func TestFilesNotNeeded(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name    string
		yield   bool
		publish bool // before the producer comes; else while it yields
	}{
		{"all is published", false, true},
		{"all is published, and it yields", true, true},
		{"another producer publishes all", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, lines(100), settings, 64<<20)
			if tt.publish {
				b.publish(t)
			}

			var asked atomic.Int64
			_, stop := b.start(t, func(cfg *Config) {
				cfg.Yield = tt.yield
				cfg.Files = func(context.Context) ([]string, error) {
					asked.Add(1)
					return []string{b.m.Input.Files[0].Path}, nil
				}
			})

			if !tt.publish {
				b.publish(t)
			}

			// A round of its own shows that it has gone on from the first.
			b.nextRound(t, 7)
			prototest.Poll(t, patience, "the round", func() bool { return b.published(t) })

			if err := stop(); !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v, want context.Canceled", err)
			}

			if n := asked.Load(); n != 1 {
				t.Errorf("the files were asked for %d times, want once, for the second round", n)
			}
		})
	}
}
