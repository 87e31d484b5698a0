package producer

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

func newParser(t testing.TB, s proto.Settings) *Parser {
	t.Helper()
	p, err := NewParser(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const chat = "/v1/chat/completions"

func TestParse(t *testing.T) {
	t.Parallel()
	set := proto.Settings{Model: "dflt", Set: map[string]string{"seed": "1", "max_tokens": "9"}}
	for _, tt := range []struct {
		name                       string
		settings                   proto.Settings
		line, id, url, body, model string
	}{
		{"a batch line", proto.Settings{},
			`{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[]}}`,
			`"a"`, chat, `{"model":"m","messages":[]}`, "m"},
		{"a batch line in another order, without method", proto.Settings{},
			`{"body":{"model":"m","messages":[]},"url":"\/v1/chat/completions","custom_id":"\u0061"}`,
			`"\u0061"`, chat, `{"model":"m","messages":[]}`, "m"},
		{"a body stays byte for byte", proto.Settings{},
			`{ "custom_id" : "a", "url":"/v1/responses", "body" : { "seed" : 12345678901234567890123,"x":"\u0000\/", "x":1.0e+2 ,` + "\t" + `"model":"m" } }`,
			`"a"`, "/v1/responses", `{ "seed" : 12345678901234567890123,"x":"\u0000\/", "x":1.0e+2 ,` + "\t" + `"model":"m" }`, "m"},
		{"members beside the body stay out of it", proto.Settings{},
			`{"custom_id":"a","extra":{"x":1},"url":"/v1/score","body":{"model":"m"},"more":2}`, `"a"`, "/v1/score", `{"model":"m"}`, "m"},
		{"a model beside the body is not the body's", proto.Settings{Model: "dflt"},
			`{"custom_id":"a","model":"other","url":"/v1/score","body":{"x":1}}`, `"a"`, "/v1/score", `{"model":"dflt","x":1}`, "dflt"},
		{"stream beside the body is not the body's", proto.Settings{},
			`{"custom_id":"a","stream":true,"url":"/v1/score","body":{"model":"m"}}`, `"a"`, "/v1/score", `{"model":"m"}`, "m"},
		{"a short chat", proto.Settings{}, `{"messages":[ {} ],"model":"m"}`, "", chat, `{"messages":[ {} ],"model":"m"}`, "m"},
		{"a short completion with an id", proto.Settings{}, `{"prompt": "x", "custom_id":"a", "model":"m"}`, `"a"`, "/v1/completions", `{"prompt": "x","model":"m"}`, "m"},
		{"a short embedding", proto.Settings{}, `{"model":"m","input":["x"]}`, "", "/v1/embeddings", `{"model":"m","input":["x"]}`, "m"},
		{"a short form with a url", proto.Settings{}, `{"url":"/v1/responses","model":"m","input":"x"}`, "", "/v1/responses", `{"model":"m","input":"x"}`, "m"},
		{"model and fields are added in front", set, `{"messages":[]}`, "", chat, `{"model":"dflt","max_tokens":9,"seed":1,"messages":[]}`, "dflt"},
		{"what is there stays", set, `{"messages":[],"model":"m","seed":2}`, "", chat, `{"max_tokens":9,"messages":[],"model":"m","seed":2}`, "m"},
		{"a field that is null is there", set, `{"messages":[],"model":"m","seed":null,"max_tokens":null}`, "", chat, `{"messages":[],"model":"m","seed":null,"max_tokens":null}`, "m"},
		{"a field inside another is not there", set, `{"messages":[{"seed":3,"model":"x"}],"max_tokens":1}`, "", chat, `{"model":"dflt","seed":1,"messages":[{"seed":3,"model":"x"}],"max_tokens":1}`, "dflt"},
		{"a field beside the body is not in it", set, `{"custom_id":"a","seed":5,"url":"/v1/score","body":{"max_tokens":1}}`, `"a"`, "/v1/score", `{"model":"dflt","seed":1,"max_tokens":1}`, "dflt"},
		{"an empty body gets no comma too many", set, `{"custom_id":"a","url":"/v1/score","body":{ }}`, `"a"`, "/v1/score", `{"model":"dflt","max_tokens":9,"seed":1 }`, "dflt"},
		{"stream false passes", proto.Settings{}, `{"messages":[],"model":"m","stream":false}`, "", chat, `{"messages":[],"model":"m","stream":false}`, "m"},
		{"a model's name is unquoted", proto.Settings{}, `{"messages":[],"model":"org\/m\u0031"}`, "", chat, `{"messages":[],"model":"org\/m\u0031"}`, "org/m1"},
		{"a model's name is quoted", proto.Settings{Model: `a"b`}, `{"messages":[]}`, "", chat, `{"model":"a\"b","messages":[]}`, `a"b`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, model, err := newParser(t, tt.settings).Parse([]byte(tt.line))
			if err != nil {
				t.Fatal(err)
			}
			got := []string{string(r.CustomID), r.URL, string(r.Body), model}
			if diff := cmp.Diff([]string{tt.id, tt.url, tt.body, tt.model}, got); diff != "" {
				t.Errorf("id, url, body, model (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, line, id, want string }{
		{"broken JSON", `{"custom_id":"a","messages":[}`, `"a"`, "broken JSON at byte"},
		{"half a line", `{"custom_id":"a","mess`, `"a"`, "ends in the middle"},
		{"text behind it", `{"custom_id":"a","messages":[],"model":"m"},`, `"a"`, "text after the JSON object"},
		{"a list", `[]`, "", "not a JSON object"},
		{"invalid UTF-8", "{\"custom_id\":\"a\",\"prompt\":\"\xff\",\"model\":\"m\"}", `"a"`, "invalid UTF-8"},
		{"a batch line without url", `{"custom_id":"a","body":{"model":"m","messages":[]}}`, `"a"`, "no url"},
		{"neither form", `{"custom_id":"a","model":"m"}`, `"a"`, "neither a batch line"},
		{"an unknown url", `{"custom_id":"a","url":"/v1/files","body":{"model":"m"}}`, `"a"`, `url "/v1/files": known are /v1/chat/completions`},
		{"a url that is a number", `{"custom_id":"a","url":1,"body":{"model":"m"}}`, `"a"`, "url 1"},
		{"another method", `{"custom_id":"a","method":"GET","url":"/v1/score","body":{"model":"m"}}`, `"a"`, `method "GET"`},
		{"stream", `{"custom_id":"a","messages":[],"model":"m","stream":true}`, `"a"`, "stream: true"},
		{"stream in a body", `{"custom_id":"a","url":"/v1/score","body":{"model":"m","stream": true}}`, `"a"`, "stream: true"},
		{"no messages", `{"custom_id":"a","url":"/v1/chat/completions","body":{"model":"m"}}`, `"a"`, `needs a body with "messages"`},
		{"messages beside the body", `{"custom_id":"a","messages":[],"url":"/v1/chat/completions","body":{"model":"m"}}`, `"a"`, `needs a body with "messages"`},
		{"no prompt", `{"url":"/v1/completions","body":{"model":"m"}}`, "", `"prompt"`},
		{"no input", `{"url":"/v1/embeddings","body":{"model":"m"}}`, "", `"input"`},
		{"no documents", `{"url":"/v1/rerank","body":{"model":"m"}}`, "", `"documents"`},
		{"a body that is a text", `{"custom_id":"a","url":"/v1/score","body":"{}"}`, `"a"`, "body must be a JSON object"},
		{"a body that is null", `{"custom_id":"a","url":"/v1/score","body":null}`, `"a"`, "body must be a JSON object"},
		{"custom_id is a number", `{"custom_id":7,"messages":[],"model":"m"}`, "", "custom_id must be a text"},
		{"custom_id is empty", `{"custom_id":"","messages":[],"model":"m"}`, "", "custom_id must be a text"},
		{"custom_id twice", `{"custom_id":"a","custom_id":"b","messages":[],"model":"m"}`, `"b"`, "custom_id is there twice"},
		{"url twice", `{"custom_id":"a","url":"/v1/score","url":"/v1/score","body":{"model":"m"}}`, `"a"`, "url is there twice"},
		{"method twice", `{"custom_id":"a","method":"POST","method":"POST","url":"/v1/score","body":{"model":"m"}}`, `"a"`, "method is there twice"},
		{"body twice", `{"custom_id":"a","url":"/v1/score","body":{"model":"m"},"body":{}}`, `"a"`, "body is there twice"},
		{"no model", `{"custom_id":"a","messages":[]}`, `"a"`, "no model"},
		{"an empty model", `{"custom_id":"a","messages":[],"model":""}`, `"a"`, `model ""`},
		{"a model that is a number", `{"custom_id":"a","messages":[],"model":1}`, `"a"`, "model 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, _, err := newParser(t, proto.Settings{}).Parse([]byte(tt.line))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v; want %q", err, tt.want)
			}
			// The error's line in the output has the caller's id, if there is one.
			if string(r.CustomID) != tt.id {
				t.Errorf("custom_id %s; want %s", r.CustomID, tt.id)
			}
		})
	}
}

// A parser keeps nothing of the line before.
func TestParseAgain(t *testing.T) {
	t.Parallel()
	p := newParser(t, proto.Settings{})
	if _, _, err := p.Parse([]byte(`{"messages":[],"model":"m"}`)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Parse([]byte(`{"url":"/v1/chat/completions","body":{"model":"m"}}`)); err == nil {
		t.Error("messages of the line before are taken for this line's")
	}
}

func TestNewParserRefuses(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"", "text", "1 2", "{\"a\":\n1}", `"\xff"`} {
		if _, err := NewParser(proto.Settings{Set: map[string]string{"x": value}}); err == nil {
			t.Errorf("--set x=%q is taken", value)
		}
	}
}
