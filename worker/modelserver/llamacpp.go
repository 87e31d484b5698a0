package modelserver

import (
	"context"
	"errors"
)

// llamaCPP listens while it loads, and then says 503 to everything; only older builds
// list their models then too.
type llamaCPP struct{}

func (llamaCPP) name() string { return "llama.cpp" }

func (llamaCPP) describe(ctx context.Context, s *Server, info *Info) error {
	var told struct {
		Slots    int    `json:"total_slots"`
		Build    string `json:"build_info"`
		Settings struct {
			NCtx int `json:"n_ctx"` // of one slot, or of all where they share it
		} `json:"default_generation_settings"`
	}
	err := s.getJSON(ctx, "/props", &told)
	if errors.Is(err, ErrLoading) {
		return err
	}
	info.Version, info.Slots = told.Build, max(told.Slots, 0)
	for i := range info.Models {
		if m := &info.Models[i]; m.ContextLength == 0 {
			m.ContextLength = told.Settings.NCtx
		}
	}
	return nil
}

// load takes as long as the batch that is being decoded: the gauges wait for it.
func (llamaCPP) load(ctx context.Context, s *Server) (Load, error) {
	page, err := s.page(ctx, "start llama.cpp with --metrics")
	return page.load(tokens, promptTokens), err
}

// slots counts those that work. Without --no-slots they are told, with or without --metrics.
func (llamaCPP) slots(ctx context.Context, s *Server) (busy, all int, err error) {
	var told []struct {
		Busy bool `json:"is_processing"`
	}
	err = s.getJSON(ctx, "/slots", &told)
	for _, slot := range told {
		if slot.Busy {
			busy++
		}
	}
	return busy, len(told), err
}
