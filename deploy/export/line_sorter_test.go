package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/collector/output"
)

// Lines in any order come out in order, each once and whole, also if their runs have to be merged in several steps.
func TestSortLines(t *testing.T) {
	t.Parallel()

	const n = 3000
	random := rand.New(rand.NewPCG(1, 2))
	out := output.Prefix(filepath.Join(t.TempDir(), "out"))

	texts := make([]string, n)
	var answered, failed []string
	for _, i := range random.Perm(n) {
		if i%10 == 0 {
			texts[i] = failedLine(i, fmt.Sprintf("id-%d", i))
			failed = append(failed, texts[i])
			continue
		}
		texts[i] = answeredLine(i, fmt.Sprintf("id-%d", i), fmt.Sprintf(`"content":%q`, strings.Repeat("x", random.IntN(400))))
		answered = append(answered, texts[i])
	}
	writeLines(t, out.Results(), answered)
	writeLines(t, out.Errors(), failed)

	for _, limits := range []sortLimits{
		usualSortLimits,
		{runBytes: 2000, runs: 2},
		{runBytes: 5000, runs: 3},
		{runBytes: 1, runs: 7},
		{runBytes: 100_000, runs: 128},
	} {
		lines, err := openLineFiles(out)
		must(t, err)

		dir := t.TempDir()
		sorted, err := sortLines(t.Context(), lines, dir, limits)
		lines.close()
		must(t, err)

		if len(sorted.runs) > limits.runs {
			t.Errorf("%+v: %d runs are left", limits, len(sorted.runs))
		}

		for i := range n {
			line, err := sorted.next()
			if err != nil || line.Index != int64(i) || string(sorted.latest.text) != texts[i] {
				t.Fatalf("%+v: line %d has the index %d, %v:\n%s", limits, i, line.Index, err, sorted.latest.text)
			}
		}

		if _, err := sorted.next(); !errors.Is(err, io.EOF) {
			t.Errorf("%+v: error %v behind the last line", limits, err)
		}
		sorted.close()

		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("files are left: %v %v", left, err)
		}
	}
}

// The end of the context ends the sorting, and leaves no file.
func TestSortLinesInterrupted(t *testing.T) {
	t.Parallel()

	out := output.Prefix(filepath.Join(t.TempDir(), "out"))
	writeLines(t, out.Results(), []string{answeredLine(1, "b", `"content":"b"`), answeredLine(0, "a", `"content":"a"`)})

	lines, err := openLineFiles(out)
	must(t, err)
	defer lines.close()

	cause := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)

	dir := t.TempDir()
	if _, err := sortLines(ctx, lines, dir, usualSortLimits); !errors.Is(err, cause) {
		t.Errorf("error %v, want %v", err, cause)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v %v", left, err)
	}
}
