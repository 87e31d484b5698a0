// Package metrics exports the counts of the parts of a run, and the state of their bus, for Prometheus.
//
// An [Exporter] has four sources. The parts of this process (workers, collectors, producers, webhooks) are read at
// each scrape. The bus, with the runs and workers of all processes, is asked at a scrape, once in [lookEvery] at most.
// The disks of the folders and the build are the last two.
package metrics

import (
	"cmp"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/scale"
	"github.com/promptmill/promptmill/deploy/webhook"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
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
	// Version is the version of the program. Empty: the build is not exported.
	Version string

	mu      sync.Mutex
	workers []progress.LocalWorker
	runs    []namedRun
	events  *webhook.Stats    // nil: nothing gets events
	bus     *busView          // nil: the bus is not exported
	folders map[string]string // paths, by what the folders are for
	within  time.Duration     // see SetScaleWithin

	// last has the last values of parts that were taken out, until they are pushed; nil: nothing is pushed.
	last map[part][]prometheus.Metric
}

var _ prometheus.Collector = (*Exporter)(nil)

// AddWorker adds a worker until the returned function is called.
func (e *Exporter) AddWorker(w progress.LocalWorker) (remove func()) {
	if e == nil {
		return func() {}
	}

	e.mu.Lock()
	defer e.mu.Unlock()

	p := part{partWorker, w.Name}
	e.workers = append(e.workers, w)
	delete(e.last, p)

	return func() {
		e.takeOut(p, func(s sink) { s.putWorker(w) }, func() {
			e.workers = slices.DeleteFunc(e.workers, func(other progress.LocalWorker) bool { return other == w })
		})
	}
}

// AddRun adds a run until the returned function is called.
func (e *Exporter) AddRun(id string, from *producer.Producer, to *collector.Collector) (remove func()) {
	if e == nil {
		return func() {}
	}

	e.mu.Lock()
	defer e.mu.Unlock()

	p, r := part{partRun, id}, namedRun{id, from, to}
	e.runs = append(e.runs, r)
	delete(e.last, p)

	return func() {
		e.takeOut(p, func(s sink) { s.putRun(r) }, func() {
			e.runs = slices.DeleteFunc(e.runs, func(other namedRun) bool { return other == r })
		})
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

// SetBus sets the bus whose runs and workers are exported, until the returned function is called. Runs that are
// not wanted are left out; a nil wanted wants all.
func (e *Exporter) SetBus(js jetstream.JetStream, wanted func(proto.Manifest) bool) (remove func()) {
	if e == nil {
		return func() {}
	}

	e.mu.Lock()
	defer e.mu.Unlock()

	p, view := part{kind: partBus}, newBusView(js, wanted)
	e.bus = view
	delete(e.last, p)

	return func() {
		e.takeOut(p, func(s sink) { s.putLastBus(view) }, func() {
			if e.bus == view {
				e.bus = nil
			}
		})
	}
}

// What the folders of [Exporter.SetFolder] are for.
const (
	FolderState  = "state"
	FolderOutput = "output"
)

// SetFolder sets the path of a folder whose disk is exported. The folder need not be there yet.
func (e *Exporter) SetFolder(use, path string) {
	if e == nil {
		return
	}

	e.mu.Lock()
	defer e.mu.Unlock()

	if e.folders == nil {
		e.folders = map[string]string{}
	}
	e.folders[use] = path
}

// Describe implements prometheus.Collector. It describes nothing, which makes the metrics
// unchecked: they depend on the parts.
func (e *Exporter) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (e *Exporter) Collect(out chan<- prometheus.Metric) {
	s, _ := e.snapshot(false)
	s.put(sink{out})
}

// snapshot is what an exporter has at a time. The parts come and go while the bus or a disk is asked, which may take
// seconds.
type snapshot struct {
	version string
	workers []progress.LocalWorker
	runs    []namedRun
	events  *webhook.Stats
	bus     *busView
	folders map[string]string
	within  time.Duration
}

// snapshot returns what there is, and takes the last values of what is gone if these are pushed.
func (e *Exporter) snapshot(takesLast bool) (s snapshot, last map[part][]prometheus.Metric) {
	e.mu.Lock()
	defer e.mu.Unlock()

	if takesLast {
		last, e.last = e.last, map[part][]prometheus.Metric{}
	}

	return snapshot{
		version: e.Version,
		workers: slices.Clone(e.workers),
		runs:    slices.Clone(e.runs),
		events:  e.events,
		bus:     e.bus,
		folders: maps.Clone(e.folders),
		within:  cmp.Or(e.within, scale.DefaultWithin),
	}, last
}

// put puts all metrics.
func (e snapshot) put(s sink) {
	if e.version != "" {
		s.gauge(metricBuild, 1, e.version, runtime.Version())
	}

	for _, w := range e.workers {
		s.putWorker(w)
	}
	s.putCards(e.workers)

	for _, r := range e.runs {
		s.putRun(r)
	}

	if e.events != nil {
		s.putEvents(e.events)
	}

	if e.bus != nil {
		state := e.bus.look()
		s.putBus(state)
		s.putWanted(e.bus, state, e.within)
	}

	for use, path := range e.folders {
		if free, size, err := files.MeasureDisk(path); err == nil {
			s.gauge(metricDiskFree, float64(free), use)
			s.gauge(metricDiskSize, float64(size), use)
		}
	}
}

// sink takes the metrics of a scrape.
type sink struct{ out chan<- prometheus.Metric }

func (s sink) counter(d *prometheus.Desc, value float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...)
}

func (s sink) gauge(d *prometheus.Desc, value float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func newDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("promptmill_"+name, help, labels, nil)
}

var (
	metricBuild = newDesc("build_info", "1, with the version of promptmill and of Go.", "version", "goversion")

	metricDiskFree = newDesc("disk_free_bytes",
		"Bytes that are free for promptmill on the disk of a folder.", "folder")
	metricDiskSize = newDesc("disk_size_bytes", "Size of the disk of a folder.", "folder")

	metricEventAttempts = newDesc("webhook_attempts_total", "Attempts to deliver an event.", "outcome")
	metricEventsGivenUp = newDesc("webhook_given_up_total", "Events that were given up.")
	metricEventsPending = newDesc("webhook_pending", "Events that are to be delivered.")
)

// putEvents puts the events of ended runs.
func (s sink) putEvents(events *webhook.Stats) {
	s.counter(metricEventAttempts, float64(events.Delivered.Load()), "delivered")
	s.counter(metricEventAttempts, float64(events.Failed.Load()), "failed")
	s.counter(metricEventsGivenUp, float64(events.GivenUp.Load()))
	s.gauge(metricEventsPending, float64(events.Pending.Load()))
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
