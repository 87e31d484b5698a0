package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
)

// shuffled are frames as they come: nearly in order, but not quite.
var shuffled = [][]uint32{{5, 9, 0}, {3, 7, 1}, {2, 4, 6, 8}}

func testOutput(j *Journal) output.Prefix {
	return output.Prefix(filepath.Join(filepath.Dir(j.path), "out"))
}

func plainText(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.Write(proto.StripExtras([]byte(line)))
	}
	return b.String()
}

func TestRewrite(t *testing.T) {
	t.Parallel()

	sorted := []uint32{0, 5, 9, 1, 3, 7, 2, 4, 6, 8} // as in the journal: by frame
	for _, tt := range []struct {
		name    string
		format  output.Format
		indexes []uint32
	}{
		{"in the order of completion", output.Format{}, sorted},
		{"in the order of the input", output.Format{Ordered: true}, fixture.Indexes(10)},
		{"without our extras", output.Format{Plain: true}, sorted},
		{"ordered and without our extras", output.Format{Ordered: true, Plain: true}, fixture.Indexes(10)},
		{"seekable", output.Format{Seekable: true}, sorted},
		{"everything", output.Format{Seekable: true, Ordered: true, Plain: true}, fixture.Indexes(10)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			j, _, _ := newTestJournal(t, 10, shuffled...)
			out := testOutput(j)

			results, failures := fixture.Lines(fixture.Answered,
				tt.indexes...), fixture.Lines(fixture.Failed, tt.indexes...)
			if tt.format.Plain {
				results, failures = plainText(results), plainText(failures)
			}

			// Files of an interrupted attempt do not hinder the next one.
			for _, path := range []string{out.Results(), out.Errors()} {
				if err := os.WriteFile(path+".tmp", bytes.Repeat([]byte("old"), 9999), 0o644); err != nil {
					t.Fatal(err)
				}
			}

			for range 2 { // a crash before the journal's removal makes it do all again
				if err := j.Rewrite(t.Context(), out, tt.format); err != nil {
					t.Fatal(err)
				}

				fixture.CheckText(t, out.Results(), results)
				fixture.CheckText(t, out.Errors(), failures)
				fixture.CheckAbsent(t, out.Results()+".tmp")
				fixture.CheckAbsent(t, out.Errors()+".tmp")

				if !tt.format.Seekable {
					fixture.CheckOneFrame(t, out.Results(), len(results))
					fixture.CheckOneFrame(t, out.Errors(), len(failures))
				}
			}
		})
	}
}

func TestRewriteWithoutErrors(t *testing.T) {
	t.Parallel()

	j, _, _ := newTestJournal(t, 2, []uint32{0, 1})
	out := testOutput(j)
	if err := os.WriteFile(out.Errors(), []byte("of an earlier run"), 0o644); err != nil {
		t.Fatal(err)
	}

	if err := j.Rewrite(t.Context(), out, output.Format{}); err != nil {
		t.Fatal(err)
	}

	fixture.CheckAbsent(t, out.Errors())
	fixture.CheckText(t, out.Results(), fixture.Lines(fixture.Any, 0, 1))
}

// A file without a line must still be a zstd file: the program zstd says "unexpected
// end of file" of an empty one.
func TestRewriteWithoutResults(t *testing.T) {
	t.Parallel()

	for _, format := range []output.Format{{}, {Seekable: true}} {
		t.Run(fmt.Sprintf("%+v", format), func(t *testing.T) {
			t.Parallel()

			j, _, _ := newTestJournal(t, 1, []uint32{2})
			if err := j.Rewrite(t.Context(), testOutput(j), format); err != nil {
				t.Fatal(err)
			}

			data, err := os.ReadFile(testOutput(j).Results())
			if err != nil {
				t.Fatal(err)
			}

			var h zstd.Header
			if err := h.Decode(data); err != nil || h.Skippable {
				t.Errorf("a file of %d bytes without a zstd frame: %v", len(data), err)
			}

			fixture.CheckText(t, testOutput(j).Results(), "")
		})
	}
}

func TestRewriteInterrupted(t *testing.T) {
	t.Parallel()

	for _, format := range []output.Format{{}, {Ordered: true, Seekable: true}} {
		j, _, _ := newTestJournal(t, 10, shuffled...)
		ctx, cancel := context.WithCancelCause(t.Context())
		stopped := errors.New("stopped")
		cancel(stopped)
		if err := j.Rewrite(ctx, testOutput(j), format); !errors.Is(err, stopped) {
			t.Errorf("%+v: %v, want the cause of the context's end", format, err)
		}

		for _, path := range []string{testOutput(j).Results(), testOutput(j).Errors()} {
			fixture.CheckAbsent(t, path)
			fixture.CheckAbsent(t, path+".tmp")
		}
	}
}

// Damage that comes while the journal is open must never make lines vanish.
func TestRewriteDamaged(t *testing.T) {
	t.Parallel()

	frames := [][]uint32{{0, 1}, {4, 2}, {3}, {5, 6}}
	for _, tt := range []struct {
		name   string
		frame  int
		offset int64 // in the frame; from its end if negative
	}{
		{"contents of a middle frame", 1, -3},
		{"header of a middle frame", 1, fixedSize + 9},
		{"contents of the last frame", 3, -3},
		{"header of the last frame", 3, fixedSize + 9},
	} {
		for _, format := range []output.Format{{}, {Seekable: true}, {Ordered: true}} {
			t.Run(fmt.Sprintf("%s %+v", tt.name, format), func(t *testing.T) {
				t.Parallel()

				j, ends, _ := newTestJournal(t, 7, frames...)
				at := ends[tt.frame] + tt.offset
				if tt.offset < 0 {
					at = ends[tt.frame+1] + tt.offset
				}

				fixture.FlipBit(t, j.path, at)
				if err := j.Rewrite(t.Context(), testOutput(j), format); !isCorruption(err) {
					t.Errorf("Rewrite: %v, want a CorruptionError", err)
				}

				fixture.CheckAbsent(t, testOutput(j).Results())
				if err := j.Repair(); err != nil {
					t.Fatal(err)
				}

				checkSurvivors(t, j, frames, tt.frame)
				appendFrame(t, j, 9, frames[tt.frame]...)

				if err := j.Rewrite(t.Context(), testOutput(j), output.Format{Ordered: true}); err != nil {
					t.Fatal(err)
				}

				fixture.CheckText(t, testOutput(j).Results(), fixture.Lines(fixture.Answered, fixture.Indexes(7)...))
			})
		}
	}
}
