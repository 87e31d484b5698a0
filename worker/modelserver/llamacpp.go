package modelserver

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync/atomic"
)

// llamaCPP listens while it loads, and then answers 503 to everything; only older builds still
// list their models.
//
// Started without a model it is a router (tools/server/server-models.cpp): it starts a server
// of its own for each model, at most --models-max at a time, and passes each request to the one
// for its model. For the gauges of a model that is not loaded it would load it, and unload
// another.
type llamaCPP struct {
	router atomic.Bool // at the last probe
}

var llamaSpec = flavourSpec{
	newFlavour:   func() flavour { return &llamaCPP{} },
	owner:        "llamacpp",  // tools/server/server-context.cpp
	serverHeader: "llama.cpp", // server-http.cpp
	gauges:       &llamaGauges,
	metricsPath:  metricsPath,

	countsAtEnd: true, // server-context.cpp, on_prediction
}

// llamaGauges: tools/server/README.md.
var llamaGauges = gaugeNames{fields: map[string]metricField{
	"llamacpp:requests_processing":    running,
	"llamacpp:requests_deferred":      waiting,
	"llamacpp:kv_cache_usage_ratio":   kvUsage, // until 2025
	"llamacpp:tokens_predicted_total": tokens,  // of requests that have ended
	"llamacpp:prompt_tokens_total":    promptTokens,
}}

// fewSlots is less than most cards have room for. llama.cpp has four by default.
const fewSlots = 32

// SlotsNote explains the cost of a llama.cpp server's few slots; it is "" if there are enough of
// them. On an H200, with a model of 3 GB, short prompts and build b11434, 4 slots did 9.5
// requests a second and 32 did 26; 4 slots with --cache-ram 0 did 16.5, since for each new
// prompt the slot's old state is first copied to the host's memory, while the whole server
// stands still.
func (i Info) SlotsNote() string {
	if i.Flavour != (&llamaCPP{}).name() || i.Slots < 1 || i.Slots >= fewSlots {
		return ""
	}
	return fmt.Sprintf("the server runs %d requests at once, the others wait: start it with -np 32 (and a -c for as many) if it has the memory; "+
		"for prompts that have little in common, with --cache-ram 0 too", i.Slots)
}

func (*llamaCPP) name() string { return "llama.cpp" }

// llamaProps is an answer of /props.
type llamaProps struct {
	Slots    int    `json:"total_slots"`
	Build    string `json:"build_info"`
	Role     string // "router"
	Most     int    `json:"max_instances"` // of a router; 0 or less: no limit
	Settings struct {
		NCtx int `json:"n_ctx"` // of one slot, or of all where they share it
	} `json:"default_generation_settings"`
}

func (l *llamaCPP) describe(ctx context.Context, s *Server, info *Info) error {
	var reply llamaProps
	err := s.getJSON(ctx, "/props", &reply)
	if errors.Is(err, ErrLoading) {
		return err
	}

	info.Version, info.Slots = reply.Build, max(reply.Slots, 0)
	if err == nil {
		l.router.Store(reply.Role == "router")
	}

	if l.router.Load() {
		l.describeRouter(ctx, s, info)
		info.MaxLoaded = info.capLoaded(reply.Most)
		return nil
	}

	for i := range info.Models {
		if m := &info.Models[i]; m.ContextLength == 0 {
			m.ContextLength = reply.Settings.NCtx
		}
	}

	return nil
}

// describeRouter adds the figures of the servers of the loaded models. Each has its own slots.
func (*llamaCPP) describeRouter(ctx context.Context, s *Server, info *Info) {
	info.Slots = 0
	for i := range info.Models {
		m := &info.Models[i]
		if !slices.Contains(info.Loaded, m.ID) {
			continue
		}

		var reply llamaProps
		if s.getJSON(ctx, modelPath("/props", m.ID), &reply) != nil {
			continue
		}

		info.Slots += max(reply.Slots, 0)
		if m.ContextLength == 0 {
			m.ContextLength = reply.Settings.NCtx
		}
	}
}

// modelPath returns a path of a router for one of its models, which is not loaded for that.
func modelPath(path, model string) string {
	return path + "?model=" + url.QueryEscape(model) + "&autoload=false"
}

// readLoad takes as long as the batch that is being decoded: the gauges wait for it.
func (l *llamaCPP) readLoad(ctx context.Context, s *Server) (Load, error) {
	const remedy = "start llama.cpp with --metrics"
	if l.router.Load() {
		return l.readRouterLoad(ctx, s, remedy)
	}
	page, err := s.readGauges(ctx, metricsPath, &llamaGauges, remedy)
	return page.toLoad(tokens, promptTokens), err
}

// countSlots counts the slots that work. They are reported without --no-slots, with or without
// --metrics.
func (*llamaCPP) countSlots(ctx context.Context, s *Server) (busy, all int, err error) {
	var reply []struct {
		Busy bool `json:"is_processing"`
	}

	err = s.getJSON(ctx, "/slots", &reply)
	for _, slot := range reply {
		if slot.Busy {
			busy++
		}
	}

	return busy, len(reply), err
}

// readRouterLoad adds up the loads of the servers of the loaded models. Their counters come and
// go with them, so there are none for all.
func (*llamaCPP) readRouterLoad(ctx context.Context, s *Server, remedy string) (Load, error) {
	list, _, err := s.listModels(ctx)
	if err != nil {
		return Load{}, err
	}

	sum, pages := Load{
		KVUsage:      -1,
		Preemptions:  -1,
		Tokens:       -1,
		PromptTokens: -1,
	}, 0

	loaded, _ := list.loadedModels()
	for _, model := range loaded {
		page, err := s.readGauges(ctx, modelPath(metricsPath, model), &llamaGauges, remedy)
		switch {
		case errors.Is(err, errNotNow): // it was unloaded meanwhile
			continue
		case err != nil:
			return Load{}, err
		}

		l := page.toLoad()
		sum.Running += l.Running
		sum.Waiting += l.Waiting
		pages++
	}

	if pages == 0 {
		return Load{}, errNotNow
	}

	return sum, nil
}
