package modelserver

import "context"

// vLLM does not listen while it loads, so it has no state of its own for that.
type vLLM struct{}

var vllmSpec = flavourSpec{
	newFlavour:  func() flavour { return vLLM{} },
	owner:       "vllm", // vllm/entrypoints/openai/engine/protocol.py, ModelCard
	gauges:      &vllmGauges,
	metricsPath: metricsPath,
}

// vllmGauges: vllm/v1/metrics/loggers.py. By reason (capacity, deferred) it reports the parts
// of the waiting requests: they are its sum, and never added to it.
var vllmGauges = gaugeNames{
	fields: map[string]metricField{
		"vllm:num_requests_running":           running,
		"vllm:num_requests_waiting":           waiting,
		"vllm:num_requests_waiting_by_reason": waitingForReason,
		"vllm:kv_cache_usage_perc":            kvUsage,
		"vllm:gpu_cache_usage_perc":           kvUsage, // before 0.9.2
		"vllm:num_preemptions_total":          preemptions,
		"vllm:generation_tokens_total":        tokens,
		"vllm:prompt_tokens_total":            promptTokens,
		"vllm:model_weights_memory_bytes":     weightBytes, // seen with 0.29
		"vllm:cache_config_info":              gpuShare,    // as a label; the number is 1

		// Also for answers that are not streamed: the engine counts each token as it comes.
		"vllm:time_to_first_token_seconds_bucket":   firstTokenBucket,
		"vllm:time_to_first_token_seconds_sum":      firstTokenSum,
		"vllm:inter_token_latency_seconds_bucket":   interTokenBucket,
		"vllm:inter_token_latency_seconds_sum":      interTokenSum,
		"vllm:time_per_output_token_seconds_bucket": oldTokenBucket, // its name before 0.11
		"vllm:time_per_output_token_seconds_sum":    oldTokenSum,
	},
	replicas: []string{`engine="`},
}

func (vLLM) name() string { return "vLLM" }

func (v vLLM) describe(ctx context.Context, s *Server, info *Info) error {
	// The front end outlives an engine that has died, and still lists its models.
	if _, err := s.getPath(ctx, "/health"); err != nil {
		return err
	}

	var reply struct{ Version string }
	if s.getJSON(ctx, "/version", &reply) == nil {
		info.Version = reply.Version
	}

	if page, err := v.readPage(ctx, s); err == nil {
		info.Engines = len(page.found[running])
		info.WeightBytes = int64(page.sumReplicas(weightBytes))
		info.GPUMemoryUtilization = page.maxValue(gpuShare)
	}

	return nil
}

func (v vLLM) readLoad(ctx context.Context, s *Server) (Load, error) {
	page, err := v.readPage(ctx, s)
	return page.toLoad(kvUsage, preemptions, tokens, promptTokens), err
}

// readPage: with --disable-log-stats vLLM has a page, but none of its gauges on it.
func (vLLM) readPage(ctx context.Context, s *Server) (metricsPage, error) {
	return s.readGauges(ctx, metricsPath, &vllmGauges, "start vLLM without --disable-log-stats")
}
