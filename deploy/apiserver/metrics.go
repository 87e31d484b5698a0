package apiserver

import (
	"cmp"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/deploy/httpserver"
	"github.com/promptmill/promptmill/proto"
)

// otherRoute is the label of requests for which there is no handler: their paths may be anything.
const otherRoute = "other"

// noKey is the label of the files that were made while no keys were needed.
const noKey = "none"

// traffic counts the requests of clients.
type traffic struct {
	requests       *prometheus.CounterVec
	seconds        *prometheus.HistogramVec
	received, sent *prometheus.CounterVec
}

// newTraffic returns counters at zero.
func newTraffic() *traffic {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "promptmill_api_" + name, Help: help}, labels)
	}

	return &traffic{
		requests: counter("requests_total", "Requests of clients that were answered.", "route", "status"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "promptmill_api_request_seconds",
			Help:    "Time from the header of a request to the end of its answer.",
			Buckets: []float64{.001, .005, .025, .1, .5, 2.5, 10, 60, 600}, // a large file takes minutes
		}, []string{"route"}),
		received: counter("received_bytes_total", "Bytes of the bodies of requests.", "route"),
		sent:     counter("sent_bytes_total", "Bytes of the bodies of answers.", "route"),
	}
}

// answers are the statuses that are exported for each route from the start: a rate needs a zero to begin with.
var answers = []int{
	http.StatusOK, http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
	http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusInsufficientStorage,
}

// addRoutes has the counters of routes start at zero.
func (t *traffic) addRoutes(routes ...string) {
	for _, route := range routes {
		for _, status := range answers {
			t.requests.WithLabelValues(route, strconv.Itoa(status))
		}
		t.seconds.WithLabelValues(route)
		t.received.WithLabelValues(route)
		t.sent.WithLabelValues(route)
	}
}

// observe counts a request.
func (t *traffic) observe(x httpserver.Exchange) {
	route := cmp.Or(x.Route, otherRoute)
	t.requests.WithLabelValues(route, strconv.Itoa(x.Status)).Inc()
	t.seconds.WithLabelValues(route).Observe(x.Took.Seconds())
	t.received.WithLabelValues(route).Add(float64(x.Received))
	t.sent.WithLabelValues(route).Add(float64(x.Sent))
}

// collectors returns all counters.
func (t *traffic) collectors() []prometheus.Collector {
	return []prometheus.Collector{t.requests, t.seconds, t.received, t.sent}
}

// inventory counts the files and batches that are there. It has no names of files.
type inventory struct {
	dir     string // of the outputs
	files   *filestore.Store
	batches *batch.Service
}

var (
	metricFiles = prometheus.NewDesc("promptmill_api_files", "Files that clients have uploaded.", nil, nil)
	metricDisk  = prometheus.NewDesc("promptmill_api_disk_bytes",
		"Bytes on the disk, by the key of their owner: of files that clients have uploaded (input), and of the "+
			"results of their batches as they are compressed (output).", []string{"key", "kind"}, nil)
	metricBatches = prometheus.NewDesc("promptmill_api_batches", "Batches, by their status.", []string{"status"}, nil)
)

// states are the states of batches. A paused run is in progress for its client.
var states = []proto.State{
	proto.StateValidating, proto.StateFailed, proto.StateInProgress, proto.StateFinalizing, proto.StateCompleted,
	proto.StateExpired, proto.StateCancelling, proto.StateCancelled,
}

// Describe implements prometheus.Collector.
func (i inventory) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{metricFiles, metricDisk, metricBatches} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (i inventory) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}

	gauge(metricFiles, float64(len(i.files.List())))
	for owner, n := range i.files.Usage() {
		gauge(metricDisk, float64(n), cmp.Or(owner, noKey), "input")
	}

	outputs, byState := map[string]int64{}, map[proto.State]int{}
	for _, b := range i.batches.List() {
		state := b.State
		if state == proto.StatePaused {
			state = proto.StateInProgress
		}

		byState[state]++
		outputs[cmp.Or(b.Owner, noKey)] += measureOutput(output.Prefix(filepath.Join(i.dir, b.Run)))
	}

	for owner, n := range outputs {
		gauge(metricDisk, float64(n), owner, "output")
	}
	for _, state := range states {
		gauge(metricBatches, float64(byState[state]), string(state))
	}
}

// measureOutput returns the bytes of the results of a run on the disk.
func measureOutput(out output.Prefix) (n int64) {
	for _, path := range []string{out.Results(), out.Errors(), out.Journal()} {
		if info, err := os.Stat(path); err == nil {
			n += info.Size()
		}
	}
	return n
}
