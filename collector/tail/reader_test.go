package tail_test

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/collector/tail"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
)

// From the first result to the end of the run each request's line comes once.
func TestReaderGivesEachLineOnce(t *testing.T) {
	t.Parallel()

	for _, state := range []proto.State{proto.StateCompleted, proto.StateCancelled, proto.StateExpired} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()

			b := testrun.New(t, 10, 16<<20)
			b.Publish("0-0", 0, 1, 2, 3)
			b.Publish("0-0", 2, 3, 4) // two that were there
			tl := b.StartReader(tail.Config{}, nil)
			tl.WaitGiven(fixture.AllLines(0, 1, 2, 3, 4))
			b.Publish("0-0", 1, 3) // nothing new
			b.Publish("0-1", 9)
			b.PublishMsg(b.LargeMsg(fixture.AllLines(5, 6, 7), 5, 6, 7))
			tl.WaitGiven(fixture.AllLines(0, 1, 2, 3, 4, 9, 5, 6, 7))
			b.SetState(proto.StateFinalizing)
			b.Publish("0-1", 8) // results before the end are read
			b.SetState(state)
			tl.Finish(state, fixture.AllLines(0, 1, 2, 3, 4, 9, 5, 6, 7, 8))
		})
	}
}

// A reader that starts when the run has ended gets the results that the bus has.
func TestReaderOfEndedRun(t *testing.T) {
	t.Parallel()

	const requests = 2000 // more messages than are asked for at once
	b := testrun.New(t, requests, 16<<20)
	for _, index := range fixture.Indexes(requests) {
		_, err := b.JS.PublishMsgAsync(proto.EncodeResults("r", "0-0", []uint32{index}, fixture.Line(index, 0)))
		fixture.Must(t, err)
	}

	testrun.Await(t, b.JS.PublishAsyncComplete(), "the results")
	b.SetState(proto.StateCompleted)
	b.StartReader(tail.Config{}, nil).Finish(proto.StateCompleted, fixture.AllLines(fixture.Indexes(requests)...))
}

// Results that the collector would drop are not given out.
func TestReaderSkipsJunk(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name string
		msg  *nats.Msg
	}{
		{"no headers", &nats.Msg{Subject: proto.ResultsSubject("r", "0-1"), Data: []byte("x")}},
		{"nothing at all", &nats.Msg{Subject: proto.ResultsSubject("r", "0-1")}},
		{"a line too few", proto.EncodeResults("r", "0-1", []uint32{2, 5}, []byte(fixture.AllLines(2)))},
		{"broken lines", proto.EncodeResults("r", "0-1", []uint32{2, 5}, []byte("{\n}\n"))},
		{"an object that is not there", testrun.LostMsg("results-0-1-lost", 2, 5)},
		{"numbers that the run does not have",
			proto.EncodeResults("r", "0-1", []uint32{6, 1 << 31}, []byte(fixture.AllLines(2, 5)))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := testrun.New(t, 6, 16<<20)
			b.PublishMsg(tt.msg)
			b.Publish("0-0", 0, 1)
			b.PublishMsg(tt.msg)
			b.Publish("0-0", 3, 4)
			b.SetState(proto.StateCompleted)
			b.StartReader(tail.Config{}, nil).Finish(proto.StateCompleted, fixture.AllLines(0, 1, 3, 4), 2, 5)
		})
	}
}

// New leaves out the existing results, and no more.
func TestReaderNew(t *testing.T) {
	t.Parallel()

	b := testrun.New(t, 10_000, 64<<20)
	b.Publish("0-0", 0, 1, 2)
	b.Publish("0-0", 3)
	tl := b.StartReader(tail.Config{New: true}, nil)
	next := uint32(4)
	prototest.Poll(t, testrun.Patience, "the reader", func() bool { // it does not say when it has begun
		b.Publish("0-1", next)
		next++
		return tl.Given() != ""
	})

	b.Publish("0-1", next)
	b.SetState(proto.StateCompleted)
	tl.Wait()

	first := fixture.ParseIndexes(t, tl.Given())[0]
	if first < 4 {
		t.Errorf("the first line is of request %d, want one of the new", first)
	}

	// results that are left out on purpose are not missed
	tl.Finish(proto.StateCompleted, fixture.AllLines(fixture.Indexes(next + 1)[first:]...))
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

			b := testrun.New(t, 10, 16<<20)
			b.Publish("0-0", 0, 1, 2) // 2 comes once more
			b.Publish("0-1", 3, 7, 8)
			b.Publish("0-2", 4)
			b.Publish("0-0", 2)
			b.Publish("0-3", 5, 6, 9)
			b.PurgeResults(tt.before)
			b.SetState(proto.StateCompleted)
			b.StartReader(tail.Config{}, nil).Finish(proto.StateCompleted, fixture.AllLines(tt.want...), tt.missed...)
		})
	}
}

// A results stream that was created again is read from its beginning, without repeats.
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

			b := testrun.New(t, 8, 16<<20)
			for n := range tt.first {
				b.Publish("0-0", uint32(n%2))
			}

			tl := b.StartReader(tail.Config{Name: "x"}, nil)
			tl.WaitGiven(fixture.AllLines(0, 1))

			if !tt.running {
				tl.Stop()
			}

			b.RecreateResults()
			b.Publish("0-1", 0, 2)

			for _, index := range []uint32{3, 4, 1, 5, 6, 7} {
				b.Publish("0-1", index)
			}

			b.SetState(tt.state)

			want := []uint32{2, 3, 4, 5, 6, 7}
			if tt.running {
				want = fixture.Indexes(8)
			} else {
				tl = b.StartReader(tail.Config{Name: "x"}, nil)
			}

			if !tt.state.Ended() {
				prototest.Poll(t, testrun.Patience, "the lines", func() bool {
					return len(fixture.ParseIndexes(t, tl.Given())) >= len(want)
				})
				b.SetState(proto.StateCompleted)
			}

			tl.Wait()
			// Those behind the old position may come first.
			if diff := cmp.Diff(want, slices.Sorted(slices.Values(fixture.ParseIndexes(t, tl.Given())))); diff != "" {
				t.Errorf("requests (-want +given):\n%s", diff)
			}

			if tl.Err != nil || !tl.Missed.IsEmpty() {
				t.Errorf("missed %v (%v)", tl.Missed, tl.Err)
			}
		})
	}
}

func TestReaderOfDeletedRun(t *testing.T) {
	t.Parallel()

	b := testrun.New(t, 2, 16<<20)
	b.Publish("0-0", 0)
	tl := b.StartReader(tail.Config{}, nil)
	tl.WaitGiven(fixture.AllLines(0))
	fixture.Must(t, b.Bus.Runs.Delete(t.Context(), "r"))
	fixture.Must(t, bus.DeleteStreams(t.Context(), b.JS, "r"))
	tl.Wait()
	if !errors.Is(tl.Err, proto.ErrNoRun) {
		t.Errorf("Run: %v, want ErrNoRun", tl.Err)
	}

	tl = b.StartReader(tail.Config{}, nil)
	tl.Wait()
	if !errors.Is(tl.Err, proto.ErrNoRun) {
		t.Errorf("Run for a run that is not there: %v, want ErrNoRun", tl.Err)
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

	b := testrun.New(t, 3, 16<<20)
	b.Publish("0-0", 0, 1, 2)
	b.SetState(proto.StateCompleted)
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

	mute := &muteOnce{JetStream: b.JS, deaf: other.Conn()}
	b.JS = mute
	b.StartReader(tail.Config{}, nil).Finish(proto.StateCompleted, fixture.AllLines(0, 1, 2))
	if mute.asked.Load() < 2 {
		t.Error("it was not asked")
	}
}

// A request that failed has another line after a retry, and others have not.
func TestReaderAfterRetry(t *testing.T) {
	t.Parallel()

	b := testrun.New(t, 6, 16<<20)
	b.Publish("0-0", fixture.Indexes(6)...)
	b.SetState(proto.StateCompleted)
	b.StartReader(tail.Config{Name: "x"}, nil).Finish(proto.StateCompleted, fixture.AllLines(fixture.Indexes(6)...))

	b.Update(func(m *proto.Manifest) { m.State, m.Retries = proto.StateInProgress, 1 })
	tl := b.StartReader(tail.Config{Name: "x"}, nil)
	b.PublishMsg(proto.EncodeResults("r", "1-0", []uint32{0, 2},
		[]byte(string(fixture.RetriedLine(0))+string(fixture.RetriedLine(2)))))
	b.Publish("1-0", 1, 2, 5) // 5 fails again, and 2 as another worker saw it
	b.PublishMsg(proto.EncodeResults("r", "1-0", []uint32{2}, fixture.RetriedLine(2)))
	tl.WaitGiven(string(fixture.RetriedLine(2)))
	b.SetState(proto.StateCompleted)
	tl.Finish(proto.StateCompleted, string(fixture.RetriedLine(2)))

	// A new reader gets both lines, in their order.
	b.StartReader(tail.Config{}, nil).
		Finish(proto.StateCompleted, fixture.AllLines(fixture.Indexes(6)...)+string(fixture.RetriedLine(2)))
}

// A retry may begin while a reader is busy with earlier results.
func TestReaderBehindRetry(t *testing.T) {
	t.Parallel()

	b := testrun.New(t, 3, 16<<20)
	b.Publish("0-0", 0, 1, 2)
	begun, release := make(chan struct{}, 9), make(chan struct{})
	tl := b.StartReader(tail.Config{}, func(string) error {
		begun <- struct{}{}
		<-release
		return nil
	})

	testrun.Await(t, begun, "the first lines")
	b.SetState(proto.StateCompleted)
	b.Update(func(m *proto.Manifest) { m.State, m.Retries = proto.StateInProgress, 1 })
	b.PublishMsg(proto.EncodeResults("r", "1-0", []uint32{2}, fixture.RetriedLine(2)))
	b.SetState(proto.StateCompleted)
	close(release)
	tl.Finish(proto.StateCompleted, fixture.AllLines(0, 1, 2)+string(fixture.RetriedLine(2)))
}
