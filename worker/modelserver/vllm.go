package modelserver

import "context"

// vLLM does not listen while it loads, so that it has no state of its own for that.
type vLLM struct{}

func (vLLM) name() string { return "vLLM" }

func (v vLLM) describe(ctx context.Context, s *Server, info *Info) error {
	// The front end outlives an engine that has died, and lists its models still.
	if _, err := s.get(ctx, "/health"); err != nil {
		return err
	}
	var told struct{ Version string }
	if s.getJSON(ctx, "/version", &told) == nil {
		info.Version = told.Version
	}
	if page, err := v.page(ctx, s); err == nil {
		info.WeightBytes = int64(page.total(weightBytes))
		info.GPUMemoryUtilization = page.most(gpuShare)
	}
	return nil
}

func (v vLLM) load(ctx context.Context, s *Server) (Load, error) {
	page, err := v.page(ctx, s)
	return page.load(kvUsage, preemptions, tokens, promptTokens), err
}

// page: with --disable-log-stats it has a page, but not one gauge of vLLM on it.
func (vLLM) page(ctx context.Context, s *Server) (page, error) {
	return s.page(ctx, "start vLLM without --disable-log-stats")
}
