package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Pushed returns a collector for a program that sends the metrics now and then. Beside those of e it has the last
// values of the workers, the runs and the bus that were taken out since its last Collect: a run may be shorter than
// the time between two sends. It is called before parts are added, and only once.
func (e *Exporter) Pushed() prometheus.Collector {
	e.mu.Lock()
	defer e.mu.Unlock()

	e.last = map[part][]prometheus.Metric{}

	return pushed{e}
}

// pushed has the metrics of an exporter and the last values of parts that are gone.
type pushed struct{ exporter *Exporter }

var _ prometheus.Collector = pushed{}

// Describe implements prometheus.Collector. It describes nothing, as [Exporter.Describe] does.
func (p pushed) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (p pushed) Collect(out chan<- prometheus.Metric) {
	s, last := p.exporter.snapshot(true)
	s.put(sink{out})

	for _, list := range last {
		for _, m := range list {
			out <- m
		}
	}
}

// part identifies a part of the process, or the bus.
type part struct {
	kind partKind
	name string // empty for the bus
}

type partKind int

const (
	partWorker partKind = iota
	partRun
	partBus
)

// takeOut takes a part out, and keeps its last values if metrics are pushed. put puts these, and remove takes the part
// from the lists of e, whose lock is held then.
func (e *Exporter) takeOut(p part, put func(sink), remove func()) {
	e.mu.Lock()
	keeps := e.last != nil
	e.mu.Unlock()

	var list []prometheus.Metric
	if keeps {
		list = collect(put)
	}

	e.mu.Lock()
	defer e.mu.Unlock()

	remove()
	if keeps {
		e.last[p] = list
	}
}

// collect returns what a function puts.
func collect(put func(sink)) (list []prometheus.Metric) {
	out := make(chan prometheus.Metric)
	go func() {
		defer close(out)
		put(sink{out})
	}()

	for m := range out {
		list = append(list, m)
	}

	return list
}
