package sim

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// vLLM's histograms have the times that the engine simulates: a request that waits for a slot has
// its wait in the time to its first token.
func TestHistograms(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Slots: 1, TTFT: 300 * time.Millisecond, TPOT: 20 * time.Millisecond})

		done := make(chan struct{})
		for range 2 {
			go func() {
				post(t.Context(), s, "/v1/completions", `{"model":"m","prompt":"hello","max_tokens":11}`)
				done <- struct{}{}
			}()
		}

		// The first has its first token after 0.3 s and its last after 0.5 s, the second 0.5 s later.
		time.Sleep(400 * time.Millisecond)
		if got := get(s, "/metrics"); !strings.Contains(got,
			`vllm:time_to_first_token_seconds_count{engine="0",model_name="sim"} 1`+"\n") ||
			!strings.Contains(got, `vllm:inter_token_latency_seconds_count{engine="0",model_name="sim"} 0`+"\n") {
			t.Errorf("after 0.4 s\n%s", got)
		}

		<-done
		<-done

		got := get(s, "/metrics")
		for _, want := range []string{
			`vllm:time_to_first_token_seconds_bucket{engine="0",model_name="sim",le="0.25"} 0`,
			`vllm:time_to_first_token_seconds_bucket{engine="0",model_name="sim",le="0.5"} 1`,
			`vllm:time_to_first_token_seconds_bucket{engine="0",model_name="sim",le="1"} 2`,
			`vllm:time_to_first_token_seconds_bucket{engine="0",model_name="sim",le="+Inf"} 2`,
			`vllm:time_to_first_token_seconds_sum{engine="0",model_name="sim"} 1.1`,
			`vllm:inter_token_latency_seconds_bucket{engine="0",model_name="sim",le="0.01"} 0`,
			`vllm:inter_token_latency_seconds_bucket{engine="0",model_name="sim",le="0.025"} 20`,
			`vllm:inter_token_latency_seconds_count{engine="0",model_name="sim"} 20`,
			`vllm:inter_token_latency_seconds_sum{engine="0",model_name="sim"} 0.4`,
		} {
			if !strings.Contains(got, want+"\n") {
				t.Errorf("no %s in\n%s", want, got)
			}
		}
	})
}
