// Package otlptest has an OpenTelemetry receiver for tests.
package otlptest

import (
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Span is a span that was received.
type Span struct {
	// Trace, ID and Parent are its ids, in hexadecimal digits; Parent is empty for the first of a
	// trace.
	Trace, ID, Parent string
	// Name and Kind are its name and kind, such as "client".
	Name, Kind string
	// Begin and End are its times.
	Begin, End time.Time
	// Failed is set if its status is an error.
	Failed bool
	// Attributes are its attributes as text.
	Attributes map[string]string
}

// Point is a data point of a metric that was received.
type Point struct {
	// Attributes are its attributes as text.
	Attributes map[string]string
	// Count and Sum are those of a histogram; Sum is also the value of a sum or a gauge.
	Count uint64
	Sum   float64
	// Bounds are the boundaries of a histogram.
	Bounds []float64
}

// Receiver receives metrics and traces over HTTP.
type Receiver struct {
	// URL is that of --otlp.
	URL string

	t testing.TB

	// mu guards the fields below.
	mu       sync.Mutex
	resource map[string]string
	headers  http.Header
	spans    []Span
	points   map[string][]Point // by the name of the metric, as they came last
	requests int
}

// Start starts a receiver that ends with the test.
func Start(t testing.TB) *Receiver {
	t.Helper()

	r := &Receiver{t: t, points: map[string][]Point{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/metrics", r.takeMetrics)
	mux.HandleFunc("POST /v1/traces", r.takeSpans)

	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	r.URL = server.URL

	return r
}

// Requests returns how many requests came.
func (r *Receiver) Requests() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests
}

// Header returns the header of the last request.
func (r *Receiver) Header() http.Header {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.headers
}

// Resource returns the attributes of the last resource.
func (r *Receiver) Resource() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.resource
}

// Spans returns all spans, in the order in which they came.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}

// Points returns the last data points of a metric.
func (r *Receiver) Points(metric string) []Point {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.points[metric])
}

// takeMetrics keeps the metrics of a request.
func (r *Receiver) takeMetrics(w http.ResponseWriter, req *http.Request) {
	var data metricspb.MetricsData // the request has the same form
	if !r.read(w, req, &data) {
		return
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	for _, rm := range data.ResourceMetrics {
		r.keepResource(rm.Resource)

		for _, scope := range rm.ScopeMetrics {
			for _, m := range scope.Metrics {
				r.points[m.Name] = readPoints(m)
			}
		}
	}
}

// takeSpans keeps the spans of a request.
func (r *Receiver) takeSpans(w http.ResponseWriter, req *http.Request) {
	var data tracepb.TracesData
	if !r.read(w, req, &data) {
		return
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	for _, rs := range data.ResourceSpans {
		r.keepResource(rs.Resource)

		for _, scope := range rs.ScopeSpans {
			for _, s := range scope.Spans {
				r.spans = append(r.spans, readSpan(s))
			}
		}
	}
}

// read reads the message of a request, and refuses what is none.
func (r *Receiver) read(w http.ResponseWriter, req *http.Request, m proto.Message) bool {
	r.mu.Lock()
	r.requests++
	r.headers = req.Header
	r.mu.Unlock()

	body := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			r.t.Error(err)
			return false
		}
		body = unzipped
	}

	text, err := io.ReadAll(body)
	if err == nil {
		err = proto.Unmarshal(text, m)
	}

	if err != nil || req.Header.Get("Content-Type") != "application/x-protobuf" {
		r.t.Errorf("%s has a body of %q that cannot be read: %v", req.URL, req.Header.Get("Content-Type"), err)
		http.Error(w, "not protobuf", http.StatusBadRequest)
		return false
	}

	w.Header().Set("Content-Type", "application/x-protobuf")

	return true
}

// keepResource keeps the attributes of a resource. The caller holds the lock.
func (r *Receiver) keepResource(about *resourcepb.Resource) {
	r.resource = readAttributes(about.GetAttributes())
}

// readPoints returns the data points of a metric.
func readPoints(m *metricspb.Metric) (list []Point) {
	for _, p := range m.GetHistogram().GetDataPoints() {
		list = append(list, Point{readAttributes(p.Attributes), p.Count, p.GetSum(), p.ExplicitBounds})
	}

	for _, p := range slices.Concat(m.GetSum().GetDataPoints(), m.GetGauge().GetDataPoints()) {
		value := p.GetAsDouble()
		if n, ok := p.Value.(*metricspb.NumberDataPoint_AsInt); ok {
			value = float64(n.AsInt)
		}
		list = append(list, Point{Attributes: readAttributes(p.Attributes), Sum: value})
	}

	return list
}

// readSpan returns a span.
func readSpan(s *tracepb.Span) Span {
	return Span{
		Trace:      hex.EncodeToString(s.TraceId),
		ID:         hex.EncodeToString(s.SpanId),
		Parent:     hex.EncodeToString(s.ParentSpanId),
		Name:       s.Name,
		Kind:       strings.ToLower(strings.TrimPrefix(s.Kind.String(), "SPAN_KIND_")),
		Begin:      time.Unix(0, int64(s.StartTimeUnixNano)),
		End:        time.Unix(0, int64(s.EndTimeUnixNano)),
		Failed:     s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR,
		Attributes: readAttributes(s.Attributes),
	}
}

// readAttributes returns attributes as text.
func readAttributes(list []*commonpb.KeyValue) map[string]string {
	m := map[string]string{}
	for _, a := range list {
		m[a.Key] = readValue(a.Value)
	}
	return m
}

// readValue returns a value as text.
func readValue(v *commonpb.AnyValue) string {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_IntValue:
		return fmt.Sprint(v.IntValue)
	case *commonpb.AnyValue_BoolValue:
		return fmt.Sprint(v.BoolValue)
	case *commonpb.AnyValue_DoubleValue:
		return fmt.Sprint(v.DoubleValue)
	case *commonpb.AnyValue_ArrayValue:
		var texts []string
		for _, e := range v.ArrayValue.Values {
			texts = append(texts, readValue(e))
		}
		return strings.Join(texts, ",")
	}

	return ""
}
