package sim

import (
	"fmt"
	"net/http"
	"strconv"
)

// metric is a line of a page of metrics. The pages have the few that a client steers by.
type metric struct {
	name, kind string
	value      float64
}

// writeVLLMMetrics writes the page of vLLM.
func (p *statusPages) writeVLLMMetrics(w http.ResponseWriter, _ *http.Request) {
	load := p.engine.Load()
	w.Header().Set("Content-Type", "text/plain; version=1.0.0; charset=utf-8")
	writeMetrics(w, `{engine="0",model_name=`+strconv.Quote(p.cfg.modelName())+`}`, []metric{
		{"vllm:num_requests_running", "gauge", float64(load.Running)},
		{"vllm:num_requests_waiting", "gauge", float64(load.Waiting)},
		{"vllm:kv_cache_usage_perc", "gauge", load.KVUsage},
		{"vllm:num_preemptions_total", "counter", float64(load.Preemptions)},
		{"vllm:prompt_tokens_total", "counter", float64(load.PromptTokens)},
		{"vllm:generation_tokens_total", "counter", float64(load.Tokens)},
		{"vllm:prompt_tokens_cached_total", "counter", float64(load.CachedTokens)},
		{"vllm:prefix_cache_queries_total", "counter", float64(load.CacheQueries)},
		{"vllm:prefix_cache_hits_total", "counter", float64(load.CacheHits)},
	})

	writeMetrics(w, `{engine="0",model_name=`+strconv.Quote(p.cfg.modelName())+`,reason="capacity"}`, []metric{
		{"vllm:num_requests_waiting_by_reason", "gauge", float64(load.Waiting)},
	})

	labels := `engine="0",model_name=` + strconv.Quote(p.cfg.modelName())
	firstToken, interToken := p.engine.latencies()
	firstToken.write(w, "vllm:time_to_first_token_seconds", labels)
	interToken.write(w, "vllm:inter_token_latency_seconds", labels)

	writeMetrics(w, `{engine="0",finished_reason="stop",model_name=`+strconv.Quote(p.cfg.modelName())+`}`, []metric{
		{"vllm:request_success_total", "counter", float64(p.counts.succeeded.Load())},
	})

	writeMetrics(w, `{cache_dtype="auto",engine="0",gpu_memory_utilization="0.9"}`,
		[]metric{{"vllm:cache_config_info", "gauge", 1}})
	fmt.Fprintf(w, "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds %.2f\n",
		float64(p.started.UnixMilli())/1e3)
}

// writeSGLangMetrics counts the tokens of requests that have ended, as SGLang does.
func (p *statusPages) writeSGLangMetrics(w http.ResponseWriter, _ *http.Request) {
	load, cfg := p.engine.Load(), p.engine.currentConfig()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	writeMetrics(w, `{model_name=`+strconv.Quote(p.cfg.modelName())+`,engine_type="unified",tp_rank="0",pp_rank="0"}`,
		[]metric{
			{"sglang:num_running_reqs", "gauge", float64(load.Running)},
			{"sglang:num_queue_reqs", "gauge", float64(load.Waiting)},
			{"sglang:token_usage", "gauge", load.KVUsage},
			{"sglang:max_total_num_tokens", "gauge", float64(cfg.KV)},
			{"sglang:num_retracted_requests_total", "counter", float64(load.Preemptions)},
			{"sglang:prompt_tokens_total", "counter", float64(p.counts.promptTokens.Load())},
			{"sglang:generation_tokens_total", "counter", float64(p.counts.tokens.Load())},
			{"sglang:engine_startup_time", "gauge", p.cfg.Load.Seconds()},
		})
}

// writeLlamaCPPMetrics counts the prompts that are read, without their cached part, and the
// tokens of answers that have ended, as llama.cpp does.
func (p *statusPages) writeLlamaCPPMetrics(w http.ResponseWriter) {
	load := p.engine.Load()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	w.Header().Set("Process-Start-Time-Unix", strconv.FormatInt(p.started.UnixMicro(), 10))
	writeMetrics(w, "", []metric{
		{"llamacpp:prompt_tokens_total", "counter", float64(load.PromptTokens - load.CachedTokens)},
		{"llamacpp:prompt_tokens_cached_total", "counter", float64(load.CachedTokens)},
		{"llamacpp:tokens_predicted_total", "counter", float64(p.counts.tokens.Load())},
		{"llamacpp:requests_processing", "gauge", float64(load.Running)},
		{"llamacpp:requests_deferred", "gauge", float64(load.Waiting)},
	})
}

// writeTensorRTMetrics counts the tokens of requests that have ended, as trtllm-serve does.
func (p *statusPages) writeTensorRTMetrics(w http.ResponseWriter, _ *http.Request) {
	load := p.engine.Load()
	writeMetrics(w, `{engine_type="trtllm",model_name=`+strconv.Quote(p.cfg.modelName())+`}`, []metric{
		{"trtllm_num_requests_running", "gauge", float64(load.Running)},
		{"trtllm_num_requests_waiting", "gauge", float64(load.Waiting)},
		{"trtllm_kv_cache_utilization", "gauge", load.KVUsage},
		{"trtllm_prompt_tokens_total", "counter", float64(p.counts.promptTokens.Load())},
		{"trtllm_generation_tokens_total", "counter", float64(p.counts.tokens.Load())},
	})
}

// writeMetrics writes numbers with equal labels.
func writeMetrics(w http.ResponseWriter, labels string, metrics []metric) {
	for _, m := range metrics {
		fmt.Fprintf(w, "# TYPE %s %s\n%s%s %g\n", m.name, m.kind, m.name, labels, m.value)
	}
}
