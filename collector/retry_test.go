package collector

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
	"github.com/promptmill/promptmill/proto/prototest"
)

// answered is the line of a request that failed at first, after a retry.
func answered(seq uint32) []byte {
	return proto.AppendResult(nil, proto.Result{
		Run:         "r",
		Index:       seq,
		CustomID:    fixture.CustomID(seq),
		RequestHash: fixture.Request(seq).Hash(),
		Status:      200,
		Worker:      "w2",
		Attempts:    1,
		Body:        []byte(`{"text":"at last","usage":{"prompt_tokens":3,"completion_tokens":7}}`),
	})
}

// A run whose failed requests are run again has one line of each in the end.
func TestRetry(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name  string
		again []byte // the new line of request 5
		fails int
	}{
		{"all are answered now", answered(5), 0},
		{"one fails once more", fixture.Line(5, 0), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 6, 16<<20)
			b.publish("0-0", fixture.Indexes(6)...)
			b.finish(b.start())
			first := b.meta()

			fixture.Must(t, b.runs.Retry(t.Context(), "r"))
			b.reopen(&first)
			b.makeStreams() // the run's end has taken the work stream
			c := b.start()
			prototest.Poll(t, patience, "a round of publishing", func() bool {
				m, err := b.runs.Get(t.Context(), "r")
				return err == nil && m.Publish.Round == 1 && !m.Publish.Done
			})

			if got := c.Progress(); got.Durable != 4 || got.Total != 6 {
				t.Errorf("progress %+v before the failed requests are run again", got)
			}

			b.publishMsg(proto.EncodeResults("r", "1-0", []uint32{2}, answered(2)))
			b.publishMsg(proto.EncodeResults("r", "1-1", []uint32{5}, tt.again))
			meta := b.finish(c)

			counts := meta.Manifest.Counts
			if counts.Done != 6 || counts.Failed != tt.fails || counts.Duplicates != 0 ||
				meta.Results.FailureCount != tt.fails {
				t.Errorf("counts %+v", counts)
			}

			want := statsOf(0, 1, 3, 4)
			add := func(line []byte) {
				info, err := proto.ParseLine(new(jsonscan.Scanner), line)
				fixture.Must(t, err)
				want.AddLine(info, "w2")
			}

			add(answered(2))
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
				fixture.CheckText(t, b.out.Results(), fixture.Lines(fixture.Answered, fixture.Indexes(6)...)+string(answered(2))+string(tt.again))
				fixture.CheckAbsent(t, b.out.Errors())
			} else {
				fixture.CheckText(t, b.out.Results(), fixture.Lines(fixture.Answered, fixture.Indexes(6)...)+string(answered(2)))
				fixture.CheckText(t, b.out.Errors(), string(tt.again))
			}
		})
	}
}

// reopen makes the journal of a retry, as a server does.
func (b *bench) reopen(meta *metadata.Run) {
	b.t.Helper()

	m, err := b.runs.Get(b.t.Context(), "r")
	fixture.Must(b.t, err)
	at, err := EndOfResults(b.t.Context(), b.js, "r")
	fixture.Must(b.t, err)
	j, err := journal.CreateFromOutput(b.out, meta, m, at)
	fixture.Must(b.t, err)
	if _, err := os.Stat(b.out.Results()); err != nil {
		b.t.Errorf("the output must stay until it is replaced: %v", err)
	}

	fixture.Must(b.t, j.Close())
}

// A request that failed has another line after a retry, and others have not.
func TestReaderAfterRetry(t *testing.T) {
	t.Parallel()

	b := newBench(t, 6, 16<<20)
	b.publish("0-0", fixture.Indexes(6)...)
	b.setState(proto.StateCompleted)
	b.tail(ReaderConfig{Name: "x"}, nil).finish(proto.StateCompleted, all(fixture.Indexes(6)...))

	b.update(func(m *proto.Manifest) { m.State, m.Retries = proto.StateInProgress, 1 })
	tl := b.tail(ReaderConfig{Name: "x"}, nil)
	b.publishMsg(proto.EncodeResults("r", "1-0", []uint32{0, 2}, []byte(string(answered(0))+string(answered(2)))))
	b.publish("1-0", 1, 2, 5) // 5 fails again, and 2 as another worker saw it
	b.publishMsg(proto.EncodeResults("r", "1-0", []uint32{2}, answered(2)))
	tl.waitGiven(string(answered(2)))
	b.setState(proto.StateCompleted)
	tl.finish(proto.StateCompleted, string(answered(2)))

	// Who comes now gets both lines, in their order.
	b.tail(ReaderConfig{}, nil).finish(proto.StateCompleted, all(fixture.Indexes(6)...)+string(answered(2)))
}

// A retry may begin while a reader is busy with what came before.
func TestReaderBehindRetry(t *testing.T) {
	t.Parallel()

	b := newBench(t, 3, 16<<20)
	b.publish("0-0", 0, 1, 2)
	begun, release := make(chan struct{}, 9), make(chan struct{})
	tl := b.tail(ReaderConfig{}, func(string) error {
		begun <- struct{}{}
		<-release
		return nil
	})

	await(t, begun, "the first lines")
	b.setState(proto.StateCompleted)
	b.update(func(m *proto.Manifest) { m.State, m.Retries = proto.StateInProgress, 1 })
	b.publishMsg(proto.EncodeResults("r", "1-0", []uint32{2}, answered(2)))
	b.setState(proto.StateCompleted)
	close(release)
	tl.finish(proto.StateCompleted, all(0, 1, 2)+string(answered(2)))
}

// Results count from the end of those that are there.
func TestEndOfResults(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name          string
		before, after func(b *bench) // of EndOfResults
		want          []uint64       // the messages that are read then, with two new ones
	}{
		{"there is none", func(b *bench) { fixture.Must(b.t, b.js.DeleteStream(b.t.Context(), proto.ResultsStream("r"))) },
			(*bench).makeStreams, []uint64{1, 2}},
		{"an empty stream", func(b *bench) { b.makeResultsAnew() }, nil, []uint64{1, 2}},
		{"a stream with results", nil, nil, []uint64{4, 5}},
		{"a stream purged of some", func(b *bench) { b.purgeResults(3) }, nil, []uint64{4, 5}},
		{"a stream purged of all", func(b *bench) { b.purgeResults(4) }, nil, []uint64{4, 5}},
		{"it is purged afterwards", nil, func(b *bench) { b.purgeResults(4) }, []uint64{4, 5}},
		{"it is made anew afterwards", nil, (*bench).makeResultsAnew, []uint64{1, 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 1, 16<<20)
			for range 3 {
				b.publish("0-0", 0)
			}

			if tt.before != nil {
				tt.before(b)
			}

			at, err := EndOfResults(t.Context(), b.js, "r")
			fixture.Must(t, err)

			if tt.after != nil {
				tt.after(b)
			}

			s := source{js: b.js, run: "r", at: at}
			for range 2 {
				b.publish("1-0", 0)
			}

			var got []uint64
			prototest.Poll(t, patience, "the last message", func() bool {
				_, err := s.fetch(t.Context(), 50*time.Millisecond, func(msg jetstream.Msg) error {
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

// purgeResults takes the messages before a sequence away.
func (b *bench) purgeResults(before uint64) {
	b.t.Helper()
	stream, err := b.js.Stream(b.t.Context(), proto.ResultsStream("r"))
	fixture.Must(b.t, err)
	fixture.Must(b.t, stream.Purge(b.t.Context(), jetstream.WithPurgeSequence(before)))
}

// Who cannot ask the bus must not take it for one without results.
func TestEndOfResultsUnknown(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1, 16<<20)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if at, err := EndOfResults(ctx, b.js, "r"); err == nil {
		t.Errorf("EndOfResults = %v without an answer of the bus", at)
	}
}
