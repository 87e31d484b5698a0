// Package status looks at a bus: at its runs, at its workers, and at the obstacles of a run.
//
// [Look] reads a bus once, and PrintRuns, PrintRun and PrintWorkers print the result. [Run] and
// [Worker] are also the JSON form of promptmill list, status and workers.
package status

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// Run is the status of a run.
type Run struct {
	proto.Manifest
	// InputName names the input for people, see [proto.Input.Name].
	InputName string `json:"input_name"`
	// Progress is the progress of the run.
	Progress Progress `json:"progress"`
	// Collector is null if no process collects the run now.
	Collector *proto.CollectorInfo `json:"collector"`
	// Missing are the models of the run that no ready worker serves, and Served the models that
	// ready workers serve.
	Missing []string `json:"missing_models"`
	Served  []string `json:"served_models"`
	// Problem is the reason why the run is not done. Empty if there is none.
	Problem string `json:"problem"`
}

// Progress counts the requests of a run that have ended, with the rate and the times. Its names are
// those of promptmill run --progress json.
type Progress struct {
	// Total is the number of requests, Done the answered and failed ones, and Durable the ones
	// of Done in the synced output.
	Total   int `json:"total"`
	Done    int `json:"done"`
	Failed  int `json:"failed"`
	Durable int `json:"durable"`
	// RequestsPerS is the average over the last 30 s; null: the run does not work, or its collector
	// does not report it.
	RequestsPerS *float64 `json:"requests_per_s"`
	// RemainingS is the time in seconds that the remaining requests take at that rate; null:
	// unknown.
	RemainingS *float64 `json:"remaining_s"`
	// ElapsedS is the time in seconds from the run's creation to its end, or until now.
	ElapsedS float64 `json:"elapsed_s"`
}

// Worker is the status of a worker.
type Worker struct {
	proto.WorkerInfo
	// HeardAt is the time at which the bus got the last announcement. A worker sends one every 3 s,
	// and is gone without one for 15 s.
	HeardAt time.Time `json:"heard_at"`
}

// Bus is the content of a bus.
type Bus struct {
	// Runs are its runs, never nil.
	Runs []Run
	// Workers are its workers, never nil.
	Workers []Worker
}

// Look reads the runs and the workers of a bus. A run that is not wanted is left out; a nil wanted
// wants all.
func Look(ctx context.Context, b *bus.Bus, wanted func(proto.Manifest) bool) (Bus, error) {
	runs, err := b.Runs.List(ctx)
	if err != nil {
		return Bus{}, err
	}

	workers, err := b.Heartbeats.Workers(ctx)
	if err != nil {
		return Bus{}, err
	}

	leases, err := b.Leases.List(ctx) // one request, however many runs there are
	if err != nil {
		return Bus{}, err
	}

	found := Bus{Runs: []Run{}, Workers: []Worker{}}
	for _, w := range workers {
		found.Workers = append(found.Workers, Worker{w, w.ReceivedAt})
	}

	for _, m := range runs {
		if wanted != nil && !wanted(m) {
			continue
		}

		r := Run{Manifest: m, InputName: m.Input.Name()}
		r.Missing, r.Served = progress.MissingModels(m, workers)

		lease, held := leases[m.Run]
		if held {
			r.Collector = &lease.CollectorInfo
		}

		now := time.Now()
		r.Problem = r.findProblem(now)
		r.Progress = r.measureProgress(lease.Progress, now)
		found.Runs = append(found.Runs, r)
	}

	return found, nil
}

// measureProgress returns the progress of the run. reported is the report of its collector, or nil.
func (r Run) measureProgress(reported *proto.CollectorProgress, now time.Time) Progress {
	p := Progress{
		Total:    r.Input.Requests,
		Done:     r.Counts.Done,
		Failed:   r.Counts.Failed,
		Durable:  r.Counts.Done,
		ElapsedS: r.elapsed(now).Seconds(),
	}
	if reported == nil || r.State.Ended() {
		return p
	}

	if reported.Done > p.Done {
		p.Done, p.Failed = min(reported.Done, p.Total), reported.Failed
	}

	// A paused run does not work. The requests that a cancelled one leaves out do not take time.
	if r.State != proto.StateInProgress || r.Problem != "" {
		return p
	}

	p.RequestsPerS = reported.RequestsPerSecond
	if rate := p.RequestsPerS; rate != nil && *rate > 0 {
		p.RemainingS = new(float64(p.Total-p.Done) / *rate)
	}

	return p
}

// elapsed returns the time from the run's creation to its end, or until now. The clocks of two
// machines may differ.
func (r Run) elapsed(now time.Time) time.Duration {
	if r.EndedAt != nil {
		now = *r.EndedAt
	}
	return max(0, now.Sub(r.CreatedAt))
}

// CollectFix returns the hint for a run that has not ended and that no process collects.
func CollectFix(m proto.Manifest) string {
	switch host, out, known := strings.Cut(m.Output, ":"); {
	case !m.Policy.Attended:
		return "promptmill collect " + m.Run + " -o OUT, or promptmill serve"
	case m.Policy.Batch && known:
		return "the same promptmill serve --api on " + host + " continues it"
	case m.Policy.Batch:
		return "the promptmill serve --api that made it continues it"
	case !m.Input.Stored:
		return "the same promptmill run command continues it"
	case known:
		return report.ShellWords("promptmill", "collect", m.Run, "-o", output.Prefix(out).Results()) + " on " + host +
			", or the same promptmill submit there"
	}

	return "promptmill collect " + m.Run + " -o OUT, or the same promptmill submit with --run " + m.Run
}

// WorksFor reports whether the worker has run requests of a run, or may do so.
func (w Worker) WorksFor(r Run) bool {
	if _, ok := w.Runs[r.Run]; ok || w.Models == nil {
		return true
	}

	return slices.ContainsFunc(r.Models(), func(model string) bool {
		return model == "" || proto.Serves(w.Models, model)
	})
}

// ProblemAfter is the age at which a run without a worker or a collector has a problem.
const ProblemAfter = 10 * time.Second

// findProblem returns the obstacle of the run, or an empty string.
func (r Run) findProblem(now time.Time) string {
	old := now.Sub(r.CreatedAt) >= ProblemAfter
	switch {
	case r.State == proto.StateFailed:
		return "refused: " + r.Manifest.Problem
	case r.State.Ended():
		return ""
	case r.State == proto.StatePaused && r.StoppedBy != nil:
		reached := *r.StoppedBy
		reached.Tokens = max(reached.Tokens, r.Counts.PromptTokens+r.Counts.CompletionTokens)

		return "stopped by " + reached.Name() + "; " + progress.FormatResume(r.Run, reached)
	case r.Manifest.Problem != "":
		return "not collected: " + r.Manifest.Problem
	case !old:
		return ""
	case r.State == proto.StateValidating && r.Policy.Batch:
		return "its promptmill serve --api stores the input, or was stopped: it resumes when it starts again, " +
			"promptmill delete --force " + r.Run + " removes it"
	case r.State == proto.StateValidating:
		return "its submit stores the input, or was stopped: the same promptmill submit with --run " + r.Run +
			" resumes it, promptmill delete --force " + r.Run + " removes it"
	case r.Collector == nil:
		return "no process collects it: " + CollectFix(r.Manifest)
	case r.State == proto.StateInProgress && len(r.Missing) > 0 && len(r.Served) > 0:
		return fmt.Sprintf("no worker serves %s; served are %s",
			strings.Join(r.Missing, ", "), strings.Join(r.Served, ", "))
	case r.State == proto.StateInProgress && len(r.Missing) > 0:
		return fmt.Sprintf("no worker serves %s", strings.Join(r.Missing, ", "))
	}

	return ""
}
