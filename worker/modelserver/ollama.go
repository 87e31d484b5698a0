package modelserver

import (
	"context"
	"strings"
)

// ollama has no gauges. It reports neither how many requests it runs at once, nor how many
// models it can have loaded: that depends on their sizes and on OLLAMA_MAX_LOADED_MODELS
// (server/sched.go, processPending).
type ollama struct {
	openAI
	swapTracker
}

var ollamaSpec = flavourSpec{
	newFlavour: func() flavour { return &ollama{} },
	owner:      "library",
	probe: func(ctx context.Context, s *Server) (bool, error) {
		version, err := (&ollama{}).fetchVersion(ctx, s)
		return version != "", err
	},
}

func (*ollama) name() string { return "Ollama" }

// ollamaNotes are hints for full speed and whole prompts (docs/faq.mdx, and truncate in
// server/routes.go).
var ollamaNotes = []string{
	"Ollama runs one request at a time unless it was started with OLLAMA_NUM_PARALLEL",
	"Ollama cuts a prompt that is longer than its context without saying so; OLLAMA_CONTEXT_LENGTH sets that",
}

func (o *ollama) describe(ctx context.Context, s *Server, info *Info) error {
	info.Version, _ = o.fetchVersion(ctx, s)
	info.Notes = ollamaNotes

	if info.Models == nil {
		info.Models = []Model{} // it lists all that it has
	}

	type models struct {
		Models []struct {
			Name          string
			Size          int64 // of the files in /api/tags, and of the loaded part in /api/ps
			SizeVRAM      int64 `json:"size_vram"`
			ContextLength int   `json:"context_length"`
		}
	}

	var files, loaded models
	s.getJSON(ctx, "/api/tags", &files)
	s.getJSON(ctx, "/api/ps", &loaded)

	sizes, contexts := map[string]int64{}, map[string]int{}
	for _, m := range files.Models {
		sizes[m.Name] = m.Size
	}

	for _, m := range loaded.Models {
		contexts[m.Name] = m.ContextLength
		info.GPUBytes += m.SizeVRAM
	}

	for i := range info.Models {
		m := &info.Models[i]
		m.SizeBytes, m.ContextLength = sizes[m.ID], contexts[m.ID]
		if _, ok := contexts[m.ID]; ok {
			info.Loaded = append(info.Loaded, m.ID)
		}
	}

	info.MaxLoaded = o.observeLoaded(info)
	for _, m := range info.Models {
		if short, ok := strings.CutSuffix(m.ID, ":latest"); ok { // it answers to both
			m.ID, m.AliasOf = short, m.ID
			info.Models = append(info.Models, m)
		}
	}

	return nil
}

// fetchVersion asks for Ollama's version.
func (*ollama) fetchVersion(ctx context.Context, s *Server) (string, error) {
	var reply struct{ Version string }
	err := s.getJSON(ctx, "/api/version", &reply)
	return reply.Version, err
}
