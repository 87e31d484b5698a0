package sim

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"

	openai "github.com/sashabaranov/go-openai"

	"github.com/promptmill/promptmill/proto"
)

// request is what the server reads of a body.
type request struct {
	model     string
	prompt    []byte // the raw JSON of messages, prompt or input
	maxTokens int    // 0 if not told
}

func parseRequest(body []byte) (request, error) {
	var r request
	var s proto.Scanner
	s.Reset(body)
	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "model":
			text, err := proto.Unquote(s.Value())
			if err != nil {
				return r, fmt.Errorf("model: %w", err)
			}
			r.model = string(text)
		case "messages", "prompt", "input", "query", "text_1":
			r.prompt = s.Value()
		case "max_tokens", "max_completion_tokens", "max_output_tokens":
			if err := json.Unmarshal(s.Value(), &r.maxTokens); err != nil {
				return r, fmt.Errorf("max_tokens: %w", err)
			}
		}
	}
	return r, s.End()
}

// plan is what the server will answer to a request: it follows from prompt and seed.
type plan struct {
	hash                           uint64
	promptTokens, completionTokens int
	cachedTokens                   int  // of the prompt
	cut                            bool // the completion, by a limit
}

var words = strings.Fields("billing refund login outage delivery invoice account password urgent question " +
	"the customer asks for help with an order that was late and wants to know when it arrives")

func (c Config) plan(r request) plan {
	h := fnv.New64a()
	h.Write(r.prompt)
	p := plan{hash: h.Sum64() ^ c.Seed, promptTokens: tokensOf(r.prompt)}
	// Lengths spread evenly between half and one and a half of the mean.
	p.completionTokens = max(1, c.Tokens/2+int(p.hash%uint64(c.Tokens+1)))
	if r.maxTokens > 0 {
		p.limit(r.maxTokens)
	}
	return p
}

// bytesPerToken is how much of a prompt is a token.
const bytesPerToken = 4

func tokensOf(prompt []byte) int { return max(1, len(prompt)/bytesPerToken) }

// limit cuts the answer to a number of tokens.
func (p *plan) limit(tokens int) {
	if p.completionTokens >= tokens {
		p.completionTokens, p.cut = tokens, true
	}
}

// unread is the part of the prompt that must be read, from 0 to 1.
func (p plan) unread() float64 { return 1 - float64(p.cachedTokens)/float64(p.promptTokens) }

// details is what vLLM says of cached tokens, if there are any.
func (p plan) details() *openai.PromptTokensDetails {
	if p.cachedTokens == 0 {
		return nil
	}
	return &openai.PromptTokensDetails{CachedTokens: p.cachedTokens}
}

// text is the answer's, a word a token.
func (p plan) text() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%016x", p.hash)
	for i, x := 0, p.hash; i < p.completionTokens-1; i++ {
		x = x*6364136223846793005 + 1442695040888963407
		text.WriteByte(' ')
		text.WriteString(words[x>>33%uint64(len(words))])
	}
	return text.String()
}

// answer makes the body of a good answer for an endpoint.
func (p plan) answer(path string, r request, finish string) ([]byte, error) {
	usage := openai.Usage{PromptTokens: p.promptTokens, CompletionTokens: p.completionTokens, TotalTokens: p.promptTokens + p.completionTokens, PromptTokensDetails: p.details()}
	id := fmt.Sprintf("%016x", p.hash)
	switch path {
	case "/v1/chat/completions":
		// By hand: go-openai's type writes fields that only Azure has.
		details := ""
		if p.cachedTokens > 0 {
			details = fmt.Sprintf(`,"prompt_tokens_details":{"cached_tokens":%d}`, p.cachedTokens)
		}
		return fmt.Appendf(nil, `{"id":"chatcmpl-%s","object":"chat.completion","created":0,"model":%s,`+
			`"choices":[{"index":0,"message":{"role":"assistant","content":%s},"finish_reason":%q}],`+
			`"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d%s}}`,
			id, proto.Quote(r.model), proto.Quote(p.text()), finish, p.promptTokens, usage.TotalTokens, p.completionTokens, details), nil
	case "/v1/completions":
		return json.Marshal(openai.CompletionResponse{
			ID: "cmpl-" + id, Object: "text_completion", Model: r.model, Usage: &usage,
			Choices: []openai.CompletionChoice{{Text: p.text(), FinishReason: finish}},
		})
	case "/v1/embeddings":
		usage = openai.Usage{PromptTokens: p.promptTokens, TotalTokens: p.promptTokens}
		vector := make([]float32, 64)
		for i, x := 0, p.hash; i < len(vector); i++ {
			x = x*6364136223846793005 + 1442695040888963407
			vector[i] = float32(int32(x>>32)) / (1 << 31)
		}
		return json.Marshal(openai.EmbeddingResponse{
			Object: "list", Model: openai.EmbeddingModel(r.model), Usage: usage,
			Data: []openai.Embedding{{Object: "embedding", Embedding: vector}},
		})
	case "/v1/rerank", "/v1/score": // as vLLM has them
		name, item := "data", object{"index": 0, "object": "score", "score": float64(p.hash>>11) / (1 << 53)}
		if path == "/v1/rerank" {
			name, item = "results", object{"index": 0, "relevance_score": item["score"]}
		}
		return json.Marshal(object{
			"id": "score-" + id, "object": "list", "model": r.model, name: []object{item},
			"usage": object{"prompt_tokens": p.promptTokens, "total_tokens": p.promptTokens},
		})
	default: // responses: the few fields that clients look at
		status, details := "completed", any(nil)
		if finish == "length" {
			status, details = "incomplete", object{"reason": "max_output_tokens"}
		}
		return json.Marshal(object{
			"id": "resp-" + id, "object": "response", "model": r.model, "status": status, "incomplete_details": details,
			"output": []object{{"type": "message", "role": "assistant", "content": []object{{"type": "output_text", "text": p.text()}}}},
			"usage": object{
				"input_tokens": p.promptTokens, "input_tokens_details": object{"cached_tokens": p.cachedTokens},
				"output_tokens": p.completionTokens, "total_tokens": usage.TotalTokens,
			},
		})
	}
}
