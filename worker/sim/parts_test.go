package sim

import (
	"testing"

	"github.com/promptmill/promptmill/proto/openai"
)

// A worker accepts the answers to requests of many parts, and they have that many.
func TestAnswerOfParts(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, path, body string
		parts            int
	}{
		{"a chat", "/v1/chat/completions", `{"model":"m","messages":[],"n":3}`, 3},
		{"prompts", "/v1/completions", `{"model":"m","prompt":["a","b"],"n":2}`, 4},
		{"tokens of a prompt", "/v1/completions", `{"model":"m","prompt":[1,2]}`, 1},
		{"inputs", "/v1/embeddings", `{"model":"m","input":["a","b","c"]}`, 3},
		{"tokens of inputs", "/v1/embeddings", `{"model":"m","input":[[1],[2,3]]}`, 2},
		{"documents", "/v1/rerank", `{"model":"m","query":"q","documents":["a","b"]}`, 2},
		{"the best documents", "/v1/rerank", `{"model":"m","query":"q","documents":["a","b","c"],"top_n":2}`, 2},
		{"pairs", "/v1/score", `{"model":"m","text_1":"a","text_2":["b","c"]}`, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			r, err := parseRequest([]byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}

			if parts := r.countParts(tt.path); parts != tt.parts {
				t.Errorf("%d parts, want %d", parts, tt.parts)
			}

			w := post(t.Context(), New(Config{}), tt.path, tt.body)
			if c, err := openai.ReadAnswer(tt.path, []byte(tt.body), w.Body.Bytes()); err != nil || c.Problem != "" {
				t.Errorf("problem %q, error %v: %s", c.Problem, err, w.Body)
			}
		})
	}
}
