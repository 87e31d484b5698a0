package producer

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
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
			`{ "custom_id" : "a", "url":"/v1/responses", "body" : { "seed" : 12345678901234567890123,"x":"\u0000\/", "x":1.0e+2 ,` +
				"\t" + `"model":"m" } }`,
			`"a"`, "/v1/responses", `{ "seed" : 12345678901234567890123,"x":"\u0000\/", "x":1.0e+2 ,` + "\t" +
				`"model":"m" }`, "m"},
		{"members beside the body stay out of it", proto.Settings{},
			`{"custom_id":"a","extra":{"x":1},"url":"/v1/score","body":{"model":"m"},"more":2}`, `"a"`, "/v1/score",
			`{"model":"m"}`, "m"},
		{"a model beside the body is not the body's", proto.Settings{Model: "dflt"},
			`{"custom_id":"a","model":"other","url":"/v1/score","body":{"x":1}}`, `"a"`, "/v1/score",
			`{"model":"dflt","x":1}`, "dflt"},
		{"stream beside the body is not the body's", proto.Settings{},
			`{"custom_id":"a","stream":true,"url":"/v1/score","body":{"model":"m"}}`, `"a"`, "/v1/score",
			`{"model":"m"}`, "m"},
		{"a short chat", proto.Settings{}, `{"messages":[ {} ],"model":"m"}`, "", chat,
			`{"messages":[ {} ],"model":"m"}`, "m"},
		{"a short completion with an id", proto.Settings{}, `{"prompt": "x", "custom_id":"a", "model":"m"}`, `"a"`,
			"/v1/completions", `{"prompt": "x","model":"m"}`, "m"},
		{"a short embedding", proto.Settings{}, `{"model":"m","input":["x"]}`, "", "/v1/embeddings",
			`{"model":"m","input":["x"]}`, "m"},
		{"a short form with a url", proto.Settings{}, `{"url":"/v1/responses","model":"m","input":"x"}`, "",
			"/v1/responses", `{"model":"m","input":"x"}`, "m"},
		{"model and fields are added in front", set, `{"messages":[]}`, "", chat,
			`{"model":"dflt","max_tokens":9,"seed":1,"messages":[]}`, "dflt"},
		{"members of the body stay", set, `{"messages":[],"model":"m","seed":2}`, "", chat,
			`{"max_tokens":9,"messages":[],"model":"m","seed":2}`, "m"},
		{"a field that is null is filled in where it stands", set,
			`{"messages":[],"model": null ,"seed":null,"x":null,"max_tokens":5}`, "", chat,
			`{"messages":[],"model": "dflt","seed":1,"x":null,"max_tokens":5}`, "dflt"},
		{"a field that is null in a body", set, `{"url":"/v1/score","body":{ "s\u0065ed" : null,"text_1":null}}`, "",
			"/v1/score", `{"model":"dflt","max_tokens":9, "s\u0065ed" : 1,"text_1":null}`, "dflt"},
		{"a field that is null and not is there", set,
			`{"messages":[],"model":"m","seed":null,"seed":7,"max_tokens":1}`, "", chat,
			`{"messages":[],"model":"m","seed":null,"seed":7,"max_tokens":1}`, "m"},
		{"nulls that nothing fills stay", proto.Settings{}, `{"model":"m","messages":null,"prompt":"hi","seed":null}`,
			"", "/v1/completions", `{"model":"m","messages":null,"prompt":"hi","seed":null}`, "m"},
		{"messages and null for the others", proto.Settings{},
			`{"custom_id":null,"method":null,"url":null,"body":null,"input":null,"prompt":null,"messages":[],"model":"m"}`,
			"", chat, `{"input":null,"prompt":null,"messages":[],"model":"m"}`, "m"},
		{"stream and background null", proto.Settings{}, `{"messages":[],"model":"m","stream":null,"background":null}`,
			"", chat, `{"messages":[],"model":"m","stream":null,"background":null}`, "m"},
		{"a member of the server's that is null and not", proto.Settings{},
			`{"custom_id":"a","messages":[],"stop":null,"stop":"x","model":"m"}`, `"a"`, chat,
			`{"messages":[],"stop":null,"stop":"x","model":"m"}`, "m"},
		{"escapes in names", proto.Settings{},
			`{"c\u0075stom_id":"a","\u0075rl":"/v1/responses","b\u006fdy":{"m\u006fdel":"m"}}`, `"a"`, "/v1/responses",
			`{"m\u006fdel":"m"}`, "m"},
		{"escapes in names of a short form", set, `{"m\u0065ssages":[],"s\u0065ed":2}`, "", chat,
			`{"model":"dflt","max_tokens":9,"m\u0065ssages":[],"s\u0065ed":2}`, "dflt"},
		{"a method in small letters", proto.Settings{}, `{"method":"p\u006fst","url":"/v1/score","body":{"model":"m"}}`,
			"", "/v1/score", `{"model":"m"}`, "m"},
		{"a url of Azure", proto.Settings{}, `{"url":"/chat/completions","body":{"model":"m","messages":[]}}`, "", chat,
			`{"model":"m","messages":[]}`, "m"},
		{"a url with a slash at its end", proto.Settings{},
			`{"url":"/v1/chat/completions/","body":{"model":"m","messages":[]}}`, "", chat,
			`{"model":"m","messages":[]}`, "m"},
		{"half a surrogate pair in a body", proto.Settings{}, `{"prompt":"\ud83d","model":"m"}`, "", "/v1/completions",
			`{"prompt":"\ud83d","model":"m"}`, "m"},
		{"members that promptmill does not read may be there twice", proto.Settings{},
			`{"prompt":"x","model":"m","stop":"a","stop":"b"}`, "", "/v1/completions",
			`{"prompt":"x","model":"m","stop":"a","stop":"b"}`, "m"},
		{"a field inside another is not there", set, `{"messages":[{"seed":3,"model":"x"}],"max_tokens":1}`, "", chat,
			`{"model":"dflt","seed":1,"messages":[{"seed":3,"model":"x"}],"max_tokens":1}`, "dflt"},
		{"a field beside the body is not in it", set,
			`{"custom_id":"a","seed":5,"url":"/v1/score","body":{"max_tokens":1}}`, `"a"`, "/v1/score",
			`{"model":"dflt","seed":1,"max_tokens":1}`, "dflt"},
		{"an empty body gets no comma too many", set, `{"custom_id":"a","url":"/v1/score","body":{ }}`, `"a"`,
			"/v1/score", `{"model":"dflt","max_tokens":9,"seed":1 }`, "dflt"},
		{"stream false as a text passes", proto.Settings{}, `{"messages":[],"model":"m","stream":"false"}`, "", chat,
			`{"messages":[],"model":"m","stream":"false"}`, "m"},
		{"stream false passes", proto.Settings{}, `{"messages":[],"model":"m","stream":false}`, "", chat,
			`{"messages":[],"model":"m","stream":false}`, "m"},
		{"a model's name is unquoted", proto.Settings{}, `{"messages":[],"model":"org\/m\u0031"}`, "", chat,
			`{"messages":[],"model":"org\/m\u0031"}`, "org/m1"},
		{"a model's name is quoted", proto.Settings{Model: `a"b`}, `{"messages":[]}`, "", chat,
			`{"model":"a\"b","messages":[]}`, `a"b`},
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
		{"broken JSON", `{"custom_id":"a","messages":[}`, `"a"`, "is not JSON: at byte"},
		{"half a line", `{"custom_id":"a","mess`, `"a"`, "ends in the middle of its JSON: after "},
		{"text behind it", `{"custom_id":"a","messages":[],"model":"m"},`, `"a"`,
			"has text after its JSON object: at byte 44, near ,"},
		{"a list", `[]`, "", "is not a JSON object: []"},
		{"is not UTF-8: at byte", "{\"custom_id\":\"a\",\"prompt\":\"\xff\",\"model\":\"m\"}", `"a"`,
			"is not UTF-8: at byte"},
		{"a batch line without url", `{"custom_id":"a","body":{"model":"m","messages":[]}}`, `"a"`,
			"a body and no url"},
		{"neither form", `{"custom_id":"a","model":"m"}`, `"a"`, `neither "body" nor "messages", "prompt" or "input"`},
		{"an unknown url", `{"custom_id":"a","url":"/v1/files","body":{"model":"m"}}`, `"a"`,
			`unknown url: "/v1/files"`},
		{"a url that is a number", `{"custom_id":"a","url":1,"body":{"model":"m"}}`, `"a"`, "unknown url: 1"},
		{"another method", `{"custom_id":"a","method":"GET","url":"/v1/score","body":{"model":"m"}}`, `"a"`,
			`a method other than POST: "GET"`},
		{"stream", `{"custom_id":"a","messages":[],"model":"m","stream":true}`, `"a"`, `"stream": true`},
		{"stream in a body", `{"custom_id":"a","url":"/v1/score","body":{"model":"m","stream": true}}`, `"a"`,
			`"stream": true`},
		{"no messages", `{"custom_id":"a","url":"/v1/chat/completions","body":{"model":"m"}}`, `"a"`,
			`no "messages", which /v1/chat/completions needs`},
		{"messages beside the body",
			`{"custom_id":"a","messages":[],"url":"/v1/chat/completions","body":{"model":"m"}}`, `"a"`,
			`no "messages", which /v1/chat/completions needs`},
		{"no prompt", `{"url":"/v1/completions","body":{"model":"m"}}`, "", `"prompt"`},
		{"no input", `{"url":"/v1/embeddings","body":{"model":"m"}}`, "", `"input"`},
		{"no documents", `{"url":"/v1/rerank","body":{"model":"m"}}`, "", `"documents"`},
		{"a body that is a text", `{"custom_id":"a","url":"/v1/score","body":"{}"}`, `"a"`,
			"body that is not a JSON object"},
		{"a body that is null", `{"custom_id":"a","url":"/v1/score","body":null}`, `"a"`, "a url and no body"},
		{"custom_id is a number", `{"custom_id":7,"messages":[],"model":"m"}`, `"7"`,
			"a custom_id that is empty or not a text: 7"},
		{"custom_id is a number, and more is wrong", `{"custom_id":-7.50,"messages":[}`, `"-7.50"`, "is not JSON"},
		{"custom_id is an object", `{"custom_id":{"a":1},"messages":[],"model":"m"}`, "",
			`a custom_id that is empty or not a text: {"a":1}`},
		{"custom_id is half a character", `{"custom_id":"a\ud83d","messages":[],"model":"m"}`, "",
			`half of a surrogate pair: "a\ud83d"`},
		{"background", `{"url":"/v1/responses","body":{"model":"m","input":"x","background":true}}`, "",
			`"background": true`},
		{"no payload but null", `{"custom_id":"a","messages":null,"prompt":null,"model":"m"}`, `"a"`,
			`neither "body" nor "messages", "prompt" or "input"`},
		{"a payload that is null",
			`{"custom_id":"a","url":"/v1/chat/completions","body":{"model":"m","messages":null}}`, `"a"`,
			`no "messages", which /v1/chat/completions needs`},
		{"a model that is null", `{"custom_id":"a","messages":[],"model":null}`, `"a"`, "names no model"},
		{"a url that is null", `{"custom_id":"a","url":null,"body":{"model":"m"}}`, `"a"`, "a body and no url"},
		{"an endpoint of another name", `{"url":"/v1/fim/completions","body":{"model":"m","prompt":"x"}}`, "",
			`unknown url: "/v1/fim/completions"`},
		{"messages twice", `{"messages":[],"messages":[],"model":"m"}`, "", `has "messages" twice`},
		{"model twice, once in escapes", `{"url":"/v1/score","body":{"model":"m","mod\u0065l":"n"}}`, "",
			`has "model" twice`},
		{"model twice, then null", `{"custom_id":"a","prompt":"x","model":"m","model":null}`, `"a"`,
			`has "model" twice`},
		{"model twice, first null", `{"custom_id":"a","prompt":"x","model":null,"model":"m"}`, `"a"`,
			`has "model" twice`},
		{"messages twice, first null", `{"custom_id":"a","messages":null,"messages":[],"model":"m"}`, `"a"`,
			`has "messages" twice`},
		{"messages twice, once null, in a body",
			`{"url":"/v1/chat/completions","body":{"model":"m","messages":[],"messages":null}}`, "",
			`has "messages" twice`},
		{"stream twice, both null", `{"prompt":"x","model":"m","stream":null,"stream":null}`, "",
			`has "stream" twice`},
		{"custom_id twice, then null", `{"custom_id":"a","custom_id":null,"messages":[],"model":"m"}`, `"a"`,
			`has "custom_id" twice`},
		{"custom_id twice, first null", `{"custom_id":null,"custom_id":"a","messages":[],"model":"m"}`, `"a"`,
			`has "custom_id" twice`},
		{"custom_id twice, both null", `{"custom_id":null,"custom_id":null,"messages":[],"model":"m"}`, "",
			`has "custom_id" twice`},
		{"url twice, then null", `{"custom_id":"a","url":"/v1/score","url":null,"body":{"model":"m"}}`, `"a"`,
			`has "url" twice`},
		{"body twice, then null", `{"custom_id":"a","url":"/v1/score","body":{"model":"m"},"body":null}`, `"a"`,
			`has "body" twice`},
		{"body twice, first null", `{"custom_id":"a","url":"/v1/score","body":null,"body":{"model":"m"}}`, `"a"`,
			`has "body" twice`},
		{"stream is a text", `{"prompt":"x","model":"m","stream":"true"}`, "", `"stream": true`},
		{"stream is a text in other letters", `{"prompt":"x","model":"m","stream":"Yes"}`, "", `"stream": true`},
		{"stream is 1", `{"prompt":"x","model":"m","stream":1}`, "", `"stream": true`},
		{"background is a text", `{"url":"/v1/responses","body":{"model":"m","input":"x","background":"true"}}`, "",
			`"background": true`},
		{"stream twice", `{"prompt":"x","model":"m","stream":true,"stream":false}`, "", `has "stream" twice`},
		{"a body that is too deep", `{"prompt":` + strings.Repeat("[", 9500) + strings.Repeat("]", 9500) +
			`,"model":"m"}`, "", "nested deeper than 9000 levels"},
		{"custom_id is empty", `{"custom_id":"","messages":[],"model":"m"}`, "",
			"a custom_id that is empty or not a text"},
		{"custom_id twice", `{"custom_id":"a","custom_id":"b","messages":[],"model":"m"}`, `"b"`,
			`has "custom_id" twice`},
		{"url twice", `{"custom_id":"a","url":"/v1/score","url":"/v1/score","body":{"model":"m"}}`, `"a"`,
			`has "url" twice`},
		{"method twice", `{"custom_id":"a","method":"POST","method":"POST","url":"/v1/score","body":{"model":"m"}}`,
			`"a"`, `has "method" twice`},
		{"body twice", `{"custom_id":"a","url":"/v1/score","body":{"model":"m"},"body":{}}`, `"a"`,
			`has "body" twice`},
		{"names no model", `{"custom_id":"a","messages":[]}`, `"a"`, "names no model"},
		{"an empty model", `{"custom_id":"a","messages":[],"model":""}`, `"a"`,
			`a model that is empty or not a text: ""`},
		{"a model that is a number", `{"custom_id":"a","messages":[],"model":1}`, `"a"`,
			"a model that is empty or not a text: 1"},
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

func TestEndpointOf(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ url, want string }{
		{"/v1/chat/completions", chat},
		{"/chat/completions", chat},
		{"/chat/completions//", chat},
		{"https://api.openai.com/v1/chat/completions", chat},
		{"https://h.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21", chat},
		{"https://openrouter.ai/api/v1/chat/completions", chat},
		{"https://generativelanguage.googleapis.com/v1beta/openai/chat/completions", chat},
		{"http://localhost:8000//v1/completions", "/v1/completions"},
		{"http://localhost:8000/embeddings", "/v1/embeddings"},
		{"/v1/score", "/v1/score"},
		{"/score", "/v1/score"},
		{"/rerank", "/v1/rerank"},
		{"/v2/rerank", "/v1/rerank"},
		{"/openai/v1/responses", "/v1/responses"},
		{"/v1/responses?x=/v1/files", "/v1/responses"},
		{"", ""},
		{"/", ""},
		{"https://api.openai.com", ""},
		{"chat/completions", ""},
		{"/v1/files", ""},
		{"/v1/fim/completions", ""},
		{"/v1/agents/completions", ""},
		{"/v1/chat/completions/x", ""},
		{"/v1/Chat/Completions", ""},
		{"/v1/files?x=/v1/score", ""},
	} {
		if got := endpointOf(tt.url); got != tt.want {
			t.Errorf("%s is %q, want %q", tt.url, got, tt.want)
		}
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
		t.Error("messages of the line before are used for this line")
	}

	for _, tt := range []struct{ line, want string }{
		{`{"url":"/score","body":{"model":"m"}}`, "/v1/score"},
		{`{"url":"/score","body":{"model":"m"}}`, "/v1/score"},
		{`{"url":"/v2/rerank","body":{"model":"m","documents":[]}}`, "/v1/rerank"},
		{`{"input":"x","model":"m"}`, "/v1/embeddings"},
	} {
		if r, _, err := p.Parse([]byte(tt.line)); err != nil || r.URL != tt.want {
			t.Errorf("%s is of %q, %v", tt.line, r.URL, err)
		}
	}
}

// What is taken can be sent: the body is one JSON object with the model that the shard is
// for, no member is lost, and the bus takes it.
func FuzzParse(f *testing.F) {
	for _, line := range []string{
		`{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[]}}`,
		`{"custom_id":null,"messages":[{}],"input":null,"model":null}`,
		`{"m\u006fdel":null,"prompt":"x","s\u0065ed":null,"seed":null}`,
		`{"url":"/v2/rerank","body":{ "documents":[],"seed" : null }}`, `{"prompt":"\ud83d","model":"m"}`,
		`{"prompt":1,"prompt":2}`, `{"custom_id":7}`,
		"{\"prompt\":\"\\u0061\xff\",\"model\":\"m\"}", `{"body":null,"url":"/v1/score"}`, `{"body":{},"body":null}`,
	} {
		f.Add([]byte(line))
	}

	f.Fuzz(func(t *testing.T, line []byte) {
		before := string(line)
		r, model, err := newParser(t, proto.Settings{
			Model: "dflt",
			Set:   map[string]string{"seed": "1", "stop": `["\n"]`},
		}).Parse(line)

		if string(line) != before {
			t.Fatal("the line has changed")
		}

		if r.CustomID != nil && !json.Valid(r.CustomID) {
			t.Fatalf("custom_id %q", r.CustomID)
		}

		if err != nil {
			return
		}

		if r.CustomID == nil {
			r.CustomID = []byte(`"request-1"`)
		}

		var body map[string]any
		d := json.NewDecoder(bytes.NewReader(r.Body))
		d.UseNumber()
		if err := d.Decode(&body); err != nil {
			t.Fatalf("%q is no object: %v", r.Body, err)
		}

		if body["model"] != model || !slices.Contains(proto.Endpoints, r.URL) {
			t.Fatalf("%q is for %q at %q", r.Body, model, r.URL)
		}

		if body["seed"] == nil && !strings.Contains(string(r.Body), `"seed":1`) && !strings.Contains(before, "null") {
			t.Fatalf("%q lacks a member that was set", r.Body)
		}

		got, wireErr := proto.ParseRequest(new(jsonscan.Scanner), proto.AppendRequest(nil, r))
		if wireErr != nil || string(got.Body) != string(r.Body) || string(got.CustomID) != string(r.CustomID) ||
			got.URL != r.URL {
			t.Fatalf("%q comes off the bus as %+v, %v", r.Body, got, wireErr)
		}
	})
}

func TestNewParserRefuses(t *testing.T) {
	t.Parallel()

	if _, err := NewParser(proto.Settings{Endpoint: "/v1/files"}); err == nil {
		t.Error("the endpoint /v1/files is taken")
	}

	for _, value := range []string{"", "text", "1 2", "{\"a\":\n1}", `"\xff"`} {
		if _, err := NewParser(proto.Settings{Set: map[string]string{"x": value}}); err == nil {
			t.Errorf("--set x=%q is taken", value)
		}
	}
}

// All bodies name the model of the setting, whatever stood there; all else stays.
func TestOverrideModel(t *testing.T) {
	t.Parallel()

	p, err := NewParser(proto.Settings{OverrideModel: "m/1", Set: map[string]string{"n": "2"}})
	if err != nil {
		t.Fatal(err)
	}

	for _, tt := range []struct{ line, want string }{
		{`{"messages":[]}`, `{"model":"m/1","n":2,"messages":[]}`},
		{`{"messages":[],"model":"gpt"}`, `{"n":2,"messages":[],"model":"m/1"}`},
		{`{"model" : null , "messages":[]}`, `{"n":2,"model" : "m/1","messages":[]}`},
		{`{"model":7,"messages":[]}`, `{"n":2,"model":"m/1","messages":[]}`},
		{`{"mod\u0065l":"gpt","messages":[]}`, `{"n":2,"mod\u0065l":"m/1","messages":[]}`},
		{`{"custom_id":"a","url":"/v1/score","body":{"x":{"model":"in"}, "model":"gpt","n":null}}`,
			`{"x":{"model":"in"}, "model":"m/1","n":2}`},
		{`{"custom_id":"a","url":"/v1/score","model":"out","body":{}}`, `{"model":"m/1","n":2}`},
	} {
		r, model, err := p.Parse([]byte(tt.line))
		if err != nil || model != "m/1" || string(r.Body) != tt.want {
			t.Errorf("%s: %s of %q, %v; want %s", tt.line, r.Body, model, err, tt.want)
		}
	}
}
