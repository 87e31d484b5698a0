package collector

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/estimate"
	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

func TestCancelWritesTheRest(t *testing.T) {
	t.Parallel()

	const requests = 1200 // several messages of lines
	b := newBench(t, requests, 16<<20)
	b.Publish("0-0", 0, 1, 2, 3)
	b.Publish("0-0", 600, 601)
	b.fillWork()
	late := input(func(index uint32) error {
		if index != 900 {
			return b.noWork()
		}
		// The first lines of the rest are in the stream by now, 20's and 23's among them.
		_, err := b.JS.PublishMsg(t.Context(),
			proto.EncodeResults("r", "0-9", []uint32{20, 23}, []byte(fixture.AllLines(20, 23))))
		return err
	})

	c := b.start(func(cfg *Config) { cfg.Input = late })
	c.waitDurable(6)
	fixture.Must(t, b.Bus.Runs.Cancel(t.Context(), "r"))
	b.Publish("0-0", 4, 5) // was on its way when the worker heard of it
	meta := b.waitEnd(c, proto.StateCancelled)

	b.checkNotRun(proto.CodeCancelled, func(index uint32) bool { return index > 5 && index != 600 && index != 601 })
	// Of the 8 that were run 2 and 5 have failed, with answers that report no usage. The answers to
	// odd requests are truncated.
	want := proto.Counts{
		Done: requests, Failed: requests - 8 + 2, Skipped: requests - 8,
		PromptTokens: 18, CompletionTokens: 30, Attempts: 16, Truncated: 3, Duplicates: 2,
	}

	m, err := b.Bus.Runs.Get(t.Context(), "r")
	fixture.Must(t, err)

	for where, got := range map[string]proto.Manifest{"in the metadata": *meta.Manifest, "on the bus": m} {
		if diff := cmp.Diff(want, got.Counts); diff != "" {
			t.Errorf("counts %s (-want +got):\n%s", where, diff)
		}
		if got.State != proto.StateCancelled || got.EndedAt == nil || time.Since(*got.EndedAt) > time.Minute {
			t.Errorf("the run is %s %s, since %v", got.State, where, got.EndedAt)
		}
	}
}

// A collector that is stopped while it writes the lines of the rest is followed by one
// that writes those that are not there.
func TestCancelGoesOn(t *testing.T) {
	t.Parallel()

	b := newBench(t, 1200, 16<<20)
	b.Publish("0-0", 0, 1, 2)
	fixture.Must(t, b.Bus.Runs.Cancel(t.Context(), "r"))
	var c *process
	started, reached := make(chan struct{}), make(chan struct{})
	c = b.start(func(cfg *Config) {
		cfg.Input = input(func(index uint32) error {
			if index == 700 { // the first 512 are published
				<-started
				c.cut()
				close(reached)
			}
			return nil
		})
	})

	close(started)
	c.waitDurable(3)
	testrun.Await(t, reached, "the lines of the rest")
	c.stopped()

	if n := b.Stream(proto.ResultsStream("r")).State.Msgs; n != 2 {
		t.Errorf("%d messages of results, want one of them with lines of the rest", n)
	}

	fixture.CheckAbsent(t, b.out.Results())

	c = b.start()
	meta := b.waitEnd(c, proto.StateCancelled)
	b.checkNotRun(proto.CodeCancelled, func(index uint32) bool { return index > 2 })
	if c := meta.Manifest.Counts; c.Skipped != 1197 || c.Failed != 1198 || c.Duplicates != 0 {
		t.Errorf("counts %+v", c)
	}
	r := meta.Results
	if r.CountSent() != 3 || r.CountFailed() != 1 || r.NotSentCount != 1197 || r.FailureCount != 1198 {
		t.Errorf("%d sent, %d of them failed, %d not sent, failure_count %d; want 3, 1, 1197, 1198", r.CountSent(),
			r.CountFailed(), r.NotSentCount, r.FailureCount)
	}
	if n := estimate.FromMetadata(&meta).Requests; n != 3 {
		t.Errorf("an estimate is made of %d requests, want the 3 that were sent", n)
	}

	var ended, failed int64
	for i := range meta.Series.Len() {
		ended, failed = ended+meta.Series.Requests[i], failed+meta.Series.Failed[i]
	}
	if ended != 3 || failed != 1 {
		t.Errorf("the series has %d ended and %d failed requests, want those that ran: 3 and 1", ended, failed)
	}
}

// The results stream need not have room for all lines of the rest at once: it is
// purged of those that are synced.
func TestCancelInSmallStream(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name     string
		requests int
		bytes    int64
	}{
		{"room for one message of lines", 1500, 200 << 10},
		{"room for two", 2000, 300 << 10},
		{"less than a message of lines", 160, 20 << 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, tt.requests, tt.bytes)
			b.Publish("0-0", 0, 1, 2)
			fixture.Must(t, b.Bus.Runs.Cancel(t.Context(), "r"))
			c := b.start()
			b.waitEnd(c, proto.StateCancelled)
			b.checkNotRun(proto.CodeCancelled, func(index uint32) bool { return index > 2 })
		})
	}
}

// The lines of the rest fit into messages, however long they are.
func TestCancelLongNames(t *testing.T) {
	t.Parallel()

	in := longInput(200 << 10)
	b := newBench(t, 100, 64<<20, func(m *proto.Manifest) { // the server takes messages of 16 MB
		m.Input.Digest = 0
		for r := range in.Requests(t.Context(), roaring.Flip(roaring.New(), 0, uint64(m.Input.Requests))) {
			m.Input.Digest.Add(r.Index, r.CustomID, r.Hash())
		}
	})

	fixture.Must(t, b.Bus.Runs.Cancel(t.Context(), "r"))
	c := b.start(func(cfg *Config) { cfg.Input = in })
	b.waitEnd(c, proto.StateCancelled)
}

func TestExpiry(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name string
		in   time.Duration
	}{
		{"over before it is collected", -time.Hour},
		{"over while it is collected", time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			at := time.Now().Add(tt.in)
			b := newBench(t, 9, 16<<20, func(m *proto.Manifest) { m.Policy.ExpiresAt = &at })
			b.Publish("0-0", 0, 1, 2, 3)
			b.fillWork()
			c := b.start(func(cfg *Config) { cfg.Input = input(func(uint32) error { return b.noWork() }) })
			prototest.Poll(t, testrun.Patience, "the manifest to announce the end to workers", func() bool {
				m, err := b.Bus.Runs.Get(t.Context(), "r")
				return err == nil && m.State == proto.StateFinalizing
			})

			if time.Now().Before(at) {
				t.Error("the run ends before its time")
			}

			meta := b.waitEnd(c, proto.StateExpired)
			b.checkNotRun(proto.CodeExpired, func(index uint32) bool { return index > 3 })
			if c := meta.Manifest.Counts; c.Done != 9 || c.Skipped != 5 || c.Failed != 6 {
				t.Errorf("counts %+v", c)
			}
			if r := meta.Results; r.CountSent() != 4 || r.CountFailed() != 1 || r.NotSentCount != 5 {
				t.Errorf("%d sent, %d of them failed, %d not sent; want 4, 1, 5", r.CountSent(), r.CountFailed(), r.NotSentCount)
			}
		})
	}
}

// Time that is over when all answers are there changes nothing.
func TestExpiryOfCompleteRun(t *testing.T) {
	t.Parallel()
	at := time.Now().Add(-time.Hour)
	b := newBench(t, 4, 16<<20, func(m *proto.Manifest) { m.Policy.ExpiresAt = &at })
	b.Publish("0-0", 0, 1, 2, 3)
	c := b.start()
	b.waitCompleted(c)
}

// A run that was to end early also ends if its collector died when the last line was
// synced.
func TestEndingAfterCrash(t *testing.T) {
	t.Parallel()

	past := time.Now().Add(-time.Hour)
	cancel := func(m *proto.Manifest) { m.State = proto.StateCancelling }
	expire := func(m *proto.Manifest) { m.Policy.ExpiresAt = &past }
	for _, tt := range []struct {
		name      string
		end, left func(*proto.Manifest)
		want      proto.State
	}{
		{"cancelled, before the files were begun", cancel, cancel, proto.StateCancelled},
		{"cancelled, while the files were written", cancel, func(*proto.Manifest) {}, proto.StateCancelled},
		{"expired, while the files were written", expire, func(*proto.Manifest) {}, proto.StateExpired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 3, 16<<20)
			b.Publish("0-0", 0, 1)
			b.Update(tt.end)

			c := b.start(func(cfg *Config) { cfg.Output = output.Prefix(filepath.Join(t.TempDir(), "missing", "out")) })
			if err := c.wait(); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("Run: %v, want that the output's folder is not there", err)
			}

			if got := c.Progress().Durable; got != 3 {
				t.Fatalf("%d lines in the journal, want all", got)
			}

			b.Update(tt.left)
			b.waitEnd(b.start(), tt.want)
		})
	}
}

func TestEndingInputFails(t *testing.T) {
	t.Parallel()

	fault := errors.New("the input was moved")
	b := newBench(t, 9, 16<<20)
	fixture.Must(t, b.Bus.Runs.Cancel(t.Context(), "r"))
	c := b.start(func(cfg *Config) {
		cfg.Input = input(func(index uint32) error {
			if index == 4 {
				return fault
			}
			return nil
		})
	})

	err := c.wait()
	if !errors.Is(err, fault) || !strings.Contains(err.Error(), "read the requests that were not executed") {
		t.Errorf("Run: %v, want %v and its purpose", err, fault)
	}

	fixture.CheckAbsent(t, b.out.Results())
}
