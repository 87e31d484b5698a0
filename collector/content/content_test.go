package content

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// all is a bound that no journal reaches.
const all = 1 << 30

// testOutput returns the name of an output in a folder of its own.
func testOutput(t testing.TB) output.Prefix { return output.Prefix(filepath.Join(t.TempDir(), "out")) }

// createJournal makes the journal of a run.
func createJournal(t testing.TB, out output.Prefix, requests int) *journal.Journal {
	t.Helper()
	j, err := journal.Create(out.Journal(), fixture.Manifest(requests))
	fixture.Must(t, err)
	t.Cleanup(func() { j.Close() })
	return j
}

// appendLines appends a frame.
func appendLines(t testing.TB, j *journal.Journal, lines ...[]byte) {
	t.Helper()

	var (
		f    journal.Frame
		scan jsonscan.Scanner
	)
	for _, line := range lines {
		info, err := proto.ParseLine(&scan, line)
		fixture.Must(t, err)
		f.Add(uint32(info.Index), line, info)
	}

	fixture.Must(t, j.Append(&f))
}

// completeRun turns a journal into the output files.
func completeRun(t testing.TB, j *journal.Journal, out output.Prefix, format output.Format) {
	t.Helper()
	fixture.Must(t, j.Rewrite(context.Background(), out, format))
	fixture.Must(t, j.Remove())
}

// openContent opens the content of a run.
func openContent(t testing.TB, cfg Config) *Content {
	t.Helper()
	c, err := Open(cfg)
	fixture.Must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// readRange returns a range of a content.
func readRange(t testing.TB, c *Content, offset, n int64) string {
	t.Helper()
	var b bytes.Buffer
	if err := c.CopyRange(t.Context(), &b, offset, n); err != nil {
		t.Errorf("CopyRange(%d, %d) of %d bytes: %v", offset, n, c.Size(), err)
	}
	return b.String()
}

// checkContent compares a content with its text, as a whole and in random ranges.
func checkContent(t testing.TB, rnd *rand.Rand, c *Content, want string) {
	t.Helper()

	if c.Size() != int64(len(want)) || c.Lines() != int64(strings.Count(want, "\n")) {
		t.Fatalf("%d bytes, %d lines; want %d and %d", c.Size(), c.Lines(), len(want), strings.Count(want, "\n"))
	}

	if readRange(t, c, 0, c.Size()) != want {
		t.Fatalf("the text is another one")
	}

	for range 10 {
		offset := rnd.Int64N(c.Size() + 1)
		n := rnd.Int64N(c.Size() - offset + 1)
		if rnd.IntN(3) == 0 {
			n = c.Size() - offset
		}

		if readRange(t, c, offset, n) != want[offset:offset+n] {
			t.Fatalf("the text of %d bytes at byte %d of %d is another one", n, offset, c.Size())
		}
	}
}

// A client that has read a part of the text while the run worked continues after its end: each
// range of the journal's text is the same in the final file.
func TestSameText(t *testing.T) {
	t.Parallel()

	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			checkSameText(t, rand.New(rand.NewPCG(seed, 0)))
		})
	}
}

func checkSameText(t *testing.T, rnd *rand.Rand) {
	format := output.Format{Plain: rnd.IntN(2) == 0, Seekable: rnd.IntN(2) == 0}
	out := testOutput(t)
	requests := 1 + rnd.IntN(150)
	longest := []int{10, 1000, 10_000, 150_000}[rnd.IntN(4)]
	onlyFailed := rnd.IntN(8) == 0

	var (
		order = rnd.Perm(requests)
		want  [2]string
		dones = []int{0}
		texts = [][2]string{{}}
		open  []*Content
	)
	if onlyFailed {
		for i := range order {
			order[i] = 3*order[i] + 2
		}
		requests *= 3
	}

	j := createJournal(t, out, requests)
	for len(order) > 0 {
		n := 1 + rnd.IntN(min(len(order), 40))
		indexes := roaring.New()
		for _, index := range order[:n] {
			indexes.Add(uint32(index))
		}
		order = order[n:]

		var lines [][]byte
		for _, index := range indexes.ToArray() {
			line := fixture.Line(index, rnd.IntN(longest))
			lines = append(lines, line)

			kind := Answers
			if fixture.Failed(index) {
				kind = Failures
			}
			if format.Plain {
				line = proto.StripExtras(line)
			}
			want[kind] += string(line)
		}

		rnd.Shuffle(len(lines), func(a, b int) { lines[a], lines[b] = lines[b], lines[a] })
		appendLines(t, j, lines...)
		dones, texts = append(dones, dones[len(dones)-1]+n), append(texts, want)

		if rnd.IntN(5) == 0 { // another session
			fixture.Must(t, j.Close())
			var err error
			j, err = journal.Open(out.Journal())
			fixture.Must(t, err)
			t.Cleanup(func() { j.Close() })
			fixture.Must(t, j.BeginSession())
		}

		at := rnd.IntN(len(dones))
		done := dones[at]
		if at+1 < len(dones) {
			done += rnd.IntN(dones[at+1] - done) // in the middle of a frame
		}

		for kind := range Kind(2) {
			c := openContent(t, Config{
				Output: out,
				Kind:   kind,
				Plain:  format.Plain,
				Done:   done,
			})
			checkContent(t, rnd, c, texts[at][kind])
			if c.Complete() {
				t.Error("a running run is complete")
			}
		}
	}

	for kind := range Kind(2) {
		open = append(open, openContent(t, Config{
			Output: out,
			Kind:   kind,
			Plain:  format.Plain,
			Done:   all,
		}))
	}

	completeRun(t, j, out, format)

	for kind := range Kind(2) {
		c := openContent(t, Config{Output: out, Kind: kind, Plain: format.Plain})
		checkContent(t, rnd, c, want[kind])
		checkContent(t, rnd, open[kind], want[kind])

		file, ok := c.Packed()
		if !c.Complete() || ok != (kind == Answers || want[kind] != "") {
			t.Errorf("Complete: %t, Packed: %t", c.Complete(), ok)
		}
		if ok {
			fixture.CheckText(t, file.Name(), want[kind])
		}

		if _, ok := open[kind].Packed(); ok || open[kind].Complete() {
			t.Error("a content that was opened while the run worked is complete")
		}
	}
}

// Open finds the text at each moment while the run completes, is retried and completes again,
// and the text of the answers only grows.
func TestOpenWhileCompleting(t *testing.T) {
	t.Parallel()

	for range 10 {
		out := testOutput(t)
		j := createJournal(t, out, 9)

		var writing sync.WaitGroup
		ended := make(chan struct{})
		writing.Go(func() {
			defer close(ended)
			completeAndRetry(t, j, out)
		})

		text := ""
		for last := false; !last; {
			select {
			case <-ended:
				last = true
			default:
			}

			for kind := range Kind(2) {
				c, err := Open(Config{Output: out, Kind: kind, Done: all})
				if err != nil {
					t.Errorf("Open: %v", err)
					continue
				}

				got := readRange(t, c, 0, c.Size())
				if kind == Answers {
					if !strings.HasPrefix(got, text) {
						t.Errorf("%q, and before: %q", got, text)
					}
					text = got
				}

				fixture.Must(t, c.Close())
			}
		}
		writing.Wait()

		if want := 9; strings.Count(text, "\n") != want {
			t.Errorf("%d answers at the end, want %d", strings.Count(text, "\n"), want)
		}
	}
}

// completeAndRetry completes a run of nine requests, and runs the failed ones again.
func completeAndRetry(t *testing.T, j *journal.Journal, out output.Prefix) {
	for _, index := range []uint32{4, 2, 7, 0, 8, 1, 6, 5, 3} {
		appendLines(t, j, fixture.Line(index, 0))
	}
	completeRun(t, j, out, output.Format{})
	fixture.Must(t, j.Close())

	m := fixture.Manifest(9)
	m.Retries = 1
	meta := &metadata.Run{Test: metadata.Test{NumRequests: 9}, Series: &metadata.Series{}}

	j, err := journal.CreateFromOutput(out, meta, m, journal.Position{})
	fixture.Must(t, err)
	defer j.Close()

	for _, index := range []uint32{8, 2, 5} {
		appendLines(t, j, fixture.RetriedLine(index))
	}
	completeRun(t, j, out, output.Format{})
}

func TestOpenMissing(t *testing.T) {
	t.Parallel()

	for kind := range Kind(2) {
		if _, err := Open(Config{Output: testOutput(t), Kind: kind}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open: %v, want os.ErrNotExist", err)
		}
	}
}

// A range outside the text is an error, and writes nothing.
func TestCopyRangeOutside(t *testing.T) {
	t.Parallel()

	out := testOutput(t)
	appendLines(t, createJournal(t, out, 1), fixture.Line(0, 0))

	c := openContent(t, Config{Output: out, Done: all})
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, c.Size() + 1}, {c.Size() + 1, 0}, {1, 1<<63 - 1}} {
		var b bytes.Buffer
		if err := c.CopyRange(t.Context(), &b, r[0], r[1]); err == nil || b.Len() > 0 {
			t.Errorf("CopyRange(%d, %d): %v, and %d bytes", r[0], r[1], err, b.Len())
		}
	}
}

// failingWriter fails after some bytes.
type failingWriter struct {
	left int
	err  error
}

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, w.err
	}
	return len(p), nil
}

// The errors of the writer and the end of the context are returned as they are.
func TestCopyRangeStopped(t *testing.T) {
	t.Parallel()

	for _, name := range []string{"journal", "one frame", "seekable"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			out := testOutput(t)
			j := createJournal(t, out, 300)
			for i := range uint32(100) {
				appendLines(t, j, fixture.Line(3*i, 100_000))
			}
			if name != "journal" {
				completeRun(t, j, out, output.Format{Seekable: name == "seekable"})
			}

			c := openContent(t, Config{Output: out, Done: all})

			full := errors.New("full")
			if err := c.CopyRange(t.Context(), &failingWriter{5_000_000, full}, 0, c.Size()); !errors.Is(err, full) {
				t.Errorf("CopyRange: %v, want the writer's error", err)
			}

			stopped := errors.New("stopped")
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(stopped)
			if err := c.CopyRange(ctx, io.Discard, 0, c.Size()); !errors.Is(err, stopped) {
				t.Errorf("CopyRange: %v, want the cause of the context's end", err)
			}
		})
	}
}

// Lines of a complete output are counted if the metadata is not of these files.
func TestLinesWithoutMetadata(t *testing.T) {
	t.Parallel()

	out := testOutput(t)
	j := createJournal(t, out, 6)
	for i := range uint32(6) {
		appendLines(t, j, fixture.Line(i, 0))
	}
	completeRun(t, j, out, output.Format{})
	fixture.Must(t, os.WriteFile(out.Meta(), []byte(`{"results": {"success_count": 77}}`), 0o644))

	for kind, want := range []int64{4, 2} {
		c := openContent(t, Config{Output: out, Kind: Kind(kind)})
		if got := c.Lines(); got != want {
			t.Errorf("%d lines, want %d", got, want)
		}
	}
}
