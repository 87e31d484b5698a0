package pipeline

import (
	"testing"

	"github.com/promptmill/promptmill/worker/modelserver"
)

func TestDescribeModelServer(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		info modelserver.Info
		want string
	}{
		{modelserver.Info{}, "the model server answers, and lists no models: any is tried"},
		{modelserver.Info{Flavour: "Ollama", Models: []modelserver.Model{}}, "Ollama answers, and has no model"},
		{
			modelserver.Info{
				Flavour: "llama.cpp",
				Version: "b11434",
				Models:  []modelserver.Model{{ID: "qwen3-4b", ContextLength: 8192}},
				Slots:   8,
			},
			"llama.cpp b11434 answers with qwen3-4b, 8,192 tokens of context, 8 slots",
		},
		{
			modelserver.Info{
				Flavour: "llama-swap",
				Models:  []modelserver.Model{{ID: "a", ContextLength: 8192}, {ID: "b"}, {ID: "c"}, {ID: "d"}},
			},
			"llama-swap answers with a, b, c and 1 more",
		},
	} {
		if got := describeModelServer(c.info); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
