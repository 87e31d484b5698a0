package modelserver

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/promptmill/promptmill/proto"
)

// field is a number that servers tell on their page of metrics.
type field int

const (
	running field = iota
	waiting
	waitingForReason // of which the sum is waiting
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
var names = [fields]string{
	"running", "waiting", "waiting for a reason", "KV usage", "preemptions", "tokens", "prompt tokens", "weight bytes",
	"load seconds", "GPU memory utilization", "start time",
}

// gaugeNames is what a flavour calls its numbers.
type gaugeNames struct {
	// fields are by the names that they have, or had in versions still in use. A page may
	// have a field under two of them.
	fields map[string]field
	// replicas are the labels that name a copy of the model, up to the value: what two
	// copies say is added up. Other labels tell apart what is said more than once.
	replicas []string
}

// startTime is what Prometheus's client libraries call the start of a process. vLLM with one
// front end has it.
const startTime = "process_start_time_seconds"

// metricsPage is where most servers have their gauges.
const metricsPage = "/metrics"

// page is what was found on a page of metrics.
type page struct {
	found [fields][]sample
}

// sample is a field's number of one replica of the model.
type sample struct {
	replica []byte
	most    float64
	sum     float64
}

// acceptPage asks for the Prometheus text format, 0.0.4, which all servers have. OpenMetrics,
// which some would rather give, is read as well.
const acceptPage = "text/plain;version=0.0.4, application/openmetrics-text;q=0.5, */*;q=0.1"

// page asks for the metrics at a path. remedy is how to get them if there are none.
func (s *Server) page(ctx context.Context, path string, names *gaugeNames, remedy string) (page, error) {
	p, err := s.readPage(ctx, path, names, remedy)
	if err != nil {
		return p, err
	}

	for _, f := range []field{running, waiting} {
		if p.found[f] == nil {
			return p, lacks(path, f, remedy)
		}
	}

	return p, nil
}

// lacks is the error of a page that does not tell a field.
func lacks(path string, f field, remedy string) error {
	return noGauges(path, "lacks the requests "+names[f], remedy)
}

// noGauges is the error of a page that is of no use, and says how to get one.
func noGauges(path, why, remedy string) error {
	if path, _, _ = strings.Cut(path, "?"); remedy != "" {
		remedy = ": " + remedy
	}
	return fmt.Errorf("%w (%s %s)%s", ErrNoGauges, path, why, remedy)
}

// fetchPage asks for a page of metrics as text.
func (s *Server) fetchPage(ctx context.Context, path, remedy string) (Answer, error) {
	a, err := s.getAs(ctx, path, acceptPage)
	if err != nil {
		return a, err
	}

	switch {
	case a.Status == http.StatusBadRequest && saysUnloaded(a.Body):
		return a, fmt.Errorf("%w: %s says status %s", errNotNow, path, status(a.Status))
	case a.Status != http.StatusOK:
		return a, noGauges(path, "says status "+status(a.Status), remedy)
	}

	if kind := a.Header.Get("Content-Type"); !isMetrics(kind) {
		return a, noGauges(path, "is "+proto.Printable(kind)+", not a page of metrics", remedy)
	}

	return a, nil
}

// readPage reads the metrics at a path, whatever is there of them.
func (s *Server) readPage(ctx context.Context, path string, names *gaugeNames, remedy string) (page, error) {
	a, err := s.fetchPage(ctx, path, remedy)
	if err != nil {
		return page{}, err
	}

	p := read(a.Body, names)
	// llama.cpp tells its start in a header, in microseconds of a clock that began with its host
	// (tools/server/server-context.cpp).
	if at, err := strconv.ParseFloat(a.Header.Get("Process-Start-Time-Unix"), 64); err == nil && at > 0 {
		p.add(started, nil, at/1e6)
	}

	if p.found[waiting] == nil && p.found[waitingForReason] != nil {
		p.found[waiting] = []sample{{most: p.sum(waitingForReason)}}
	}

	return p, nil
}

// isMetrics reports whether a content type may be that of metrics as text. A page of HTML or
// JSON under a path of metrics is something else's: a web interface, an error, or what
// trtllm-serve has there.
func isMetrics(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case "", "text/plain", "application/openmetrics-text", "application/octet-stream":
		return true
	}
	return false
}

// read picks the fields of a flavour from a page in the Prometheus text format, 0.0.4, or in
// OpenMetrics, whose counters have the same names, and which may have a time or an example
// behind a number. Lines that cannot be read are as if they were not there. It is called
// twice a second, with pages of some 200 KB.
func read(text []byte, names *gaugeNames) page {
	var p page
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
			number = label(labels, `gpu_memory_utilization="`)
		}

		value, err := strconv.ParseFloat(string(number), 64)
		if err != nil || !(value >= 0 && value <= 1e15) { // nor NaN
			continue
		}

		p.add(f, names.replica(labels), value)
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

// replica names the copy of the model that a sample is of, nil if there is one.
func (n *gaugeNames) replica(labels []byte) (name []byte) {
	for _, replica := range n.replicas {
		switch part := label(labels, replica); {
		case part == nil:
		case name == nil:
			name = part
		default:
			name = bytes.Join([][]byte{name, part}, []byte(" "))
		}
	}

	return name
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

// sum adds up all that is said, by user, priority, reason and the like.
func (p *page) sum(f field) (sum float64) {
	for _, s := range p.found[f] {
		sum += s.sum
	}
	return sum
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

	l := Load{
		Running:      int(p.total(running)),
		Waiting:      int(p.total(waiting)),
		KVUsage:      or(kvUsage, min(1, p.total(kvUsage)/float64(max(1, len(p.found[kvUsage]))))),
		Preemptions:  or(preemptions, p.total(preemptions)),
		Tokens:       or(tokens, p.sum(tokens)),
		PromptTokens: or(promptTokens, p.sum(promptTokens)),
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
