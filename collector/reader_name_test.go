package collector

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
)

var named = ReaderConfig{Name: "x"}

// publishEach stores a message for each request.
func (b *bench) publishEach(seqs ...uint32) {
	b.t.Helper()
	for _, seq := range seqs {
		b.publish("0-0", seq)
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

			b := newBench(t, requests, 16<<20)
			for first := 0; first < requests; first += tt.size {
				b.publish("0-0", fixture.Indexes(requests)[first:first+tt.size]...)
			}

			var tl *tail
			started := make(chan struct{})
			var took atomic.Int64
			tl = b.tail(named, func(string) error {
				<-started
				if int(took.Add(1)) == requests/tt.size/2 {
					tl.cut() // in the middle of what it has asked for
				}
				return nil
			})

			close(started)
			tl.wait()

			first := tl.given()
			if n := len(numbers(t, first)); n < requests/2 || n == requests {
				t.Errorf("%d of %d lines came before the stop", n, requests)
			}

			b.setState(proto.StateCompleted)
			tl = b.tail(named, nil)
			tl.wait()
			if diff := cmp.Diff(all(fixture.Indexes(requests)...), first+tl.given()); diff != "" {
				t.Errorf("lines (-want +given by both):\n%.3000s", diff)
			}

			// Who comes once more gets nothing, and has missed nothing.
			b.tail(named, nil).finish(proto.StateCompleted, "")
			b.tail(ReaderConfig{Name: "y"}, nil).finish(proto.StateCompleted, all(fixture.Indexes(requests)...))
		})
	}
}

// A reader that died had perhaps given out more than it could remember.
func TestReaderCrash(t *testing.T) {
	t.Parallel()

	b := newBench(t, 9, 16<<20)
	b.publish("0-0", 0, 1)
	b.publishEach(2, 3)
	tl := b.tail(named, nil)
	tl.waitGiven(all(fixture.Indexes(4)...))
	kv, err := b.js.KeyValue(t.Context(), proto.ReadersBucket)
	fixture.Must(t, err)
	var entry jetstream.KeyValueEntry
	prototest.Poll(t, patience, "the position", func() bool {
		entry, err = kv.Get(t.Context(), "r.x")
		return err == nil
	})

	b.publishEach(4, 5, 6)
	tl.waitGiven(all(fixture.Indexes(7)...))
	tl.stop()
	b.publishEach(7, 8)
	b.setState(proto.StateCompleted)
	_, err = kv.Put(t.Context(), "r.x", entry.Value()) // as if it had not come to write the latest
	fixture.Must(t, err)
	tl = b.tail(named, nil)
	tl.wait()

	given := numbers(t, tl.given())
	if tl.err != nil || !tl.missed.IsEmpty() || len(given) < 5 || len(given) > 9 {
		t.Errorf("given %v, missed %v (%v)", given, tl.missed, tl.err)
	}

	// What it has given is the end of the run, without a hole.
	tl.check(all(fixture.Indexes(9)[9-len(given):]...))
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

			b := newBench(t, 12, 16<<20)
			for first := range 6 {
				b.publish("0-0", uint32(2*first), uint32(2*first+1))
			}

			b.setState(proto.StateCompleted)
			var took atomic.Int64
			tl := b.tail(named, func(string) error {
				if took.Add(1) > tt.ok {
					return fault
				}
				return nil
			})

			tl.wait()
			if !errors.Is(tl.err, fault) {
				t.Errorf("Run: %v, want %v", tl.err, fault)
			}

			tl.check(all(fixture.Indexes(uint32(2 * tt.ok))...))
			b.tail(named, nil).finish(proto.StateCompleted, all(fixture.Indexes(12)[2*tt.ok:]...))
		})
	}
}

// Two readers of one name would each get a part of the lines.
func TestReaderNameInUse(t *testing.T) {
	t.Parallel()

	b := newBench(t, 4, 16<<20)
	b.publish("0-0", 0, 1)
	var arrived atomic.Int64
	both := make(chan struct{})
	write := func(string) error {
		if arrived.Add(1) == 2 { // both know no position by then
			close(both)
		}
		<-both
		return nil
	}

	first, second := b.tail(named, write), b.tail(named, write)
	select {
	case <-first.ended:
	case <-second.ended:
		first, second = second, first
	}

	if !errors.Is(first.err, ErrReader) {
		t.Errorf("Run: %v, want ErrReader", first.err)
	}

	b.publish("0-0", 2, 3)
	b.setState(proto.StateCompleted)
	second.finish(proto.StateCompleted, all(fixture.Indexes(4)...))

	// Another name is another reader.
	b.tail(ReaderConfig{Name: "y"}, nil).finish(proto.StateCompleted, all(fixture.Indexes(4)...))
}

// A run that is made anew under the id of one that was deleted has other results.
func TestReaderOfRunMadeAnew(t *testing.T) {
	t.Parallel()

	b := newBench(t, 4, 16<<20)
	b.publish("0-0", fixture.Indexes(4)...)
	b.setState(proto.StateCompleted)
	b.tail(named, nil).finish(proto.StateCompleted, all(fixture.Indexes(4)...))

	fixture.Must(t, b.runs.Delete(t.Context(), "r"))
	fixture.Must(t, bus.DeleteStreams(t.Context(), b.js, "r"))
	b.m.CreatedAt = fixture.Created.AddDate(0, 1, 0)
	fixture.Must(t, b.runs.Create(t.Context(), b.m))
	b.makeStreams()
	b.publish("0-0", fixture.Indexes(4)...)
	b.setState(proto.StateCompleted)
	b.tail(named, nil).finish(proto.StateCompleted, all(fixture.Indexes(4)...))
}

// What is remembered but cannot be read is not taken for nothing.
func TestReaderPositionUnreadable(t *testing.T) {
	t.Parallel()

	b := newBench(t, 4, 16<<20)
	kv, err := b.js.KeyValue(t.Context(), proto.ReadersBucket)
	fixture.Must(t, err)

	for _, text := range []string{"", "{}", "[", `{"seq":1,"seen":"AA"}`} {
		_, err = kv.Put(t.Context(), "r.x", []byte(text))
		fixture.Must(t, err)
		tl := b.tail(named, nil)
		tl.wait()
		if !errors.Is(tl.err, proto.ErrFormat) {
			t.Errorf("with the position %q Run: %v, want ErrFormat", text, tl.err)
		}
	}
}
