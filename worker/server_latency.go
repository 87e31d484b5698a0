package worker

import (
	"slices"
	"sync"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// serverLatency adds up the latencies that the model server measures, since the first look at its
// metrics. The server's counters begin again at 0 when it restarts; these go on.
type serverLatency struct {
	// mu guards the fields below.
	mu          sync.Mutex
	firstToken  histogramMeter
	outputToken histogramMeter
}

// observe takes in a reading of the metrics.
func (l *serverLatency) observe(load modelserver.Load) {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.firstToken.observe(load.FirstToken)
	l.outputToken.observe(load.OutputToken)
}

// forget drops all: the readings are of more than one server.
func (l *serverLatency) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.firstToken, l.outputToken = histogramMeter{}, histogramMeter{}
}

// snapshot returns the latencies until now; nil: the server measures none.
func (l *serverLatency) snapshot() *proto.ServerLatency {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.firstToken.last == nil && l.outputToken.last == nil {
		return nil
	}

	return &proto.ServerLatency{
		TimeToFirstToken:   l.firstToken.snapshot(),
		TimePerOutputToken: l.outputToken.snapshot(),
	}
}

// histogramMeter adds up what a histogram of the server has grown by.
type histogramMeter struct {
	last  *proto.Histogram // nil: there was no reading
	total proto.Histogram
}

// observe takes in a reading; nil: the server has none.
func (m *histogramMeter) observe(h *proto.Histogram) {
	if h == nil {
		return
	}

	if m.last == nil || !slices.Equal(m.last.Bounds, h.Bounds) { // the first, or another server
		m.last = h
		m.total = proto.Histogram{Bounds: h.Bounds, Counts: make([]int64, len(h.Counts))}
		return
	}

	from := *m.last
	if hasRestarted(from, *h) { // all that it has counted is new
		from = proto.Histogram{Counts: make([]int64, len(h.Counts))}
	}

	for i := range h.Counts {
		m.total.Counts[i] += h.Counts[i] - from.Counts[i]
	}

	m.total.Sum += max(0, h.Sum-from.Sum)
	m.last = h
}

// hasRestarted reports whether a histogram has begun again since a reading.
func hasRestarted(before, now proto.Histogram) bool {
	for i := range now.Counts {
		if now.Counts[i] < before.Counts[i] {
			return true
		}
	}
	return now.Sum < before.Sum
}

// snapshot returns a copy of what was added up, nil if there was no reading.
func (m *histogramMeter) snapshot() *proto.Histogram {
	if m.last == nil {
		return nil
	}

	return &proto.Histogram{
		Bounds: slices.Clone(m.total.Bounds),
		Counts: slices.Clone(m.total.Counts),
		Sum:    m.total.Sum,
		Source: m.last.Source,
	}
}
