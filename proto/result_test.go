package proto

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
)

func result(body string) Result {
	return Result{
		Run: "r", Seq: 7, CustomID: []byte(`"a\u0062"`), Status: 200, Body: []byte(body),
		Worker: `box "1"`, Attempts: 3, Queued: 1500 * time.Millisecond, Latency: 2 * time.Second,
	}
}

func TestAppendResult(t *testing.T) {
	t.Parallel()
	answered, failed := result(`{"x": 12345678901234567890123}`), result("")
	failed.Status, failed.Err = 0, &ResultError{Code: CodeTimeout, Message: "no answer\nin \"1 s\""}
	named := result(`null`)
	named.RequestID = "chat-1"
	extras := `,"promptmill":{"seq":7,"worker":"box \"1\"","attempts":3,"queued_ms":1500,"latency_ms":2000}}` + "\n"
	for _, tt := range []struct {
		name   string
		result Result
		want   string
	}{
		{"an answer", answered, `{"id":"batch_req_r_7","custom_id":"a\u0062","response":{"status_code":200,"request_id":"req_r_7","body":{"x": 12345678901234567890123}},"error":null` + extras},
		{"an error", failed, `{"id":"batch_req_r_7","custom_id":"a\u0062","response":null,"error":{"code":"timeout","message":"no answer\nin \"1 s\""}` + extras},
		{"the server's request id", named, `{"id":"batch_req_r_7","custom_id":"a\u0062","response":{"status_code":200,"request_id":"chat-1","body":null},"error":null` + extras},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := AppendResult([]byte("before\n"), tt.result)
			if diff := cmp.Diff("before\n"+tt.want, string(got)); diff != "" {
				t.Errorf("line (-want +got):\n%s", diff)
			}
			if !json.Valid(got[len("before\n"):]) {
				t.Error("the line is not JSON")
			}
		})
	}
}

func TestParseLine(t *testing.T) {
	t.Parallel()
	with := func(status int, body string) []byte {
		r := result(body)
		r.Status = status
		return AppendResult(nil, r)
	}
	failed := result("")
	failed.Status, failed.Err = 0, &ResultError{Code: CodeConnection, Message: "refused"}
	id := []byte(`"a\u0062"`)
	for _, tt := range []struct {
		name string
		line []byte
		want Line
	}{
		{"chat usage", with(200, `{"usage":{"prompt_tokens":11,"completion_tokens":22,"total_tokens":33,"details":{"prompt_tokens":9}}}`),
			Line{CustomID: id, OK: true, Attempts: 3, Seq: 7, PromptTokens: 11, CompletionTokens: 22}},
		{"responses usage", with(201, `{"output":[],"usage":{"input_tokens":4,"output_tokens":5}}`),
			Line{CustomID: id, OK: true, Attempts: 3, Seq: 7, PromptTokens: 4, CompletionTokens: 5}},
		{"no usage", with(200, `{"usage":null}`), Line{CustomID: id, OK: true, Attempts: 3, Seq: 7}},
		{"usage that is no count", with(200, `{"usage":{"prompt_tokens":-4,"completion_tokens":1.5}}`), Line{CustomID: id, OK: true, Attempts: 3, Seq: 7}},
		{"a body that is a list", with(200, `[1]`), Line{CustomID: id, OK: true, Attempts: 3, Seq: 7}},
		{"a refusal of the server", with(400, `{"error":{}}`), Line{CustomID: id, Attempts: 3, Seq: 7}},
		{"a redirect is no answer", with(300, `{}`), Line{CustomID: id, Attempts: 3, Seq: 7}},
		{"no HTTP answer", AppendResult(nil, failed), Line{CustomID: id, Attempts: 3, Seq: 7}},
		{"a line of OpenAI's own", []byte(`{"custom_id":"a\u0062","error":null,"response":{"body":{},"status_code":200}}`), Line{CustomID: id, OK: true, Seq: -1}},
		{"an error beside an answer", []byte(`{"custom_id":"a\u0062","error":{"code":"x"},"response":{"status_code":200}}`), Line{CustomID: id, Seq: -1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseLine(new(Scanner), tt.line)
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
		{"no custom_id", `{"response":null,"error":null}`},
		{"custom_id is a number", `{"custom_id":1,"response":null,"error":null}`},
		{"no response", `{"custom_id":"a","error":null}`},
		{"no error", `{"custom_id":"a","response":null}`},
		{"an empty line", "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got, err := ParseLine(new(Scanner), []byte(tt.line)); !errors.Is(err, ErrFormat) {
				t.Errorf("ParseLine = %v, %v; want ErrFormat", got, err)
			}
		})
	}
}

func TestStripExtras(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, body string }{
		{"a plain body", `{"a":1}`},
		{"the key in a text of the body", `{"a":",\"promptmill\":{\"seq\":1}"}`},
		{"the key in the body itself", `{"a":1,"promptmill":{"seq":1}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			line := AppendResult(nil, result(tt.body))
			before := bytes.Clone(line)
			want := `{"id":"batch_req_r_7","custom_id":"a\u0062","response":{"status_code":200,"request_id":"req_r_7","body":` + tt.body + `},"error":null}` + "\n"
			got := StripExtras(line)
			if diff := cmp.Diff(want, string(got)); diff != "" {
				t.Errorf("line (-want +got):\n%s", diff)
			}
			if !bytes.Equal(before, line) {
				t.Error("the line itself was changed")
			}
			if diff := cmp.Diff(want, string(StripExtras(got))); diff != "" {
				t.Errorf("a line without extras (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOneLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, body, want string }{
		{"one line stays", `{"a":"b c"}`, `{"a":"b c"}`},
		{"white space at the ends goes", " \r\n{}\t\n", `{}`},
		{"breaks between tokens become spaces", "{\r\n\"a\":\n1\n}", `{  "a": 1 }`},
		{"escaped breaks stay", `{"a":"\n\r"}`, `{"a":"\n\r"}`},
		{"nothing stays nothing", "", ""},
		{"white space alone is nothing", "\n \n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, string(OneLine([]byte(tt.body)))); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSplitLines(t *testing.T) {
	t.Parallel()
	lines, err := SplitLines([]byte("a\nb\n"), 2)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]byte{[]byte("a\n"), []byte("b\n")}, lines); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	for _, tt := range []struct {
		name, payload string
		count         int
	}{
		{"a line too few", "a\n", 2},
		{"a line too many", "a\nb\n", 1},
		{"a half line at the end", "a\nb\nc", 2},
		{"nothing", "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got, err := SplitLines([]byte(tt.payload), tt.count); !errors.Is(err, ErrFormat) {
				t.Errorf("SplitLines = %q, %v; want ErrFormat", got, err)
			}
		})
	}
}

func TestResultMessage(t *testing.T) {
	t.Parallel()
	want := []uint32{1, 2, 9}
	msg := EncodeResults("r", "0-3", want, []byte("a\nb\nc\n"))
	if msg.Subject != "pm.r.results.0-3" || string(msg.Data) != "a\nb\nc\n" {
		t.Errorf("message %s %q", msg.Subject, msg.Data)
	}
	got, err := ResultSeqs(msg.Header)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("numbers %v, %v", got, err)
	}
	if _, err := ResultSeqs(nats.Header{}); !errors.Is(err, ErrFormat) {
		t.Errorf("a message without headers: %v", err)
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add(`{"usage":{"prompt_tokens":1,"completion_tokens":2}}`, "worker", 200)
	f.Add(`{"a":1,"promptmill":{"seq":1}}`, "a\",\"promptmill\":{\"seq\":1}", 500)
	f.Add(`"text"`, "\xff", -1)
	f.Add(`{"usage":{"input_tokens":9223372036854775808}}`, "", 299)
	f.Add(`{`, "", 0)
	f.Fuzz(func(t *testing.T, body, worker string, status int) {
		var s Scanner
		// Whatever comes must be refused in good order or read.
		if _, err := ParseLine(&s, []byte(body)); err != nil && !errors.Is(err, ErrFormat) {
			t.Fatalf("%v does not wrap ErrFormat", err)
		}
		// As the worker does it: an answer that is no JSON is not put into a line.
		s.Reset([]byte(`{"body":` + body + `}`))
		for s.Enter(); s.Next(); {
			if string(s.Name()) != "body" || !bytes.Equal(bytes.Trim(s.Value(), " \t\r\n"), bytes.Trim([]byte(body), " \t\r\n")) {
				return
			}
		}
		if s.End() != nil {
			return
		}
		r := result(string(OneLine([]byte(body))))
		r.Worker, r.Status = worker, status
		line := AppendResult(nil, r)
		got, err := ParseLine(&s, line)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if got.OK != (status >= 200 && status < 300) || got.Attempts != 3 || got.PromptTokens < 0 || got.CompletionTokens < 0 {
			t.Fatalf("%q is read as %+v", line, got)
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
