package collector

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
	"github.com/promptmill/promptmill/proto/prototest"
)

// A run whose failed requests are run again has one line of each in the end.
func TestRetry(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name  string
		again []byte // the new line of request 5
		fails int
	}{
		{"all are answered now", fixture.RetriedLine(5), 0},
		{"one fails once more", fixture.Line(5, 0), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 6, 16<<20)
			b.Publish("0-0", fixture.Indexes(6)...)
			b.waitCompleted(b.start())
			first := b.readMeta()

			fixture.Must(t, b.Bus.Runs.Retry(t.Context(), "r"))
			b.reopenOutput(&first)
			b.CreateStreams() // the run's end has taken the work stream
			c := b.start()
			prototest.Poll(t, testrun.Patience, "a round of publishing", func() bool {
				m, err := b.Bus.Runs.Get(t.Context(), "r")
				return err == nil && m.Publish.Round == 1 && !m.Publish.Done
			})

			if got := c.Progress(); got.Durable != 4 || got.Total != 6 {
				t.Errorf("progress %+v before the failed requests are run again", got)
			}

			b.PublishMsg(proto.EncodeResults("r", "1-0", []uint32{2}, fixture.RetriedLine(2)))
			b.PublishMsg(proto.EncodeResults("r", "1-1", []uint32{5}, tt.again))
			meta := b.waitCompleted(c)

			counts := meta.Manifest.Counts
			if counts.Done != 6 || counts.Failed != tt.fails || counts.Duplicates != 0 ||
				meta.Results.FailureCount != tt.fails {
				t.Errorf("counts %+v", counts)
			}

			want := statsOf(0, 1, 3, 4)
			add := func(line []byte) {
				info, err := proto.ParseLine(new(jsonscan.Scanner), line)
				fixture.Must(t, err)
				want.AddLine(info, line, "w2")
			}

			add(fixture.RetriedLine(2))
			if tt.fails == 0 {
				add(tt.again)
			} else {
				want.Merge(*statsOf(5))
			}

			checkStats(t, want, meta)
			if meta.Manifest.Retries != 1 {
				t.Errorf("%d retries, want 1", meta.Manifest.Retries)
			}

			if tt.fails == 0 {
				fixture.CheckText(t, b.out.Results(), fixture.Lines(fixture.Answered, fixture.Indexes(6)...)+
					string(fixture.RetriedLine(2))+string(tt.again))
				fixture.CheckAbsent(t, b.out.Errors())
			} else {
				fixture.CheckText(t, b.out.Results(),
					fixture.Lines(fixture.Answered, fixture.Indexes(6)...)+string(fixture.RetriedLine(2)))
				fixture.CheckText(t, b.out.Errors(), string(tt.again))
			}
		})
	}
}

// reopen makes the journal of a retry, as a server does.
func (b *bench) reopenOutput(meta *metadata.Run) {
	b.T.Helper()

	m, err := b.Bus.Runs.Get(b.T.Context(), "r")
	fixture.Must(b.T, err)
	at, err := EndOfResults(b.T.Context(), b.JS, "r")
	fixture.Must(b.T, err)
	j, err := journal.CreateFromOutput(b.out, meta, m, at)
	fixture.Must(b.T, err)
	if _, err := os.Stat(b.out.Results()); err != nil {
		b.T.Errorf("the output must stay until it is replaced: %v", err)
	}

	fixture.Must(b.T, j.Close())
}

// Results count from the end of the existing ones.
func TestEndOfResults(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name          string
		before, after func(b *bench) // of EndOfResults
		want          []uint64       // the messages that are read then, with two new ones
	}{
		{"there is none", func(b *bench) {
			fixture.Must(b.T, b.JS.DeleteStream(b.T.Context(), proto.ResultsStream("r")))
		},
			func(b *bench) { b.CreateStreams() }, []uint64{1, 2}},
		{"an empty stream", func(b *bench) { b.RecreateResults() }, nil, []uint64{1, 2}},
		{"a stream with results", nil, nil, []uint64{4, 5}},
		{"a stream purged of some", func(b *bench) { b.PurgeResults(3) }, nil, []uint64{4, 5}},
		{"a stream purged of all", func(b *bench) { b.PurgeResults(4) }, nil, []uint64{4, 5}},
		{"it is purged afterwards", nil, func(b *bench) { b.PurgeResults(4) }, []uint64{4, 5}},
		{"it is created again afterwards", nil, func(b *bench) { b.RecreateResults() }, []uint64{1, 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 1, 16<<20)
			for range 3 {
				b.Publish("0-0", 0)
			}

			if tt.before != nil {
				tt.before(b)
			}

			at, err := EndOfResults(t.Context(), b.JS, "r")
			fixture.Must(t, err)

			if tt.after != nil {
				tt.after(b)
			}

			s := source{js: b.JS, run: "r", at: at}
			for range 2 {
				b.Publish("1-0", 0)
			}

			var got []uint64
			prototest.Poll(t, testrun.Patience, "the last message", func() bool {
				_, err := s.fetchMessages(t.Context(), 50*time.Millisecond, func(msg jetstream.Msg) error {
					meta, err := msg.Metadata()
					fixture.Must(t, err)
					got = append(got, meta.Sequence.Stream)
					return nil
				})
				return err == nil && len(got) > 0 && got[len(got)-1] == tt.want[1]
			})

			if len(got) != 2 || got[0] != tt.want[0] {
				t.Errorf("read %v, want %v", got, tt.want)
			}
		})
	}
}

// A bus that cannot be asked must not be taken for one without results.
func TestEndOfResultsUnknown(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1, 16<<20)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if at, err := EndOfResults(ctx, b.JS, "r"); err == nil {
		t.Errorf("EndOfResults = %v without an answer of the bus", at)
	}
}
