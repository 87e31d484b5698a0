package progress

import (
	"math"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// Sample is the state of a run at a moment, and the form of --progress json, whose names are
// stable. A null value is unknown.
type Sample struct {
	// Type is "progress".
	Type string `json:"type"`
	Time string `json:"time"`
	Run  string `json:"run"`
	// Input is the name of the first input file.
	Input string `json:"-"`
	// Final marks the last sample of the run.
	Final bool `json:"-"`

	// Total is the number of requests, Done the answered and failed ones, and Durable the ones
	// of Done in the synced output file.
	Total   int `json:"total"`
	Done    int `json:"done"`
	Failed  int `json:"failed"`
	Durable int `json:"durable"`

	Retries  int64 `json:"retries"`
	InFlight int64 `json:"in_flight"`
	Workers  int   `json:"workers"`

	// ElapsedS is the time since this process has followed the run.
	ElapsedS float64 `json:"elapsed_s"`

	// RequestsPerS and the rates of tokens are averages over the last 30 s in which the run could
	// work. Null while it waits.
	RequestsPerS  *float64 `json:"requests_per_s"`
	InputTokPerS  *float64 `json:"input_tokens_per_s"`
	OutputTokPerS *float64 `json:"output_tokens_per_s"`

	// RemainingS is the time in seconds that the rest is expected to take. It takes between
	// RemainingLowS and RemainingHighS nine times in ten. Null while it is unknown, or the run waits.
	RemainingS     *float64 `json:"remaining_s"`
	RemainingLowS  *float64 `json:"remaining_low_s"`
	RemainingHighS *float64 `json:"remaining_high_s"`

	// State is "running", another state, or the reason why nothing can be done.
	State    string   `json:"state"`
	ByWorker []Worker `json:"by_worker"`

	at time.Time
	// found is the number of Done whose answers were there as this process began. They have no part
	// in the rates, and neither have their tokens in the next fields.
	found                     int
	inputTokens, outputTokens int64
	remaining                 *proto.Interval // as the collector estimates it; nil: unknown
}

// Worker is the state of a worker at a moment. Workers on other boxes announce theirs every few
// seconds, for all of their runs together.
type Worker struct {
	Name string `json:"name"`
	// Flavour is the kind of its model server. Empty if unknown.
	Flavour string `json:"flavour"`
	// WaitsFor is the reason why it does not work. Empty if it does.
	WaitsFor string `json:"waits_for"`
	// Refusal has the words of a model server that has failed all requests for the time of RefusedFor. Empty if it
	// answers, or is one of another process.
	Refusal    string        `json:"-"`
	RefusedFor time.Duration `json:"-"`

	InFlight int64 `json:"in_flight"`
	// Concurrency is the limit of InFlight. 0 if unknown.
	Concurrency int `json:"concurrency"`

	RequestsPerS  *float64 `json:"requests_per_s"`
	OutputTokPerS *float64 `json:"output_tokens_per_s"`

	// GPUs is the number of its GPUs. 0 if unknown. The next fields are their sums.
	GPUs               int      `json:"gpus"`
	GPUMemoryBytes     int64    `json:"gpu_memory_bytes"`
	GPUMemoryUsedBytes *int64   `json:"gpu_memory_used_bytes"`
	GPUPowerWatts      *float64 `json:"gpu_power_watts"`

	isLocal            bool // in this process
	done, outputTokens int64
}

// rateWindow is the time over which rates are averaged.
const rateWindow = 30 * time.Second

// longestGap is the longest time between two samples of a process that was not stopped between them.
const longestGap = 2 * time.Second

// rateTracker derives rates from successive samples.
type rateTracker struct {
	begin  time.Time // of the first sample
	last   time.Time // of the last sample
	window []Sample  // the last samples without a wait between them
}

// complete adds the times and rates to the next sample.
func (t *rateTracker) complete(v Sample) Sample {
	if t.begin.IsZero() {
		t.begin = v.at
	}
	v.ElapsedS = math.Round(v.at.Sub(t.begin).Seconds())

	// A rate over a wait or a stop would be the rate of no time.
	wasStopped := !t.last.IsZero() && v.at.Sub(t.last) > longestGap
	t.last = v.at
	if wasStopped || !v.isRunning() {
		t.window = nil
	}
	if !v.isRunning() {
		return v
	}

	if i := v.remaining; i != nil {
		v.RemainingS, v.RemainingLowS, v.RemainingHighS = new(math.Round(i.Expected)), new(math.Round(i.Low)),
			new(math.Round(i.High))
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

	v.RequestsPerS = new(float64(v.Done-v.found-(first.Done-first.found)) / seconds)
	v.InputTokPerS = new(float64(v.inputTokens-first.inputTokens) / seconds)
	v.OutputTokPerS = new(float64(v.outputTokens-first.outputTokens) / seconds)

	for i := range v.ByWorker { // local workers are first, always in the same order
		w := &v.ByWorker[i]
		if !w.isLocal {
			break
		}
		if w.WaitsFor != "" {
			continue
		}

		before := first.ByWorker[i]
		w.RequestsPerS = new(float64(w.done-before.done) / seconds)
		w.OutputTokPerS = new(float64(w.outputTokens-before.outputTokens) / seconds)
	}

	return v
}

// isRunning reports whether requests can be done.
func (v Sample) isRunning() bool { return v.State == stateRunning }

// stateRunning is the state of a run whose requests can be done.
const stateRunning = "running"
