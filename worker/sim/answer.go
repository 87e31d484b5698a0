package sim

import (
	"encoding/json"
	"fmt"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// encodeAnswer returns the body of a good answer as the flavour writes it. llama.cpp answers in
// its own model's name, whatever the request asks for, always shows how much was cached, and
// marks a response that it has cut off as complete. vLLM shows the cached tokens with
// --enable-prompt-tokens-details.
func (s *Server) encodeAnswer(p plan, path string, r request, finish string) ([]byte, error) {
	p.showsCached = s.cfg.Prefix > 0
	if s.cfg.Flavour == LlamaCPP {
		p.showsCached = true
		if len(s.cfg.Models) > 0 {
			r.model = s.cfg.modelName()
		}
		if path == "/v1/responses" {
			finish = "stop"
		}
	}

	return p.encode(path, r, finish)
}

// encode returns the body of a good answer for an endpoint.
func (p plan) encode(path string, r request, finish string) ([]byte, error) {
	parts := r.countParts(path)
	switch path {
	case "/v1/chat/completions":
		return p.encodeChat(r.model, parts, finish), nil
	case "/v1/completions":
		return p.encodeCompletion(r.model, parts, finish), nil
	case "/v1/embeddings":
		return p.encodeEmbeddings(r.model, parts)
	case "/v1/rerank", "/v1/score":
		return p.encodeScores(path, r.model, parts)
	default:
		return p.encodeResponse(r.model, finish)
	}
}

// encodeChat returns a chat completion.
func (p plan) encodeChat(model string, choices int, finish string) []byte {
	body := fmt.Appendf(nil, `{"id":"chatcmpl-%016x","object":"chat.completion","created":0,"model":%s,"choices":[`,
		p.hash, jsonscan.Quote(model))
	for i := range choices {
		if i > 0 {
			body = append(body, ',')
		}
		body = fmt.Appendf(body, `{"index":%d,"message":{"role":"assistant","content":%s},"finish_reason":%q}`,
			i, jsonscan.Quote(p.partPlan(i).answerText()), finish)
	}

	return p.appendUsage(append(body, "],"...))
}

// encodeCompletion returns a completion.
func (p plan) encodeCompletion(model string, choices int, finish string) []byte {
	body := fmt.Appendf(nil, `{"id":"cmpl-%016x","object":"text_completion","created":0,"model":%s,"choices":[`,
		p.hash, jsonscan.Quote(model))
	for i := range choices {
		if i > 0 {
			body = append(body, ',')
		}
		body = fmt.Appendf(body, `{"text":%s,"index":%d,"finish_reason":%q}`,
			jsonscan.Quote(p.partPlan(i).answerText()), i, finish)
	}

	return p.appendUsage(append(body, "],"...))
}

// appendUsage ends an answer with its usage.
func (p plan) appendUsage(body []byte) []byte {
	body = fmt.Appendf(body, `"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d`,
		p.promptTokens, p.promptTokens+p.completionTokens, p.completionTokens)
	if p.showsCached {
		body = fmt.Appendf(body, `,"prompt_tokens_details":{"cached_tokens":%d}`, p.cachedTokens)
	}
	return append(body, "}}"...)
}

// embeddingList is an answer of /v1/embeddings.
type embeddingList struct {
	Object string          `json:"object"`
	Data   []embeddingItem `json:"data"`
	Model  string          `json:"model"`
	Usage  embeddingUsage  `json:"usage"`
}

// embeddingItem is the embedding of one input.
type embeddingItem struct {
	Object    string    `json:"object"`
	Embedding []float32 `json:"embedding"`
	Index     int       `json:"index"`
}

// embeddingUsage is the usage of an embedding, which has no completion.
type embeddingUsage struct {
	PromptTokens            int  `json:"prompt_tokens"`
	CompletionTokens        int  `json:"completion_tokens"`
	TotalTokens             int  `json:"total_tokens"`
	PromptTokensDetails     *int `json:"prompt_tokens_details"`     // always null
	CompletionTokensDetails *int `json:"completion_tokens_details"` // always null
}

// encodeEmbeddings returns a list of embeddings.
func (p plan) encodeEmbeddings(model string, parts int) ([]byte, error) {
	data := make([]embeddingItem, parts)
	for i := range data {
		data[i] = embeddingItem{Object: "embedding", Index: i, Embedding: p.partPlan(i).embedding()}
	}

	return json.Marshal(embeddingList{
		Object: "list",
		Data:   data,
		Model:  model,
		Usage:  embeddingUsage{PromptTokens: p.promptTokens, TotalTokens: p.promptTokens},
	})
}

// encodeScores returns a list of scores or rankings, as vLLM writes them.
func (p plan) encodeScores(path, model string, parts int) ([]byte, error) {
	name, items := "data", make([]object, parts)
	for i := range items {
		items[i] = object{"index": i, "object": "score", "score": p.partPlan(i).relevance()}
		if path == "/v1/rerank" {
			name, items[i] = "results", object{"index": i, "relevance_score": p.partPlan(i).relevance()}
		}
	}

	return json.Marshal(object{
		"id":     fmt.Sprintf("score-%016x", p.hash),
		"object": "list",
		"model":  model,
		name:     items,
		"usage":  object{"prompt_tokens": p.promptTokens, "total_tokens": p.promptTokens},
	})
}

// encodeResponse returns a response, with the fields of vLLM's and llama.cpp's that clients read.
func (p plan) encodeResponse(model, finish string) ([]byte, error) {
	status, details := "completed", any(nil)
	if finish == "length" {
		status, details = "incomplete", object{"reason": "max_output_tokens"}
	}

	return json.Marshal(object{
		"id":                 fmt.Sprintf("resp-%016x", p.hash),
		"object":             "response",
		"created_at":         0,
		"model":              model,
		"status":             status,
		"incomplete_details": details,
		"output": []object{
			{
				"id":     fmt.Sprintf("msg-%016x", p.hash),
				"type":   "message",
				"role":   "assistant",
				"status": status,
				"content": []object{
					{
						"type":        "output_text",
						"text":        p.answerText(),
						"annotations": []object{},
					},
				},
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
