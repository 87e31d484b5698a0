package sim

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"

	openai "github.com/sashabaranov/go-openai"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// request is what the server reads of a body.
type request struct {
	model     string
	prompt    []byte // the raw JSON of messages, prompt or input
	others    []byte // the raw JSON of what the prompt is compared with: documents, text_2 or items
	n         int    // choices for each prompt; 0 if not told
	top       int    // rankings, at most; 0 if not told
	maxTokens int    // 0 if not told
}

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

// countParts is how many choices, embeddings or scores the answer of an endpoint has.
func (r request) countParts(path string) int {
	const most = 10_000 // of what a few bytes can ask for
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

// countTexts is 1 but for a list of texts or of lists of tokens.
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

// partPlan is the plan of one part of the answer.
func (p plan) partPlan(i int) plan {
	p.hash += uint64(i)
	return p
}

// plan is what the server will answer to a request: it follows from prompt and seed.
type plan struct {
	hash                           uint64
	promptTokens, completionTokens int
	cachedTokens                   int  // of the prompt
	cut                            bool // the completion, by a limit
	saysCached                     bool // how many tokens are cached
}

var words = strings.Fields("billing refund login outage delivery invoice account password urgent question " +
	"the customer asks for help with an order that was late and wants to know when it arrives")

func (c Config) planAnswer(r request) plan {
	h := fnv.New64a()
	h.Write(r.prompt)
	p := plan{hash: h.Sum64() ^ c.Seed, promptTokens: countTokens(r.prompt)}

	// Lengths spread evenly between half and one and a half of the mean.
	p.completionTokens = max(1, c.Tokens/2+int(p.hash%uint64(c.Tokens+1)))

	if r.maxTokens > 0 {
		p.limitTokens(r.maxTokens)
	}

	return p
}

// bytesPerToken is how much of a prompt is a token.
const bytesPerToken = 4

func countTokens(prompt []byte) int { return max(1, len(prompt)/bytesPerToken) }

// limitTokens cuts the answer to a number of tokens.
func (p *plan) limitTokens(tokens int) {
	if p.completionTokens >= tokens {
		p.completionTokens, p.cut = tokens, true
	}
}

// appendUsage ends an answer with what it took.
func (p plan) appendUsage(body []byte) []byte {
	body = fmt.Appendf(body, `"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d`,
		p.promptTokens, p.promptTokens+p.completionTokens, p.completionTokens)
	if p.saysCached {
		body = fmt.Appendf(body, `,"prompt_tokens_details":{"cached_tokens":%d}`, p.cachedTokens)
	}
	return append(body, "}}"...)
}

// answerText is the answer's, a word a token.
func (p plan) answerText() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%016x", p.hash)

	for i, x := 0, p.hash; i < p.completionTokens-1; i++ {
		x = x*6364136223846793005 + 1442695040888963407
		text.WriteByte(' ')
		text.WriteString(words[x>>33%uint64(len(words))])
	}

	return text.String()
}

// embedding is an embedding.
func (p plan) embedding() []float32 {
	vector := make([]float32, 64)
	for i, x := 0, p.hash; i < len(vector); i++ {
		x = x*6364136223846793005 + 1442695040888963407
		vector[i] = float32(int32(x>>32)) / (1 << 31)
	}
	return vector
}

// relevance is a number from 0 to 1.
func (p plan) relevance() float64 { return float64(p.hash>>11) / (1 << 53) }

// encodeAnswer makes the body of a good answer as the flavour does. llama.cpp answers in its own
// model's name, whatever the request asks for, always says how much was cached, and lets a
// response that it has cut off pass as complete. vLLM says it with --enable-prompt-tokens-details.
func (s *Server) encodeAnswer(p plan, path string, r request, finish string) ([]byte, error) {
	p.saysCached = s.cfg.Prefix > 0
	if s.cfg.Flavour == LlamaCPP {
		p.saysCached = true
		if len(s.cfg.Models) > 0 {
			r.model = s.modelName()
		}
		if path == "/v1/responses" {
			finish = "stop"
		}
	}

	return p.encode(path, r, finish)
}

// encode makes the body of a good answer for an endpoint.
func (p plan) encode(path string, r request, finish string) ([]byte, error) {
	id := fmt.Sprintf("%016x", p.hash)
	switch path {
	case "/v1/chat/completions":
		// By hand: go-openai's type writes fields that only Azure has.
		body := fmt.Appendf(nil, `{"id":"chatcmpl-%s","object":"chat.completion","created":0,"model":%s,"choices":[`,
			id, jsonscan.Quote(r.model))
		for i := range r.countParts(path) {
			if i > 0 {
				body = append(body, ',')
			}
			body = fmt.Appendf(body, `{"index":%d,"message":{"role":"assistant","content":%s},"finish_reason":%q}`,
				i, jsonscan.Quote(p.partPlan(i).answerText()), finish)
		}

		return p.appendUsage(append(body, "],"...)), nil
	case "/v1/completions":
		body := fmt.Appendf(nil, `{"id":"cmpl-%s","object":"text_completion","created":0,"model":%s,"choices":[`,
			id, jsonscan.Quote(r.model))
		for i := range r.countParts(path) {
			if i > 0 {
				body = append(body, ',')
			}
			body = fmt.Appendf(body, `{"text":%s,"index":%d,"finish_reason":%q}`,
				jsonscan.Quote(p.partPlan(i).answerText()), i, finish)
		}

		return p.appendUsage(append(body, "],"...)), nil
	case "/v1/embeddings":
		usage := openai.Usage{PromptTokens: p.promptTokens, TotalTokens: p.promptTokens}
		data := make([]openai.Embedding, r.countParts(path))
		for i := range data {
			data[i] = openai.Embedding{Object: "embedding", Index: i, Embedding: p.partPlan(i).embedding()}
		}

		return json.Marshal(openai.EmbeddingResponse{
			Object: "list",
			Model:  openai.EmbeddingModel(r.model),
			Usage:  usage,
			Data:   data,
		})
	case "/v1/rerank", "/v1/score": // as vLLM has them
		name, items := "data", make([]object, r.countParts(path))
		for i := range items {
			items[i] = object{"index": i, "object": "score", "score": p.partPlan(i).relevance()}
			if path == "/v1/rerank" {
				name, items[i] = "results", object{"index": i, "relevance_score": p.partPlan(i).relevance()}
			}
		}

		return json.Marshal(object{
			"id":     "score-" + id,
			"object": "list",
			"model":  r.model,
			name:     items,
			"usage":  object{"prompt_tokens": p.promptTokens, "total_tokens": p.promptTokens},
		})
	default: // responses: the few fields that clients look at
		status, details := "completed", any(nil)
		if finish == "length" {
			status, details = "incomplete", object{"reason": "max_output_tokens"}
		}

		return json.Marshal(object{
			"id":                 "resp-" + id,
			"object":             "response",
			"model":              r.model,
			"status":             status,
			"incomplete_details": details,
			"output": []object{
				{
					"type":    "message",
					"role":    "assistant",
					"content": []object{{"type": "output_text", "text": p.answerText()}},
				},
			},
			"usage": object{
				"input_tokens":         p.promptTokens,
				"input_tokens_details": object{"cached_tokens": p.cachedTokens},
				"output_tokens":        p.completionTokens,
				"total_tokens":         p.promptTokens + p.completionTokens,
			},
		})
	}
}
