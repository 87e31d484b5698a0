package modelserver

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRead(t *testing.T) {
	t.Parallel()

	const name = "vllm:num_requests_running"
	for _, tt := range []struct {
		name, text string
		want       float64 // -1: nothing is found
	}{
		{"a gauge", name + " 3\n", 3},
		{"a gauge at the end, with no end of line", name + " 3", 3},
		{"lines that end as in Windows", name + " 3\r\n", 3},
		{"a float", name + " 3.5e1\n", 35},
		{"a timestamp", name + " 3 1758500000000\n", 3},
		{"labels", name + `{model_name="m",engine="0"} 3` + "\n", 3},
		{"no labels in braces", name + "{} 3\n", 3},
		{"a brace in a label", name + `{model_name="}"} 3` + "\n", 3},
		{"a quoted quote in a label", name + `{model_name="\"} 9"} 3` + "\n", 3},
		{"a backslash at a label's end", name + `{model_name="\\"} 3` + "\n", 3},
		{"OpenMetrics", "# TYPE " + name + " gauge\n# UNIT " + name + " \n" + name + `{engine="0"} 3 1758500000.123` +
			"\n# EOF\n", 3},
		{"an exemplar with a time", name + `{engine="0"} 3 1758500000.1 # {trace_id="x"} 9 1758500000.1` + "\n", 3},
		{"an exemplar", name + `{engine="0"} 3 # {engine="1"} 9` + "\n", 3},
		{"engines", name + "{engine=\"0\"} 3\n" + name + "{engine=\"1\"} 4\n", 7},
		{"an engine that is named twice", name + "{engine=\"0\"} 3\n" + name + "{engine=\"0\"} 4\n", 4},
		{"a label that ends like another", name + "{moe_dp_rank=\"0\"} 3\n" + name + "{moe_dp_rank=\"1\"} 4\n", 4},
		{"a label within a label", name + `{a="x,dp_rank=\"1\"",dp_rank="0"} 3` + "\n" + name +
			`{dp_rank="0"} 4` + "\n", 4},
		{"comments", "# HELP " + name + " 9\n# TYPE " + name + " gauge\n", -1},
		{"a longer name", name + "_total 3\n", -1},
		{"not a number", name + " NaN\n", -1},
		{"without end", name + " +Inf\n", -1},
		{"below zero", name + " -1\n", -1},
		{"beyond all reason", name + " 1e300\n", -1},
		{"no value", name + "\n", -1},
		{"no value behind labels", name + "{engine=\"0\"}\n", -1},
		{"a text", name + " x\n", -1},
		{"labels that do not end", name + `{engine="0} 3` + "\n", -1},
		{"nothing", "", -1},
		{"empty lines", "\n\n" + name + " 3\n\n", 3},
	} {
		p := parsePage([]byte(tt.text), &anyGauges)
		got := p.sumReplicas(running)
		if p.found[running] == nil {
			got = -1
		}

		if got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// anyGauges are the names of all flavours.
var anyGauges = func() (all gaugeNames) {
	all.fields = map[string]metricField{startTime: started}
	for _, k := range flavours {
		if k.gauges != nil {
			maps.Copy(all.fields, k.gauges.fields)
			all.replicas = append(all.replicas, k.gauges.replicas...)
		}
	}

	return all
}()

// Every name is read, and no flavour has another's.
func TestGaugeNames(t *testing.T) {
	t.Parallel()

	has := func(p metricsPage, f metricField) bool {
		if f < firstTokenBucket {
			return p.found[f] != nil
		}

		h := p.histograms[(f-firstTokenBucket)/2]
		if (f-firstTokenBucket)%2 == 1 {
			return h.sum > 0
		}

		return len(h.bounds) > 0
	}

	for name, f := range anyGauges.fields {
		text := fmt.Appendf(nil, "# TYPE %s gauge\n%s{model_name=\"m\",le=\"1\",gpu_memory_utilization=\"0.5\"} 0.5\n",
			name, name)
		p := parsePage(text, &anyGauges)
		for other := range fieldEnd {
			if has(p, other) != (other == f) {
				t.Errorf("%s, field %d: found %v of field %d", name, f, has(p, other), other)
			}
		}

		prefix := strings.FieldsFunc(name, func(r rune) bool { return r == ':' || r == '_' })[0]
		for _, k := range flavours {
			if k.gauges == nil || f == started {
				continue
			}

			if _, named := k.gauges.fields[name]; named != has(parsePage(text, k.gauges), f) ||
				named && !strings.HasPrefix(k.metricsPath, "/") {
				t.Errorf("%s, of %s: %v", name, prefix, named)
			}
		}
	}

	both := parsePage([]byte("vllm:kv_cache_usage_perc 0.5\nvllm:gpu_cache_usage_perc 0.5\n"), &vllmGauges)
	if load := both.toLoad(); load.KVUsage != 0.5 {
		t.Errorf("under two names, the usage is %v", load.KVUsage)
	}
}

// vLLM reports some of its settings as labels of a number that means nothing.
func TestReadLabel(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, labels string
		want         float64 // 0: nothing is found
	}{
		{"among others", `{cache_dtype="auto",gpu_memory_utilization="0.92",num_gpu_blocks="7"}`, 0.92},
		{"the first", `{gpu_memory_utilization="1"}`, 1},
		{"engines that have the same", `{engine="0",gpu_memory_utilization="0.9"} 1` + "\n" +
			`vllm:cache_config_info{engine="1",gpu_memory_utilization="0.9"}`, 0.9},
		{"behind a label that ends like it", `{old_gpu_memory_utilization="0.1",gpu_memory_utilization="0.9"}`, 0.9},
		{"not reported", `{num_gpu_blocks="7"}`, 0},
		{"no labels", ``, 0},
		{"none", `{gpu_memory_utilization="None"}`, 0},
		{"empty", `{gpu_memory_utilization=""}`, 0},
		{"below zero", `{gpu_memory_utilization="-0.5"}`, 0},
	} {
		p := parsePage([]byte("vllm:cache_config_info"+tt.labels+" 1.0\n"), &vllmGauges)
		if got := p.maxValue(gpuShare); got != tt.want || (p.found[gpuShare] == nil) != (got == 0) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// FuzzParsePage finds no impossible number.
func FuzzParsePage(f *testing.F) {
	for _, name := range []string{
		"vllm.txt", "vllm-old.txt", "sglang.txt", "llamacpp.txt", "tensorrt.txt", "dynamo.txt", "lmdeploy.txt",
		"tgi.txt", "sglang-gateway.txt", "vllm-openmetrics.txt",
	} {
		f.Add([]byte(golden(f, name)))
	}

	f.Add([]byte(`vllm:num_requests_running{a="\`))
	f.Add([]byte("vllm:num_requests_running{"))
	f.Add([]byte(`vllm:cache_config_info{gpu_memory_utilization="} 1`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p := parsePage(text, &anyGauges)
		l := p.toLoad(kvUsage, tokens)
		if l.Running < 0 || l.Waiting < 0 {
			t.Errorf("%+v", l)
		}

		for _, v := range []float64{l.KVUsage, l.Preemptions, l.Tokens, l.PromptTokens} {
			if v != -1 && !(v >= 0) {
				t.Errorf("%+v", l)
			}
		}

		if l.KVUsage > 1 {
			t.Errorf("%+v", l)
		}
	})
}

// FuzzLabel reads a line with any text in its label, as long as the text is written as the
// format wants it.
func FuzzLabel(f *testing.F) {
	for _, seed := range []string{"m", `"`, `\`, "}", "} 7\n", `,engine="1"`, "\n", "{"} {
		f.Add(seed)
	}

	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	f.Fuzz(func(t *testing.T, value string) {
		text := fmt.Sprintf("vllm:num_requests_running{model_name=\"%s\",engine=\"0\"} 3\nvllm:num_requests_running{engine=\"0\"} 2\n",
			escape.Replace(value))
		p := parsePage([]byte(text), &vllmGauges)
		if diff := cmp.Diff([]string{"0 3 5"}, replicas(p, running)); diff != "" {
			t.Errorf("%s(-want +got):\n%s", text, diff)
		}
	})
}

func replicas(p metricsPage, f metricField) (list []string) {
	for _, s := range p.found[f] {
		list = append(list, fmt.Sprintf("%s %v %v", s.replica, s.most, s.sum))
	}
	return list
}

func BenchmarkRead(b *testing.B) {
	var page strings.Builder
	page.WriteString(golden(b, "vllm.txt"))

	for i := 0; page.Len() < 200<<10; i++ {
		fmt.Fprintf(&page,
			"vllm:request_decode_time_seconds_bucket{engine=\"0\",le=\"%d.0\",model_name=\"Qwen/Qwen3-8B\"} %d.0\n",
			i, i)
	}

	text := []byte(page.String())
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()

	for b.Loop() {
		parsePage(text, &vllmGauges)
	}
}
