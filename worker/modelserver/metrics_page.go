package modelserver

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/promptmill/promptmill/proto"
)

// metricField is a number that servers report on their page of metrics.
type metricField int

const (
	running metricField = iota
	waiting
	waitingForReason // parts of waiting
	kvUsage
	preemptions
	tokens
	promptTokens
	weightBytes
	loadSeconds
	gpuShare
	started
	fieldCount
)

// Lines of histograms, in pairs: the buckets and the sum of each.
const (
	firstTokenBucket metricField = fieldCount + iota
	firstTokenSum
	interTokenBucket
	interTokenSum
	oldTokenBucket // the same under an older name: a page may have both
	oldTokenSum
	fieldEnd
)

// histogramCount is the number of histograms.
const histogramCount = (fieldEnd - fieldCount) / 2

// fieldNames are the names of the fields for people.
var fieldNames = [fieldCount]string{
	"running", "waiting", "waiting for a reason", "KV usage", "preemptions", "tokens", "prompt tokens", "weight bytes",
	"load seconds", "GPU memory utilization", "start time",
}

// gaugeNames are the names of the numbers of a flavour.
type gaugeNames struct {
	// fields has the names of the fields, also those of versions still in use. A page may have
	// a field under two names.
	fields map[string]metricField
	// replicas are the labels that name a copy of the model, up to the value: the numbers of
	// two copies are added up. Other labels distinguish parts of one number.
	replicas []string
}

// startTime is the name of the start of a process in Prometheus's client libraries. vLLM with
// one front end has it.
const startTime = "process_start_time_seconds"

// metricsPath is the path of the gauges of most servers.
const metricsPath = "/metrics"

// metricsPage holds the numbers that were found on a page of metrics.
type metricsPage struct {
	found      [fieldCount][]sample
	histograms [histogramCount]histogramSum
}

// sample is a field's number of one replica of the model.
type sample struct {
	replica []byte
	most    float64
	sum     float64
}

// acceptMetrics asks for the Prometheus text format, 0.0.4, which all servers have.
// OpenMetrics, which some servers prefer, is read as well.
const acceptMetrics = "text/plain;version=0.0.4, application/openmetrics-text;q=0.5, */*;q=0.1"

// readGauges reads the metrics at a path, which must have the running and the waiting requests.
// remedy is the way to get them if there are none.
func (s *Server) readGauges(ctx context.Context, path string, names *gaugeNames, remedy string) (metricsPage, error) {
	p, err := s.readPage(ctx, path, names, remedy)
	if err != nil {
		return p, err
	}

	for _, f := range []metricField{running, waiting} {
		if p.found[f] == nil {
			return p, missingFieldError(path, f, remedy)
		}
	}

	return p, nil
}

// missingFieldError is the error of a page without a field.
func missingFieldError(path string, f metricField, remedy string) error {
	return noGaugesError(path, "lacks the requests "+fieldNames[f], remedy)
}

// noGaugesError is the error of a page that is of no use, with the way to get one.
func noGaugesError(path, why, remedy string) error {
	if path, _, _ = strings.Cut(path, "?"); remedy != "" {
		remedy = ": " + remedy
	}
	return fmt.Errorf("%w (%s %s)%s", ErrNoGauges, path, why, remedy)
}

// fetchPage requests a page of metrics as text.
func (s *Server) fetchPage(ctx context.Context, path, remedy string) (Answer, error) {
	a, err := s.getAccepting(ctx, path, acceptMetrics)
	if err != nil {
		return a, err
	}

	switch {
	case a.Status == http.StatusBadRequest && isUnloadedError(a.Body):
		return a, fmt.Errorf("%w: %s returned status %s", errNotNow, path, statusText(a.Status))
	case a.Status != http.StatusOK:
		return a, noGaugesError(path, "returned status "+statusText(a.Status), remedy)
	}

	if kind := a.Header.Get("Content-Type"); !isMetricsType(kind) {
		return a, noGaugesError(path, "is "+proto.Printable(kind)+", not a page of metrics", remedy)
	}

	return a, nil
}

// readPage reads the metrics at a path, whichever it has.
func (s *Server) readPage(ctx context.Context, path string, names *gaugeNames, remedy string) (metricsPage, error) {
	a, err := s.fetchPage(ctx, path, remedy)
	if err != nil {
		return metricsPage{}, err
	}

	p := parsePage(a.Body, names)
	// llama.cpp has its start in a header, in microseconds of a clock that began with its host
	// (tools/server/server-context.cpp).
	if at, err := strconv.ParseFloat(a.Header.Get("Process-Start-Time-Unix"), 64); err == nil && at > 0 {
		p.addSample(started, nil, at/1e6)
	}

	if p.found[waiting] == nil && p.found[waitingForReason] != nil {
		p.found[waiting] = []sample{{most: p.sumAll(waitingForReason)}}
	}

	return p, nil
}

// isMetricsType reports whether a content type may be that of metrics as text. A page of HTML
// or JSON under a path of metrics is something else: a web interface, an error, or
// trtllm-serve's list.
func isMetricsType(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case "", "text/plain", "application/openmetrics-text", "application/octet-stream":
		return true
	}
	return false
}

// parsePage picks the fields of a flavour from a page in the Prometheus text format, 0.0.4, or
// in OpenMetrics, whose counters have the same names, and which may have a time or an example
// behind a number. Lines that cannot be parsed are skipped. It is called twice a second, with
// pages of some 200 KB.
func parsePage(text []byte, names *gaugeNames) metricsPage {
	var p metricsPage
	for line := range bytes.Lines(text) {
		end := bytes.IndexAny(line, "{ \t\n")
		if end < 0 {
			continue
		}

		f, ok := names.fields[string(line[:end])]
		if !ok && string(line[:end]) == startTime {
			f, ok = started, true
		}

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
			number = labelValue(labels, `gpu_memory_utilization="`)
		}

		value, err := strconv.ParseFloat(string(number), 64)
		if err != nil || !(value >= 0 && value <= 1e15) { // nor NaN
			continue
		}

		if f >= firstTokenBucket {
			h := &p.histograms[(f-firstTokenBucket)/2]
			h.setName(line[:end])
			h.add(f, labelValue(labels, `le="`), value)
			continue
		}

		p.addSample(f, names.replicaName(labels), value)
	}

	return p
}

// cutLabels splits the text after a name into the labels and the rest. A brace in a
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

// replicaName returns the name of the copy of the model that a sample is of, nil if there is one.
func (n *gaugeNames) replicaName(labels []byte) (name []byte) {
	for _, replica := range n.replicas {
		switch part := labelValue(labels, replica); {
		case part == nil:
		case name == nil:
			name = part
		default:
			name = bytes.Join([][]byte{name, part}, []byte(" "))
		}
	}

	return name
}

// labelValue returns the value of a label that has no escapes, nil if there is no such label.
// name ends with the sign and the quote before the value.
func labelValue(labels []byte, name string) []byte {
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

// addSample adds a number of a replica.
func (p *metricsPage) addSample(f metricField, replica []byte, value float64) {
	for i := range p.found[f] {
		if s := &p.found[f][i]; bytes.Equal(s.replica, replica) {
			s.most = max(s.most, value)
			s.sum += value
			return
		}
	}

	p.found[f] = append(p.found[f], sample{replica, value, value})
}

// sumReplicas returns the sum over the replicas.
func (p *metricsPage) sumReplicas(f metricField) (total float64) {
	for _, s := range p.found[f] {
		total += s.most
	}
	return total
}

// maxValue returns the greatest number of a field.
func (p *metricsPage) maxValue(f metricField) (most float64) {
	for _, s := range p.found[f] {
		most = max(most, s.most)
	}
	return most
}

// sumAll returns the sum of all numbers of a field, by user, priority, reason and the like.
func (p *metricsPage) sumAll(f metricField) (sum float64) {
	for _, s := range p.found[f] {
		sum += s.sum
	}
	return sum
}

// engineNames returns the names of the replicas on the page.
func (p *metricsPage) engineNames() string {
	var list []string
	for _, s := range p.found[running] {
		list = append(list, string(s.replica))
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

// toLoad returns the page as a Load. Of the wanted fields, those that it lacks are missing.
func (p metricsPage) toLoad(wanted ...metricField) Load {
	or := func(f metricField, value float64) float64 {
		if p.found[f] == nil {
			return -1
		}
		return value
	}

	l := Load{
		Running:      int(p.sumReplicas(running)),
		Waiting:      int(p.sumReplicas(waiting)),
		KVUsage:      or(kvUsage, min(1, p.sumReplicas(kvUsage)/float64(max(1, len(p.found[kvUsage]))))),
		Preemptions:  or(preemptions, p.sumReplicas(preemptions)),
		Tokens:       or(tokens, p.sumAll(tokens)),
		PromptTokens: or(promptTokens, p.sumAll(promptTokens)),
		Started:      p.maxValue(started),
		Engines:      p.engineNames(),
		FirstToken:   p.histogram(firstTokenBucket),
		OutputToken:  cmp.Or(p.histogram(interTokenBucket), p.histogram(oldTokenBucket)),
	}
	for _, f := range wanted {
		if p.found[f] == nil {
			l.Missing = append(l.Missing, fieldNames[f])
		}
	}

	return l
}
