package modelserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"time"
)

// sgLang has gauges only with --enable-metrics. Without, newer versions still report the most
// important ones elsewhere. It is never asked for /health or /health_generate: they generate a
// token.
type sgLang struct {
	metricsPath string      // of its gauges
	noPage      atomic.Bool // at the last probe there was no page of gauges
}

var sglangSpec = flavourSpec{
	newFlavour:  func() flavour { return &sgLang{metricsPath: metricsPath} },
	owner:       "sglang", // sglang/srt/entrypoints/openai/protocol.py, ModelCard
	gauges:      &sglangGauges,
	metricsPath: metricsPath,

	countsAtEnd: true, // srt/observability/metrics_collector.py, observe_one_finished_request
}

// sglangGatewaySpec is SGLang's router, which has the pages of its servers as one
// (sgl-model-gateway/src/server.rs).
var sglangGatewaySpec = flavourSpec{
	newFlavour:  func() flavour { return &sgLang{metricsPath: "/engine_metrics"} },
	gauges:      &sglangGauges,
	metricsPath: "/engine_metrics",

	countsAtEnd: true, // srt/observability/metrics_collector.py, observe_one_finished_request
}

// Its time_to_first_token_seconds is left out. It is observed where the front end hears of a
// request first, and of one that is not streamed it hears at its 50th token, or at its end
// (managers/scheduler_output_processor_mixin.py, DEFAULT_FORCE_STREAM_INTERVAL;
// managers/tokenizer_manager.py, collect_metrics). Newer versions report the first token, and a
// page does not tell which. From there on, inter_token_latency_seconds is true, as the mean of
// each 50 tokens: shorter answers are not in it. time_per_output_token_seconds, of older versions,
// has the wait for the first token in it.
//
// sglangGauges: sglang/srt/observability/metrics_collector.py. num_retracted_reqs is no
// counter: it is set to zero after each report. GPUs of one replica each repeat its numbers,
// and a priority's are a part of all. The gateway writes the names without colons, and adds the
// address of each server (sgl-model-gateway/src/core/metrics_aggregator.rs).
var sglangGauges = gaugeNames{
	fields: bothSpellings(map[string]metricField{
		"sglang:num_running_reqs":             running,
		"sglang:num_queue_reqs":               waiting,
		"sglang:token_usage":                  kvUsage,
		"sglang:num_retracted_requests_total": preemptions,
		"sglang:generation_tokens_total":      tokens, // of requests that have ended
		"sglang:prompt_tokens_total":          promptTokens,
		"sglang:engine_startup_time":          loadSeconds, // zero in some versions
		"sglang:engine_load_weights_time":     loadSeconds,
		"sglang:weight_load_duration_seconds": loadSeconds,

		"sglang:inter_token_latency_seconds_bucket": interTokenBucket,
		"sglang:inter_token_latency_seconds_sum":    interTokenSum,
	}),
	replicas: []string{`worker_addr="`, `dp_rank="`},
}

// bothSpellings adds, for each name with a colon, the one with an underscore in its place.
func bothSpellings(fields map[string]metricField) map[string]metricField {
	both := maps.Clone(fields)
	for name, f := range fields {
		both[strings.ReplaceAll(name, ":", "_")] = f
	}
	return both
}

func (*sgLang) name() string { return "SGLang" }

func (l *sgLang) describe(ctx context.Context, s *Server, info *Info) error {
	page, err := l.readPage(ctx, s)
	l.noPage.Store(errors.Is(err, ErrNoGauges))
	info.Engines = len(page.found[running])
	info.LoadSeconds = page.maxValue(loadSeconds)

	// A scheduler answers when it has the time, and need not.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()

	// All else in that answer, such as the API key, must not get into any message.
	var reply struct {
		Version string
		States  []struct {
			Memory struct{ Weight, KVCache float64 } `json:"memory_usage"` // GiB
		} `json:"internal_states"`
	}
	// The older name still works, but with a warning in SGLang's log.
	if s.getJSON(ctx, "/server_info", &reply) != nil && s.getJSON(ctx, "/get_server_info", &reply) != nil {
		return nil
	}

	info.Version = reply.Version
	for _, state := range reply.States {
		info.WeightBytes += int64(state.Memory.Weight * (1 << 30))
		info.CacheBytes += int64(state.Memory.KVCache * (1 << 30))
	}

	return nil
}

func (l *sgLang) readLoad(ctx context.Context, s *Server) (Load, error) {
	if l.noPage.Load() {
		return l.readSchedulerLoads(ctx, s)
	}
	page, err := l.readPage(ctx, s)
	return page.toLoad(kvUsage, preemptions, tokens, promptTokens), err
}

func (l *sgLang) readPage(ctx context.Context, s *Server) (metricsPage, error) {
	return s.readGauges(ctx, l.metricsPath, &sglangGauges, "start SGLang with --enable-metrics")
}

// readSchedulerLoads reads the loads that every scheduler publishes for routers
// (entrypoints/v1_loads.py).
func (*sgLang) readSchedulerLoads(ctx context.Context, s *Server) (Load, error) {
	var reply struct {
		Loads []struct {
			Running *int    `json:"num_running_reqs"`
			Waiting *int    `json:"num_waiting_reqs"`
			Usage   float64 `json:"token_usage"`
		}
	}

	err := s.getJSON(ctx, "/v1/loads", &reply)
	if errors.Is(err, ErrUnreachable) {
		return Load{}, err
	}

	load := Load{Preemptions: -1, Tokens: -1, PromptTokens: -1}
	for _, rank := range reply.Loads {
		if rank.Running == nil || rank.Waiting == nil {
			return Load{}, fmt.Errorf("%w: start SGLang with --enable-metrics", ErrNoGauges)
		}
		load.Running += *rank.Running
		load.Waiting += *rank.Waiting
		load.KVUsage += rank.Usage / float64(len(reply.Loads))
	}

	if err != nil || len(reply.Loads) == 0 { // none: the server has them, but cannot read them
		return Load{}, fmt.Errorf("%w: start SGLang with --enable-metrics", ErrNoGauges)
	}

	load.Missing = []string{"preemptions", "tokens", "prompt tokens"}

	return load, nil
}
