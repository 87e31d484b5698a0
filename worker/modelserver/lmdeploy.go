package modelserver

import "context"

// lmDeploy has gauges unless it was started with --disable-metrics.
type lmDeploy struct{}

var lmDeploySpec = flavourSpec{
	newFlavour:  func() flavour { return lmDeploy{} },
	owner:       "lmdeploy", // lmdeploy/serve/openai/protocol.py, ModelCard
	gauges:      &lmDeployGauges,
	metricsPath: metricsPath,
}

// lmDeployGauges: lmdeploy/metrics/loggers.py, 0.16.
var lmDeployGauges = gaugeNames{
	fields: map[string]metricField{
		"lmdeploy:num_requests_running":    running,
		"lmdeploy:num_requests_waiting":    waiting,
		"lmdeploy:gpu_cache_usage_perc":    kvUsage,
		"lmdeploy:generation_tokens_total": tokens,
		"lmdeploy:prompt_tokens_total":     promptTokens,
	},
	replicas: []string{`engine="`},
}

func (lmDeploy) name() string { return "LMDeploy" }

func (lmDeploy) describe(context.Context, *Server, *Info) error { return nil }

func (lmDeploy) readLoad(ctx context.Context, s *Server) (Load, error) {
	page, err := s.readGauges(ctx, metricsPath, &lmDeployGauges, "start LMDeploy without --disable-metrics")
	return page.toLoad(kvUsage, tokens, promptTokens), err
}
