package collector

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/jsonscan"
	"github.com/promptmill/promptmill/proto/prototest"
)

func all(seqs ...uint32) string { return fixture.Lines(fixture.Any, seqs...) }

// From the first result to the end of the run each request's line comes once.
func TestReaderGivesEachLineOnce(t *testing.T) {
	t.Parallel()

	for _, state := range []proto.State{proto.StateCompleted, proto.StateCancelled, proto.StateExpired} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 10, 16<<20)
			b.publish("0-0", 0, 1, 2, 3)
			b.publish("0-0", 2, 3, 4) // two that were there
			tl := b.tail(ReaderConfig{}, nil)
			tl.waitGiven(all(0, 1, 2, 3, 4))
			b.publish("0-0", 1, 3) // nothing new
			b.publish("0-1", 9)
			b.publishMsg(b.large(all(5, 6, 7), 5, 6, 7))
			tl.waitGiven(all(0, 1, 2, 3, 4, 9, 5, 6, 7))
			b.setState(proto.StateFinalizing)
			b.publish("0-1", 8) // what comes before the end is read
			b.setState(state)
			tl.finish(state, all(0, 1, 2, 3, 4, 9, 5, 6, 7, 8))
		})
	}
}

// A reader that comes when the run has ended gets what the bus has.
func TestReaderOfEndedRun(t *testing.T) {
	t.Parallel()

	const requests = 2000 // more messages than are asked for at once
	b := newBench(t, requests, 16<<20)
	for _, seq := range fixture.Indexes(requests) {
		_, err := b.js.PublishMsgAsync(proto.EncodeResults("r", "0-0", []uint32{seq}, fixture.Line(seq, 0)))
		fixture.Must(t, err)
	}

	await(t, b.js.PublishAsyncComplete(), "the results")
	b.setState(proto.StateCompleted)
	b.tail(ReaderConfig{}, nil).finish(proto.StateCompleted, all(fixture.Indexes(requests)...))
}

// What the collector would not take is not given out fixture.Any.
func TestReaderSkipsJunk(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name string
		msg  *nats.Msg
	}{
		{"no headers", &nats.Msg{Subject: proto.ResultsSubject("r", "0-1"), Data: []byte("x")}},
		{"nothing at all", &nats.Msg{Subject: proto.ResultsSubject("r", "0-1")}},
		{"a line too few", proto.EncodeResults("r", "0-1", []uint32{2, 5}, []byte(all(2)))},
		{"broken lines", proto.EncodeResults("r", "0-1", []uint32{2, 5}, []byte("{\n}\n"))},
		{"an object that is not there", byObject("results-0-1-lost", 2, 5)},
		{"numbers that the run does not have",
			proto.EncodeResults("r", "0-1", []uint32{6, 1 << 31}, []byte(all(2, 5)))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 6, 16<<20)
			b.publishMsg(tt.msg)
			b.publish("0-0", 0, 1)
			b.publishMsg(tt.msg)
			b.publish("0-0", 3, 4)
			b.setState(proto.StateCompleted)
			b.tail(ReaderConfig{}, nil).finish(proto.StateCompleted, all(0, 1, 3, 4), 2, 5)
		})
	}
}

// New leaves out what is there already, and no more.
func TestReaderNew(t *testing.T) {
	t.Parallel()

	b := newBench(t, 10_000, 64<<20)
	b.publish("0-0", 0, 1, 2)
	b.publish("0-0", 3)
	tl := b.tail(ReaderConfig{New: true}, nil)
	next := uint32(4)
	prototest.Poll(t, patience, "the reader", func() bool { // it does not say when it has begun
		b.publish("0-1", next)
		next++
		return tl.given() != ""
	})

	b.publish("0-1", next)
	b.setState(proto.StateCompleted)
	tl.wait()

	first := numbers(t, tl.given())[0]
	if first < 4 {
		t.Errorf("the first line is of request %d, want one of the new", first)
	}

	tl.finish(proto.StateCompleted, all(fixture.Indexes(next + 1)[first:]...)) // what is left out on purpose is not missed
}

func TestReaderMissesWhatIsPurged(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name         string
		before       uint64 // this message
		want, missed []uint32
	}{
		{"the front", 3, []uint32{4, 2, 5, 6, 9}, []uint32{0, 1, 3, 7, 8}},
		{"all", 6, nil, fixture.Indexes(10)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 10, 16<<20)
			b.publish("0-0", 0, 1, 2) // 2 comes once more
			b.publish("0-1", 3, 7, 8)
			b.publish("0-2", 4)
			b.publish("0-0", 2)
			b.publish("0-3", 5, 6, 9)
			b.purgeResults(tt.before)
			b.setState(proto.StateCompleted)
			b.tail(ReaderConfig{}, nil).finish(proto.StateCompleted, all(tt.want...), tt.missed...)
		})
	}
}

// A results stream that was made anew is read from its beginning, without repeats.
func TestReaderStreamMadeAnew(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name    string
		running bool
		state   proto.State // of the run when the reader reads the new stream
		first   int         // messages in the old stream
	}{
		{"under the reader, with fewer messages", true, proto.StateInProgress, 9},
		{"under the reader, with more messages", true, proto.StateInProgress, 2},
		{"while it is away", false, proto.StateInProgress, 2},
		{"while it is away, and the run has ended, with fewer messages", false, proto.StateCompleted, 9},
		{"while it is away, and the run has ended, with more messages", false, proto.StateCompleted, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 8, 16<<20)
			for n := range tt.first {
				b.publish("0-0", uint32(n%2))
			}

			tl := b.tail(ReaderConfig{Name: "x"}, nil)
			tl.waitGiven(all(0, 1))

			if !tt.running {
				tl.stop()
			}

			b.makeResultsAnew()
			b.publish("0-1", 0, 2)

			for _, seq := range []uint32{3, 4, 1, 5, 6, 7} {
				b.publish("0-1", seq)
			}

			b.setState(tt.state)

			want := []uint32{2, 3, 4, 5, 6, 7}
			if tt.running {
				want = fixture.Indexes(8)
			} else {
				tl = b.tail(ReaderConfig{Name: "x"}, nil)
			}

			if !tt.state.Ended() {
				prototest.Poll(t, patience, "the lines", func() bool {
					return len(numbers(t, tl.given())) >= len(want)
				})
				b.setState(proto.StateCompleted)
			}

			tl.wait()
			// Those behind the old position may come first.
			if diff := cmp.Diff(want, slices.Sorted(slices.Values(numbers(t, tl.given())))); diff != "" {
				t.Errorf("requests (-want +given):\n%s", diff)
			}

			if tl.err != nil || !tl.missed.IsEmpty() {
				t.Errorf("missed %v (%v)", tl.missed, tl.err)
			}
		})
	}
}

// Whatever a reader does, the run does not notice.
func TestReaderSlow(t *testing.T) {
	t.Parallel()

	const requests = 150
	b := newBench(t, requests, 256<<10) // far less than the run's results
	release := make(chan struct{})
	tl := b.tail(ReaderConfig{}, func(string) error {
		<-release
		return nil
	})

	c := b.start()
	next := uint32(0)
	prototest.Poll(t, patience, "room for all results", func() bool {
		next = b.fill(next, itself)
		return next == requests
	})

	b.finish(c)
	close(release)
	tl.wait()

	if tl.err != nil {
		t.Fatal(tl.err)
	}

	seen := tl.missed.Clone()
	given := numbers(t, tl.given())
	for _, seq := range given {
		if !seen.CheckedAdd(seq) {
			t.Errorf("request %d is given out twice, or missed although it is not", seq)
		}
	}

	if seen.GetCardinality() != requests || len(given) == 0 || tl.missed.IsEmpty() {
		t.Errorf("given %v and missed %v of %d", given, tl.missed, requests)
	}
}

// numbers are the requests of lines.
func numbers(t *testing.T, lines string) (seqs []uint32) {
	t.Helper()

	var scan jsonscan.Scanner
	for line := range strings.Lines(lines) {
		info, err := proto.ParseLine(&scan, []byte(line))
		fixture.Must(t, err)
		seqs = append(seqs, uint32(info.Index))
	}

	return seqs
}

func TestReaderOfDeletedRun(t *testing.T) {
	t.Parallel()

	b := newBench(t, 2, 16<<20)
	b.publish("0-0", 0)
	tl := b.tail(ReaderConfig{}, nil)
	tl.waitGiven(all(0))
	fixture.Must(t, b.runs.Delete(t.Context(), "r"))
	fixture.Must(t, bus.DeleteStreams(t.Context(), b.js, "r"))
	tl.wait()
	if !errors.Is(tl.err, proto.ErrNoRun) {
		t.Errorf("Run: %v, want ErrNoRun", tl.err)
	}

	tl = b.tail(ReaderConfig{}, nil)
	tl.wait()
	if !errors.Is(tl.err, proto.ErrNoRun) {
		t.Errorf("Run for a run that is not there: %v, want ErrNoRun", tl.err)
	}
}

// muteOnce is a bus that does not answer the first time that it is asked for messages. It
// is asked for the manifest before that.
type muteOnce struct {
	jetstream.JetStream
	deaf  *nats.Conn
	asked atomic.Int32
}

func (m *muteOnce) Conn() *nats.Conn {
	if m.asked.Add(1) == 2 {
		return m.deaf
	}
	return m.JetStream.Conn()
}

// No answer does not mean that there is nothing to read.
func TestReaderWithoutAnswer(t *testing.T) {
	t.Parallel()

	b := newBench(t, 3, 16<<20)
	b.publish("0-0", 0, 1, 2)
	b.setState(proto.StateCompleted)
	_, other := prototest.Server(t)

	// The end of an answer without its beginning spares us half a minute of waiting.
	sub, err := other.Conn().Subscribe("$JS.API.DIRECT.GET.>", func(msg *nats.Msg) {
		end := nats.NewMsg(msg.Reply)
		end.Header.Set("Status", "204")
		end.Header.Set("Description", "EOB")
		msg.RespondMsg(end)
	})

	fixture.Must(t, err)
	defer sub.Unsubscribe()

	mute := &muteOnce{JetStream: b.js, deaf: other.Conn()}
	b.js = mute
	b.tail(ReaderConfig{}, nil).finish(proto.StateCompleted, all(0, 1, 2))
	if mute.asked.Load() < 2 {
		t.Error("it was not asked")
	}
}
