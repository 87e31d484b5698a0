package modelserver

import (
	"context"
	"slices"
)

// lmStudio loads a model with the first request that names it, and unloads the one that it
// has loaded so before ("JIT loading" and "Auto-Evict", both on by default: lmstudio-ai/docs,
// 1_developer/0_core/ttl-and-auto-evict.md). It has no gauges. To what it does not know it
// answers 200 with an error.
type lmStudio struct {
	openAI
	swapTracker
}

// lmStudioSpec goes by a list that only LM Studio has: its models' owner is
// "organization_owner".
var lmStudioSpec = flavourSpec{
	newFlavour: func() flavour { return &lmStudio{} },
	probe: func(ctx context.Context, s *Server) (bool, error) {
		models, err := fetchLMStudioModels(ctx, s)
		return slices.ContainsFunc(models, func(m lmStudioModel) bool { return m.State != "" }), err
	},
}

func (*lmStudio) name() string { return "LM Studio" }

// lmStudioModel is one of its list (1_developer/2_rest/endpoints.mdx, since 0.3.6).
type lmStudioModel struct {
	ID            string
	State         string // "loaded" or "not-loaded"
	ContextLength int    `json:"loaded_context_length"`
}

func fetchLMStudioModels(ctx context.Context, s *Server) ([]lmStudioModel, error) {
	var told struct{ Data []lmStudioModel }
	err := s.getJSON(ctx, "/api/v0/models", &told)
	return told.Data, err
}

func (l *lmStudio) describe(ctx context.Context, s *Server, info *Info) error {
	models, err := fetchLMStudioModels(ctx, s)
	if err != nil {
		return nil
	}

	for _, told := range models {
		i := slices.IndexFunc(info.Models, func(m Model) bool { return m.ID == told.ID })
		if i < 0 || told.State != "loaded" {
			continue
		}
		info.Models[i].ContextLength = max(told.ContextLength, 0)
		info.Loaded = append(info.Loaded, told.ID)
	}

	info.MaxLoaded = l.observeLoaded(info)

	info.Slots = fetchLMStudioSlots(ctx, s)

	return nil
}

// fetchLMStudioSlots is how many requests the loaded models run at once, which only newer versions
// say (1_developer/2_rest/list.md).
func fetchLMStudioSlots(ctx context.Context, s *Server) (slots int) {
	var told struct {
		Models []struct {
			Loaded []struct {
				Config struct{ Parallel int }
			} `json:"loaded_instances"`
		}
	}
	if s.getJSON(ctx, "/api/v1/models", &told) != nil {
		return 0
	}

	for _, m := range told.Models {
		for _, instance := range m.Loaded {
			slots += max(instance.Config.Parallel, 0)
		}
	}

	return slots
}
