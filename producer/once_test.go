package producer

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

// patience is far more than anything takes: the machine may be busy.
const patience = 3 * time.Minute

// run runs a producer to its end.
func (b *bench) run(t *testing.T, change func(*Config)) error {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, errors.New("the producer does not end"))
	defer cancel()
	cfg := Config{JS: b.js, Run: b.m.Run, Log: zerolog.Nop()}
	change(&cfg)
	return mustNew(t, cfg).Run(ctx)
}

// reference publishes the input as another run, and returns its shards.
func (b *bench) reference(t *testing.T) []proto.Shard {
	t.Helper()
	r := addRun(t, b.js, "reference", b.m.Input.Files[0].Path, b.m.Settings, 64<<20)
	r.publish(t)
	return r.take(t, 1, false)
}

func once(cfg *Config) { cfg.Once = true }

func TestOnce(t *testing.T) {
	t.Parallel()

	b := newBench(t, lines(1000), settings, 64<<20)
	want := b.reference(t)
	if err := b.run(t, once); err != nil {
		t.Fatal(err)
	}

	if !b.published(t) {
		t.Error("the manifest does not report that all is published")
	}

	if diff := cmp.Diff(outline(want), outline(b.take(t, 1, false))); diff != "" {
		t.Errorf("shards (-want +got):\n%.3000s", diff)
	}
}

// A producer that publishes once has nothing to do when another has published all.
func TestOnceWhenPublished(t *testing.T) {
	t.Parallel()
	b := newBench(t, lines(10), settings, 64<<20)
	b.publish(t)
	if err := b.run(t, once); err != nil {
		t.Errorf("Run: %v, want nil at once", err)
	}
}

func TestOnceGivesWay(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name string
		once bool
		want error
	}{{"it is done", true, nil}, {"a producer that stays returns the reason", false, ErrSecondProducer}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, lines(1), settings, 64<<20)
			err := b.run(t, func(cfg *Config) {
				cfg.Once = tt.once
				cfg.Files = func(ctx context.Context) ([]string, error) {
					for i := range 2 { // it has looked at the stream already
						msg := proto.EncodeShard("r", "m0", proto.Shard{ID: proto.ShardID(0, uint64(i))})
						if _, err := b.js.PublishMsg(ctx, msg); err != nil {
							return nil, err
						}
					}
					return []string{b.m.Input.Files[0].Path}, nil
				}
			})
			if !errors.Is(err, tt.want) {
				t.Errorf("Run: %v, want %v", err, tt.want)
			}

			if n := b.state(t).LastSeq; n != 2 {
				t.Errorf("%d messages in the stream, want those of the other alone", n)
			}
		})
	}
}

// A run that ends while its producer waits for room ends the producer.
func TestRunCancelledWhileFull(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		change func(*Config)
	}{{"a producer that stays", func(*Config) {}}, {"one that publishes once", once}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, lines(2000), settings, 20<<10)
			cfg := Config{JS: b.js, Run: "r", Log: zerolog.Nop()}
			tt.change(&cfg)
			p := mustNew(t, cfg)
			ended := make(chan error, 1)
			go func() { ended <- p.Run(t.Context()) }()
			prototest.Poll(t, patience, "a full stream", p.Stats().Full.Load)
			if err := b.runs.Cancel(t.Context(), "r"); err != nil {
				t.Fatal(err)
			}

			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("Run: %v, want nil", err)
				}
			case <-time.After(patience):
				t.Error("the producer does not stop")
				b.js.Conn().Close()
				<-ended
			}

			if b.published(t) {
				t.Error("the manifest reports that all is published")
			}
		})
	}
}

// A collector that begins another round while one is published knows the missing
// requests better: the producer leaves the earlier round.
func TestNextRoundWhilePublishing(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		change func(*Config)
		goesOn bool
	}{{"a producer that stays", func(*Config) {}, true}, {"one that publishes once", once, false}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, lines(2000), settings, 20<<10)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()

			cfg := Config{JS: b.js, Run: "r", Log: zerolog.Nop()}
			tt.change(&cfg)
			p := mustNew(t, cfg)
			ended := make(chan error, 1)
			go func() { ended <- p.Run(ctx) }()
			prototest.Poll(t, patience, "a full stream", p.Stats().Full.Load)

			work, err := b.js.Stream(t.Context(), proto.WorkStream("r"))
			if err != nil {
				t.Fatal(err)
			}

			b.nextRound(t, 5, 7)
			if err := work.Purge(t.Context()); err != nil {
				t.Fatal(err)
			}

			if tt.goesOn {
				prototest.Poll(t, patience, "the round", func() bool { return b.published(t) })
				stop()
			}

			select {
			case err := <-ended:
				if tt.goesOn != errors.Is(err, context.Canceled) || !tt.goesOn && err != nil {
					t.Errorf("Run: %v", err)
				}
			case <-time.After(patience):
				t.Fatal("the producer does not stop")
			}

			m, err := b.runs.Get(t.Context(), "r")
			if err != nil || m.Publish.Round != 1 || m.Publish.Done != tt.goesOn {
				t.Errorf("the manifest says %+v, %v", m.Publish, err)
			}
		})
	}
}
