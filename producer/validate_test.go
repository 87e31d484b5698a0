package producer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/producer/fileformat"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonl"
	"github.com/promptmill/promptmill/proto/prototest"
)

func good(id, model string) string {
	return fmt.Sprintf(`{"custom_id":%q,"model":%q,"messages":[]}`+"\n", id, model)
}

// requestOf is the request of a good line.
func requestOf(id, model string) proto.Request {
	return proto.Request{
		CustomID: fmt.Appendf(nil, "%q", id),
		URL:      "/v1/chat/completions",
		Body:     fmt.Appendf(nil, `{"model":%q,"messages":[]}`, model),
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()

	first := "\xef\xbb\xbf" + good("a", "m") + "\n" + good("b", "n") + "broken\r\n" + good("a", "m")
	// no line feed; b again
	second := "\xef\xbb\xbf" + good("c", "m") + "\xef\xbb\xbf" + `{"custom_id":"\u0062","model":"m","messages":[]}`
	files := []string{writeFile(t, "1.jsonl", first), writeFile(t, "2.jsonl", prototest.Gzip(t, second))}
	in, report, err := Validate(t.Context(), Source{Files: files}, proto.Settings{}, nil)
	if err != nil {
		t.Fatal(err)
	}

	sum := sha256.Sum256([]byte(first + second))
	want := proto.Input{
		SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(first + second)),
		Requests: 6, Invalid: 3, DuplicateIDs: "3,5", Models: map[string]int{"m": 2, "n": 1},
	}

	want.Digest.Add(0, []byte(`"a"`), requestOf("a", "m").Hash())
	want.Digest.Add(1, []byte(`"b"`), requestOf("b", "n").Hash())
	want.Digest.Add(2, []byte(`"request-3"`), proto.Request{CustomID: []byte(`"request-3"`), Refused: "x"}.Hash())
	want.Digest.Add(3, []byte(`"a"`), proto.Request{CustomID: []byte(`"a"`), Refused: "x"}.Hash())
	want.Digest.Add(4, []byte(`"c"`), requestOf("c", "m").Hash())
	want.Digest.Add(5, []byte(`"\u0062"`), proto.Request{CustomID: []byte(`"\u0062"`), Refused: "x"}.Hash())

	if diff := cmp.Diff(want, in, cmpopts.IgnoreFields(proto.Input{}, "Files")); diff != "" {
		t.Errorf("input (-want +got):\n%s", diff)
	}

	if len(in.Files) != 2 || in.Files[0].Path != files[0] || in.Files[0].Bytes != int64(len(first)) ||
		in.Files[1].ModTime.IsZero() {
		t.Errorf("files %+v", in.Files)
	}

	syntax := &LineError{Fault: FaultSyntax, Detail: "at byte 1, near broken"}
	repeated := &LineError{Fault: FaultDuplicateID, Param: "custom_id"}
	wantReport := Report{Count: 3, Reasons: []Reason{
		{syntax, 1, []Problem{{File: files[0], Line: 4, CustomID: "request-3", Err: syntax}}},
		{repeated, 2, []Problem{
			{files[0], 5, "a", repeated, files[0], 1},
			{files[1], 2, "b", repeated, files[0], 3},
		}},
	}, Lines: []RefusedLine{
		{files[0], 4, "invalid_json_line", "", "the line is not JSON: at byte 1, near broken"},
		{files[0], 5, "duplicate_custom_id", "custom_id", "the line has the custom_id of an earlier line: line 1"},
		{files[1], 2, "duplicate_custom_id", "custom_id",
			"the line has the custom_id of an earlier line: " + files[0] + ":3"},
	}}
	if diff := cmp.Diff(wantReport, report); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}

	if got := report.Reasons[1].Examples[0].String(); got != files[0]+":5: a: "+repeated.Error()+": "+files[0]+":1" {
		t.Errorf("a problem is written %q", got)
	}

	if got, err := Checksum(t.Context(), Source{Files: files}, proto.Settings{}); err != nil || got != want.SHA256 {
		t.Errorf("checksum %s, %v", got, err)
	}
}

func TestValidateReportsTheFirstProblems(t *testing.T) {
	t.Parallel()

	file := writeFile(t, "in", strings.Repeat("broken\n", MaxExamples+5)+good("a", "m"))
	in, report, err := Validate(t.Context(), Source{Files: []string{file}}, proto.Settings{}, nil)
	if err != nil {
		t.Fatal(err)
	}

	if len(report.Reasons) != 1 || report.Count != MaxExamples+5 || in.Invalid != MaxExamples+5 ||
		in.Requests != MaxExamples+6 {
		t.Fatalf("%d reasons listed, %d lines counted, input %+v", len(report.Reasons), report.Count, in)
	}

	reason := report.Reasons[0]
	if len(reason.Examples) != MaxExamples || reason.Count != MaxExamples+5 {
		t.Fatalf("%d lines listed, %d counted", len(reason.Examples), reason.Count)
	}

	if last := reason.Examples[MaxExamples-1]; last.Line != MaxExamples {
		t.Errorf("the last line listed is line %d", last.Line)
	}
}

func TestValidateErrors(t *testing.T) {
	t.Parallel()

	var models strings.Builder
	for i := range MaxModels + 1 {
		models.WriteString(good(fmt.Sprint("id", i), fmt.Sprint("m", i)))
	}

	for _, tt := range []struct {
		name string
		file string
		is   error
		text string
	}{
		{"an empty file", writeFile(t, "in", ""), ErrEmpty, ""},
		{"blank lines alone", writeFile(t, "in", "\n \r\n"), ErrEmpty, ""},
		{"a packed file of nothing", writeFile(t, "in", prototest.Gzip(t, "")), ErrEmpty, ""},
		{"a missing file", t.TempDir() + "/missing", fs.ErrNotExist, ""},
		{"too many models", writeFile(t, "in", models.String()), nil, "more than 256 models"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := Validate(t.Context(), Source{Files: []string{tt.file}}, proto.Settings{}, nil)
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v; want %v %s", err, tt.is, tt.text)
			}
		})
	}
}

func TestValidateLongLines(t *testing.T) {
	t.Parallel()

	f, err := os.Create(t.TempDir() + "/in")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	long := func(n int64) {
		fmt.Fprint(f, `{"model":"m","prompt":"`)
		if _, err := repeatByteTo(f, n); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(f, "\"}\n")
	}

	long(50 << 20)
	long(jsonl.MaxLine)
	fmt.Fprint(f, good("a", "m"))

	in, report, err := Validate(t.Context(), Source{Files: []string{f.Name()}}, proto.Settings{}, nil)
	if err != nil {
		t.Fatal(err)
	}

	tooLong := &LineError{Fault: FaultTooLong}
	want := []Reason{{tooLong, 1, []Problem{{File: f.Name(), Line: 2, CustomID: "request-2", Err: tooLong}}}}
	if diff := cmp.Diff(want, report.Reasons); diff != "" || in.Requests != 3 {
		t.Errorf("%d requests; problems (-want +got):\n%s", in.Requests, diff)
	}
}

func TestValidateStops(t *testing.T) {
	t.Parallel()

	file := writeFile(t, "in", strings.Repeat(`{"prompt":"","model":"m"}`+"\n", 3*4096))
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	_, _, err := Validate(ctx, Source{Files: []string{file}}, proto.Settings{}, func(requests int, bytes int64) {
		calls++
		if requests != 4096 || bytes <= 0 {
			t.Errorf("progress %d, %d", requests, bytes)
		}
		cancel()
	})
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("error %v after %d calls", err, calls)
	}
}

// A file may have a long part without a request.
func TestValidateStopsBetweenRequests(t *testing.T) {
	t.Parallel()

	file := writeFile(t, "in.zst", prototest.Zstd(t, strings.Repeat("\n", 1<<20)+good("a", "m")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	in, _, err := Validate(ctx, Source{Files: []string{file}}, proto.Settings{}, nil)
	if !errors.Is(err, context.Canceled) ||
		in.Requests != 0 {
		t.Errorf("error %v after %d requests", err, in.Requests)
	}
}

// Neither does a file of something else cost memory for each of its lines.
func TestValidateStopsAtBadLines(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "in.zst", prototest.Zstd(t, strings.Repeat("{}\n", MaxBad+100)))
	in, report, err := Validate(t.Context(), Source{Files: []string{file}}, proto.Settings{}, nil)
	if err != nil || report.Count != MaxBad || in.Requests != MaxBad {
		t.Errorf("%d of %d lines, error %v", report.Count, in.Requests, err)
	}
}

// A small file of blank lines, or of one line that does not end, is not unpacked to its end.
func TestValidateStopsAtFiller(t *testing.T) {
	t.Parallel()

	errText := fmt.Sprintf("has more than %d MiB of blank lines", MaxFiller>>20)
	bad := strings.Repeat("{\n", 3)
	for _, tt := range []struct {
		name string
		text io.Reader
		skip bool
		// err is a part of the error. Empty: lines are refused.
		err   string
		lines []int
	}{
		{"blank lines", repeatByte('\n', 2*MaxFiller), false, errText, nil},
		{"blank lines, if lines are skipped", repeatByte('\n', 2*MaxFiller), true, "", []int{2*MaxFiller + 2,
			2*MaxFiller + 3, 2*MaxFiller + 4}},
		{"some blank lines", repeatByte('\n', MaxFiller/2), false, "", []int{MaxFiller/2 + 2, MaxFiller/2 + 3,
			MaxFiller/2 + 4}},
		{"a line without an end", repeatByte('x', 2*MaxFiller), false, "", []int{2}},
		{"a blank line without an end", repeatByte(' ', 2*MaxFiller), false, "", []int{2}},
		{"a long line", io.MultiReader(repeatByte('x', jsonl.MaxLine+1), strings.NewReader("\n")), false, "",
			[]int{2, 3, 4, 5}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			file := filepath.Join(t.TempDir(), "in.zst")
			f, err := os.Create(file)
			if err != nil {
				t.Fatal(err)
			}
			enc, _ := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest))
			_, err = io.Copy(enc, io.MultiReader(strings.NewReader(good("a", "m")), tt.text, strings.NewReader(bad)))
			if err := errors.Join(err, enc.Close(), f.Close()); err != nil {
				t.Fatal(err)
			}

			_, report, err := Validate(
				t.Context(), Source{Files: []string{file}}, proto.Settings{SkipInvalid: tt.skip}, nil,
			)
			var lines []int
			for _, line := range report.Lines {
				lines = append(lines, line.Line)
			}
			if !slices.Equal(lines, tt.lines) || (err != nil) != (tt.err != "") ||
				err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("lines %v, error %v; want %v, %q", lines, err, tt.lines, tt.err)
			}
		})
	}
}

func TestValidatePackedTwice(t *testing.T) {
	t.Parallel()

	for _, text := range []string{
		prototest.Gzip(t, prototest.Zstd(t, "{}")), prototest.Zstd(t, prototest.Gzip(t, "{}")),
	} {
		_, _, err := Validate(t.Context(), Source{Files: []string{writeFile(t, "in.gz", text)}}, proto.Settings{}, nil)
		if err == nil || !strings.Contains(err.Error(), "in.gz is compressed twice: ") {
			t.Errorf("error %v", err)
		}
	}
}

// A file of another format is refused as a whole, also if invalid lines are to be skipped. One
// request anywhere is enough to make it JSON lines with wrong lines.
func TestValidateFormat(t *testing.T) {
	t.Parallel()

	long := strings.Repeat("a line of text\n", 60_000) // more than a reader peeks at
	for _, tt := range []struct {
		name, text string
		want       fileformat.Format
		bad        int
	}{
		{"CSV", "id,prompt\n1,hello\n", fileformat.CSV, 0},
		{"packed CSV", prototest.Gzip(t, "id,prompt\n1,hello\n"), fileformat.CSV, 0},
		{"text before a request", long + good("a", "m"), fileformat.JSONL, 60_000},
		{"text before a bad request", long + `{"prompt":"a","stream":true}`, fileformat.JSONL, 60_001},
		{"text before an object", long + `{"a":1}`, fileformat.Text, 0},
		{"an output line before a request",
			`{"id":"x","custom_id":"b","response":{},"error":null}` + "\n" + good("a", "m"),
			fileformat.JSONL, 1},
		{"output lines", `{"id":"x","custom_id":"b","response":{},"error":null}` + "\n", fileformat.Results, 0},
		{"a long array line before a request", "[" + strings.Repeat(`"x",`, 100_000) + "1]\n" + good("a", "m"),
			fileformat.JSONL, 1},
		{"an array of requests", "[\n" + strings.Repeat(strings.TrimSpace(good("a", "m"))+",\n", 10_000) +
			good("b", "m") + "]",
			fileformat.JSONArray, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			file := writeFile(t, "in", tt.text)
			_, report, err := Validate(
				t.Context(), Source{Files: []string{file}}, proto.Settings{SkipInvalid: true}, nil,
			)
			if report.Count != tt.bad {
				t.Errorf("%d bad lines, want %d", report.Count, tt.bad)
			}

			format, ok := errors.AsType[*FormatError](err)
			switch {
			case tt.want == fileformat.JSONL && err == nil:
			case !ok || format.Format != tt.want || format.File != file:
				t.Errorf("error %v, want %s", err, tt.want)
			case (format.Compression == "gzip") != strings.HasPrefix(tt.text, "\x1f\x8b"):
				t.Errorf("compression %q", format.Compression)
			}
		})
	}
}

// A reader that seeks to a checkpoint reads the same requests as one that read up to it.
func TestReaderSeek(t *testing.T) {
	t.Parallel()

	text := "\xef\xbb\xbf" + good("a", "m") + "\n" + good("b", "m") + "broken\n" + good("c", "m")
	files := []string{
		writeFile(t, "1", text), writeFile(t, "2", prototest.Gzip(t, text)), writeFile(t, "3", prototest.Zstd(t, text)),
	}

	newReader := func() *Reader {
		r, err := NewReader(t.Context(), Source{Files: files}, proto.Settings{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		return r
	}

	all := func(r *Reader) (got []string) {
		for {
			item, err := r.Next()
			if err != nil {
				return got
			}
			got = append(got, fmt.Sprint(item.Index, item.File, item.Line, string(item.CustomID), item.Err))
		}
	}

	want := all(newReader())
	if len(want) != 12 {
		t.Fatalf("%d requests", len(want))
	}

	walker := newReader()
	for i := range 13 {
		other := newReader()
		if err := other.Seek(walker.Checkpoint()); err != nil {
			t.Fatal(err)
		}

		if diff := cmp.Diff(want[i:], all(other), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("from request %d (-want +got):\n%s", i, diff)
		}

		walker.Next()
	}
}

// The end of the context is no end of the input, however short that is.
func TestValidateEnded(t *testing.T) {
	t.Parallel()

	ended, cancel := context.WithCancel(t.Context())
	cancel()

	_, _, err := Validate(ended, Source{Files: []string{writeFile(t, "in", good("a", "m"))}}, proto.Settings{}, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

func BenchmarkValidate(b *testing.B) {
	const lines = 5000
	var text strings.Builder
	words := strings.Repeat("some words of a prompt, ", 160)
	for i := range lines {
		fmt.Fprintf(&text,
			`{"custom_id":"id-%d","method":"POST","url":"/v1/chat/completions","body":{"model":"m","temperature":0.7,"max_tokens":256,"seed":%d,"messages":[{"role":"user","content":"%s"}]}}`+
				"\n",
			i, i, words)
	}

	file := writeFile(b, "in", text.String())
	b.SetBytes(int64(text.Len()))

	for b.Loop() {
		in, report, err := Validate(b.Context(), Source{Files: []string{file}}, proto.Settings{}, nil)
		if err != nil || in.Requests != lines || report.Count != 0 {
			b.Fatal(in.Requests, report.Count, err)
		}
	}
}

// A bomb of blank lines goes by as fast as other text.
func BenchmarkBlankLines(b *testing.B) {
	const size = 64 << 20
	for _, bm := range []struct{ name, line string }{
		{"feeds", "\n"}, {"returns", "\r\n"}, {"spaces", strings.Repeat(" ", 200) + "\n"}, {"one line", " "},
	} {
		file := writeFile(b, "in.zst",
			prototest.Zstd(b, strings.Repeat(bm.line, size/len(bm.line))+"\n{\"prompt\":\"\",\"model\":\"m\"}\n"))
		b.Run(bm.name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				in, _, err := Validate(b.Context(), Source{Files: []string{file}}, proto.Settings{}, nil)
				if err != nil ||
					in.Models["m"] != 1 {
					b.Fatal(in, err)
				}
			}
		})
	}
}
