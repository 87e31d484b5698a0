// Package metrics exports the counts of the parts of a run, for Prometheus.
package metrics

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/webhook"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/worker"
)

// namedRun is a run that this process publishes or collects.
type namedRun struct {
	id        string
	producer  *producer.Producer // may be nil
	collector *collector.Collector
}

// Exporter exports the counts of the parts in this process in Prometheus's form. The parts do not
// know it. The zero value exports nothing; a nil Exporter ignores each addition.
type Exporter struct {
	mu      sync.Mutex
	workers []progress.LocalWorker
	runs    []namedRun
	events  *webhook.Stats // nil: nothing gets events
}

var _ prometheus.Collector = (*Exporter)(nil)

// AddWorker adds a worker until the returned function is called.
func (e *Exporter) AddWorker(w progress.LocalWorker) (remove func()) {
	if e == nil {
		return func() {}
	}

	e.mu.Lock()
	defer e.mu.Unlock()

	e.workers = append(e.workers, w)

	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.workers = slices.DeleteFunc(e.workers, func(other progress.LocalWorker) bool { return other == w })
	}
}

// AddRun adds a run until the returned function is called.
func (e *Exporter) AddRun(id string, p *producer.Producer, c *collector.Collector) (remove func()) {
	if e == nil {
		return func() {}
	}

	e.mu.Lock()
	defer e.mu.Unlock()

	r := namedRun{id, p, c}
	e.runs = append(e.runs, r)

	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.runs = slices.DeleteFunc(e.runs, func(other namedRun) bool { return other == r })
	}
}

// SetEvents sets the counts of the events of ended runs.
func (e *Exporter) SetEvents(s *webhook.Stats) {
	if e == nil {
		return
	}

	e.mu.Lock()
	defer e.mu.Unlock()

	e.events = s
}

func newDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("promptmill_"+name, help, labels, nil)
}

var (
	metricRequests = newDesc("worker_requests_total", "Requests that got their result.", "worker", "outcome")
	metricFailures = newDesc("worker_failed_attempts_total",
		"Attempts that failed, or whose answer was requested again.", "worker", "reason")
	metricAttempt     = newDesc("worker_attempt_seconds", "Time of an attempt at the model server.", "worker")
	metricInFlight    = newDesc("worker_in_flight", "Requests at the model server.", "worker")
	metricLimit       = newDesc("worker_limit", "Requests that may be at the model server at once.", "worker")
	metricReady       = newDesc("worker_ready", "1 if the model server takes requests.", "worker")
	metricTokens      = newDesc("worker_tokens_total", "Tokens, as the answers report.", "worker", "direction")
	metricAcks        = newDesc("worker_shards_acked_total", "Shards acknowledged.", "worker")
	metricRedelivered = newDesc("worker_shards_redelivered_total",
		"Shards that another worker had before.", "worker")

	metricPublished = newDesc("producer_shards_published_total", "Shards published by this process.", "run")
	metricFull      = newDesc("producer_waiting", "1 while the work stream is full.", "run")

	metricTotal      = newDesc("collector_requests", "Requests of the run.", "run")
	metricLines      = newDesc("collector_lines_total", "Output lines received, of all sessions.", "run", "outcome")
	metricDurable    = newDesc("collector_durable_lines", "Lines in the synced output.", "run")
	metricStopped    = newDesc("collector_stopped", "1 while a limit has stopped the run.", "run")
	metricDuplicates = newDesc("collector_duplicates_total", "Lines dropped, since their requests had one.", "run")
	metricRunTokens  = newDesc("collector_tokens_total", "Tokens, as the answers report.", "run", "direction")

	metricEventAttempts = newDesc("webhook_attempts_total", "Attempts to deliver an event.", "outcome")
	metricEventsGivenUp = newDesc("webhook_given_up_total", "Events that were given up.")
	metricEventsPending = newDesc("webhook_pending", "Events that are to be delivered.")
)

// Describe implements prometheus.Collector. It describes nothing, which makes the metrics
// unchecked: they depend on the parts.
func (e *Exporter) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (e *Exporter) Collect(out chan<- prometheus.Metric) {
	e.mu.Lock()
	defer e.mu.Unlock()

	counter := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...)
	}

	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for _, w := range e.workers {
		s := w.Worker.Stats()
		failed := s.Failed.Load()
		counter(metricRequests, float64(max(0, s.Done.Load()-failed)), w.Name, "answered")
		counter(metricRequests, float64(failed), w.Name, "failed")

		for reason, n := range s.Reasons() {
			counter(metricFailures, float64(n), w.Name, reason)
		}

		out <- latencyMetric(s.Latency(), w.Name)
		gauge(metricInFlight, float64(s.InFlight.Load()), w.Name)
		gauge(metricLimit, float64(w.Limiter.Limit()), w.Name)
		gauge(metricReady, boolValue(!w.Worker.Down()), w.Name)
		counter(metricTokens, float64(s.TokensIn.Load()), w.Name, "in")
		counter(metricTokens, float64(s.TokensOut.Load()), w.Name, "out")
		counter(metricAcks, float64(s.Shards.Load()), w.Name)
		counter(metricRedelivered, float64(s.Redelivered.Load()), w.Name)
	}

	if e.events != nil {
		counter(metricEventAttempts, float64(e.events.Delivered.Load()), "delivered")
		counter(metricEventAttempts, float64(e.events.Failed.Load()), "failed")
		counter(metricEventsGivenUp, float64(e.events.GivenUp.Load()))
		gauge(metricEventsPending, float64(e.events.Pending.Load()))
	}

	for _, r := range e.runs {
		if r.producer != nil {
			counter(metricPublished, float64(r.producer.Stats().Shards.Load()), r.id)
			gauge(metricFull, boolValue(r.producer.Stats().Full.Load()), r.id)
		}

		p := r.collector.Progress()
		gauge(metricTotal, float64(p.Total), r.id)
		counter(metricLines, float64(p.Received.Done-p.Received.Failed), r.id, "answered")
		counter(metricLines, float64(p.Received.Failed), r.id, "failed")
		gauge(metricDurable, float64(p.Durable), r.id)
		gauge(metricStopped, boolValue(p.Stopped), r.id)
		counter(metricDuplicates, float64(p.Received.Duplicates), r.id)
		counter(metricRunTokens, float64(p.Received.PromptTokens), r.id, "in")
		counter(metricRunTokens, float64(p.Received.CompletionTokens), r.id, "out")
	}
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func latencyMetric(h worker.Histogram, labels ...string) prometheus.Metric {
	buckets, sum := map[float64]uint64{}, uint64(0)
	for i, bound := range worker.LatencyBounds {
		sum += h.Counts[i]
		buckets[bound] = sum
	}
	return prometheus.MustNewConstHistogram(metricAttempt, h.Count, h.Sum.Seconds(), buckets, labels...)
}

// Serve serves the metrics at [HOST]:PORT until stop is called. Without a host, only this
// machine can read them. Without an address, nothing is served.
func Serve(address string, e *Exporter) (stop func(), err error) {
	if address == "" {
		return func() {}, nil
	}

	listener, err := listen(address)
	if err != nil {
		return nil, err
	}

	mux := http.NewServeMux()
	mux.Handle("GET /metrics", Handler(e))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(listener) }) // ends with an error when it is closed

	return func() {
		server.Close()
		serving.Wait()
	}, nil
}

// Handler serves the metrics of an exporter and of more collectors.
func Handler(e *Exporter, more ...prometheus.Collector) http.Handler {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collectors.NewGoCollector())
	if e != nil {
		registry.MustRegister(e)
	}
	registry.MustRegister(more...)

	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// listen listens at [HOST]:PORT.
func listen(address string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, exit.Usage("for example --metrics :9100", "--metrics %s: it has no port", address)
	}

	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return nil, exit.Usage("for example --metrics :9100", "--metrics %s: port %q is not a number from 0 to 65535",
			address, port)
	}

	l, err := net.Listen("tcp", net.JoinHostPort(cmp.Or(host, "127.0.0.1"), port))
	name, _ := errors.AsType[*net.DNSError](err)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, exit.WithHint(fmt.Errorf("cannot serve metrics at %s: another process has this port already", address),
			"choose another port with --metrics [HOST]:PORT")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, exit.Usage("leave the host out, or give 0.0.0.0 to serve at all addresses of this machine",
			"--metrics %s: this machine has no address %s", address, host)
	case errors.Is(err, os.ErrPermission):
		return nil, exit.WithHint(fmt.Errorf("cannot serve metrics at %s: this user may not use that port", address),
			"choose a port from 1024 on with --metrics [HOST]:PORT")
	case name != nil:
		return nil, exit.Usage("leave the host out, or give 0.0.0.0 to serve at all addresses of this machine",
			"--metrics %s: no address has the name %s", address, name.Name)
	}

	return nil, exit.WithHint(fmt.Errorf("cannot serve metrics at %s: %w", address, err),
		"choose another address with --metrics [HOST]:PORT")
}
