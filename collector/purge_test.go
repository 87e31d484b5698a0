package collector

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

// fill publishes results of one request each until the stream is full or all are
// there, and returns how many it took.
func (b *bench) fillResults(next uint32, index func(n uint32) uint32) uint32 {
	b.T.Helper()

	for ; int(next) < b.Manifest.Input.Requests; next++ {
		n := index(next)
		msg := proto.EncodeResults("r", "0-0", []uint32{n}, fixture.Line(n, 8<<10))
		if _, err := b.JS.PublishMsg(b.T.Context(), msg); err != nil {
			return next
		}
	}

	return next
}

func itself(n uint32) uint32 { return n }

// newSyncLoop returns a loop that purges the streams of the run, with the ledger of a collector: the collector's own
// loop runs in another goroutine.
func (b *bench) newSyncLoop(l *ledger) *syncLoop {
	return &syncLoop{
		js:     b.JS,
		bus:    b.Bus,
		run:    "r",
		ledger: l,
	}
}

// A stream that is far smaller than the run's results must always get room again.
func TestPurgeMakesRoom(t *testing.T) {
	t.Parallel()

	b := newBench(t, 150, 256<<10)
	c := b.start()
	next := uint32(0)
	prototest.Poll(t, testrun.Patience, "room for all results", func() bool {
		next = b.fillResults(next, itself)
		return next == 150
	})

	b.waitCompleted(c)
}

// The newer half stays: workers look there for the requests of a shard that are done.
func TestPurgeKeepsNewerHalf(t *testing.T) {
	t.Parallel()

	b := newBench(t, 1000, 256<<10)
	full := b.fillResults(0, func(n uint32) uint32 { return 3 * n })
	created := b.Stream(proto.ResultsStream("r")).Created
	for _, synced := range []uint64{uint64(full) / 4, uint64(full)} {
		if err := b.newSyncLoop(&ledger{}).purgeResults(t.Context(), journal.Position{
			Created:  created,
			Sequence: synced,
		}); err != nil {
			t.Fatal(err)
		}
	}

	state := b.Stream(proto.ResultsStream("r")).State
	if state.FirstSeq <= uint64(full)/4 || state.Msgs < uint64(full)/3 || state.LastSeq != uint64(full) {
		t.Errorf("of %d messages %d stay, the first is %d", full, state.Msgs, state.FirstSeq)
	}
}

// A collector that comes to a full stream must make room in it, although it has
// nothing new to write: no worker can store a result before.
func TestPurgeFullStreamAtStart(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name  string
		index func(uint32) uint32
		max   int // lines that come of it
	}{
		{"all of it synced by the collector before", itself, 1000},
		{"nothing but duplicates", func(uint32) uint32 { return 0 }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 1000, 256<<10)
			half := 10 // not enough to purge for
			for n := range uint32(half) {
				b.PublishMsg(proto.EncodeResults("r", "0-0", []uint32{tt.index(n)}, fixture.Line(tt.index(n), 8<<10)))
			}

			c := b.start()
			c.waitDurable(min(half, tt.max))
			full := b.fillResults(uint32(half), tt.index)
			prototest.Poll(t, testrun.Patience, "all messages", func() bool {
				p := c.Progress().Received
				return p.Done+int(p.Duplicates) >= int(full)
			})

			c.stopped()
			b.fillResults(full, tt.index) // should a purge have come in between
			c = b.start()
			prototest.Poll(t, testrun.Patience, "room in the stream", func() bool {
				_, err := b.JS.PublishMsg(t.Context(),
					proto.EncodeResults("r", "0-0", []uint32{999}, fixture.Line(999, 8<<10)))
				return err == nil
			})

			c.stopped()
		})
	}
}

// Large answers that are synced do not fill the bus: the newer ones stay. A run that keeps results
// for readers to come has them all.
func TestPurgeLargeAnswers(t *testing.T) {
	t.Parallel()

	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("kept %v", keep), func(t *testing.T) {
			t.Parallel()

			const requests = 200
			b := newBench(t, requests+1, 64<<10, func(m *proto.Manifest) { m.Policy.KeepResults = keep })
			var names []string
			for index := range uint32(requests) {
				msg := b.LargeMsg(fixture.AllLines(index), index)
				b.PublishMsg(msg)
				names = append(names, msg.Header.Get(proto.HeaderObject))
			}

			c := b.start()
			c.waitDurable(requests)

			parts := func(name string) uint64 {
				stream, err := b.JS.Stream(t.Context(), proto.AnswersStream("r"))
				fixture.Must(t, err)
				subject := "pm.r.answers." + name
				info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter(subject))
				fixture.Must(t, err)
				return info.State.Subjects[subject]
			}
			if keep {
				// as the collector does once a second
				fixture.Must(t, b.newSyncLoop(c.ledger).purgeResults(t.Context(), journal.Position{}))
			} else {
				prototest.Poll(t, testrun.Patience, "the oldest answer to be purged", func() bool {
					return parts(names[0]) == 0
				})
			}

			if kept := parts(names[0]) > 0; kept != keep {
				t.Errorf("the oldest answer is there: %v", kept)
			}

			if parts(names[requests-1]) == 0 {
				t.Error("the newest answer is gone")
			}

			b.Publish("0-2", requests)
			b.waitCompleted(c)
		})
	}
}

// A run that keeps results for later readers has them all, however many they are.
func TestPurgeKeepsResults(t *testing.T) {
	t.Parallel()

	const requests = 60
	b := newBench(t, requests, 64<<10, func(m *proto.Manifest) { m.Policy.KeepResults = true })
	c := b.start()
	if next := b.fillResults(0, itself); next != requests {
		t.Fatalf("the stream is full after %d results", next)
	}

	b.waitCompleted(c)
	info := b.Stream(proto.ResultsStream("r"))
	synced := journal.Position{Created: info.Created, Sequence: info.State.LastSeq, Time: info.State.LastTime}
	fixture.Must(t, b.newSyncLoop(c.ledger).purgeResults(t.Context(), synced)) // as the collector does once a second

	info = b.Stream(proto.ResultsStream("r"))
	if info.Config.MaxBytes != -1 || info.State.Msgs != requests {
		t.Errorf("%d of %d messages are kept, in a stream of %d bytes", info.State.Msgs, requests, info.Config.MaxBytes)
	}
}
