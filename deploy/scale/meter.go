package scale

import (
	"maps"
	"slices"
	"sync"

	"github.com/promptmill/promptmill/deploy/status"
	"github.com/promptmill/promptmill/proto"
)

const (
	// busyPart is the least part of its limit that a worker has in flight while its rate says what it can do. Below it,
	// the worker waits for work.
	busyPart = 0.5
	// countedRate is the rate from which the requests of a worker are counted. The announced rate covers some nine
	// seconds; of fewer requests, the time that they take and their number in flight say more (Little's law).
	countedRate = 5
	// mostModels is the number of models from which those without a run are forgotten.
	mostModels = 1000
)

// box has the measured rate of a box for a model.
type box struct {
	perSecond float64 // requests that end
	slots     float64 // requests at once
}

// Meter remembers what a box of each model does. Its zero value is ready. It is safe for concurrent use.
type Meter struct {
	mu    sync.Mutex
	boxes map[string]box // by model
}

// Observe learns from a look at the bus.
func (m *Meter) Observe(b status.Bus) {
	m.mu.Lock()
	defer m.mu.Unlock()

	if m.boxes == nil {
		m.boxes = map[string]box{}
	}

	for _, model := range ListModels(b.Runs) {
		if found, ok := measureBox(b, model); ok {
			m.boxes[model] = found
		}
	}

	if len(m.boxes) > mostModels {
		known := ListModels(b.Runs)
		maps.DeleteFunc(m.boxes, func(model string, _ box) bool { return !slices.Contains(known, model) })
	}
}

// find returns what a box of a model does, if it was ever measured.
func (m *Meter) find(model string) (found box, measured bool) {
	m.mu.Lock()
	defer m.mu.Unlock()

	found, measured = m.boxes[model]

	return found, measured
}

// ListModels returns the models of the requests of runs, sorted.
func ListModels(runs []status.Run) []string {
	known := map[string]bool{}
	for _, r := range runs {
		for _, model := range r.Models() {
			known[model] = true
		}
	}

	return slices.Sorted(maps.Keys(known))
}

// measureBox returns what a box of a model does now: the mean of the workers that are busy with it, times the
// workers of a box.
func measureBox(b status.Bus, model string) (found box, measured bool) {
	ready, busy := 0, 0
	for _, w := range b.Workers {
		if !servesModel(w, model) {
			continue
		}
		ready++

		if rate, ok := measureWorker(w); ok && worksFor(w, b.Runs, model) {
			busy++
			found.perSecond += rate
			found.slots += float64(w.Concurrency)
		}
	}

	if busy == 0 {
		return box{}, false
	}

	each := float64(ready) / float64(len(listBoxes(b, model))) / float64(busy)

	return box{found.perSecond * each, found.slots * each}, true
}

// listBoxes returns the hosts with a ready worker for a model, sorted.
func listBoxes(b status.Bus, model string) []string {
	hosts := map[string]bool{}
	for _, w := range b.Workers {
		if servesModel(w, model) {
			hosts[w.Host] = true
		}
	}

	return slices.Sorted(maps.Keys(hosts))
}

// servesModel reports whether a worker takes requests of a model now.
func servesModel(w status.Worker, model string) bool {
	if model == "" {
		return w.Ready && (w.Models == nil || w.DefaultModel != "")
	}
	return w.Ready && proto.Serves(w.Models, model)
}

// worksFor reports whether requests of a model are among those that a worker has in flight, in a run that has more
// of them: the rate of a worker falls while the last ones end.
func worksFor(w status.Worker, runs []status.Run, model string) bool {
	return slices.ContainsFunc(runs, func(r status.Run) bool {
		if r.State != proto.StateInProgress || r.Progress.Total-r.Progress.Done <= w.Concurrency ||
			!slices.Contains(r.Models(), model) {
			return false
		}

		return len(w.Samples) == 0 || slices.ContainsFunc(w.Samples, func(s proto.LoadSample) bool {
			return s.Runs[r.Run] > 0
		})
	})
}

// measureWorker returns the requests that end at a worker in a second while it has as many as it can: false if it had
// fewer in the last seconds, or has not ended as many requests yet as it has at once.
func measureWorker(w status.Worker) (perSecond float64, ok bool) {
	samples := w.Samples
	if len(samples) == 0 {
		samples = []proto.LoadSample{{InFlight: w.InFlight, Limit: w.Concurrency}}
	}

	inFlight := 0.0
	for _, s := range samples {
		if s.Limit <= 0 || float64(s.InFlight) < busyPart*float64(s.Limit) {
			return 0, false
		}
		inFlight += float64(s.InFlight) / float64(len(samples))
	}

	switch {
	case w.Done < int64(w.Concurrency):
		return 0, false
	case w.PerSecond >= countedRate:
		return w.PerSecond, true
	case w.LatencySeconds > 0:
		return inFlight / w.LatencySeconds, true
	}

	return 0, false
}
