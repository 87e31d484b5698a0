package modelserver

import "context"

// tensorRT is TensorRT-LLM's trtllm-serve. Its /metrics is a list of iterations in JSON, each
// of which is returned once, to the first that asks, and for which it waits up to 2 s
// (tensorrt_llm/serve/openai_server.py, get_iteration_stats). It is not read here, so no other
// reader loses any.
type tensorRT struct{}

var tensorRTSpec = flavourSpec{
	newFlavour:  func() flavour { return tensorRT{} },
	owner:       "tensorrt_llm", // serve/openai_protocol.py, ModelCard
	gauges:      &tensorRTGauges,
	metricsPath: tensorRTMetricsPath,

	countsAtEnd: true, // metrics/collector.py, log_request_metrics_dict
}

// tensorRTMetricsPath: openai_server.py, mount_metrics.
const tensorRTMetricsPath = "/prometheus/metrics"

// tensorRTGauges: tensorrt_llm/metrics/collector.py.
var tensorRTGauges = gaugeNames{fields: map[string]metricField{
	"trtllm_num_requests_running":    running,
	"trtllm_num_requests_waiting":    waiting,
	"trtllm_kv_cache_utilization":    kvUsage,
	"trtllm_generation_tokens_total": tokens, // of requests that have ended
	"trtllm_prompt_tokens_total":     promptTokens,
}}

func (tensorRT) name() string { return "TensorRT-LLM" }

func (tensorRT) describe(ctx context.Context, s *Server, info *Info) error {
	var reply struct{ Version string }
	if s.getJSON(ctx, "/version", &reply) == nil {
		info.Version = reply.Version
	}
	return nil
}

func (tensorRT) readLoad(ctx context.Context, s *Server) (Load, error) {
	page, err := s.readGauges(ctx, tensorRTMetricsPath, &tensorRTGauges,
		"start trtllm-serve with return_perf_metrics and enable_iter_perf_stats set to true in its --config")
	return page.toLoad(kvUsage, tokens, promptTokens), err
}
