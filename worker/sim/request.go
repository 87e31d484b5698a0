package sim

import (
	"encoding/json"
	"fmt"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// request is a request that was parsed.
type request struct {
	model     string
	prompt    []byte // the raw JSON of messages, prompt or input
	others    []byte // the raw JSON of documents, text_2 or items, with which the prompt is compared
	format    []byte // the raw JSON of response_format
	n         int    // choices for each prompt; 0: the default
	top       int    // rankings, at most; 0: all
	maxTokens int    // 0: no limit
}

// parseRequest parses a body.
func parseRequest(body []byte) (request, error) {
	var r request
	var s jsonscan.Scanner
	s.Reset(body)

	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "model":
			text, err := jsonscan.Unquote(s.Value())
			if err != nil {
				return r, fmt.Errorf("model: %w", err)
			}
			r.model = string(text)
		case "messages", "prompt", "input", "query", "text_1":
			r.prompt = s.Value()
		case "documents", "text_2", "items":
			r.others = s.Value()
		case "response_format":
			r.format = s.Value()
		case "n":
			if err := json.Unmarshal(s.Value(), &r.n); err != nil {
				return r, fmt.Errorf("n: %w", err)
			}
		case "top_n":
			if err := json.Unmarshal(s.Value(), &r.top); err != nil {
				return r, fmt.Errorf("top_n: %w", err)
			}
		case "max_tokens", "max_completion_tokens", "max_output_tokens":
			if err := json.Unmarshal(s.Value(), &r.maxTokens); err != nil {
				return r, fmt.Errorf("max_tokens: %w", err)
			}
		}
	}

	return r, s.End()
}

// countParts returns how many choices, embeddings or scores the answer of an endpoint has.
func (r request) countParts(path string) int {
	const most = 10_000 // a few bytes can ask for many choices
	switch path {
	case "/v1/chat/completions":
		return min(max(1, r.n), most)
	case "/v1/completions":
		return min(countTexts(r.prompt)*max(1, r.n), most)
	case "/v1/rerank":
		n := countTexts(r.others)
		if r.top > 0 {
			n = min(n, r.top)
		}
		return n
	}

	return max(countTexts(r.prompt), countTexts(r.others))
}

// countTexts returns the number of texts in a prompt: 1 unless it is a list of texts or of
// lists of tokens.
func countTexts(raw []byte) int {
	var list []json.RawMessage
	if len(raw) == 0 || raw[0] != '[' || json.Unmarshal(raw, &list) != nil || len(list) == 0 {
		return 1
	}

	if c := list[0][0]; c == '-' || c >= '0' && c <= '9' {
		return 1 // the tokens of one text
	}

	return len(list)
}
