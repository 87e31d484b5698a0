package collector

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

var born = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

func manifest(requests int) proto.Manifest {
	return proto.Manifest{
		Schema: proto.ManifestSchema, Run: "r", State: proto.StateInProgress, CreatedAt: born,
		Input: proto.Input{
			Files:    []proto.File{{Path: "in.jsonl"}},
			Requests: requests,
			Digest:   digestOf(to(uint32(requests))...),
			Models:   map[string]int{"m": requests},
		},
		Settings: proto.Settings{ShardSize: 8},
	}
}

// requestOf is the request of a number.
func requestOf(seq uint32) proto.Request {
	return proto.Request{
		Index:    seq,
		CustomID: lineID(seq),
		URL:      "/v1/completions",
		Body:     fmt.Appendf(nil, `{"prompt":"%d"}`, seq),
	}
}

// digestOf is the digest of some requests.
func digestOf(seqs ...uint32) (d proto.Digest) {
	for _, seq := range seqs {
		d.Add(seq, lineID(seq), requestOf(seq).Hash())
	}

	return d
}

// failing are the requests whose lines say that they failed.
func failing(seq uint32) bool { return seq%3 == 2 }

// lineOf is the output line of a request, with a body of at least pad bytes.
func lineOf(seq uint32, pad int) []byte {
	finish := `"stop"`
	if seq%2 == 1 {
		finish = `"length"`
	}

	r := proto.Result{
		Run:         "r",
		Index:       seq,
		CustomID:    lineID(seq),
		RequestHash: requestOf(seq).Hash(),
		Status:      200,
		Worker:      workerOf(seq),
		Attempts:    2,
		Reasons:     []string{"503"},
		Body: fmt.Appendf(nil,
			`{"choices":[{"text":"%d %s","finish_reason":%s}],"usage":{"prompt_tokens":3,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":2}}}`,
			seq, strings.Repeat("x", pad), finish),
	}
	if failing(seq) {
		r.Status, r.Body = 400, []byte(`{"error":{"message":"no, \"promptmill\":{\"index\":1}"}}`)
	}

	return proto.AppendResult(nil, r)
}

// workerOf is the worker that a line is from.
func workerOf(seq uint32) string { return fmt.Sprintf("w%d", seq/4) }

// tallyOf counts the lines of requests another way.
func tallyOf(seqs ...uint32) *Tally {
	t := &Tally{}
	for _, seq := range seqs {
		if info, err := proto.ParseLine(new(jsonscan.Scanner), lineOf(seq, 0)); err == nil && info.OK {
			t.measure(info)
		} else {
			t.example(info.ErrorCode, func() string { return customID(info) })
		}

		count(&t.Attempts, "2", 1)
		count(&t.Retried, "503", 1)
		count(&t.Workers, workerOf(seq), 1)

		switch {
		case failing(seq):
			count(&t.Failures, "http_400", 1)
		case seq%2 == 1:
			count(&t.Finish, "length", 1)
		default:
			count(&t.Finish, "stop", 1)
		}
	}

	return t
}

// lineID is the custom_id of a request.
func lineID(seq uint32) []byte { return fmt.Appendf(nil, `"c-%d"`, seq) }

// linesOf joins the lines of those requests that want is true for.
func linesOf(want func(uint32) bool, seqs ...uint32) string {
	var b bytes.Buffer
	for _, seq := range seqs {
		if want(seq) {
			b.Write(lineOf(seq, 0))
		}
	}
	return b.String()
}

func succeeding(seq uint32) bool { return !failing(seq) }
func either(uint32) bool         { return true }

func to(n uint32) []uint32 {
	seqs := make([]uint32, n)
	for i := range seqs {
		seqs[i] = uint32(i)
	}
	return seqs
}

// newTestJournal makes a journal with one frame for each list of requests. ends[i] is
// the file's size after i frames of lines, and states[i] what it held then.
func newTestJournal(t *testing.T, requests int, frames ...[]uint32) (j *Journal, ends []int64, states []State) {
	t.Helper()

	j, err := CreateJournal(filepath.Join(t.TempDir(), "out.part.zst"), manifest(requests))
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { j.Close() }) // closing twice does no harm
	note := func() {
		s := j.state
		s.Done, s.Tally = s.Done.Clone(), &Tally{}
		s.Tally.Add(*j.state.Tally)
		ends, states = append(ends, j.size), append(states, s)
	}

	note()
	for i, seqs := range frames {
		appendFrame(t, j, uint64(i+1), seqs...)
		note()
	}

	return j, ends, states
}

func appendFrame(t *testing.T, j *Journal, position uint64, seqs ...uint32) {
	t.Helper()

	f := &frame{position: Position{Created: born, Seq: position, Time: born.Add(time.Duration(position))}}
	var scan jsonscan.Scanner
	for _, seq := range seqs {
		line := lineOf(seq, 0)
		info, err := proto.ParseLine(&scan, line)
		if err != nil {
			t.Fatal(err)
		}
		f.add(seq, line, info)
	}

	sorted, lines := f.lines()
	h := f.header(sorted)
	h.Run, h.At, h.Worked = "r", born, 1000
	if err := j.append(h, sorted, lines); err != nil {
		t.Fatal(err)
	}
}

// reopen closes a journal and opens it again.
func reopen(t *testing.T, j *Journal) *Journal {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, j.path)
}

func open(t testing.TB, path string) *Journal {
	t.Helper()
	j, err := OpenJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

var compareBitmaps = cmp.Comparer(func(a, b *roaring.Bitmap) bool { return a.Equals(b) })

func checkState(t *testing.T, want State, got *State) {
	t.Helper()
	// The times of the test itself are not compared.
	if diff := cmp.Diff(want, *got, compareBitmaps, cmpopts.IgnoreFields(State{}, "At", "Idle", "Lost", "Series"),
		cmpopts.SortSlices(func(a, b metadata.Outlier) bool { return a.CustomID < b.CustomID })); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
}

// flip changes one bit of a file.
func flip(t *testing.T, path string, offset int64) {
	t.Helper()

	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	data[offset] ^= 1
	if err := os.WriteFile(path, data, 0o644); err != nil { // in place: the inode and its lock stay
		t.Fatal(err)
	}
}

// unpack reads all zstd frames of a file, as any program would.
func unpack(t testing.TB, path string) string {
	t.Helper()

	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()

	r, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("unpack %s: %v", path, err)
	}

	return string(text)
}

func checkText(t testing.TB, path, want string) {
	t.Helper()
	if diff := cmp.Diff(want, unpack(t, path)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", filepath.Base(path), diff)
	}
}

func checkAbsent(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is there (%v)", path, err)
	}
}
