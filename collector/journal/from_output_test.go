package journal

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
)

// written makes the output of a complete run: the answers have bodies of pad bytes.
func written(t *testing.T, requests uint32, pad int, seekable bool) (output.Prefix, *metadata.Run) {
	t.Helper()

	var answered, failed bytes.Buffer
	for index := range requests {
		if fixture.Failed(index) {
			failed.Write(fixture.Line(index, pad))
		} else {
			answered.Write(fixture.Line(index, pad))
		}
	}

	out := output.Prefix(filepath.Join(t.TempDir(), "out"))
	for path, text := range map[string]string{out.Results(): answered.String(), out.Errors(): failed.String()} {
		l, err := new(Journal).createLines(path, int64(len(text)), seekable)
		fixture.Must(t, err)
		for line := range strings.Lines(text) {
			fixture.Must(t, l.WriteLine([]byte(line)))
		}
		fixture.Must(t, l.Finish())
	}

	fixture.Must(t, os.WriteFile(out.Meta(), []byte("{}"), 0o644))
	meta := &metadata.Run{
		Timestamp: time.Now().Add(-time.Minute),
		Test:      metadata.Test{NumRequests: int(requests)},
		Results:   metadata.Results{InferenceTimeSeconds: 1.5, LostTimeSeconds: new(2.0), Interruptions: 3},
		Series:    &metadata.Series{},
	}

	meta.Series.Add(fixture.Created.Add(time.Minute), metadata.Point{Requests: int64(requests)})

	return out, meta
}

// readFolder returns the files in the folder of an output.
func readFolder(t *testing.T, out output.Prefix) map[string]string {
	t.Helper()

	files := map[string]string{}
	fixture.Must(t, fs.WalkDir(os.DirFS(filepath.Dir(string(out))), ".",
		func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(filepath.Join(filepath.Dir(string(out)), path))
			files[path] = string(data)
			return err
		}))

	return files
}

// retried is a manifest of a run of which some requests are to be run again.
func retried(requests int) proto.Manifest {
	m := fixture.Manifest(requests)
	m.Retries = 1
	return m
}

// A client that has read a part of the answers reads the rest after a retry: the journal has
// the lines in the order of the output, also if they do not ascend.
func TestReopenOrder(t *testing.T) {
	t.Parallel()

	j, _, _ := newTestJournal(t, 10, shuffled...)
	out := testOutput(j)
	fixture.Must(t, j.Rewrite(t.Context(), out, output.Format{}))
	fixture.Must(t, j.Remove())
	want := fixture.Unpack(t, out.Results())

	_, meta := written(t, 10, 0, false)
	j, err := CreateFromOutput(out, meta, retried(10), Position{})
	fixture.Must(t, err)
	t.Cleanup(func() { j.Close() })

	appendFrame(t, j, 1, 2, 5) // fail again
	j = reopen(t, j)           // the frames are whole

	var got strings.Builder
	fixture.Must(t, j.allLines(t.Context(), func(_ uint32, failed bool, line []byte) error {
		if !failed {
			got.Write(line)
		}
		return nil
	}))

	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("the answers (-output +journal):\n%s", diff)
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name     string
		requests uint32
		pad      int
		seekable bool
		frames   int // of lines
	}{
		{"a small output", 9, 0, false, 1},
		{"a seekable one", 9, 0, true, 1},
		{"one of several frames", 12, 1 << 20, false, 2},
		{"one of several frames, seekable", 12, 1 << 20, true, 2},
		{"a single failed request", 3, 0, false, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			out, meta := written(t, tt.requests, tt.pad, tt.seekable)
			before := readFolder(t, out)
			at := Position{Created: fixture.Created, Sequence: 77, Time: fixture.Created.Add(time.Hour)}
			m := retried(int(tt.requests))
			j, err := CreateFromOutput(out, meta, m, at)
			fixture.Must(t, err)
			t.Cleanup(func() { j.Close() })

			n := int64(tt.requests / 3 * 2)
			want := State{
				Manifest: m,
				Done:     roaring.New(),
				Sessions: 3, // one more when it resumes
				Worked:   1500 * time.Millisecond,
				Position: at,
				Counts:   proto.Counts{Done: int(n), PromptTokens: 3 * n, CompletionTokens: 5 * n, Attempts: 2 * n},
				// the failed ones do not count any more
				Stats: statsOf(slices.DeleteFunc(fixture.Indexes(tt.requests), fixture.Failed)...),
			}
			for index := range tt.requests {
				if line := fixture.Line(index, tt.pad); fixture.Answered(index) {
					want.Done.Add(index)
					want.Counts.Truncated += int(index % 2)
					want.Digest += fixture.Digest(index)
					want.Sizes.OK += int64(len(line))
					want.Sizes.OKPlain += int64(len(proto.StripExtras(line)))
				}
			}

			checkState(t, want, j.State())
			j = reopen(t, j)
			s := j.State()
			checkState(t, want, s)
			if idle := s.Idle.Seconds(); s.Lost != 2*time.Second || idle < 56.5 || idle > 90 {
				t.Errorf("of a minute, %v are lost and %v idle", s.Lost, s.Idle)
			}

			if n := s.Series.Len(); n == 0 || s.Series.Requests[n-1] != int64(tt.requests) {
				t.Errorf("series %+v", s.Series)
			}

			frames := 0
			r, err := j.newReader()
			fixture.Must(t, err)

			_, _, err = r.readFrames(func(f frameRef) error {
				if f.Packed > 0 {
					frames++
				}
				return nil
			})
			if err != nil || frames != tt.frames {
				t.Errorf("%d frames of lines (%v), want %d", frames, err, tt.frames)
			}

			fixture.Must(t, j.BeginSession())
			if n := j.State().Sessions; n != 4 {
				t.Errorf("%d sessions, of which 3 are interruptions", n)
			}

			// Nothing else has changed.
			after := readFolder(t, out)
			delete(after, filepath.Base(out.Journal()))
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("files beside the journal (-before +after):\n%.2000s", diff)
			}
		})
	}
}

// A process that died while it made the journal leaves the output complete.
func TestReopenAfterCrash(t *testing.T) {
	t.Parallel()

	for name, left := range map[string]string{
		"nothing of it was written": "",
		"something else":            strings.Repeat("junk", 10_000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			out, meta := written(t, 6, 0, false)
			fixture.Must(t, os.WriteFile(out.Journal()+".new", []byte(left), 0o644))
			j, err := CreateFromOutput(out, meta, retried(6), Position{})
			fixture.Must(t, err)
			fixture.CheckAbsent(t, out.Journal()+".new")
			if j = reopen(t, j); j.State().Counts.Done != 4 || j.State().CutBytes != 0 {
				t.Errorf("%d lines in the journal, and %d bytes cut; want 4 and 0",
					j.State().Counts.Done, j.State().CutBytes)
			}

			fixture.CheckText(t, out.Journal(), fixture.Lines(fixture.Answered, fixture.Indexes(6)...))
		})
	}
}

func TestReopenPlain(t *testing.T) {
	t.Parallel()

	out, meta := written(t, 6, 0, false)
	meta.Config.Plain = true
	before := readFolder(t, out)
	if _, err := CreateFromOutput(out, meta, retried(6), Position{}); !errors.Is(err, ErrPlain) {
		t.Errorf("Reopen: %v, want ErrPlain", err)
	}

	if diff := cmp.Diff(before, readFolder(t, out)); diff != "" {
		t.Errorf("files (-before +after):\n%s", diff)
	}
}

// An output that cannot be read leaves no journal, and stays as it is.
func TestReopenDamaged(t *testing.T) {
	t.Parallel()

	rewritten := func(lines ...[]byte) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			text := slices.Concat(lines...)
			l, err := new(Journal).createLines(path, int64(len(text)), false)
			fixture.Must(t, err)
			fixture.Must(t, l.WriteLine(text))
			fixture.Must(t, l.Finish())
		}
	}

	size := func(t *testing.T, path string) int64 {
		info, err := os.Stat(path)
		fixture.Must(t, err)
		return info.Size()
	}
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, path string)
		want   error // nil: any
	}{
		{"no results", func(t *testing.T, path string) { fixture.Must(t, os.Remove(path)) }, os.ErrNotExist},
		{"no zstd", func(t *testing.T, path string) { fixture.Must(t, os.WriteFile(path, fixture.Line(0, 0), 0o644)) },
			nil},
		{"cut in the checksum", func(t *testing.T, path string) { fixture.Must(t, os.Truncate(path, size(t, path)-1)) },
			io.ErrUnexpectedEOF},
		{"cut in the lines", func(t *testing.T, path string) { fixture.Must(t, os.Truncate(path, size(t, path)/2)) },
			io.ErrUnexpectedEOF},
		{"another checksum", func(t *testing.T, path string) { fixture.FlipBit(t, path, size(t, path)-1) },
			zstd.ErrCRCMismatch},
		{"a line that is none", rewritten(fixture.Line(0, 0), []byte("{}\n")), proto.ErrFormat},
		{"a line without a line feed", rewritten(fixture.Line(0, 0), bytes.TrimSpace(fixture.Line(1, 0))), nil},
		{"a request twice", rewritten(fixture.Line(0, 0), fixture.Line(1, 0), fixture.Line(0, 0)), proto.ErrFormat},
		{"a request too many", rewritten(fixture.Line(0, 0), fixture.Line(12, 0)), proto.ErrFormat},
		{"a line without our extras", rewritten(proto.StripExtras(fixture.Line(0, 0))), proto.ErrFormat},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			out, meta := written(t, 12, 1<<20, false) // so that a frame is written before the end is seen
			tt.damage(t, out.Results())
			before := readFolder(t, out)

			_, err := CreateFromOutput(out, meta, retried(12), Position{})
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) ||
				!strings.Contains(err.Error(), out.Results()) {
				t.Errorf("Reopen: %v, want %v and the name of the file", err, tt.want)
			}

			if diff := cmp.Diff(before, readFolder(t, out)); diff != "" {
				t.Errorf("files (-before +after):\n%.2000s", diff)
			}

			// It is no matter of locks: with a good file it works.
			rewritten(fixture.Line(0, 0), fixture.Line(1, 0))(t, out.Results())
			j, err := CreateFromOutput(out, meta, retried(12), Position{})
			fixture.Must(t, err)
			j.Close()
		})
	}
}
