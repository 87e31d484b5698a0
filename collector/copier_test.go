package collector

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/proto"
)

// copyRun copies the run of a bench, which has ended, and checks that nothing on the bus changes.
func (b *bench) copyRun(ctx context.Context) error {
	b.T.Helper()

	before, err := b.Bus.Runs.Get(b.T.Context(), "r")
	fixture.Must(b.T, err)
	end, err := EndOfResults(b.T.Context(), b.JS, "r")
	fixture.Must(b.T, err)

	j := openJournal(b.T, b.out.Journal())
	fixture.Must(b.T, j.Claim(b.out))
	c, err := New(Config{
		JS:            b.JS,
		Journal:       j,
		Output:        b.out,
		Input:         input(nil),
		FlushInterval: time.Millisecond,
	})
	fixture.Must(b.T, err)
	failed := c.Copy(ctx, before)
	fixture.Must(b.T, j.Close())

	after, err := b.Bus.Runs.Get(b.T.Context(), "r")
	fixture.Must(b.T, err)
	if diff := cmp.Diff(before, after); diff != "" {
		b.T.Errorf("the manifest (-before +after):\n%s", diff)
	}

	now, err := EndOfResults(b.T.Context(), b.JS, "r")
	fixture.Must(b.T, err)
	if now != end {
		b.T.Errorf("the results end at %+v, before at %+v", now, end)
	}

	return failed
}

// unexecutedLines are the lines of the requests that were not executed.
func unexecutedLines() []byte {
	return append(fixture.ResultLine(4, fixture.FailWith(proto.CodeCancelled, 0)),
		fixture.ResultLine(5, fixture.FailWith(proto.CodeCancelled, 0))...)
}

// endRun ends a run of 6 requests of which 2 were not executed.
func (b *bench) endRun() {
	b.T.Helper()

	b.Publish("0-0", 0, 1, 2, 3)
	b.PublishMsg(proto.EncodeResults("r", proto.EndingShard(proto.StateCancelled, 1), []uint32{4, 5},
		unexecutedLines()))
	b.Update(func(m *proto.Manifest) {
		m.State, m.EndedAt, m.Output = proto.StateCancelled, new(time.Now().UTC()), "box:/out/r"
		m.Counts = proto.Counts{Done: 6, Failed: 3}
	})
}

// The copy of a cancelled run is whole, also after a stop in the middle.
func TestCopy(t *testing.T) {
	t.Parallel()

	b := newBench(t, 6, 16<<20)
	b.endRun()
	ended, err := b.Bus.Runs.Get(t.Context(), "r")
	fixture.Must(t, err)

	stopped, stop := context.WithCancelCause(t.Context())
	stop(io.EOF)
	if err := b.copyRun(stopped); !errors.Is(err, io.EOF) {
		t.Errorf("stopped with %v", err)
	}

	fixture.Must(t, b.copyRun(t.Context()))

	meta := b.readMeta()
	if meta.Status != proto.StateCancelled || !meta.Manifest.EndedAt.Equal(*ended.EndedAt) ||
		meta.Results.FailureCount != 3 || meta.Results.Interruptions != 0 || meta.Manifest.Counts.Dropped != 0 {
		t.Errorf("%s at %s, %+v", meta.Status, meta.Manifest.EndedAt, meta.Results)
	}

	fixture.CheckText(t, b.out.Results(), fixture.Lines(fixture.Answered, fixture.Indexes(4)...))
	fixture.CheckText(t, b.out.Errors(), fixture.AllLines(2)+string(unexecutedLines()))
	fixture.CheckAbsent(t, b.out.Journal())
}

// A run of which a result has left the bus is not copied.
func TestCopyOfLostResults(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name string
		lose func(b *bench)
		kept bool // the oldest results
	}{
		{"purged", func(b *bench) { b.PurgeResults(2) }, false},
		{"all purged", func(b *bench) { b.PurgeResults(3) }, false},
		{"no stream", func(b *bench) {
			fixture.Must(b.T, b.JS.DeleteStream(b.T.Context(), proto.ResultsStream("r")))
		}, false},
		{"the newest", func(b *bench) {
			s, err := b.JS.Stream(b.T.Context(), proto.ResultsStream("r"))
			fixture.Must(b.T, err)
			fixture.Must(b.T, s.DeleteMsg(b.T.Context(), 2))
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 6, 16<<20)
			b.endRun()
			tt.lose(b)

			if err := CheckResultsKept(t.Context(), b.JS, "r"); errors.Is(err, ErrResultsGone) == tt.kept {
				t.Errorf("the oldest results: %v", err)
			}

			if err := b.copyRun(t.Context()); !errors.Is(err, ErrResultsGone) {
				t.Errorf("copied with %v", err)
			}

			fixture.CheckAbsent(t, b.out.Meta())
		})
	}
}
