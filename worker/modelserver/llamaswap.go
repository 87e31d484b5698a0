package modelserver

import "context"

// llamaSwap starts a server for the model that a request names, and stops others for that, as
// its configuration has it (config.example.yaml, routing). It does not report their load.
type llamaSwap struct {
	openAI
	swapTracker
}

var llamaSwapSpec = flavourSpec{
	newFlavour: func() flavour { return &llamaSwap{} },
	owner:      "llama-swap", // internal/server/api.go, handleListModels
}

func (*llamaSwap) name() string { return "llama-swap" }

func (l *llamaSwap) describe(ctx context.Context, s *Server, info *Info) error {
	var reply struct {
		Running []struct{ Model, State string }
	}
	if len(info.Loaded) == 0 && s.getJSON(ctx, "/running", &reply) == nil { // the list has it since v220
		for _, m := range reply.Running {
			switch m.State {
			case "ready":
				info.Loaded = append(info.Loaded, m.Model)
			case "starting":
				info.Loading = true
			}
		}
	}

	info.MaxLoaded = l.observeLoaded(info)

	return nil
}
