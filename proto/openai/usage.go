package openai

import "github.com/promptmill/promptmill/proto/jsonscan"

// Usage counts the tokens of an answer, as its server does; 0 where the server does not.
type Usage struct {
	Prompt, Completion int64
	// Cached counts the tokens of the prompt that came from the server's prefix cache. vLLM
	// reports them with --enable-prompt-tokens-details, and only if there are any; SGLang with
	// --enable-cache-report.
	Cached int64
	// Reasoning counts the tokens of the completion that the model has thought with, where its server
	// counts them apart.
	Reasoning int64
}

// scanUsage reads the token counts from an answer's usage, the object that comes next.
// Chat and completions name them prompt_tokens and completion_tokens, the responses API
// input_tokens and output_tokens.
func scanUsage(s *jsonscan.Scanner) (u Usage) {
	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "prompt_tokens", "input_tokens":
			u.Prompt = parseTokens(s.Value())
		case "completion_tokens", "output_tokens":
			u.Completion = parseTokens(s.Value())
		case "prompt_tokens_details", "input_tokens_details":
			if s.Kind() != '{' {
				continue
			}

			for s.Enter(); s.Next(); {
				if string(s.Name()) == "cached_tokens" {
					u.Cached = parseTokens(s.Value())
				}
			}
		case "completion_tokens_details", "output_tokens_details":
			if s.Kind() != '{' {
				continue
			}

			for s.Enter(); s.Next(); {
				if string(s.Name()) == "reasoning_tokens" {
					u.Reasoning = parseTokens(s.Value())
				}
			}
		}
	}

	return u
}

// maxTokens is far more than any answer takes, and low enough that the sums of whole runs
// stay in an int64.
const maxTokens = 1e9

// parseTokens reads a count of tokens, 0 if it is more than maxTokens.
func parseTokens(raw []byte) int64 {
	if n := jsonscan.Count(raw); n <= maxTokens {
		return n
	}

	return 0
}
