package collector

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
	"github.com/promptmill/promptmill/proto/prototest"
)

// bench is a run of a collector on a bus, with a journal.
type bench struct {
	*testrun.Run

	out output.Prefix
}

// newBench makes a run, with a manifest changed by change.
func newBench(t testing.TB, requests int, resultsBytes int64, change ...func(*proto.Manifest)) *bench {
	t.Helper()

	b := &bench{
		Run: testrun.New(t, requests, resultsBytes, change...),
		out: output.Prefix(filepath.Join(t.TempDir(), "out")),
	}

	j, err := journal.Create(b.out.Journal(), b.Manifest)
	fixture.Must(t, err)
	fixture.Must(t, j.Close())

	return b
}

// openJournal opens a journal until the end of the test.
func openJournal(t testing.TB, path string) *journal.Journal {
	t.Helper()

	j, err := journal.Open(path)
	fixture.Must(t, err)
	t.Cleanup(func() { j.Close() })

	return j
}

// appendLines appends a frame with the lines of requests to a journal.
func appendLines(t testing.TB, j *journal.Journal, indexes ...uint32) {
	t.Helper()

	f := &journal.Frame{
		Position: journal.Position{Created: fixture.Created, Sequence: 1, Time: fixture.Created.Add(1)},
		At:       fixture.Created,
		Worked:   time.Second,
	}
	for _, index := range indexes {
		line := fixture.Line(index, 0)
		info, err := proto.ParseLine(new(jsonscan.Scanner), line)
		fixture.Must(t, err)
		f.Add(index, line, info)
	}

	fixture.Must(t, j.Append(f))
}

// statsOf counts the lines of requests.
func statsOf(indexes ...uint32) *journal.FrameStats {
	s := &journal.FrameStats{}
	for _, index := range indexes {
		line := fixture.Line(index, 0)
		info, err := proto.ParseLine(new(jsonscan.Scanner), line)
		if err != nil {
			panic(err)
		}
		s.AddLine(info, line, fixture.Worker(index))
	}

	return s
}

// process is a collector at work, like a separate process.
type process struct {
	*Collector
	t     testing.TB
	cut   context.CancelFunc // stops it, and does not wait
	ended chan struct{}
	err   error // Run's error, once it has ended
}

// start runs a collector.
func (b *bench) start(change ...func(*Config)) *process {
	b.T.Helper()

	j := openJournal(b.T, b.out.Journal())
	cfg := Config{
		JS:            b.JS,
		Journal:       j,
		Output:        b.out,
		Input:         input(nil),
		Limits:        b.Limits,
		FlushInterval: 20 * time.Millisecond,
	}
	for _, change := range change {
		change(&cfg)
	}

	c, err := New(cfg)
	fixture.Must(b.T, err)

	ctx, cut := context.WithCancel(b.T.Context())
	s := &process{Collector: c, t: b.T, cut: cut, ended: make(chan struct{})}
	go func() {
		s.err = errors.Join(s.Run(ctx), j.Close())
		close(s.ended)
	}()

	b.T.Cleanup(func() { s.stop() })

	return s
}

// stop stops the collector, and returns Run's error.
func (s *process) stop() error {
	s.cut()
	<-s.ended
	return s.err
}

// wait waits until the collector ends by itself, and returns Run's error.
func (s *process) wait() error {
	s.t.Helper()
	testrun.Await(s.t, s.ended, "the collector's end")
	return s.err
}

// waitDurable waits for lines in the synced output.
func (s *process) waitDurable(n int) {
	s.t.Helper()
	prototest.Poll(s.t, testrun.Patience, "lines on the disk", func() bool { return s.Progress().Durable == n })
}

// stopped stops the collector, and checks that it was not broken.
func (s *process) stopped() {
	s.t.Helper()
	if err := s.stop(); !errors.Is(err, context.Canceled) {
		s.t.Fatalf("Run: %v, want context.Canceled", err)
	}
}

// input names requests as lineOf does. It is called with each number before that is
// given out, unless it is nil.
type input func(index uint32) error

func (in input) Requests(_ context.Context, wanted *roaring.Bitmap) iter.Seq2[proto.Request, error] {
	return func(yield func(proto.Request, error) bool) {
		var id []byte // used again, as it may be
		for it := wanted.Iterator(); it.HasNext(); {
			index := it.Next()
			if in != nil {
				if err := in(index); err != nil {
					yield(proto.Request{}, err)
					return
				}
			}

			r := fixture.Request(index)
			id = append(id[:0], r.CustomID...)
			r.CustomID = id
			if !yield(r, nil) {
				return
			}
		}
	}
}

// finish waits for the end of the run and checks its output: each request's line once.
func (b *bench) waitCompleted(s *process) metadata.Run {
	b.T.Helper()
	return b.waitEnd(s, proto.StateCompleted)
}

// end is finish for a run that ends in another state.
func (b *bench) waitEnd(s *process, state proto.State) metadata.Run {
	b.T.Helper()

	if err := s.wait(); err != nil {
		b.T.Errorf("Run: %v", err)
	}

	m, err := b.Bus.Runs.Get(b.T.Context(), "r")
	if err != nil || m.State != state || m.EndedAt == nil {
		b.T.Errorf("the run is %s, ended at %v (%v); want %s", m.State, m.EndedAt, err, state)
	}

	if _, err := b.JS.Stream(b.T.Context(), proto.WorkStream("r")); !errors.Is(err, jetstream.ErrStreamNotFound) {
		b.T.Errorf("the work stream of a run that has ended: %v, want none", err)
	}

	indexes := map[string]int{}
	var scan jsonscan.Scanner
	for path, ok := range map[string]bool{b.out.Results(): true, b.out.Errors(): false} {
		if _, err := os.Stat(path); !ok && errors.Is(err, os.ErrNotExist) {
			continue // none has failed
		}

		for line := range strings.Lines(fixture.Unpack(b.T, path)) {
			info, err := proto.ParseLine(&scan, []byte(line))
			if err != nil || info.OK != ok {
				b.T.Errorf("%s has the line %.200s (%v)", path, line, err)
			}
			indexes[string(info.CustomID)]++
		}
	}

	for id, n := range indexes {
		if n != 1 {
			b.T.Errorf("request %s has %d lines", id, n)
		}
	}

	if len(indexes) != b.Manifest.Input.Requests {
		b.T.Errorf("lines of %d requests, want %d", len(indexes), b.Manifest.Input.Requests)
	}

	fixture.CheckAbsent(b.T, b.out.Journal())

	return b.readMeta()
}

// meta reads the metadata.
func (b *bench) readMeta() (meta metadata.Run) {
	b.T.Helper()

	text, err := os.ReadFile(b.out.Meta())
	if err != nil {
		b.T.Fatal(err)
	}

	fixture.Must(b.T, json.Unmarshal(text, &meta))
	if meta.Status != meta.Manifest.State {
		b.T.Errorf("status %s of a run that is %s", meta.Status, meta.Manifest.State)
	}

	return meta
}

var compareBitmaps = cmp.Comparer(func(a, b *roaring.Bitmap) bool { return a.Equals(b) })

// compareSketches compares what two sketches report.
var compareSketches = cmp.Comparer(func(a, b *journal.Sketch) bool {
	if a.Count() == 0 || b.Count() == 0 {
		return a.Count() == b.Count()
	}
	return a.Count() == b.Count() && math.Abs(a.Sum()-b.Sum()) < 1e-6*(1+a.Sum()) &&
		*a.Distribution(1, int(a.Count())) == *b.Distribution(1, int(b.Count()))
})
