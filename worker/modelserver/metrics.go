package modelserver

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// field is a number that servers tell on their page of metrics.
type field int

const (
	running field = iota
	waiting
	kvUsage
	preemptions
	tokens
	promptTokens
	weightBytes
	loadSeconds
	gpuShare
	started
	fields
)

// names are what people call the fields.
var names = [fields]string{"running", "waiting", "KV usage", "preemptions", "tokens", "prompt tokens", "weight bytes", "load seconds", "GPU memory utilization", "start time"}

// aliases are the names that the fields have, or had in versions still in use. A page
// may have a field under two of them.
var aliases = map[string]field{
	// vllm/v1/metrics/loggers.py
	"vllm:num_requests_running":       running,
	"vllm:num_requests_waiting":       waiting,
	"vllm:kv_cache_usage_perc":        kvUsage,
	"vllm:gpu_cache_usage_perc":       kvUsage, // before 0.9.2
	"vllm:num_preemptions_total":      preemptions,
	"vllm:generation_tokens_total":    tokens,
	"vllm:prompt_tokens_total":        promptTokens,
	"vllm:model_weights_memory_bytes": weightBytes, // seen with 0.29
	"vllm:cache_config_info":          gpuShare,    // as a label; the number is 1

	// sglang/srt/observability/metrics_collector.py. num_retracted_reqs is no counter:
	// it is set to zero after each report.
	"sglang:num_running_reqs":             running,
	"sglang:num_queue_reqs":               waiting,
	"sglang:token_usage":                  kvUsage,
	"sglang:num_retracted_requests_total": preemptions,
	"sglang:generation_tokens_total":      tokens, // of requests that have ended
	"sglang:prompt_tokens_total":          promptTokens,
	"sglang:engine_startup_time":          loadSeconds, // zero in some versions
	"sglang:engine_load_weights_time":     loadSeconds,
	"sglang:weight_load_duration_seconds": loadSeconds,

	// llama.cpp, tools/server/README.md
	"llamacpp:requests_processing":    running,
	"llamacpp:requests_deferred":      waiting,
	"llamacpp:kv_cache_usage_ratio":   kvUsage, // until 2025
	"llamacpp:tokens_predicted_total": tokens,  // of requests that have ended
	"llamacpp:prompt_tokens_total":    promptTokens,

	// Prometheus's client libraries, and so vLLM with one front end
	"process_start_time_seconds": started,
}

// page is what was found on a page of metrics.
type page struct {
	prefix string // of the server's own names: vllm, sglang or llamacpp
	found  [fields][]sample
}

// sample is a field's number of one replica of the model.
type sample struct {
	replica []byte
	most    float64
	sum     float64
}

// page asks for the metrics. remedy is how to get them if there are none.
func (s *Server) page(ctx context.Context, remedy string) (page, error) {
	a, err := s.get(ctx, "/metrics")
	if err != nil {
		return page{}, err
	}
	if a.Status != http.StatusOK {
		return page{}, fmt.Errorf("%w (/metrics says status %s): %s", ErrNoGauges, status(a.Status), remedy)
	}
	p := read(a.Body)
	// llama.cpp tells its start in a header, in microseconds of a clock that began with its host
	// (tools/server/server-context.cpp).
	if at, err := strconv.ParseFloat(a.Header.Get("Process-Start-Time-Unix"), 64); err == nil && at > 0 {
		p.add(started, nil, at/1e6)
	}
	for _, f := range []field{running, waiting} {
		if p.found[f] == nil {
			return p, fmt.Errorf("%w (/metrics lacks the requests %s): %s", ErrNoGauges, names[f], remedy)
		}
	}
	return p, nil
}

// read picks the known fields from a page in the Prometheus text format, 0.0.4. Lines
// that cannot be read are as if they were not there. It is called twice a second, with
// pages of some 200 KB.
func read(text []byte) page {
	var p page
	for line := range bytes.Lines(text) {
		end := bytes.IndexAny(line, "{ \t\n")
		if end < 0 {
			continue
		}
		f, ok := aliases[string(line[:end])]
		if !ok {
			continue
		}
		labels, rest := cutLabels(line[end:])
		parts := bytes.Fields(rest)
		if len(parts) == 0 {
			continue
		}
		number := parts[0]
		if f == gpuShare {
			number = label(labels, `gpu_memory_utilization="`)
		}
		value, err := strconv.ParseFloat(string(number), 64)
		if err != nil || !(value >= 0 && value <= 1e15) { // nor NaN
			continue
		}
		if prefix, _, _ := bytes.Cut(line[:end], []byte(":")); f == running {
			p.prefix = string(prefix)
		}
		p.add(f, replica(labels), value)
	}
	return p
}

// cutLabels splits what follows a name into the labels and the rest. A brace in a
// label's value does not end them.
func cutLabels(text []byte) (labels, rest []byte) {
	if text[0] != '{' {
		return nil, text
	}
	quoted := false
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			quoted = !quoted
		case '}':
			if !quoted {
				return text[1:i], text[i+1:]
			}
		}
	}
	return nil, nil
}

// replica names the copy of the model that a sample is of: vLLM calls it engine and
// SGLang dp_rank. Other labels tell apart what is said more than once: SGLang's GPUs
// of one replica each repeat its numbers, and a priority's are a part of all.
func replica(labels []byte) []byte {
	if engine := label(labels, `engine="`); engine != nil {
		return engine
	}
	return label(labels, `dp_rank="`)
}

// label is the value of a label that has no escapes, nil if there is no such label. name
// ends with the sign and the quote before the value.
func label(labels []byte, name string) []byte {
	for from := 0; ; {
		i := bytes.Index(labels[from:], []byte(name))
		if i < 0 {
			return nil
		}
		i += from
		from = i + len(name)
		if i == 0 || labels[i-1] == ',' || labels[i-1] == ' ' {
			value, _, _ := bytes.Cut(labels[from:], []byte(`"`))
			return value
		}
	}
}

func (p *page) add(f field, replica []byte, value float64) {
	for i := range p.found[f] {
		if s := &p.found[f][i]; bytes.Equal(s.replica, replica) {
			s.most = max(s.most, value)
			s.sum += value
			return
		}
	}
	p.found[f] = append(p.found[f], sample{replica, value, value})
}

// total adds up the replicas.
func (p *page) total(f field) (total float64) {
	for _, s := range p.found[f] {
		total += s.most
	}
	return total
}

// most is the greatest number there is.
func (p *page) most(f field) (most float64) {
	for _, s := range p.found[f] {
		most = max(most, s.most)
	}
	return most
}

// engines are the names of the replicas on the page.
func (p *page) engines() string {
	var list []string
	for _, s := range p.found[running] {
		list = append(list, string(s.replica))
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

// load makes a Load of the page. Of the fields named, those that it lacks are missing.
func (p page) load(wanted ...field) Load {
	or := func(f field, value float64) float64 {
		if p.found[f] == nil {
			return -1
		}
		return value
	}
	sum := func(f field) (sum float64) {
		for _, s := range p.found[f] { // by user, priority and the like
			sum += s.sum
		}
		return or(f, sum)
	}
	l := Load{
		Running:      int(p.total(running)),
		Waiting:      int(p.total(waiting)),
		KVUsage:      or(kvUsage, min(1, p.total(kvUsage)/float64(max(1, len(p.found[kvUsage]))))),
		Preemptions:  or(preemptions, p.total(preemptions)),
		Tokens:       sum(tokens),
		PromptTokens: sum(promptTokens),
		Started:      p.most(started),
		Engines:      p.engines(),
	}
	for _, f := range wanted {
		if p.found[f] == nil {
			l.Missing = append(l.Missing, names[f])
		}
	}
	return l
}
