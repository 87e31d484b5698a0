package producer

import (
	"testing"

	"github.com/promptmill/promptmill/proto"
)

// A line without a url has the endpoint of the settings, and a line for another one is refused.
func TestParseForEndpoint(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ endpoint, line, param, want string }{
		{chat, `{"url":"/v1/chat/completions","body":{"messages":[]}}`, "", ""},
		{chat, `{"url":"https://api.openai.com/v1/chat/completions","body":{"messages":[]}}`, "", ""},
		{chat, `{"body":{"messages":[]}}`, "", ""},
		{chat, `{"url":null,"body":{"messages":[]}}`, "", ""},
		{chat, `{"messages":[]}`, "", ""},
		{chat, `{"messages":[],"prompt":"x"}`, "", ""},
		{chat, `{"url":"/v1/embeddings","body":{"messages":[]}}`, "url",
			"the line has another endpoint: its url is /v1/embeddings, but the batch's endpoint is /v1/chat/completions"},
		{chat, `{"url":"https://h/openai/deployments/e/embeddings?api-version=1","body":{"input":"x"}}`, "url",
			"the line has another endpoint: its url is /v1/embeddings, but the batch's endpoint is /v1/chat/completions"},
		{chat, `{"url":"/v1/completions","prompt":"x"}`, "url",
			"the line has another endpoint: its url is /v1/completions, but the batch's endpoint is /v1/chat/completions"},
		{chat, `{"prompt":"x"}`, "prompt",
			`the line has another endpoint: it has "prompt", as for /v1/completions, but the batch's endpoint is /v1/chat/completions`},
		{chat, `{"body":{"prompt":"x"}}`, "body.messages",
			`the line has no "messages", which /v1/chat/completions needs`},
		{chat, `{"question":"x"}`, "messages", `the line has no "messages", which /v1/chat/completions needs`},
		{chat, `{"url":"/v1/files","body":{"messages":[]}}`, "url", `the line has an unknown url: "/v1/files"`},
		{chat, `{"url":"/v1/chat/completions"}`, "body", "the line has a url and no body"},
		{chat, `{"custom_id":"a","response":{},"error":null}`, "body", "the line has an answer, and no request"},
		{chat, `{"custom_id":"a","params":{}}`, "body", `the line has Anthropic's "params" in place of "body"`},
		{chat, `{}`, "body", `the line has neither "body" nor "messages", "prompt" or "input"`},
		{"/v1/completions", `{"prompt":"x"}`, "", ""},
		{"/v1/completions", `{"messages":[]}`, "messages",
			`the line has another endpoint: it has "messages", as for /v1/chat/completions, but the batch's endpoint is /v1/completions`},
		{"/v1/embeddings", `{"input":"x"}`, "", ""},
		{"/v1/responses", `{"input":"x"}`, "", ""},
		{"/v1/responses", `{"prompt":{"id":"p"}}`, "", ""},
		{"/v1/responses", `{"previous_response_id":"r"}`, "", ""},
		{"/v1/responses", `{"messages":[]}`, "messages",
			`the line has another endpoint: it has "messages", as for /v1/chat/completions, but the batch's endpoint is /v1/responses`},
		{"/v1/responses", `{"custom_id":"a","response":{},"error":null}`, "body", "the line has an answer, and no request"},
		{"/v1/rerank", `{"query":"x","documents":[]}`, "", ""},
		{"/v1/rerank", `{"query":"x"}`, "documents", `the line has no "documents", which /v1/rerank needs`},
		{"/v1/score", `{"text_1":"x","text_2":"y"}`, "", ""},
		{"/v1/score", `{"input":"x"}`, "input",
			`the line has another endpoint: it has "input", as for /v1/embeddings, but the batch's endpoint is /v1/score`},
	} {
		p := newParser(t, proto.Settings{Model: "m", Endpoint: tt.endpoint})
		r, _, err := p.Parse([]byte(tt.line))
		if err != nil {
			err.completeParam(p.inBody)
		}

		switch {
		case tt.want == "" && (err != nil || r.URL != tt.endpoint):
			t.Errorf("%s for %s goes to %q, %v", tt.line, tt.endpoint, r.URL, err)
		case tt.want != "" && (err == nil || err.Error() != tt.want || err.Param != tt.param):
			t.Errorf("%s for %s: %+v; want %s, %s", tt.line, tt.endpoint, err, tt.param, tt.want)
		}
	}
}

// The url of an earlier line, which a parser keeps, is no way around the endpoint.
func TestParseForEndpointAgain(t *testing.T) {
	t.Parallel()

	p := newParser(t, proto.Settings{Model: "m", Endpoint: chat})
	for range 2 {
		if _, _, err := p.Parse([]byte(`{"url":"/v1/embeddings","body":{"input":"x"}}`)); err == nil ||
			err.Fault != FaultEndpoint {
			t.Errorf("error %v", err)
		}

		if _, _, err := p.Parse([]byte(`{"url":"/v1/chat/completions","body":{"messages":[]}}`)); err != nil {
			t.Error(err)
		}
	}
}
