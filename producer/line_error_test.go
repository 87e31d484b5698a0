package producer

import (
	"strings"
	"testing"

	"github.com/promptmill/promptmill/proto"
)

// The part of a fault that differs between lines is not in the text that they share.
func TestLineError(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ line, one, several, detail string }{
		{`{'prompt': 1}`, "is not JSON", "are not JSON", "at byte 2, near 'prompt': 1} (JSON has double quotes)"},
		{`{"prompt": NaN, "more": "text that is long"}`, "is not JSON", "are not JSON",
			`at byte 12, near NaN, "more": "text t...`},
		{`{"prompt":"x",}`, "is not JSON", "are not JSON", "at byte 14, near ,}"},
		{`{"prompt":"x"`, "ends in the middle of its JSON", "end in the middle of their JSON", "after 13 bytes"},
		{`{"body"}`, "is not JSON", "are not JSON", "at byte 8, near }"},
		{`{"body":"x"}`, "has a body that is not a JSON object", "have a body that is not a JSON object", `"x"`},
		{`{}, {}`, "has text after its JSON object", "have text after their JSON objects", "at byte 3, near , {}"},
		{"{\"prompt\":\"caf\xe9\"}", "is not UTF-8", "are not UTF-8", "at byte 15"},
		{`"a text of many characters, äöü"`, "is not a JSON object", "are not JSON objects", `"a text of many char...`},
		{`{"custom_id":"a","response":{},"error":null}`, "has an answer, and no request",
			"have answers, and no requests", ""},
		{`{"custom_id":"a","params":{}}`, `has Anthropic's "params" in place of "body"`,
			`have Anthropic's "params" in place of "body"`, ""},
		{`{"question":"x","lang":"en"}`, `has neither "body" nor "messages", "prompt" or "input"`,
			`have neither "body" nor "messages", "prompt" or "input"`, `it has "question", "lang"`},
		{`{}`, `has neither "body" nor "messages", "prompt" or "input"`,
			`have neither "body" nor "messages", "prompt" or "input"`, ""},
		{`{"prompt":"x","prompt":"y"}`, `has "prompt" twice`, `have "prompt" twice`, ""},
		{`{"url":"/v1/rerank","body":{}}`, `has no "documents", which /v1/rerank needs`,
			`have no "documents", which /v1/rerank needs`, ""},
		{`{"url":"/v1/messages","body":{}}`, "has an unknown url", "have an unknown url",
			`"/v1/messages", did you mean /v1/chat/completions?`},
		{`{"url":"v1/Completions","body":{}}`, "has an unknown url", "have an unknown url",
			`"v1/Completions", did you mean /v1/completions?`},
		{`{"url":"/v1/embedding","body":{}}`, "has an unknown url", "have an unknown url",
			`"/v1/embedding", did you mean /v1/embeddings?`},
		{`{"url":"/v1/files","body":{}}`, "has an unknown url", "have an unknown url", `"/v1/files"`},
	} {
		_, _, err := newParser(t, proto.Settings{Model: "m"}).Parse([]byte(tt.line))
		if err == nil {
			t.Errorf("%s is no error", tt.line)
			continue
		}

		if err.Text(1) != tt.one || err.Text(2) != tt.several || err.Detail != tt.detail {
			t.Errorf("%s: the line %s, lines %s, detail %s; want %s, %s, %s",
				tt.line, err.Text(1), err.Text(2), err.Detail, tt.one, tt.several, tt.detail)
		}
	}
}

func TestFaultTexts(t *testing.T) {
	t.Parallel()

	for fault := FaultSyntax; fault <= FaultModel; fault++ {
		err := &LineError{Fault: fault, Subject: "SUBJECT"}
		for _, lines := range []int{1, 2} {
			if text := err.Text(lines); text == "" || strings.Contains(text, "%") {
				t.Errorf("fault %d of %d lines has the text %q", fault, lines, text)
			}
		}
	}
}

func TestExcerpt(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{"abcd", "abcd"},
		{"abcde", "abcd..."},
		{"abcé", "abc..."},
		{"abéx", "abé..."},
		{"ab\xffd", "ab\ufffdd"},
		{"\xff\xff\xff\xff\xff", "\ufffd..."},
	} {
		if got := excerpt([]byte(tt.text), 4); got != tt.want {
			t.Errorf("excerpt of %q is %q, want %q", tt.text, got, tt.want)
		}
	}
}
