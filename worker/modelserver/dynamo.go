package modelserver

import "context"

// dynamo is the frontend of NVIDIA Dynamo, in front of engines of its own.
type dynamo struct{}

// dynamoSpec recognizes Dynamo by its gauges: the owner of its models, "nvidia", is also that
// of others (lib/llm/src/http/service/openai.rs, list_models_openai).
var dynamoSpec = flavourSpec{
	newFlavour:  func() flavour { return dynamo{} },
	gauges:      &dynamoGauges,
	metricsPath: metricsPath,
}

// dynamoGauges: lib/runtime/src/metrics/prometheus_names.rs, frontend_service. In flight are
// all requests from their first byte to the last of their answer. "Queued" is no queue: each
// request counts as queued until its first token, also while its prompt is computed
// (lib/llm/src/http/service/metrics.rs, HttpQueueGuard); of embeddings, all do.
var dynamoGauges = gaugeNames{
	fields: map[string]metricField{
		"dynamo_frontend_inflight_requests":         running,
		"dynamo_frontend_output_tokens_total":       tokens,
		"dynamo_frontend_input_sequence_tokens_sum": promptTokens,
	},
	replicas: []string{`model="`},
}

func (dynamo) name() string { return "Dynamo" }

func (dynamo) describe(context.Context, *Server, *Info) error { return nil }

// readLoad reports no waiting requests, so the gain of one more request decides.
func (dynamo) readLoad(ctx context.Context, s *Server) (Load, error) {
	page, err := s.readPage(ctx, metricsPath, &dynamoGauges, "")
	if err == nil && page.found[running] == nil {
		err = missingFieldError(metricsPath, running, "")
	}
	return page.toLoad(tokens, promptTokens), err
}
