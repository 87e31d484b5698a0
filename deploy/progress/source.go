package progress

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/sim"
)

// pollEvery is the interval at which a source asks the bus.
const pollEvery = 2 * time.Second

// Source samples the state of a run: from the parts that work for it in this process, and from
// the bus for other processes.
type Source struct {
	// Run is the run. Required.
	Run proto.Manifest
	// Counts returns the counts of the run. Required.
	Counts func() collector.Progress
	// JS is the bus. Required for [Source.Follow].
	JS jetstream.JetStream
	// Workers are the workers of this process.
	Workers []LocalWorker

	// mu guards the fields below, which pollBus sets.
	mu        sync.Mutex
	announced []proto.WorkerInfo // of all processes
	polled    bool               // announced and state are known
	state     proto.State
}

// LocalWorker is a worker of this process.
type LocalWorker struct {
	// Name is its name. Required.
	Name string
	// Limiter has its concurrency limit. Required.
	Limiter *limit.Limiter
	// Worker is the worker. Required.
	Worker *worker.Worker
}

// pollBus asks the bus for the workers and for the state of the run, until ctx ends.
func (v *Source) pollBus(ctx context.Context) {
	b, err := bus.Open(ctx, v.JS)
	if err != nil {
		return
	}

	tick := time.NewTicker(pollEvery)
	defer tick.Stop()

	for {
		asking, cancel := context.WithTimeout(ctx, 5*time.Second)
		all, err := b.Heartbeats.Workers(asking)
		m, runErr := b.Runs.Get(asking, v.Run.Run)
		cancel()

		if err == nil && runErr == nil {
			v.mu.Lock()
			v.polled, v.state, v.announced = true, m.State, all
			v.mu.Unlock()
		}

		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// takeSample returns the state of the run, without rates.
func (v *Source) takeSample() Sample {
	now, got := time.Now(), v.Counts()
	out := Sample{
		Type:    "progress",
		Time:    now.UTC().Format(time.RFC3339),
		Run:     v.Run.Run,
		Input:   filepath.Base(v.Run.Input.FirstFile()),
		Total:   got.Total,
		Done:    got.Received.Done,
		Failed:  got.Received.Failed,
		Durable: got.Durable,
		State:   stateRunning,
		// Attempts after the first.
		Retries:      max(0, got.Received.Attempts-int64(got.Received.Done-got.Received.Skipped)),
		at:           now,
		found:        got.Found.Done,
		inputTokens:  got.Received.PromptTokens - got.Found.PromptTokens,
		outputTokens: got.Received.CompletionTokens - got.Found.CompletionTokens,
		remaining:    got.Remaining,
		ByWorker:     []Worker{},
	}

	v.mu.Lock()
	defer v.mu.Unlock()

	var others []proto.WorkerInfo
	ours := make([]proto.WorkerInfo, len(v.Workers))
	for _, w := range proto.Labelled(v.announced) {
		i := slices.IndexFunc(v.Workers, func(own LocalWorker) bool { return own.Worker.ID() == w.ID })
		switch {
		case i >= 0:
			ours[i] = w
		case mayServe(w, v.Run):
			others = append(others, w)
		}
	}

	ready := slices.ContainsFunc(others, func(w proto.WorkerInfo) bool { return w.Ready && w.Problem == "" })
	retries := int64(0)
	for i, w := range v.Workers {
		at := w.measure(ours[i], now)
		out.ByWorker = append(out.ByWorker, at)
		retries += w.Worker.Stats().Retries.Load()
		ready = ready || at.WaitsFor == ""
	}

	// Attempts has no retries of requests that have no line yet.
	out.Retries = max(out.Retries, retries)
	if !ready && len(v.Workers) > 0 {
		out.State = out.ByWorker[0].WaitsFor
	}

	for _, w := range others {
		out.ByWorker = append(out.ByWorker, announcedWorker(w))
	}

	out.Workers = len(out.ByWorker)
	for _, w := range out.ByWorker {
		out.InFlight += w.InFlight
	}

	switch missing, _ := MissingModels(v.Run, others); {
	case got.Finishing || v.state == proto.StateFinalizing:
		out.State, out.InFlight = "writing the output files", 0
	case v.state == proto.StatePaused || v.state == proto.StateCancelling:
		out.State = string(v.state)
	case len(v.Workers) == 0 && v.polled && len(missing) > 0:
		out.State = "waiting for a worker that serves " + strings.Join(missing, ", ")
	case len(v.Workers) == 0 && len(others) > 0 && !ready:
		out.State = out.ByWorker[0].WaitsFor
	}

	return out
}

// mayServe reports whether a worker may run requests of the run.
func mayServe(w proto.WorkerInfo, m proto.Manifest) bool {
	return w.Models == nil || slices.ContainsFunc(m.Models(), func(model string) bool {
		return model == "" || proto.Serves(w.Models, model)
	})
}

// measure returns the state of a local worker, which knows more than it announces, and sooner.
func (n LocalWorker) measure(announced proto.WorkerInfo, now time.Time) Worker {
	w := announcedWorker(announced)
	stats := n.Worker.Stats()
	info, _ := n.Worker.Info()
	w.isLocal, w.Name, w.Flavour, w.WaitsFor = true, cmp.Or(announced.Name, n.Name),
		sim.NameKind(info.Flavour, info.Version), ""
	w.RequestsPerS = nil // rateTracker knows it
	w.InFlight, w.Concurrency, w.done, w.outputTokens = stats.InFlight.Load(), n.Limiter.Limit(), stats.Done.Load(),
		stats.TokensOut.Load()

	if why, since := n.Worker.Waiting(); why != "" {
		w.WaitsFor = fmt.Sprintf("%s %s", why, now.Sub(since).Round(time.Second))
	} else if why, since := n.Worker.Refused(); why != "" {
		w.Refusal, w.RefusedFor = why, now.Sub(since)
		w.WaitsFor = fmt.Sprintf("no answer for %s: %s", w.RefusedFor.Round(time.Second), why)
	} else if stats.Stalled.Load() {
		w.WaitsFor = "waiting for the bus"
	}

	return w
}

// announcedWorker returns the state that a worker has announced.
func announcedWorker(i proto.WorkerInfo) Worker {
	w := Worker{
		Name:         i.Name,
		Flavour:      sim.NameKind(i.Flavour, i.ServerVersion),
		InFlight:     i.InFlight,
		Concurrency:  i.Concurrency,
		RequestsPerS: &i.PerSecond,
		GPUs:         len(i.GPU),
	}
	switch {
	case !i.Ready:
		w.WaitsFor, w.RequestsPerS = "waiting for its model server", nil
	case i.Problem != "":
		w.WaitsFor, w.RequestsPerS = i.Problem, nil
	}

	for _, g := range i.GPU {
		w.GPUMemoryBytes += g.MemoryBytes
		w.GPUMemoryUsedBytes = metadata.Sum(w.GPUMemoryUsedBytes, g.MemoryUsedBytes)
		w.GPUPowerWatts = metadata.Sum(w.GPUPowerWatts, g.PowerWatts)
	}

	return w
}

// MissingModels returns the models of a run that no ready worker serves, and all models that
// ready workers serve.
func MissingModels(m proto.Manifest, workers []proto.WorkerInfo) (missing, served []string) {
	for _, w := range workers {
		if w.Ready {
			served = append(served, w.Models...)
		}
	}

	slices.Sort(served)
	for _, model := range m.Models() {
		has := func(w proto.WorkerInfo) bool { return w.Ready && proto.Serves(w.Models, model) }
		if model != "" && !slices.ContainsFunc(workers, has) {
			missing = append(missing, model)
		}
	}

	return missing, slices.Compact(served)
}
