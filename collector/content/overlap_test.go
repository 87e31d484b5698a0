package content

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/output"
)

// The ranges of one large frame are right, and as much of a damaged one is written as can be read.
func TestLargeFrame(t *testing.T) {
	t.Parallel()

	out := testOutput(t)
	want := writeComplete(t, out, output.Format{}, 60, 100_000)
	c := openContent(t, Config{Output: out})

	size := int64(len(want))
	for _, r := range [][2]int64{
		{0, size},
		{1, size - 1},
		{0, size - 1},
		{overlapStep, overlapStep},
		{overlapStep - 1, 2*overlapStep + 1},
		{size - overlapStep - 1, overlapStep + 1},
	} {
		if readRange(t, c, r[0], r[1]) != want[r[0]:r[0]+r[1]] {
			t.Errorf("%d bytes at byte %d are others", r[1], r[0])
		}
	}

	info, err := os.Stat(out.Results())
	fixture.Must(t, err)
	fixture.FlipBit(t, out.Results(), info.Size()*3/4)

	var got bytes.Buffer
	_, isCorruption := errors.AsType[*CorruptionError](c.CopyRange(t.Context(), &got, 0, size))
	if !isCorruption || got.Len() < len(want)/2 || got.Len() >= len(want) {
		t.Errorf("%d of %d bytes, corruption %t; want those before the damage", got.Len(), len(want), isCorruption)
	}
}

// largestWrite is a writer that notes its largest write.
type largestWrite int

// Write implements io.Writer.
func (l *largestWrite) Write(p []byte) (int, error) {
	*l = max(*l, largestWrite(len(p)))
	return len(p), nil
}

// Writes are large, and the unpacking is at most two steps ahead of them.
func TestCopyOverlapped(t *testing.T) {
	t.Parallel()

	part := make([]byte, 128<<10)
	var largest largestWrite
	err := copyOverlapped(&largest, func(w io.Writer) error {
		for range 100 {
			if _, err := w.Write(part); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || largest != overlapStep {
		t.Errorf("the largest write has %d bytes (%v), want %d", largest, err, overlapStep)
	}

	var ahead atomic.Int64
	full := errors.New("full")
	err = copyOverlapped(&failingWriter{0, full}, func(w io.Writer) error {
		for {
			n, err := w.Write(part)
			ahead.Add(int64(n))
			if err != nil {
				return err
			}
		}
	})
	if !errors.Is(err, full) || ahead.Load() > 2*overlapStep {
		t.Errorf("%v after %d bytes, want the writer's error after two steps", err, ahead.Load())
	}
}

// An unpacking that fails before its first byte writes none, since an answer that has begun cannot
// become an error.
func TestCopyOverlappedNothing(t *testing.T) {
	t.Parallel()

	damaged := errors.New("damaged")
	w := writerFunc(func([]byte) (int, error) { t.Error("there is a write"); return 0, nil })
	if err := copyOverlapped(w, func(io.Writer) error { return damaged }); !errors.Is(err, damaged) {
		t.Errorf("copyOverlapped: %v, want the error of the unpacking", err)
	}

	var text strings.Builder
	err := copyOverlapped(&text, func(w io.Writer) error {
		io.WriteString(w, "a")
		return damaged
	})
	if !errors.Is(err, damaged) || text.String() != "a" {
		t.Errorf("copyOverlapped: %q, %v; want the bytes before the error", text.String(), err)
	}
}

// writerFunc is a writer that is a function.
type writerFunc func([]byte) (int, error)

// Write implements io.Writer.
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
