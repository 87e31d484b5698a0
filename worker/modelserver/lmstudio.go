package modelserver

import (
	"context"
	"slices"
)

// lmStudio loads a model with the first request that names it, and unloads the one that was
// loaded that way before ("JIT loading" and "Auto-Evict", both on by default: lmstudio-ai/docs,
// 1_developer/0_core/ttl-and-auto-evict.md). It has no gauges. A path that it does not know is
// answered with 200 and an error.
type lmStudio struct {
	openAI
	swapTracker
}

// lmStudioSpec recognizes LM Studio by a list that only it has: the owner of its models is
// "organization_owner".
var lmStudioSpec = flavourSpec{
	newFlavour: func() flavour { return &lmStudio{} },
	probe: func(ctx context.Context, s *Server) (bool, error) {
		models, err := fetchLMStudioModels(ctx, s)
		return slices.ContainsFunc(models, func(m lmStudioModel) bool { return m.State != "" }), err
	},
}

func (*lmStudio) name() string { return "LM Studio" }

// lmStudioModel is an element of that list (1_developer/2_rest/endpoints.mdx, since 0.3.6).
type lmStudioModel struct {
	ID            string
	State         string // "loaded" or "not-loaded"
	ContextLength int    `json:"loaded_context_length"`
}

// fetchLMStudioModels requests the list.
func fetchLMStudioModels(ctx context.Context, s *Server) ([]lmStudioModel, error) {
	var reply struct{ Data []lmStudioModel }
	err := s.getJSON(ctx, "/api/v0/models", &reply)
	return reply.Data, err
}

func (l *lmStudio) describe(ctx context.Context, s *Server, info *Info) error {
	models, err := fetchLMStudioModels(ctx, s)
	if err != nil {
		return nil //nolint:nilerr // fields that the server does not report stay unknown
	}

	for _, m := range models {
		i := slices.IndexFunc(info.Models, func(has Model) bool { return has.ID == m.ID })
		if i < 0 || m.State != "loaded" {
			continue
		}
		info.Models[i].ContextLength = max(m.ContextLength, 0)
		info.Loaded = append(info.Loaded, m.ID)
	}

	info.MaxLoaded = l.observeLoaded(info)

	info.Slots = fetchLMStudioSlots(ctx, s)

	return nil
}

// fetchLMStudioSlots returns how many requests the loaded models run at once, which only newer
// versions report (1_developer/2_rest/list.md).
func fetchLMStudioSlots(ctx context.Context, s *Server) (slots int) {
	var reply struct {
		Models []struct {
			Loaded []struct {
				Config struct{ Parallel int }
			} `json:"loaded_instances"`
		}
	}
	if s.getJSON(ctx, "/api/v1/models", &reply) != nil {
		return 0
	}

	for _, m := range reply.Models {
		for _, instance := range m.Loaded {
			slots += max(instance.Config.Parallel, 0)
		}
	}

	return slots
}
