package collector

import (
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/collector/tail"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
)

func TestCollectorCompletes(t *testing.T) {
	t.Parallel()

	b := newBench(t, 8, 16<<20)
	b.Publish("0-0", 0, 1, 2, 3)
	b.Publish("0-0", 2, 3, 4) // two that are there
	b.Publish("0-0", 1)       // and one more
	b.Publish("0-1", 5, 6, 7)
	c := b.start()
	meta := b.waitCompleted(c)
	want := proto.Counts{
		Done: 8, Failed: 2, PromptTokens: 18, CompletionTokens: 30, Attempts: 16, Truncated: 3, Duplicates: 3,
	}
	if diff := cmp.Diff(want, meta.Manifest.Counts); diff != "" {
		t.Errorf("counts of the metadata (-want +got):\n%s", diff)
	}

	m, err := b.Bus.Runs.Get(t.Context(), "r")
	if diff := cmp.Diff(want, m.Counts); diff != "" || err != nil {
		t.Errorf("counts on the bus (-want +got, %v):\n%s", err, diff)
	}

	r := meta.Results
	if r.SuccessCount != 6 || r.FailureCount != 2 || r.DuplicatesDropped != 3 || r.Interruptions != 1 ||
		*r.TotalTokens != 48 {
		t.Errorf("figures %+v", r) // one interruption: the bench makes the journal and opens it
	}
}

// A new collector resumes after the lines that the one before has synced.
func TestCollectorResumes(t *testing.T) {
	t.Parallel()

	b := newBench(t, 6, 16<<20)
	b.Publish("0-0", 0, 1)
	b.Publish("0-0", 2)
	c := b.start()
	c.waitDurable(3)
	c.stopped()
	fixture.CheckText(t, b.out.Journal(), fixture.AllLines(fixture.Indexes(3)...))

	b.Publish("0-1", 3, 4, 5)
	c = b.start()
	meta := b.waitCompleted(c)
	if got := meta.Results; got.DuplicatesDropped != 0 || got.Interruptions != 2 {
		t.Errorf("%d duplicates and %d interruptions, want none and 2", got.DuplicatesDropped, got.Interruptions)
	}

	if got := c.Progress(); got.Durable != 6 || got.Received.Done != 6 || !got.Finishing {
		t.Errorf("progress %+v", got)
	}
}

// Lines that were taken off the bus but not written yet are synced at the stop.
func TestCollectorSyncsAtStop(t *testing.T) {
	t.Parallel()

	b := newBench(t, 3, 16<<20)
	b.Publish("0-0", 0, 1)
	c := b.start(func(cfg *Config) { cfg.FlushInterval = time.Hour })
	prototest.Poll(t, testrun.Patience, "lines received", func() bool { return c.Progress().Received.Done == 2 })
	c.stopped()
	if j := openJournal(t, b.out.Journal()); j.State().Counts.Done != 2 {
		t.Errorf("%d lines in the journal, want 2", j.State().Counts.Done)
	}
}

// A results stream that was created again has other messages under the known sequences.
func TestCollectorStreamMadeAnew(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name    string
		running bool
	}{{"while the collector is away", false}, {"under the running collector", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 8, 16<<20)
			for _, index := range fixture.Indexes(5) {
				b.Publish("0-0", index)
			}

			c := b.start()
			c.waitDurable(5)

			if !tt.running {
				c.stopped()
			}

			b.RecreateResults()
			b.Publish("0-0", 3, 4, 5)
			b.Publish("0-0", 6, 7)

			if !tt.running {
				c = b.start()
			}

			if meta := b.waitCompleted(c); meta.Results.DuplicatesDropped != 2 {
				t.Errorf("%d duplicates, want 2", meta.Results.DuplicatesDropped)
			}
		})
	}
}

func TestCollectorReadsLargeAnswers(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4, 16<<20)
	b.Publish("0-0", 0, 1)
	b.PublishMsg(b.LargeMsg(fixture.AllLines(2, 3), 2, 3))
	c := b.start()
	b.waitCompleted(c)
}

// Requests whose results cannot be read are run again, in a round of their own.
func TestCollectorRunsAgainWhatIsUnreadable(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name string
		msg  *nats.Msg // should have the lines of requests 2 and 5
	}{
		{"no message at all", nil},
		{"no headers", &nats.Msg{Subject: proto.ResultsSubject("r", "0-1"), Data: []byte("x")}},
		{"a line too few", proto.EncodeResults("r", "0-1", []uint32{2, 5}, []byte(fixture.AllLines(2)))},
		{"broken lines", proto.EncodeResults("r", "0-1", []uint32{2, 5}, []byte("{\n}\n"))},
		{"numbers that the run does not have",
			proto.EncodeResults("r", "0-1", []uint32{6, 1 << 31}, []byte(fixture.AllLines(2, 5)))},
		{"an answer that is not there", testrun.LostMsg("results-0-1-lost", 2, 5)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 6, 16<<20)
			if tt.msg != nil {
				b.PublishMsg(tt.msg)
			}

			b.Publish("0-0", 0, 1, 3, 4)
			c := b.start()
			c.waitDurable(4)
			b.setPublished(nil)
			prototest.Poll(t, testrun.Patience, "a round of publishing", func() bool {
				m, err := b.Bus.Runs.Get(t.Context(), "r")
				return err == nil && m.Publish.Round == 1
			})

			b.setPublished(func(m *proto.Manifest) {
				data, err := bus.New(b.JS).Objects("r").Get(t.Context(), m.Publish.Missing)
				if err != nil {
					t.Fatal(err)
				}

				missing := roaring.New()
				if err := missing.UnmarshalBinary(data); err != nil || !missing.Equals(roaring.BitmapOf(2, 5)) {
					t.Errorf("the round is for %v (%v), want 2 and 5", missing, err)
				}
			})

			b.Publish("1-0", 2, 5)
			b.waitCompleted(c)
		})
	}
}

// setPublished notes for the producer that all shards of the round are stored.
func (b *bench) setPublished(look func(*proto.Manifest)) {
	b.T.Helper()
	b.Update(func(m *proto.Manifest) {
		if look != nil {
			look(m)
		}
		m.Publish.Done = true
	})
}

// While shards are not published or not acknowledged their results can still come.
func TestCollectorWaitsForWork(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name      string
		published bool
	}{{"not all is published", false}, {"a shard is waiting", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 2, 16<<20)
			if tt.published {
				if _, err := b.JS.Publish(
					t.Context(), proto.WorkSubject("r", "m", "0-0"), []byte("shard"),
				); err != nil {
					t.Fatal(err)
				}
				b.setPublished(nil)
			}

			c := b.start()
			deadline := time.Now().Add(2500 * time.Millisecond) // it looks once a second
			prototest.Poll(t, testrun.Patience, "time to pass", func() bool { return time.Now().After(deadline) })

			if m, err := b.Bus.Runs.Get(t.Context(), "r"); err != nil || m.Publish.Round != 0 {
				t.Errorf("round %d (%v), want 0", m.Publish.Round, err)
			}

			b.Publish("0-0", 0, 1)
			b.waitCompleted(c)
		})
	}
}

// A journal that cannot be written ends the collector at once, though results are still
// missing: its user tries again.
func TestJournalThatCannotBeWritten(t *testing.T) {
	t.Parallel()

	b := newBench(t, 9, 16<<20)
	b.Publish("0-1", 0, 1, 2)

	s := b.start(func(c *Config) {
		fixture.Must(t, c.Journal.BeginSession())
		fixture.Must(t, c.Journal.Close())
	})
	if err := s.wait(); err == nil || !strings.Contains(err.Error(), "write journal") {
		t.Errorf("Run: %v, want the error of writing the journal", err)
	}
}

// Whatever a reader does, the run does not notice.
func TestReaderSlow(t *testing.T) {
	t.Parallel()

	const requests = 150
	b := newBench(t, requests, 256<<10) // far less than the run's results
	release := make(chan struct{})
	tl := b.StartReader(tail.Config{}, func(string) error {
		<-release
		return nil
	})

	c := b.start()
	next := uint32(0)
	prototest.Poll(t, testrun.Patience, "room for all results", func() bool {
		next = b.fillResults(next, itself)
		return next == requests
	})

	b.waitCompleted(c)
	close(release)
	tl.Wait()

	if tl.Err != nil {
		t.Fatal(tl.Err)
	}

	seen := tl.Missed.Clone()
	given := fixture.ParseIndexes(t, tl.Given())
	for _, index := range given {
		if !seen.CheckedAdd(index) {
			t.Errorf("request %d is given out twice, or missed although it is not", index)
		}
	}

	if seen.GetCardinality() != requests || len(given) == 0 || tl.Missed.IsEmpty() {
		t.Errorf("given %v and missed %v of %d", given, tl.Missed, requests)
	}
}
