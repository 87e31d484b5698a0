package tail_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/collector/tail"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
)

var named = tail.Config{Name: "x"}

// publishEach stores a message for each request.
func publishEach(b *testrun.Run, indexes ...uint32) {
	b.T.Helper()

	for _, index := range indexes {
		b.Publish("0-0", index)
	}
}

// A reader that is stopped is followed by one that loses nothing and repeats nothing.
func TestReaderGoesOn(t *testing.T) {
	t.Parallel()

	const requests = 40
	for _, tt := range []struct {
		name string
		size int // lines in a message
	}{{"messages of one line", 1}, {"messages of several lines", 4}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := testrun.New(t, requests, 16<<20)
			for first := 0; first < requests; first += tt.size {
				b.Publish("0-0", fixture.Indexes(requests)[first:first+tt.size]...)
			}

			var tl *testrun.Reader
			started := make(chan struct{})
			var took atomic.Int64
			tl = b.StartReader(named, func(string) error {
				<-started
				if int(took.Add(1)) == requests/tt.size/2 {
					tl.Cut() // in the middle of the messages that it has asked for
				}
				return nil
			})

			close(started)
			tl.Wait()

			first := tl.Given()
			if n := len(fixture.ParseIndexes(t, first)); n < requests/2 || n == requests {
				t.Errorf("%d of %d lines came before the stop", n, requests)
			}

			b.SetState(proto.StateCompleted)
			tl = b.StartReader(named, nil)
			tl.Wait()
			if diff := cmp.Diff(fixture.AllLines(fixture.Indexes(requests)...), first+tl.Given()); diff != "" {
				t.Errorf("lines (-want +given by both):\n%.3000s", diff)
			}

			// The next reader of the name gets nothing, and has missed nothing.
			b.StartReader(named, nil).Finish(proto.StateCompleted, "")
			b.StartReader(tail.Config{Name: "y"}, nil).
				Finish(proto.StateCompleted, fixture.AllLines(fixture.Indexes(requests)...))
		})
	}
}

// A reader that died had perhaps given out more than it could remember.
func TestReaderCrash(t *testing.T) {
	t.Parallel()

	b := testrun.New(t, 9, 16<<20)
	b.Publish("0-0", 0, 1)
	publishEach(b, 2, 3)
	tl := b.StartReader(named, nil)
	tl.WaitGiven(fixture.AllLines(fixture.Indexes(4)...))
	kv, err := b.JS.KeyValue(t.Context(), proto.ReadersBucket)
	fixture.Must(t, err)
	var entry jetstream.KeyValueEntry
	prototest.Poll(t, testrun.Patience, "the position", func() bool {
		entry, err = kv.Get(t.Context(), "r.x")
		return err == nil
	})

	publishEach(b, 4, 5, 6)
	tl.WaitGiven(fixture.AllLines(fixture.Indexes(7)...))
	tl.Stop()
	publishEach(b, 7, 8)
	b.SetState(proto.StateCompleted)
	_, err = kv.Put(t.Context(), "r.x", entry.Value()) // as if it had not come to write the latest
	fixture.Must(t, err)
	tl = b.StartReader(named, nil)
	tl.Wait()

	given := fixture.ParseIndexes(t, tl.Given())
	if tl.Err != nil || !tl.Missed.IsEmpty() || len(given) < 5 || len(given) > 9 {
		t.Errorf("given %v, missed %v (%v)", given, tl.Missed, tl.Err)
	}

	// Its lines are the end of the run, without a hole.
	tl.Check(fixture.AllLines(fixture.Indexes(9)[9-len(given):]...))
}

// Lines that were not taken are given out by the next reader, and only those.
func TestReaderWriteFails(t *testing.T) {
	t.Parallel()

	fault := errors.New("the pipe is broken")
	for _, tt := range []struct {
		name string
		ok   int64 // messages that are taken before
	}{{"the first", 0}, {"one in the middle", 3}, {"the last", 5}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := testrun.New(t, 12, 16<<20)
			for first := range 6 {
				b.Publish("0-0", uint32(2*first), uint32(2*first+1))
			}

			b.SetState(proto.StateCompleted)
			var took atomic.Int64
			tl := b.StartReader(named, func(string) error {
				if took.Add(1) > tt.ok {
					return fault
				}
				return nil
			})

			tl.Wait()
			if !errors.Is(tl.Err, fault) {
				t.Errorf("Run: %v, want %v", tl.Err, fault)
			}

			tl.Check(fixture.AllLines(fixture.Indexes(uint32(2 * tt.ok))...))
			b.StartReader(named, nil).Finish(proto.StateCompleted, fixture.AllLines(fixture.Indexes(12)[2*tt.ok:]...))
		})
	}
}

// Two readers of one name would each get a part of the lines.
func TestReaderNameInUse(t *testing.T) {
	t.Parallel()

	b := testrun.New(t, 4, 16<<20)
	b.Publish("0-0", 0, 1)
	var arrived atomic.Int64
	both := make(chan struct{})
	write := func(string) error {
		if arrived.Add(1) == 2 { // both know no position by then
			close(both)
		}
		<-both
		return nil
	}

	first, second := b.StartReader(named, write), b.StartReader(named, write)
	select {
	case <-first.Ended:
	case <-second.Ended:
		first, second = second, first
	}

	if !errors.Is(first.Err, tail.ErrReaderInUse) {
		t.Errorf("Run: %v, want tail.ErrReaderInUse", first.Err)
	}

	b.Publish("0-0", 2, 3)
	b.SetState(proto.StateCompleted)
	second.Finish(proto.StateCompleted, fixture.AllLines(fixture.Indexes(4)...))

	// Another name is another reader.
	b.StartReader(tail.Config{Name: "y"}, nil).Finish(proto.StateCompleted, fixture.AllLines(fixture.Indexes(4)...))
}

// A run that is created under the id of a deleted one has other results.
func TestReaderOfRunMadeAnew(t *testing.T) {
	t.Parallel()

	b := testrun.New(t, 4, 16<<20)
	b.Publish("0-0", fixture.Indexes(4)...)
	b.SetState(proto.StateCompleted)
	b.StartReader(named, nil).Finish(proto.StateCompleted, fixture.AllLines(fixture.Indexes(4)...))

	fixture.Must(t, b.Bus.Runs.Delete(t.Context(), "r"))
	fixture.Must(t, bus.DeleteStreams(t.Context(), b.JS, "r"))
	b.Manifest.CreatedAt = fixture.Created.AddDate(0, 1, 0)
	fixture.Must(t, b.Bus.Runs.Create(t.Context(), b.Manifest))
	b.CreateStreams()
	b.Publish("0-0", fixture.Indexes(4)...)
	b.SetState(proto.StateCompleted)
	b.StartReader(named, nil).Finish(proto.StateCompleted, fixture.AllLines(fixture.Indexes(4)...))
}

// A stored position that cannot be read is not taken for none.
func TestReaderPositionUnreadable(t *testing.T) {
	t.Parallel()

	b := testrun.New(t, 4, 16<<20)
	kv, err := b.JS.KeyValue(t.Context(), proto.ReadersBucket)
	fixture.Must(t, err)

	for _, text := range []string{"", "{}", "[", `{"sequence":1,"seen":"AA"}`} {
		_, err = kv.Put(t.Context(), "r.x", []byte(text))
		fixture.Must(t, err)
		tl := b.StartReader(named, nil)
		tl.Wait()
		if !errors.Is(tl.Err, proto.ErrFormat) {
			t.Errorf("with the position %q Run: %v, want ErrFormat", text, tl.Err)
		}
	}
}
