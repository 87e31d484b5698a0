package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// sample is the state of a run at a moment, and the form of --progress json, whose
// names stay as they are. What is null is not known.
type sample struct {
	Type          string  `json:"type"` // "progress"
	Time          string  `json:"time"`
	Run           string  `json:"run"`
	Total         int     `json:"total"`
	Done          int     `json:"done"` // answered or failed
	Failed        int     `json:"failed"`
	Durable       int     `json:"durable"` // of those done, in the synced output file
	Retries       int64   `json:"retries"`
	InFlight      int64   `json:"in_flight"`
	Workers       int     `json:"workers"`
	RequestsPerS  float64 `json:"requests_per_s"` // over the last 30 s, like the tokens
	InputTokPerS  float64 `json:"input_tokens_per_s"`
	OutputTokPerS float64 `json:"output_tokens_per_s"`
	// RemainingS is the middle of the interval that has the time left with 90%
	// certainty, and the next two are its ends.
	RemainingS     *float64   `json:"remaining_s"`
	RemainingLowS  *float64   `json:"remaining_low_s"`
	RemainingHighS *float64   `json:"remaining_high_s"`
	State          string     `json:"state"` // "running", or what it is or waits for
	ByWorker       []atWorker `json:"by_worker"`

	at                        time.Time
	inputTokens, outputTokens int64
}

// atWorker is what a worker does at a moment. Workers on other boxes tell every few
// seconds, and of all their runs.
type atWorker struct {
	Name          string   `json:"name"`
	Flavour       string   `json:"flavour"`   // of its model server; empty: not known
	WaitsFor      string   `json:"waits_for"` // empty: it works
	InFlight      int64    `json:"in_flight"`
	Concurrency   int      `json:"concurrency"` // in flight at most; 0: not known
	RequestsPerS  *float64 `json:"requests_per_s"`
	OutputTokPerS *float64 `json:"output_tokens_per_s"`
	GPUs          int      `json:"gpus"` // 0: not known
	// The next are of all its GPUs together.
	GPUMemoryBytes     int64    `json:"gpu_memory_bytes"` // 0: not known
	GPUMemoryUsedBytes *int64   `json:"gpu_memory_used_bytes"`
	GPUPowerWatts      *float64 `json:"gpu_power_watts"`

	own                bool // it is in this process
	done, outputTokens int64
}

// view is where the state of a run is seen.
type view struct {
	run    proto.Manifest
	own    []namedWorker // those of this process
	counts func() collector.Progress
	link   *link

	mu      sync.Mutex
	workers []proto.WorkerInfo // on the bus, with ours
	asked   bool               // workers is known
	state   proto.State        // on the bus
}

// ask looks for the workers, and for what others did to the run, until ctx ends.
func (v *view) ask(ctx context.Context) {
	presence, err := bus.OpenPresence(ctx, v.link.js)
	if err != nil {
		return
	}

	runs, err := bus.OpenRuns(ctx, v.link.js)
	if err != nil {
		return
	}

	for ; ctx.Err() == nil; sleep(ctx, 2*time.Second) {
		asking, cancel := context.WithTimeout(ctx, 5*time.Second)
		all, err := presence.Workers(asking)
		m, runErr := runs.Get(asking, v.run.Run)
		cancel()
		if err != nil || runErr != nil {
			continue
		}

		v.mu.Lock()
		v.asked, v.state, v.workers = true, m.State, all
		v.mu.Unlock()
	}
}

// look takes a sample, without the rates.
func (v *view) look() sample {
	now, got := time.Now(), v.counts()
	out := sample{
		Type:    "progress",
		Time:    now.UTC().Format(time.RFC3339),
		Run:     v.run.Run,
		Total:   got.Total,
		Done:    got.Received.Done,
		Failed:  got.Received.Failed,
		Durable: got.Durable,
		State:   "running",
		// Attempts beyond the first.
		Retries:      max(0, got.Received.Attempts-int64(got.Received.Done-got.Received.Skipped)),
		at:           now,
		inputTokens:  got.Received.PromptTokens,
		outputTokens: got.Received.CompletionTokens,
		ByWorker:     []atWorker{},
	}

	v.mu.Lock()
	defer v.mu.Unlock()

	var others []proto.WorkerInfo
	ours := make([]proto.WorkerInfo, len(v.own))
	for _, w := range proto.Labelled(v.workers) {
		i := slices.IndexFunc(v.own, func(own namedWorker) bool { return own.worker.ID() == w.ID })
		switch {
		case i >= 0:
			ours[i] = w
		case works(w, v.run):
			others = append(others, w)
		}
	}

	ready := slices.ContainsFunc(others, func(w proto.WorkerInfo) bool { return w.Ready })
	retries := int64(0)
	for i, w := range v.own {
		at := w.now(ours[i], now)
		out.ByWorker = append(out.ByWorker, at)
		retries += w.worker.Stats().Retries.Load()
		ready = ready || at.WaitsFor == ""
	}

	// Those of requests that have no line yet are not among the attempts.
	out.Retries = max(out.Retries, retries)
	if !ready && len(v.own) > 0 {
		out.State = out.ByWorker[0].WaitsFor
	}

	for _, w := range others {
		out.ByWorker = append(out.ByWorker, told(w))
	}

	out.Workers = len(out.ByWorker)
	for _, w := range out.ByWorker {
		out.InFlight += w.InFlight
	}

	switch missing, _ := missingModels(v.run, others); {
	case got.Finishing || v.state == proto.StateFinalizing:
		out.State = "writing the output files"
	case v.state == proto.StatePaused || v.state == proto.StateCancelling:
		out.State = string(v.state)
	case len(v.own) == 0 && v.asked && len(missing) > 0:
		out.State = "waiting for a worker that serves " + strings.Join(missing, ", ")
	}

	return out
}

// works reports whether a worker may do requests of the run.
func works(w proto.WorkerInfo, m proto.Manifest) bool {
	return w.Models == nil || slices.ContainsFunc(m.Models(), func(model string) bool {
		return model == "" || proto.Serves(w.Models, model)
	})
}

// now is what a worker of this process does, which tells more and at once.
func (n namedWorker) now(announced proto.WorkerInfo, now time.Time) atWorker {
	w := told(announced)
	stats := n.worker.Stats()
	info, _ := n.worker.Info()
	w.own, w.Name, w.Flavour, w.WaitsFor = true, cmp.Or(announced.Name, n.name), info.Flavour, ""
	w.InFlight, w.Concurrency, w.done, w.outputTokens = stats.InFlight.Load(), n.limiter.Limit(), stats.Done.Load(),
		stats.TokensOut.Load()

	if why, since := n.worker.Waiting(); why != "" {
		w.WaitsFor = fmt.Sprintf("%s %s", why, now.Sub(since).Round(time.Second))
	} else if stats.Stalled.Load() {
		w.WaitsFor = "waiting for the bus"
	}

	return w
}

// told is a worker as it has announced itself.
func told(i proto.WorkerInfo) atWorker {
	w := atWorker{
		Name:         i.Name,
		Flavour:      i.Flavour,
		InFlight:     i.InFlight,
		Concurrency:  i.Concurrency,
		RequestsPerS: &i.PerSecond,
		GPUs:         len(i.GPU),
	}
	if !i.Ready {
		w.WaitsFor = "waiting for its model server"
	}

	for _, g := range i.GPU {
		w.GPUMemoryBytes += g.MemoryBytes
		w.GPUMemoryUsedBytes = metadata.Sum(w.GPUMemoryUsedBytes, g.MemoryUsedBytes)
		w.GPUPowerWatts = metadata.Sum(w.GPUPowerWatts, g.PowerWatts)
	}

	return w
}

// rateWindow is over how long rates are averaged.
const rateWindow = 30 * time.Second

// track follows a run, for what only several samples tell.
type track struct {
	window []sample
	left   remaining
}

// add completes the next sample with the rates and the time left.
func (t *track) add(v sample) sample {
	t.left.add(v.at, v.Done, v.Total, int(v.InFlight), v.State == "running")
	if low, high, ok := t.left.interval(); ok && v.State == "running" {
		v.RemainingS, v.RemainingLowS, v.RemainingHighS = new(math.Round((low+high)/2)), new(math.Round(low)),
			new(math.Round(high))
	}

	t.window = append(t.window, v)
	for len(t.window) > 2 && v.at.Sub(t.window[1].at) >= rateWindow {
		t.window = t.window[1:]
	}

	first := t.window[0]
	seconds := v.at.Sub(first.at).Seconds()
	if seconds <= 0 {
		return v
	}

	v.RequestsPerS = float64(v.Done-first.Done) / seconds
	v.InputTokPerS = float64(v.inputTokens-first.inputTokens) / seconds
	v.OutputTokPerS = float64(v.outputTokens-first.outputTokens) / seconds

	for i := range v.ByWorker { // those of this process come first, always in the same order
		w := &v.ByWorker[i]
		if !w.own {
			break
		}

		before := first.ByWorker[i]
		w.RequestsPerS = new(float64(w.done-before.done) / seconds)
		w.OutputTokPerS = new(float64(w.outputTokens-before.outputTokens) / seconds)
	}

	return v
}
