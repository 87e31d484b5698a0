package telemetry

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/telemetry/otlptest"
	"github.com/promptmill/promptmill/worker"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// start starts telemetry, with an observer of the requests at a server of no known flavour.
func start(t testing.TB, cfg Config) (*Telemetry, worker.Observer) {
	t.Helper()

	server, err := modelserver.New("http://user:secret@gpu1:8001/v1", "")
	if err != nil {
		t.Fatal(err)
	}

	tel, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(tel.Close)

	return tel, tel.Observer(server)
}

// begun is the time at which the attempts of the tests begin.
var begun = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// observe tells an observer of a request with some attempts.
func observe(o worker.Observer, index uint32, failure string, attempts ...worker.Attempt) {
	r := worker.ObservedRequest{
		Run:      "run-1",
		Shard:    "s-1",
		Index:    index,
		CustomID: fmt.Appendf(nil, `"id \"%d\""`, index),
		Path:     "/v1/chat/completions",
		Model:    "m",
	}

	for i := range attempts {
		attempts[i].Begin = begun.Add(time.Duration(i) * time.Minute)
		attempts[i].TraceParent = o.BeginAttempt(r.Run, index, attempts[i].Begin)
		o.EndAttempt(r, attempts[i])
	}

	o.EndRequest(worker.EndedRequest{ObservedRequest: r, Attempts: attempts, Error: failure})
}

// answered returns an attempt with an answer.
func answered(took time.Duration, input, output int64) worker.Attempt {
	return worker.Attempt{
		Took:             took,
		Status:           200,
		PromptTokens:     input,
		CompletionTokens: output,
		Finish:           "stop",
	}
}

func TestMetrics(t *testing.T) {
	r := otlptest.Start(t)
	registry := prometheus.NewRegistry()
	own := prometheus.NewCounter(prometheus.CounterOpts{Name: "promptmill_things_total"})
	registry.MustRegister(own)
	own.Add(3)

	tel, o := start(t, Config{Endpoint: r.URL + "/", Metrics: registry, Version: "v1"})
	observe(o, 0, "", answered(100*time.Millisecond, 10, 20))
	observe(o, 1, "", worker.Attempt{Took: time.Second, Status: 503, Error: "503"}, answered(time.Second, 5, 7))
	tel.Close()

	common := map[string]string{
		"gen_ai.operation.name": "chat",
		"gen_ai.provider.name":  "openai-compatible",
		"gen_ai.request.model":  "m",
		"server.address":        "gpu1",
		"server.port":           "8001",
	}
	with := func(key, value string) map[string]string {
		m := map[string]string{key: value}
		for k, v := range common {
			m[k] = v
		}
		return m
	}

	for _, tt := range []struct {
		metric     string
		attributes map[string]string
		count      uint64
		sum        float64
	}{
		{"gen_ai.client.operation.duration", common, 2, 1.1},
		{"gen_ai.client.operation.duration", with("error.type", "503"), 1, 1},
		{"gen_ai.client.token.usage", with("gen_ai.token.type", "input"), 2, 15},
		{"gen_ai.client.token.usage", with("gen_ai.token.type", "output"), 2, 27},
		{"promptmill_things_total", map[string]string{}, 0, 3},
	} {
		found := 0
		for _, p := range r.Points(tt.metric) {
			if !cmp.Equal(p.Attributes, tt.attributes) {
				continue
			}
			if found++; p.Count != tt.count || p.Sum != tt.sum {
				t.Errorf("%s %v: %d, %v, want %d, %v", tt.metric, tt.attributes, p.Count, p.Sum, tt.count, tt.sum)
			}
		}

		if found != 1 {
			t.Errorf("%s has %d points with %v: %v", tt.metric, found, tt.attributes, r.Points(tt.metric))
		}
	}

	if diff := cmp.Diff(durationBounds, r.Points("gen_ai.client.operation.duration")[0].Bounds); diff != "" {
		t.Errorf("bounds (-want +got):\n%s", diff)
	}

	about := r.Resource()
	if about["service.name"] != "promptmill" || about["service.version"] != "v1" || about["host.name"] == "" {
		t.Errorf("resource %v", about)
	}

	if len(r.Spans()) != 0 {
		t.Errorf("spans %v without a share", r.Spans())
	}
}

// A request that is chosen has a span, and in it one for each attempt, under the id that the
// model server got.
func TestTrace(t *testing.T) {
	r := otlptest.Start(t)
	tel, o := start(t, Config{Endpoint: r.URL, Share: 1})

	attempts := []worker.Attempt{
		{Took: 2 * time.Second, Error: "timeout"},
		answered(time.Second, 5, 7),
	}
	observe(o, 4, "", attempts...)
	tel.Close()

	spans := r.Spans()
	if len(spans) != 3 {
		t.Fatalf("%d spans: %+v", len(spans), spans)
	}

	root := spans[2]
	trace := requestTraceID("run-1", 4).String()
	common := map[string]string{"server.address": "gpu1", "server.port": "8001"}
	want := []otlptest.Span{
		{
			Trace: trace, ID: attempts[0].TraceParent[36:52], Parent: root.ID, Name: "POST", Kind: "client",
			Begin: begun, End: begun.Add(2 * time.Second), Failed: true,
			Attributes: map[string]string{
				"http.request.method": "POST",
				"url.full":            "http://gpu1:8001/v1/chat/completions",
				"error.type":          "timeout",
			},
		},
		{
			Trace: trace, ID: attempts[1].TraceParent[36:52], Parent: root.ID, Name: "POST", Kind: "client",
			Begin: begun.Add(time.Minute), End: begun.Add(time.Minute + time.Second),
			Attributes: map[string]string{
				"http.request.method":       "POST",
				"http.request.resend_count": "1",
				"http.response.status_code": "200",
				"url.full":                  "http://gpu1:8001/v1/chat/completions",
			},
		},
		{
			Trace: trace, ID: root.ID, Name: "chat m", Kind: "client",
			Begin: begun, End: begun.Add(time.Minute + time.Second),
			Attributes: map[string]string{
				"gen_ai.operation.name":          "chat",
				"gen_ai.provider.name":           "openai-compatible",
				"gen_ai.request.model":           "m",
				"gen_ai.response.finish_reasons": "stop",
				"gen_ai.usage.input_tokens":      "5",
				"gen_ai.usage.output_tokens":     "7",
				"promptmill.request.attempts":    "2",
				"promptmill.request.custom_id":   `id "4"`,
				"promptmill.request.index":       "4",
				"promptmill.run.id":              "run-1",
				"promptmill.shard.id":            "s-1",
			},
		},
	}
	for i := range want {
		for k, v := range common {
			want[i].Attributes[k] = v
		}
	}

	if diff := cmp.Diff(want, spans); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	for _, a := range attempts {
		parent := "00-" + trace + "-"
		if !strings.HasPrefix(a.TraceParent, parent) || !strings.HasSuffix(a.TraceParent, "-01") {
			t.Errorf("traceparent %q, want one that begins with %q", a.TraceParent, parent)
		}
	}
}

// The share is chosen by the run and the index alone, so each process chooses the same requests. Of
// the failed ones beyond it, as many are traced as the rate allows.
func TestShare(t *testing.T) {
	const n, share = 5000, 0.01

	r := otlptest.Start(t)
	tel, o := start(t, Config{Endpoint: r.URL, Share: share})
	want := map[string]bool{}

	for i := range uint32(n) {
		observe(o, i, "", answered(time.Second, 1, 1))
		if newSampler(share).has(requestTraceID("run-1", i)) {
			want[fmt.Sprint(i)] = true
		}
	}
	tel.Close()

	if len(want) < n*share/2 || len(want) > n*share*2 {
		t.Errorf("%d of %d requests are chosen, of a share of %v", len(want), n, share)
	}

	got := map[string]bool{}
	for _, s := range r.Spans() {
		if s.Parent == "" {
			got[s.Attributes["promptmill.request.index"]] = true
		}
	}

	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("traced (-want +got):\n%s", diff)
	}
}

func TestFailuresAreTraced(t *testing.T) {
	r := otlptest.Start(t)
	tel, o := start(t, Config{Endpoint: r.URL, Share: 1e-9})
	o.(*observer).tracer.failed.SetLimit(0) // no more than the burst

	for i := range uint32(50) {
		observe(o, i, "400", worker.Attempt{Took: time.Second, Status: 400, Error: "400"})
	}
	observe(o, 50, "invalid_request") // was never sent
	tel.Close()

	roots := 0
	for _, s := range r.Spans() {
		if !s.Failed || s.Attributes["error.type"] != "400" {
			t.Errorf("span %+v", s)
		}
		if s.Parent == "" {
			roots++
		}
	}

	if roots != failureBurst || len(r.Spans()) != 2*failureBurst {
		t.Errorf("%d traces of failures with %d spans, want %d", roots, len(r.Spans()), failureBurst)
	}
}

// With a receiver that is away, refuses or never answers, each request goes on at once, the log says
// it once, and the end waits a few seconds at most.
func TestReceiverFails(t *testing.T) {
	refusing := httptest.NewServer(http.NotFoundHandler())
	defer refusing.Close()

	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer hanging.Close()
	defer close(release)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()

	for name, url := range map[string]string{
		"away":    "http://" + listener.Addr().String(),
		"refuses": refusing.URL,
		"hangs":   hanging.URL,
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			tel, o := start(t, Config{Endpoint: url, Share: 1, Log: zerolog.New(zerolog.SyncWriter(&log))})

			const n = 10_000 // more than the queue holds
			for i := range uint32(n) {
				observe(o, i, "", answered(time.Second, 1, 1))
			}

			tel.Close() // does not wait for release

			if text := log.String(); !strings.Contains(text, fmt.Sprintf(`"lost_spans":%d`, 2*n)) {
				t.Errorf("log %s", text)
			}
			if n := strings.Count(log.String(), "retrying"); n > 1 {
				t.Errorf("%d warnings:\n%s", n, log.String())
			}
		})
	}
}

func TestNilTelemetry(t *testing.T) {
	t.Parallel()

	var tel *Telemetry
	if o := tel.Observer(nil); o != nil {
		t.Errorf("observer %v", o)
	}
	tel.Close()
}

// BenchmarkObserver measures what a request with one attempt costs its worker.
func BenchmarkObserver(b *testing.B) {
	for _, share := range []float64{0, 0.001, 1} {
		b.Run(fmt.Sprint(share), func(b *testing.B) {
			server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			defer server.Close()

			_, o := start(b, Config{Endpoint: server.URL, Share: share})
			r := worker.ObservedRequest{Run: "run-1", Path: "/v1/chat/completions", Model: "m"}
			b.ReportAllocs()

			for i := 0; b.Loop(); i++ {
				r.Index = uint32(i)
				a := answered(time.Second, 10, 20)
				a.Begin = begun
				a.TraceParent = o.BeginAttempt(r.Run, r.Index, begun)
				o.EndAttempt(r, a)
				o.EndRequest(worker.EndedRequest{ObservedRequest: r, Attempts: []worker.Attempt{a}})
			}
		})
	}
}
