package modelserver

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

// histogramLines returns the lines of a histogram with bounds 0.1 and 1, as a client library of
// Prometheus writes them.
func histogramLines(name, labels string, low, middle, high int, sum float64) string {
	return fmt.Sprintf("# TYPE %[1]s histogram\n%[1]s_sum{%[2]s} %[6]g\n"+
		"%[1]s_bucket{%[2]s,le=\"0.1\"} %[3]d.0\n%[1]s_bucket{%[2]s,le=\"1.0\"} %[4]d.0\n"+
		"%[1]s_bucket{%[2]s,le=\"+Inf\"} %[5]d.0\n%[1]s_count{%[2]s} %[5]d.0\n",
		name, labels, low, low+middle, low+middle+high, sum)
}

func TestReadHistograms(t *testing.T) {
	t.Parallel()

	histogram := func(source string, sum float64, counts ...int64) *proto.Histogram {
		return &proto.Histogram{Bounds: []float64{0.1, 1}, Counts: counts, Sum: sum, Source: source}
	}
	zero, one := `engine="0",model_name="m"`, `engine="1",model_name="m"`

	for _, tt := range []struct {
		name, page   string
		gauges       *gaugeNames
		first, token *proto.Histogram
	}{
		{
			"vLLM's engines",
			histogramLines("vllm:time_to_first_token_seconds", zero, 1, 2, 3, 9.5) +
				histogramLines("vllm:time_to_first_token_seconds", one, 10, 20, 30, 95) +
				histogramLines("vllm:inter_token_latency_seconds", zero, 7, 0, 0, 0.25),
			&vllmGauges,
			histogram("vllm:time_to_first_token_seconds", 104.5, 11, 22, 33),
			histogram("vllm:inter_token_latency_seconds", 0.25, 7, 0, 0),
		},
		{
			"the older name", histogramLines("vllm:time_per_output_token_seconds", zero, 4, 5, 6, 8), &vllmGauges,
			nil, histogram("vllm:time_per_output_token_seconds", 8, 4, 5, 6),
		},
		{
			"both names",
			histogramLines("vllm:time_per_output_token_seconds", zero, 4, 5, 6, 8) +
				histogramLines("vllm:inter_token_latency_seconds", zero, 4, 5, 6, 8),
			&vllmGauges, nil, histogram("vllm:inter_token_latency_seconds", 8, 4, 5, 6),
		},
		{
			"SGLang's time to the first report is left out",
			histogramLines("sglang:time_to_first_token_seconds", `model_name="m"`, 1, 2, 3, 9) +
				histogramLines("sglang:inter_token_latency_seconds", `model_name="m"`, 3, 2, 1, 4),
			&sglangGauges, nil, histogram("sglang:inter_token_latency_seconds", 4, 3, 2, 1),
		},
		{
			"no last bucket",
			strings.ReplaceAll(histogramLines("vllm:time_to_first_token_seconds", zero, 1, 2, 3, 9), "+Inf", "x"),
			&vllmGauges, nil, nil,
		},
		{"none", "vllm:num_requests_running 3\n", &vllmGauges, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			load := parsePage([]byte(tt.page), tt.gauges).toLoad()
			if diff := cmp.Diff(tt.first, load.FirstToken); diff != "" {
				t.Errorf("time to the first token (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(tt.token, load.OutputToken); diff != "" {
				t.Errorf("time of further tokens (-want +got)\n%s", diff)
			}
		})
	}

	// A page of endless buckets is not kept.
	var page strings.Builder
	for i := range 10 * maxHistogramBounds {
		fmt.Fprintf(&page, "vllm:time_to_first_token_seconds_bucket{le=\"%d\"} 1\n", i)
	}

	page.WriteString("vllm:time_to_first_token_seconds_bucket{le=\"+Inf\"} 1\n")
	if got := parsePage([]byte(page.String()), &vllmGauges).toLoad().FirstToken; got != nil {
		t.Errorf("a histogram with %d bounds", len(got.Bounds))
	}
}
