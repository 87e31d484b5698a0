package summary

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// The end of a run has the causes of failed requests, in the servers' words, without characters
// that change the terminal.
func TestCauses(t *testing.T) {
	t.Parallel()

	line := func(status, body, failure string) string {
		response := "null"
		if status != "" {
			response = `{"status_code":` + status + `,"request_id":"r","body":` + body + `}`
		}
		return `{"id":"b","custom_id":"c","response":` + response + `,"error":` + failure + "}\n"
	}

	lines := []string{
		line("400", `{"error":{"message":"maximum context length is 4096, got 5000"}}`, "null"),
		line("400", `{"detail":"no such thing"}`, "null"),
		line("400", `{"error":{"message":"maximum context length is 4096, got 6000"}}`, "null"),
		line("", "", `{"code":"timeout","message":"no answer\u001b[2J in 30m"}`),
		line("403", `"<html>\n<b>no</b>"`, "null"),
		line("404", `{}`, "null"),
		line("413", `{"message":"too large"}`, "null"),
		line("422", `{"detail":[{"msg":"field required"}]}`, "null"),
	}

	var packed bytes.Buffer
	enc, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}

	enc.Write([]byte(strings.Join(lines, "")))
	enc.Close()

	path := filepath.Join(t.TempDir(), "errors.jsonl.zst")
	if err := os.WriteFile(path, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}

	meta := &metadata.Run{}
	meta.Results.Failures = map[string]int64{
		"http_400": 1229,
		"timeout":  7,
		"http_403": 3,
		"http_404": 2,
		"http_413": 1,
		"http_422": 1,
	}

	var out bytes.Buffer
	s := terminal.New(terminal.Config{Out: &out})
	PrintCauses(s, meta, path)

	want := `  1,229 x HTTP 400: maximum context length is 4096, got 5000 (and another message)
  7 x timeout: no answer [2J in 30m
  3 x HTTP 403: <html>
  2 x HTTP 404: {}
  1 x HTTP 413: too large
  and other causes, of 1 requests
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	out.Reset()
	meta.Results.Failures = map[string]int64{"http_400": 2}
	PrintCauses(s, meta, path+".gone")

	if got, want := out.String(), "  2 x HTTP 400\n"; got != want {
		t.Errorf("without the file: %q, want %q", got, want)
	}
}

// An unfinished run has the messages of its failed lines.
func TestCausesSoFar(t *testing.T) {
	t.Parallel()

	line := `{"id":"b","custom_id":"c","response":{"status_code":400,"request_id":"r","body":{"detail":"too long"}},` +
		`"error":null}`

	var out bytes.Buffer
	PrintCausesSoFar(terminal.New(terminal.Config{Out: &out}), map[string]int64{"http_400": 3, "timeout": 5},
		[][]byte{[]byte(line), []byte("broken"), []byte(line)})
	if got, want := out.String(), "  5 x timeout\n  3 x HTTP 400: too long\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A complete run that has reached a limit has the exit code of limits, whether or not requests
// failed.
func TestErrOfLimits(t *testing.T) {
	t.Parallel()

	meta := &metadata.Run{}
	meta.Test.NumRequests, meta.Results.SuccessCount = 10, 10
	reached := &proto.ReachedLimit{
		Limit:    "truncated>1",
		Metric:   proto.MetricTruncated,
		Count:    2,
		Ended:    10,
		WholeRun: true,
	}

	const text = "the run is complete, and the limit truncated>1 is reached: " +
		"2 of 10 answers were cut off at their token limit"
	err := Err(meta, "e.jsonl.zst", reached, "the same command with --retry")
	if err == nil || err.Error() != text || exit.Code(err) != exit.CodeLimit || exit.Hint(err) != "" {
		t.Errorf("%v, exit code %d, hint %q", err, exit.Code(err), exit.Hint(err))
	}

	meta.Results.FailureCount, meta.Test.ErrorFile = 1, new("e.jsonl.zst")
	err = Err(meta, "e.jsonl.zst", reached, "the same command with --retry")
	if want := "the same command with --retry runs them again; zstd -dc e.jsonl.zst shows each"; err == nil ||
		exit.Code(err) != exit.CodeLimit || exit.Hint(err) != want {
		t.Errorf("with a failure: %v, exit code %d, hint %q", err, exit.Code(err), exit.Hint(err))
	}

	if err := Err(meta, "e.jsonl.zst", nil, ""); exit.Code(err) != exit.CodeFailed {
		t.Errorf("without a limit: %v", err)
	}
}

// Rows that could not be sent fail again in the same run, so no command is said to run them again.
func TestHintOfUnsent(t *testing.T) {
	t.Parallel()

	const (
		retry  = "the same command with --retry"
		unsent = "correct the input and run it with another output for the 2 that could not be sent"
		shows  = "; zstd -dc e.jsonl.zst shows each"
	)

	for _, tt := range []struct {
		failed      int
		retry, want string
	}{
		{2, retry, unsent + shows},
		{5, retry, retry + " runs the others again; " + unsent + shows},
		{5, "", unsent + shows},
	} {
		meta := &metadata.Run{}
		meta.Test.NumRequests, meta.Results.FailureCount = 10, tt.failed
		meta.Results.Failures = map[string]int64{proto.CodeInvalidRequest: 2, "timeout": int64(tt.failed) - 2}
		if got := exit.Hint(Err(meta, "e.jsonl.zst", nil, tt.retry)); got != tt.want {
			t.Errorf("%d failed, retry %q: hint %q, want %q", tt.failed, tt.retry, got, tt.want)
		}
	}
}

// The table that the command asks for is the one that is named, and results of rows without a
// table come with the command that writes one.
func TestPrintedTable(t *testing.T) {
	t.Parallel()

	out := output.Prefix(filepath.Join(t.TempDir(), "out"))
	for _, tt := range []struct {
		tables      []metadata.TableFile
		named, want string
	}{
		{[]metadata.TableFile{{File: "out.parquet"}, {File: "out.csv"}}, "out.csv",
			"  table     DIR/out.csv and 1 more\n%sprove it:   promptmill verify in.csv DIR/out.csv\n"},
		{[]metadata.TableFile{{File: "out.parquet"}}, "",
			"  table     DIR/out.parquet\n%sprove it:   promptmill verify in.csv DIR/out.parquet\n"},
		{nil, "", "%sprove it:   promptmill verify in.csv DIR/out.jsonl.zst\n" +
			"as a table: promptmill export DIR/out.jsonl.zst in.csv -o DIR/out.csv\n"},
	} {
		meta := &metadata.Run{Manifest: &proto.Manifest{Settings: proto.Settings{Rows: &proto.Rows{}}}}
		meta.Test.Tables = tt.tables

		var text bytes.Buffer
		PrintFiles(terminal.New(terminal.Config{Out: &text, Size: func() (int, int) { return 200, 24 }}), meta,
			Files{
				Local:  out,
				Place:  out,
				Inputs: []string{"in.csv"},
				Table:  tt.named,
			})

		want := fmt.Sprintf(tt.want, "  results   DIR/out.jsonl.zst\n  metadata  DIR/out.meta.json\n")
		got := strings.ReplaceAll(text.String(), filepath.Dir(string(out)), "DIR")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// Requests that were never sent are counted by themselves. The exit code stays that of requests without an answer.
func TestWhatWasNotSent(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		counts     proto.Counts
		text, want string
	}{
		{proto.Counts{Done: 4000, Failed: 3600, Skipped: 3600}, "400 answered, 0 failed, 3,600 not sent",
			"3,600 of 4,000 requests were not sent"},
		{proto.Counts{Done: 4000, Failed: 3610, Skipped: 3600}, "390 answered, 10 failed, 3,600 not sent",
			"10 of 4,000 requests failed, and 3,600 were not sent"},
		{proto.Counts{Done: 4000, Failed: 10}, "3,990 answered, 10 failed", "10 of 4,000 requests failed"},
	} {
		meta := &metadata.Run{Status: proto.StateCancelled, Results: resultsOf(tt.counts)}
		meta.Test.NumRequests = 4000

		err := Err(meta, "e.jsonl.zst", nil, "")
		if err == nil || err.Error() != tt.want || exit.Code(err) != exit.CodeFailed {
			t.Errorf("error %v, exit code %d; want %q", err, exit.Code(err), tt.want)
		}
		if got := DescribeUnanswered(tt.counts, 4000); got != tt.want {
			t.Errorf("by the manifest %q, want %q", got, tt.want)
		}
		if got := FormatCounts(tt.counts); got != tt.text {
			t.Errorf("%q, want %q", got, tt.text)
		}

		var text bytes.Buffer
		Print(terminal.New(terminal.Config{Out: &text, Size: func() (int, int) { return 200, 24 }}), meta,
			Files{Local: "answers", Place: "answers"})
		if first, _, _ := strings.Cut(text.String(), "\n"); first != "cancelled: "+tt.text+", in 0s" {
			t.Errorf("the summary begins with %q", first)
		}
	}
}

// The end of a run, to the letter.
func TestPrint(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	out := output.Prefix(filepath.Join(dir, "answers"))
	for _, path := range []string{out.ReportMarkdown(), out.ReportHTML()} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	meta := &metadata.Run{Status: proto.StateCompleted}
	meta.Test.NumRequests, meta.Test.ErrorFile = 20000, new("answers.errors.jsonl.zst")
	meta.Results.SuccessCount, meta.Results.FailureCount = 18771, 1229
	meta.Results.Failures = map[string]int64{"http_400": 1229}
	meta.Results.InferenceTimeSeconds = 12.345678
	meta.Results.ThroughputRequestsPerSec = new(1620.04)
	meta.Results.InputTokensPerSec, meta.Results.OutputTokensPerSec = new(17630.2), new(6493.6)

	var text bytes.Buffer
	s := terminal.New(terminal.Config{Out: &text, Colour: true, Size: func() (int, int) { return 200, 24 }})
	Print(s, meta, Files{Local: out, Place: out, Inputs: []string{"in.jsonl", "-x"}})

	dim := func(s string) string { return terminal.Dim + s + "\x1b[0m" }
	want := `done: 18,771 answered, ` + terminal.Red + "1,229 failed\x1b[0m" + `, in 12.35s
      1,620 requests/s, 17,630 tokens/s in, 6,494 tokens/s out
  1,229 x HTTP 400
` + dim("  results   ") + `DIR/answers.jsonl.zst
` + dim("  errors    ") + `DIR/answers.errors.jsonl.zst
` + dim("  metadata  ") + `DIR/answers.meta.json
` + dim("  report    ") + `DIR/answers.report.html and .md
prove it:   promptmill verify in.jsonl ./-x DIR/answers.jsonl.zst
`

	got := strings.ReplaceAll(text.String(), dir, "DIR")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The command that proves a run does not show the signature of its input.
func TestProofOfSignedURL(t *testing.T) {
	t.Parallel()

	got := string(FormatProof([]string{"https://host/in.csv?X-Amz-Signature=abc"}, "out.csv"))
	if strings.Contains(got, "abc") || !strings.Contains(got, "X-Amz-Signature=***") {
		t.Errorf("the command is %s", got)
	}
}
