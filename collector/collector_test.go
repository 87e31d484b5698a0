package collector

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

const patience = 20 * time.Second

// bench is a run of a collector on a bus, with a journal.
type bench struct {
	t      *testing.T
	js     jetstream.JetStream
	runs   *proto.Runs
	limits proto.Limits
	m      proto.Manifest
	out    Output
}

func newBench(t *testing.T, requests int, resultsBytes int64) *bench {
	t.Helper()
	_, js := prototest.Server(t)
	b := &bench{
		t: t, js: js, m: manifest(requests), out: Output(filepath.Join(t.TempDir(), "out")),
		limits: proto.Limits{WorkBytes: 1 << 20, ResultsBytes: resultsBytes},
	}
	var err error
	if err = proto.MakeBuckets(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	if b.runs, err = proto.OpenRuns(t.Context(), js); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.runs.Create(t.Context(), b.m), proto.EnsureStreams(t.Context(), js, b.m, b.limits)); err != nil {
		t.Fatal(err)
	}
	j, err := CreateJournal(b.out.Journal(), b.m)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

// publish stores one message with the lines of requests.
func (b *bench) publish(shard string, seqs ...uint32) {
	b.t.Helper()
	b.publishMsg(proto.EncodeResults("r", shard, seqs, []byte(linesOf(either, seqs...))))
}

func (b *bench) publishMsg(msg *nats.Msg) {
	b.t.Helper()
	if _, err := b.js.PublishMsg(b.t.Context(), msg); err != nil {
		b.t.Fatal(err)
	}
}

// start runs a collector of its own, as a new process would. The returned function
// stops it, and returns what Run did.
func (b *bench) start() (*Collector, func() error) {
	b.t.Helper()
	j := open(b.t, b.out.Journal())
	c := New(Config{JS: b.js, Journal: j, Output: b.out, Limits: b.limits, Flush: 20 * time.Millisecond})
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stopped := false
	stop := func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		err := <-done
		j.Close()
		return err
	}
	b.t.Cleanup(func() { stop() })
	return c, stop
}

// finish waits for the end of the run and checks its output: each request's line once.
func (b *bench) finish(stop func() error) Meta {
	b.t.Helper()
	prototest.Poll(b.t, patience, "the run's end", func() bool {
		m, err := b.runs.Get(b.t.Context(), "r")
		return err == nil && m.State == proto.StateCompleted
	})
	if err := stop(); err != nil {
		b.t.Errorf("Run: %v", err)
	}
	seqs := map[string]int{}
	var scan proto.Scanner
	for path, ok := range map[string]bool{b.out.Results(): true, b.out.Errors(): false} {
		for _, line := range splitText(unpack(b.t, path)) {
			info, err := proto.ParseLine(&scan, []byte(line))
			if err != nil || info.OK != ok {
				b.t.Errorf("%s has the line %.200s (%v)", path, line, err)
			}
			seqs[string(info.CustomID)]++
		}
	}
	for id, n := range seqs {
		if n != 1 {
			b.t.Errorf("request %s has %d lines", id, n)
		}
	}
	if len(seqs) != b.m.Input.Requests {
		b.t.Errorf("lines of %d requests, want %d", len(seqs), b.m.Input.Requests)
	}
	checkAbsent(b.t, b.out.Journal())
	text, err := os.ReadFile(b.out.Meta())
	if err != nil {
		b.t.Fatal(err)
	}
	var meta Meta
	if err := json.Unmarshal(text, &meta); err != nil {
		b.t.Fatal(err)
	}
	return meta
}

func splitText(text string) (lines []string) {
	split, err := proto.SplitLines([]byte(text), countLines(text))
	if err != nil {
		return []string{text}
	}
	for _, line := range split {
		lines = append(lines, string(line))
	}
	return lines
}

func countLines(text string) (n int) {
	for _, r := range text {
		if r == '\n' {
			n++
		}
	}
	return n
}

// stopped checks that a collector was stopped, not broken.
func stopped(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("Run: %v, want context.Canceled", err)
	}
}

func (b *bench) waitDurable(c *Collector, n int) {
	b.t.Helper()
	prototest.Poll(b.t, patience, "lines on the disk", func() bool { return c.Progress().Durable == n })
}

func TestCollectorCompletes(t *testing.T) {
	t.Parallel()
	b := newBench(t, 8, 16<<20)
	b.publish("0-0", 0, 1, 2, 3)
	b.publish("0-0", 2, 3, 4) // two that are there
	b.publish("0-0", 1)       // and one more
	b.publish("0-1", 5, 6, 7)
	_, stop := b.start()
	meta := b.finish(stop)
	want := proto.Counts{Done: 8, Failed: 2, PromptTokens: 18, CompletionTokens: 30, Attempts: 16, Duplicates: 3}
	if diff := cmp.Diff(want, meta.Manifest.Counts); diff != "" {
		t.Errorf("counts of the metadata (-want +got):\n%s", diff)
	}
	m, err := b.runs.Get(t.Context(), "r")
	if diff := cmp.Diff(want, m.Counts); diff != "" || err != nil {
		t.Errorf("counts on the bus (-want +got, %v):\n%s", err, diff)
	}
	r := meta.Results
	if r.SuccessCount != 6 || r.FailureCount != 2 || r.DuplicatesDropped != 3 || r.Interruptions != 1 || *r.TotalTokens != 48 {
		t.Errorf("figures %+v", r) // one interruption: the bench makes the journal and opens it
	}
}

// A new collector goes on behind what the one before has synced.
func TestCollectorResumes(t *testing.T) {
	t.Parallel()
	b := newBench(t, 6, 16<<20)
	b.publish("0-0", 0, 1)
	b.publish("0-0", 2)
	c, stop := b.start()
	b.waitDurable(c, 3)
	stopped(t, stop())
	checkText(t, b.out.Journal(), linesOf(either, to(3)...))

	b.publish("0-1", 3, 4, 5)
	c, stop = b.start()
	meta := b.finish(stop)
	if got := meta.Results; got.DuplicatesDropped != 0 || got.Interruptions != 2 {
		t.Errorf("%d duplicates and %d interruptions, want none and 2", got.DuplicatesDropped, got.Interruptions)
	}
	if got := c.Progress(); got.Durable != 6 || got.Received.Done != 6 || !got.Finishing {
		t.Errorf("progress %+v", got)
	}
}

// What was taken off the bus but not written yet is synced at the stop.
func TestCollectorSyncsAtStop(t *testing.T) {
	t.Parallel()
	b := newBench(t, 3, 16<<20)
	b.publish("0-0", 0, 1)
	c, stop := b.start()
	c.cfg.Flush = time.Hour // before the first message is old enough, as it only is read after each fetch
	prototest.Poll(t, patience, "lines received", func() bool { return c.Progress().Received.Done == 2 })
	stopped(t, stop())
	if j := open(t, b.out.Journal()); j.State().Counts.Done != 2 {
		t.Errorf("%d lines in the journal, want 2", j.State().Counts.Done)
	}
}

// A results stream that was made anew has other messages under the numbers known.
func TestCollectorStreamMadeAnew(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		running bool
	}{{"while the collector is away", false}, {"under the running collector", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 8, 16<<20)
			for _, seq := range to(5) {
				b.publish("0-0", seq)
			}
			c, stop := b.start()
			b.waitDurable(c, 5)
			if !tt.running {
				stopped(t, stop())
			}
			if err := b.js.DeleteStream(t.Context(), proto.ResultsStream("r")); err != nil {
				t.Fatal(err)
			}
			if err := proto.EnsureStreams(t.Context(), b.js, b.m, b.limits); err != nil {
				t.Fatal(err)
			}
			b.publish("0-0", 3, 4, 5)
			b.publish("0-0", 6, 7)
			if !tt.running {
				_, stop = b.start()
			}
			if meta := b.finish(stop); meta.Results.DuplicatesDropped != 2 {
				t.Errorf("%d duplicates, want 2", meta.Results.DuplicatesDropped)
			}
		})
	}
}

func byObject(name string, seqs ...uint32) *nats.Msg {
	msg := proto.EncodeResults("r", "0-1", seqs, nil)
	msg.Header.Set(proto.HeaderObject, name)
	return msg
}

func TestCollectorReadsObjects(t *testing.T) {
	t.Parallel()
	b := newBench(t, 4, 16<<20)
	if err := proto.NewObjects(b.js, "r").Put(t.Context(), "big", []byte(linesOf(either, 2, 3))); err != nil {
		t.Fatal(err)
	}
	b.publish("0-0", 0, 1)
	b.publishMsg(byObject("big", 2, 3))
	_, stop := b.start()
	b.finish(stop)
}

// What cannot be read is run again, in a round of its own.
func TestCollectorRunsAgainWhatIsUnreadable(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		msg  *nats.Msg // should have the lines of requests 2 and 5
	}{
		{"no message at all", nil},
		{"no headers", &nats.Msg{Subject: proto.ResultsSubject("r", "0-1"), Data: []byte("x")}},
		{"a line too few", proto.EncodeResults("r", "0-1", []uint32{2, 5}, []byte(linesOf(either, 2)))},
		{"broken lines", proto.EncodeResults("r", "0-1", []uint32{2, 5}, []byte("{\n}\n"))},
		{"numbers that the run does not have", proto.EncodeResults("r", "0-1", []uint32{6, 1 << 31}, []byte(linesOf(either, 2, 5)))},
		{"an object that is not there", byObject("lost", 2, 5)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, 6, 16<<20)
			if tt.msg != nil {
				b.publishMsg(tt.msg)
			}
			b.publish("0-0", 0, 1, 3, 4)
			c, stop := b.start()
			b.waitDurable(c, 4)
			b.setPublished(nil)
			prototest.Poll(t, patience, "a round of publishing", func() bool {
				m, err := b.runs.Get(t.Context(), "r")
				return err == nil && m.Publish.Round == 1
			})
			b.setPublished(func(m *proto.Manifest) {
				data, err := proto.NewObjects(b.js, "r").Get(t.Context(), m.Publish.Missing)
				if err != nil {
					t.Fatal(err)
				}
				missing := roaring.New()
				if err := missing.UnmarshalBinary(data); err != nil || !missing.Equals(roaring.BitmapOf(2, 5)) {
					t.Errorf("the round is for %v (%v), want 2 and 5", missing, err)
				}
			})
			b.publish("1-0", 2, 5)
			b.finish(stop)
		})
	}
}

// setPublished says for the producer that all shards of the round are stored.
func (b *bench) setPublished(look func(*proto.Manifest)) {
	b.t.Helper()
	err := b.runs.Update(b.t.Context(), "r", func(m *proto.Manifest) error {
		if look != nil {
			look(m)
		}
		m.Publish.Done = true
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
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
				if _, err := b.js.Publish(t.Context(), proto.WorkSubject("r", "m", "0-0"), []byte("shard")); err != nil {
					t.Fatal(err)
				}
				b.setPublished(nil)
			}
			_, stop := b.start()
			deadline := time.Now().Add(2500 * time.Millisecond) // it looks once a second
			prototest.Poll(t, patience, "time to pass", func() bool { return time.Now().After(deadline) })
			if m, err := b.runs.Get(t.Context(), "r"); err != nil || m.Publish.Round != 0 {
				t.Errorf("round %d (%v), want 0", m.Publish.Round, err)
			}
			b.publish("0-0", 0, 1)
			prototest.Poll(t, patience, "the end", func() bool {
				m, err := b.runs.Get(t.Context(), "r")
				return err == nil && m.State == proto.StateCompleted
			})
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
