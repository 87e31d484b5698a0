package producer

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonl"
)

// Each fault has a word for programs and the member of the line that has it.
func TestRefusedLines(t *testing.T) {
	t.Parallel()

	const envelope = `{"custom_id":"a","url":"/v1/chat/completions","body":`
	for _, tt := range []struct{ line, code, param, message string }{
		{`{"prompt": NaN}`, "invalid_json_line", "", "is not JSON: at byte 12, near NaN}"},
		{`{"prompt": "x"`, "invalid_json_line", "", "ends in the middle of its JSON: after 14 bytes"},
		{`{"prompt":"x"} {}`, "invalid_json_line", "", "has text after its JSON object: at byte 16, near {}"},
		{`["prompt"]`, "invalid_json_line", "", `is not a JSON object: ["prompt"]`},
		{"{\"prompt\":\"caf\xe9\"}", "invalid_encoding", "", "is not UTF-8: at byte 15"},
		{strings.Repeat(" ", jsonl.MaxLine+1), "line_too_long", "", "is longer than 64 MiB"},
		{`{"prompt":` + strings.Repeat("[", 9001) + strings.Repeat("]", 9001) + `}`, "body_too_deep", "body",
			"has a body that is nested deeper than 9000 levels"},
		{`{"question":"x"}`, "missing_required_parameter", "body",
			`has neither "body" nor "messages", "prompt" or "input": it has "question"`},
		{`{"custom_id":"a","response":{}}`, "missing_required_parameter", "body", "has an answer, and no request"},
		{`{"custom_id":"a","params":{}}`, "missing_required_parameter", "body",
			`has Anthropic's "params" in place of "body"`},
		{`{"custom_id":"a","custom_id":"b","prompt":"x"}`, "duplicate_parameter", "custom_id", `has "custom_id" twice`},
		{envelope + `{"messages":[],"model":"m","model":"n"}}`, "duplicate_parameter", "body.model", `has "model" twice`},
		{`{"prompt":"x","prompt":"y"}`, "duplicate_parameter", "prompt", `has "prompt" twice`},
		{`{"custom_id":"","prompt":"x"}`, "invalid_custom_id", "custom_id",
			`has a custom_id that is empty or not a text: ""`},
		{`{"custom_id":"\ud83d","prompt":"x"}`, "invalid_custom_id", "custom_id",
			`has a custom_id with half of a surrogate pair: "\ud83d"`},
		{`{"method":"GET","prompt":"x"}`, "invalid_method", "method", `has a method other than POST: "GET"`},
		{`{"url":"/v1/files","body":{}}`, "invalid_url", "url", `has an unknown url: "/v1/files"`},
		{`{"body":{"messages":[]}}`, "missing_required_parameter", "url", "has a body and no url"},
		{`{"url":"/v1/chat/completions"}`, "missing_required_parameter", "body", "has a url and no body"},
		{envelope + `"x"}`, "invalid_body", "body", `has a body that is not a JSON object: "x"`},
		{envelope + `{}}`, "missing_required_parameter", "body.messages",
			`has no "messages", which /v1/chat/completions needs`},
		{`{"prompt":"x","stream":true}`, "unsupported_parameter", "stream",
			`has "stream": true, which a batch cannot answer`},
		{envelope + `{"messages":[],"stream":true}}`, "unsupported_parameter", "body.stream",
			`has "stream": true, which a batch cannot answer`},
		{envelope + `{"messages":[],"background":true}}`, "unsupported_parameter", "body.background",
			`has "background": true, which a batch cannot answer`},
		{envelope + `{"messages":[]}}`, "missing_required_parameter", "body.model", "names no model"},
		{envelope + `{"messages":[],"model":7}}`, "invalid_model", "body.model",
			"has a model that is empty or not a text: 7"},
	} {
		file := writeFile(t, "in.jsonl", tt.line+"\n")
		want := []RefusedLine{{file, 1, tt.code, tt.param, "the line " + tt.message}}
		_, report, err := Validate(t.Context(), Source{Files: []string{file}}, proto.Settings{}, nil)
		if _, format := errors.AsType[*FormatError](err); format { // a file of such lines alone is something else
			file = writeFile(t, "in.jsonl", `{"prompt":"x","model":"m"}`+"\n"+tt.line+"\n")
			want[0].File, want[0].Line = file, 2
			_, report, err = Validate(t.Context(), Source{Files: []string{file}}, proto.Settings{}, nil)
		}

		if err != nil {
			t.Errorf("%.80s: %v", tt.line, err)
			continue
		}

		if diff := cmp.Diff(want, report.Lines); diff != "" {
			t.Errorf("%.80s (-want +got):\n%s", tt.line, diff)
		}
	}
}

// The words are for programs: each fault has one, of OpenAI's form.
func TestFaultCodes(t *testing.T) {
	t.Parallel()

	for fault := FaultSyntax; fault <= FaultModel; fault++ {
		if code := fault.Code(); code == "" || strings.Trim(code, "abcdefghijklmnopqrstuvwxyz8_") != "" {
			t.Errorf("fault %d has the code %q", fault, code)
		}
	}
}

// A byte-order mark, CRLF, empty lines and a missing line feed at the end shift no line number.
func TestRefusedLineNumbers(t *testing.T) {
	t.Parallel()

	const ok = `{"prompt":"x","model":"m"}`
	for _, text := range []string{
		ok + "\nbad\n" + ok + "\n\nbad\n",
		ok + "\nbad\n" + ok + "\n\nbad",
		ok + "\r\nbad\r\n" + ok + "\r\n\r\nbad\r\n",
		ok + "\r\nbad\r\n" + ok + "\r\n\r\nbad",
		"\xef\xbb\xbf" + ok + "\nbad\n" + ok + "\n  \t\nbad",
		"\n\xef\xbb\xbfbad\n" + ok + "\n\nbad\n\n",
	} {
		in, report, err := Validate(t.Context(), Source{Files: []string{writeFile(t, "in.jsonl", text)}}, proto.Settings{}, nil)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}

		var lines []int
		for _, l := range report.Lines {
			if lines = append(lines, l.Line); l.Code != "invalid_json_line" {
				t.Errorf("%q: line %d has the code %s: %s", text, l.Line, l.Code, l.Message)
			}
		}

		if diff := cmp.Diff([]int{2, 5}, lines); diff != "" || in.Requests-in.Invalid < 1 {
			t.Errorf("%q: %d of %d requests are refused, lines (-want +got):\n%s", text, in.Invalid, in.Requests, diff)
		}
	}
}

// The last line of a file needs no line feed.
func TestLastLineWithoutLineFeed(t *testing.T) {
	t.Parallel()

	const ok = `{"prompt":"x","model":"m"}`
	for _, text := range []string{ok, ok + "\n", ok + "\r\n", "\xef\xbb\xbf" + ok, "\n" + ok} {
		in, report, err := Validate(t.Context(), Source{Files: []string{writeFile(t, "in.jsonl", text)}}, proto.Settings{}, nil)
		if err != nil || in.Requests != 1 || report.Count != 0 {
			t.Errorf("%q: %d requests, %d refused, %v", text, in.Requests, report.Count, err)
		}
	}
}

// A report lists the first lines and counts all. Of two lines with one custom_id, the later one is refused.
func TestReportOfManyLines(t *testing.T) {
	t.Parallel()

	var text strings.Builder
	for range MaxLines + 10 {
		text.WriteString(`{"custom_id":"` + strings.Repeat("a", 200) + `","prompt":"x","model":"m"}` + "\n")
	}

	_, report, err := Validate(t.Context(), Source{Files: []string{writeFile(t, "in.jsonl", text.String())}}, proto.Settings{}, nil)
	if err != nil {
		t.Fatal(err)
	}

	if report.Count != MaxLines+9 || len(report.Lines) != MaxLines {
		t.Errorf("%d lines are refused, %d are listed", report.Count, len(report.Lines))
	}

	for i, l := range report.Lines {
		if l.Line != i+2 || l.Message != "the line has the custom_id of an earlier line: line 1" {
			t.Fatalf("line %d is line %d: %s", i, l.Line, l.Message)
		}
	}
}
