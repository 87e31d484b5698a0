package proto

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

func TestParseLine(t *testing.T) {
	t.Parallel()

	with := func(status int, body string, change ...func(*Result)) []byte {
		r := result(body)
		r.Status = status
		for _, c := range change {
			c(&r)
		}
		return AppendResult(nil, r)
	}

	fails := func(code string) func(*Result) {
		return func(r *Result) { r.Err = &ResultError{Code: code, Message: `"code":"x"`} }
	}

	id := []byte(`"a\u0062"`)
	ours := func(l Line) Line {
		l.CustomID, l.Index, l.Worker, l.Attempts, l.LatencyMS = id, 7, []byte(`box "1"`), 3, 2000
		l.TotalMS = max(l.TotalMS, l.LatencyMS)
		l.RequestHash, l.Hashed = 0x123456789abcdef, true
		l.ID = []byte(`"batch_req_r_7"`)
		if l.Status > 0 {
			l.RequestID = []byte(`"req_r_7"`)
		}
		return l
	}

	foreign := func(text string) []byte { return []byte(`{"custom_id":"a\u0062",` + text + `}`) }
	for _, tt := range []struct {
		name string
		line []byte
		want Line
	}{
		{"a chat answer",
			with(200,
				`{"choices":[{"index":0,"message":{"finish_reason":"x","choices":[{}]},"finish_reason":"length"}],"usage":{"prompt_tokens":11,"completion_tokens":22,"total_tokens":33,"details":{"prompt_tokens":9}}}`),
			ours(Line{OK: true, Status: 200, PromptTokens: 11, CompletionTokens: 22, Finish: "length"})},
		{"several choices: the first counts",
			with(200, `{"choices":[{"finish_reason":"stop","index":0},{"finish_reason":"length"},7]}`),
			ours(Line{OK: true, Status: 200, Finish: "stop"})},
		{"a reason of SGLang's", with(200, `{"choices":[{"finish_reason":{"message":"gone","type":"abort"}}]}`),
			ours(Line{OK: true, Status: 200, Finish: "abort"})},
		{"an unknown reason", with(200, `{"choices":[{"finish_reason":"b\u00e9"}]}`),
			ours(Line{OK: true, Status: 200, Finish: "bé"})},
		{"no reason", with(200, `{"choices":[{"finish_reason":null}]}`), ours(Line{OK: true, Status: 200})},
		{"a reason that is a list", with(200, `{"choices":[{"finish_reason":[1]}]}`),
			ours(Line{OK: true, Status: 200})},
		{"no choices", with(200, `{"choices":[]}`), ours(Line{OK: true, Status: 200})},
		{"choices that are no list of objects", with(200, `{"choices":["stop"]}`), ours(Line{OK: true, Status: 200})},
		{"choices that are no list", with(200, `{"choices":{"finish_reason":"stop"}}`),
			ours(Line{OK: true, Status: 200})},
		{"an answer of the responses API",
			with(201,
				`{"status":"completed","incomplete_details":null,"output":[],"usage":{"input_tokens":4,"input_tokens_details":{"cached_tokens":3},"output_tokens":5}}`),
			ours(Line{OK: true, Status: 201, PromptTokens: 4, CachedTokens: 3, CompletionTokens: 5, Finish: "stop"})},
		{"one that was cut off",
			with(200, `{"incomplete_details":{"reason":"max_output_tokens"},"status":"incomplete"}`),
			ours(Line{OK: true, Status: 200, Finish: "length"})},
		{"a status that is a number", with(200, `{"status":200}`), ours(Line{OK: true, Status: 200})},
		{"no usage", with(200, `{"usage":null}`), ours(Line{OK: true, Status: 200})},
		{"cached tokens of a prompt",
			with(200,
				`{"usage":{"prompt_tokens":9,"completion_tokens":1,"prompt_tokens_details":{"audio_tokens":null,"cached_tokens":8}}}`),
			ours(Line{OK: true, Status: 200, PromptTokens: 9, CachedTokens: 8, CompletionTokens: 1})},
		{"reasoning tokens of an answer",
			with(200,
				`{"usage":{"prompt_tokens":9,"completion_tokens":7,"completion_tokens_details":{"reasoning_tokens":6}}}`),
			ours(Line{OK: true, Status: 200, PromptTokens: 9, ReasoningTokens: 6, CompletionTokens: 7})},
		{"reasoning tokens of the responses API",
			with(200,
				`{"usage":{"input_tokens":9,"output_tokens":7,"output_tokens_details":{"reasoning_tokens":6}}}`),
			ours(Line{OK: true, Status: 200, PromptTokens: 9, ReasoningTokens: 6, CompletionTokens: 7})},
		{"no count of reasoning tokens", with(200, `{"usage":{"completion_tokens":9,"completion_tokens_details":null}}`),
			ours(Line{OK: true, Status: 200, CompletionTokens: 9})},
		{"no count of cached tokens", with(200, `{"usage":{"prompt_tokens":9,"prompt_tokens_details":null}}`),
			ours(Line{OK: true, Status: 200, PromptTokens: 9})},
		{"usage that is no count", with(200, `{"usage":{"prompt_tokens":-4,"completion_tokens":1.5}}`),
			ours(Line{OK: true, Status: 200})},
		{"usage in floats", with(200, `{"usage":{"prompt_tokens":11.0,"completion_tokens":1.2e1}}`), ours(Line{
			OK:               true,
			Status:           200,
			PromptTokens:     11,
			CompletionTokens: 12,
		})},
		{"usage that no answer takes",
			with(200,
				`{"usage":{"prompt_tokens":9007199254740992,"completion_tokens":1000000001,"prompt_tokens_details":{"cached_tokens":9223372036854775807}}}`),
			ours(Line{OK: true, Status: 200})},
		{"the most usage", with(200, `{"usage":{"prompt_tokens":1e9,"completion_tokens":1000000000}}`), ours(Line{
			OK:               true,
			Status:           200,
			PromptTokens:     1e9,
			CompletionTokens: 1e9,
		})},
		{"usage beyond the exact integers",
			with(200, `{"usage":{"prompt_tokens":1e400,"completion_tokens":99999999999999999999}}`),
			ours(Line{OK: true, Status: 200})},
		{"a ranking as a list",
			with(200, `[{"index":0,"score":0.9,"meta_info":{"prompt_tokens":5}},{"index":1,"score":-0}]`),
			ours(Line{OK: true, Status: 200})},
		{"half a surrogate pair",
			with(200, `{"choices":[{"message":{"content":"cut \ud83d"},"finish_reason":"length\ud83d"}]}`),
			ours(Line{OK: true, Status: 200, Finish: "length\ufffd"})},
		{"a body that is a list", with(200, `[1]`), ours(Line{OK: true, Status: 200})},
		{"a refusal of the server", with(400, `{"error":{"code":"x"}}`),
			ours(Line{Status: 400, ErrorCode: "http_400"})},
		{"a redirect is no answer", with(300, `{}`), ours(Line{Status: 300, ErrorCode: "http_300"})},
		{"no HTTP answer", with(0, ``, fails(CodeConnection)), ours(Line{ErrorCode: "connection_error"})},
		{"an answer that does not count",
			with(200, `{"choices":[{"finish_reason":"length"}]}`, fails(CodeSchemaMismatch)),
			ours(Line{Status: 200, Finish: "length", ErrorCode: "schema_mismatch"})},
		{"retries", with(200, `{}`, func(r *Result) { r.Reasons = []string{"503", "timeout"} }),
			ours(Line{OK: true, Status: 200, Retried: []byte("503,timeout")})},
		{"what earlier attempts cost",
			with(200, `{}`, func(r *Result) {
				r.Total, r.Discarded = 7*time.Second, Discarded{Time: 3 * time.Second, Tokens: 55}
			}),
			ours(Line{OK: true, Status: 200, TotalMS: 7000, DiscardedMS: 3000, DiscardedTokens: 55})},
		{"impossible costs", foreign(
			`"error":null,"response":{"status_code":200},"promptmill":{"latency_ms":5,"total_ms":-3,"discarded_ms":-1,"discarded_tokens":"x"}`,
		), Line{
			CustomID:  id,
			OK:        true,
			Status:    200,
			Index:     -1,
			LatencyMS: 5,
			TotalMS:   5,
		}},
		{"a line of OpenAI's own", foreign(`"error":null,"response":{"body":{},"status_code":200}`), Line{
			CustomID:  id,
			OK:        true,
			Status:    200,
			Index:     -1,
			LatencyMS: -1,
			TotalMS:   -1,
		}},
		{"extras of another program", foreign(
			`"error":null,"response":{"status_code":200},"promptmill":{"worker":7,"retried":["503"]}`,
		), Line{
			CustomID:  id,
			OK:        true,
			Status:    200,
			Index:     -1,
			LatencyMS: -1,
			TotalMS:   -1,
		}},
		{"an error that is a text", foreign(`"error":"no","response":{"status_code":200}`), Line{
			CustomID:  id,
			Status:    200,
			ErrorCode: "unknown",
			Index:     -1,
			LatencyMS: -1,
			TotalMS:   -1,
		}},
		{"an error without a code", foreign(`"error":{"code":null},"response":null`), Line{
			CustomID:  id,
			ErrorCode: "unknown",
			Index:     -1,
			LatencyMS: -1,
			TotalMS:   -1,
		}},
		{"a code that is a number", foreign(`"error":{"code":17},"response":null`), Line{
			CustomID:  id,
			ErrorCode: "17",
			Index:     -1,
			LatencyMS: -1,
			TotalMS:   -1,
		}},
		{"neither an answer nor an error", foreign(`"error":null,"response":null`), Line{
			CustomID:  id,
			ErrorCode: "unknown",
			Index:     -1,
			LatencyMS: -1,
			TotalMS:   -1,
		}},
		{"an error that is taken back",
			foreign(`"error":{"code":"x"},"error":null,"response":{"status_code":200}`), Line{
				CustomID:  id,
				OK:        true,
				Status:    200,
				Index:     -1,
				LatencyMS: -1,
				TotalMS:   -1,
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			got, err := ParseLine(new(jsonscan.Scanner), tt.line)
			if err != nil {
				t.Fatal(err)
			}

			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("line (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseLineErrors(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, line string }{
		{"broken JSON", `{"custom_id":"a","response":null,"error":null`},
		{"a half line behind a line", `{"custom_id":"a","response":null,"error":null}{"c`},
		{"choices that are cut",
			`{"custom_id":"a","error":null,"response":{"body":{"choices":[{"finish_reason":"stop"},`},
		{"choices that are broken",
			`{"custom_id":"a","error":null,"response":{"body":{"choices":[{"finish_reason":"stop"}}}}`},
		{"no custom_id", `{"response":null,"error":null}`},
		{"custom_id is a number", `{"custom_id":1,"response":null,"error":null}`},
		{"no response", `{"custom_id":"a","error":null}`},
		{"no error", `{"custom_id":"a","response":null}`},
		{"an empty line", "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got, err := ParseLine(new(jsonscan.Scanner), []byte(tt.line)); !errors.Is(err, ErrFormat) {
				t.Errorf("ParseLine = %v, %v; want ErrFormat", got, err)
			}
		})
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add(`{"usage":{"prompt_tokens":1,"completion_tokens":2}}`, "worker", "503,timeout", 200)
	f.Add(`{"a":1,"promptmill":{"index":1}}`, "a\",\"promptmill\":{\"index\":1}", "}}\n", 500)
	f.Add(`"text"`, "\xff", "\xff", -1)
	f.Add(`{"usage":{"input_tokens":9223372036854775808}}`, "", "", 299)
	f.Add(`{"choices":[{"finish_reason":{"type":"abort"}},[]],"status":"completed","incomplete_details":{"reason":1}}`,
		"", ",", 200)
	f.Add(`{"custom_id":"","error":{"code":{}},"response":{"body":{"choices":[{"finish_reason":"\ud800"}]}}}`,
		"", "", 0)
	f.Add(`{`, "", "", 0)
	f.Fuzz(func(t *testing.T, body, worker, reason string, status int) {
		var s jsonscan.Scanner
		// Whatever comes must be refused in good order or read.
		if got, err := ParseLine(&s, []byte(body)); err != nil && !errors.Is(err, ErrFormat) {
			t.Fatalf("%v does not wrap ErrFormat", err)
		} else if err == nil && got.OK != (got.ErrorCode == "") {
			t.Fatalf("%q is read as %+v", body, got)
		}

		// As the worker does it: an answer that is no JSON is not put into a line.
		s.Reset([]byte(`{"body":` + body + `}`))
		for s.Enter(); s.Next(); {
			if string(s.Name()) != "body" ||
				!bytes.Equal(bytes.Trim(s.Value(), " \t\r\n"), bytes.Trim([]byte(body), " \t\r\n")) {
				return
			}
		}

		if s.End() != nil {
			return
		}

		r := result(string(OneLine([]byte(body))))
		r.Worker, r.Status, r.Reasons = worker, status, []string{reason}
		line := AppendResult(nil, r)
		got, err := ParseLine(&s, line)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}

		if got.OK != (status >= 200 && status < 300) || got.Attempts != 3 || got.PromptTokens < 0 ||
			got.CompletionTokens < 0 {
			t.Fatalf("%q is read as %+v", line, got)
		}

		if valid := strings.ToValidUTF8(worker, ""); valid == worker && string(got.Worker) != worker {
			t.Fatalf("worker %q is read as %q", worker, got.Worker)
		}

		if valid := strings.ToValidUTF8(reason, ""); valid == reason && string(got.Retried) != reason {
			t.Fatalf("reasons %q are read as %q", reason, got.Retried)
		}

		if _, err := SplitLines(line, 1); err != nil {
			t.Fatalf("%q: %v", line, err)
		}

		stripped := string(StripExtras(line))
		if !strings.HasSuffix(stripped, `},"error":null}`+"\n") {
			t.Fatalf("%q is stripped to %q", line, stripped)
		}
	})
}

// A body that is not too deep can be read as a part of any line, and by encoding/json.
func TestTooDeep(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, value string
		want        bool
	}{
		{"as deep as may be", strings.Repeat("[", jsonscan.MaxDepth) + strings.Repeat("]", jsonscan.MaxDepth), false},
		{"one deeper", strings.Repeat("[", jsonscan.MaxDepth+1) + strings.Repeat("]", jsonscan.MaxDepth+1), true},
		{"objects", strings.Repeat(`{"a":`, jsonscan.MaxDepth+1) + "1" + strings.Repeat("}", jsonscan.MaxDepth+1),
			true},
		{"many side by side", "[" + strings.Repeat("[],", 2*jsonscan.MaxDepth) + "1]", false},
		{"brackets in a text", `["\"` + strings.Repeat("[", 2*jsonscan.MaxDepth) + `"]`, false},
		{"nothing", "", false},
	} {
		if got := jsonscan.TooDeep([]byte(tt.value)); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}

		if tt.want || tt.value == "" {
			continue
		}

		line := AppendResult(nil, Result{CustomID: []byte(`"a"`), Status: 200, Body: []byte(tt.value)})
		if l, err := ParseLine(new(jsonscan.Scanner), line); err != nil || !l.OK || !json.Valid(line) {
			t.Errorf("%s: its line cannot be read: %v", tt.name, err)
		}
	}
}
