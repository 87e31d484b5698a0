package proto

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
)

func result(body string) Result {
	return Result{
		Run:         "r",
		Index:       7,
		CustomID:    []byte(`"a\u0062"`),
		Status:      200,
		Body:        []byte(body),
		Worker:      `box "1"`,
		Attempts:    3,
		Queued:      1500 * time.Millisecond,
		Latency:     2 * time.Second,
		RequestHash: 0x123456789abcdef,
	}
}

func TestAppendResult(t *testing.T) {
	t.Parallel()

	answered, failed := result(`{"x": 12345678901234567890123}`), result("")
	failed.Status, failed.Err = 0, &ResultError{Code: CodeTimeout, Message: "no answer\nin \"1 s\""}
	named := result(`null`)
	named.RequestID = "chat-1"
	retried, kept, waited, wasted := answered, answered, answered, answered
	retried.Reasons = []string{"503", CodeTimeout}
	waited.Total = 2500 * time.Millisecond
	wasted.Total = 9 * time.Second
	wasted.Discarded = Discarded{Time: 6500 * time.Millisecond, Tokens: 44}
	kept.Err = &ResultError{Code: CodeSchemaMismatch, Message: "no"}
	const answer = `{"id":"batch_req_r_7","custom_id":"a\u0062","response":{"status_code":200,"request_id":"req_r_7","body":{"x": 12345678901234567890123}},"error":null`
	const times = `,"promptmill":{"index":7,"worker":"box \"1\"","attempts":3,"queued_ms":1500,"latency_ms":2000`
	const hash = `,"request_hash":"0123456789abcdef"`
	const ours = times + `,"total_ms":2000` + hash
	const extras = ours + "}}\n"
	for _, tt := range []struct {
		name   string
		result Result
		want   string
	}{
		{"an answer", answered,
			`{"id":"batch_req_r_7","custom_id":"a\u0062","response":{"status_code":200,"request_id":"req_r_7","body":{"x": 12345678901234567890123}},"error":null` +
				extras},
		{"an error", failed,
			`{"id":"batch_req_r_7","custom_id":"a\u0062","response":null,"error":{"code":"timeout","message":"no answer\nin \"1 s\""}` +
				extras},
		{"the server's request id", named,
			`{"id":"batch_req_r_7","custom_id":"a\u0062","response":{"status_code":200,"request_id":"chat-1","body":null},"error":null` +
				extras},
		{"reasons of retries", retried,
			`{"id":"batch_req_r_7","custom_id":"a\u0062","response":{"status_code":200,"request_id":"req_r_7","body":{"x": 12345678901234567890123}},"error":null` +
				ours + `,"retried":"503,timeout"}}` + "\n"},
		{"waits", waited, answer + times + `,"total_ms":2500` + hash + "}}\n"},
		{"earlier attempts", wasted,
			answer + times + `,"total_ms":9000,"discarded_ms":6500,"discarded_tokens":44` + hash + "}}\n"},
		{"an answer that does not count", kept,
			`{"id":"batch_req_r_7","custom_id":"a\u0062","response":{"status_code":200,"request_id":"req_r_7","body":{"x": 12345678901234567890123}},"error":{"code":"schema_mismatch","message":"no"}` +
				extras},
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

func TestStripExtras(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, body string }{
		{"a plain body", `{"a":1}`},
		{"the key in a text of the body", `{"a":",\"promptmill\":{\"index\":1}"}`},
		{"the key in the body itself", `{"a":1,"promptmill":{"index":1}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			r := result(tt.body)
			r.Reasons = []string{"503", `},"x`}
			line := AppendResult(nil, r)
			before := bytes.Clone(line)
			want := `{"id":"batch_req_r_7","custom_id":"a\u0062","response":{"status_code":200,"request_id":"req_r_7","body":` +
				tt.body + `},"error":null}` + "\n"
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

	_, got, err := batchHeader(msg.Header, MaxShardSize)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("numbers %v, %v", got, err)
	}

	if _, _, err := batchHeader(nats.Header{}, MaxShardSize); !errors.Is(err, ErrFormat) {
		t.Errorf("a message without headers: %v", err)
	}
}

// FuzzPlainSize compares with the plain way to write it.
func FuzzPlainSize(f *testing.F) {
	for _, line := range []string{
		"",
		":",
		`,"promptmill":`,
		`{"id":"a","error":null,"promptmill":{"index":1,"worker":"a:b"}}` + "\n",
		`{"id":"a","error":null,"promptmill":{"index":1,"worker":",\"promptmill\":{"}}` + "\n",
		`{"id":"a","x":{"a":1,"promptmill":{"index":1}},"error":null}` + "\n",
		`{"id":"a","x":"b","promptmill":{"index":{}}}` + "\n",
		`{"promptmill":{"index":1}}` + "\n",
		`:::::,"promptmill":{}}` + "\n",
	} {
		f.Add([]byte(line))
	}

	f.Fuzz(func(t *testing.T, line []byte) {
		want := len(line)
		if i := bytes.LastIndex(line, []byte(extrasKey)); i >= 0 && isTail(line[i+len(extrasKey):]) {
			want = i + len(lineEnd)
		}
		if got := PlainSize(line); got != want {
			t.Errorf("PlainSize(%q) = %d, want %d", line, got, want)
		}
	})
}

// FuzzOneLine checks that line breaks become spaces, and nothing else changes.
func FuzzOneLine(f *testing.F) {
	for _, body := range []string{"", "\r\n", "a", " {\r\n\n\r}\t", "\na\r\rb\nc\n"} {
		f.Add([]byte(body))
	}

	f.Fuzz(func(t *testing.T, body []byte) {
		want := bytes.Trim(body, " \t\r\n")
		want = bytes.ReplaceAll(bytes.ReplaceAll(want, []byte("\r"), []byte(" ")), []byte("\n"), []byte(" "))
		if got := OneLine(bytes.Clone(body)); !bytes.Equal(got, want) {
			t.Errorf("OneLine(%q) = %q, want %q", body, got, want)
		}
	})
}
