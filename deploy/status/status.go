// Package status looks at a bus: at its runs, at its workers, and at the obstacles of a run.
//
// [Look] reads a bus once, and PrintRuns, PrintRun and PrintWorkers print the result. [Run] and
// [Worker] are also the JSON form of promptmill list, status and workers.
package status

import (
	"context"
	"fmt"
	"math"
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
	// AgeS is the time in seconds since the run's creation.
	AgeS float64 `json:"age_s"`
	// Collector is null if no process collects the run now.
	Collector *Collector `json:"collector"`
	// Missing are the models of the run that no ready worker serves, and Served the models that
	// ready workers serve.
	Missing []string `json:"missing_models"`
	Served  []string `json:"served_models"`
	// Problem is the reason why the run is not done. Empty if there is none.
	Problem string `json:"problem"`
}

// Collector is the process that collects a run.
type Collector struct {
	proto.CollectorInfo
	// RenewedAt is the time at which the bus got the latest renewal of its lease. It sends one every
	// 3 s, and another process may collect the run without one for 15 s.
	RenewedAt time.Time `json:"renewed_at"`
	// RenewedAgoS is the time in seconds since then.
	RenewedAgoS float64 `json:"renewed_ago_s"`
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
	// RemainingS is the time in seconds that the rest is expected to take, as the collector estimates
	// it. It takes between RemainingLowS and RemainingHighS nine times in ten. Null: unknown, as in the
	// first seconds, or the run does not work.
	RemainingS     *float64 `json:"remaining_s"`
	RemainingLowS  *float64 `json:"remaining_low_s"`
	RemainingHighS *float64 `json:"remaining_high_s"`
	// ElapsedS is the time in seconds from the run's creation to its end, or until now.
	ElapsedS float64 `json:"elapsed_s"`
}

// Worker is the status of a worker.
type Worker struct {
	proto.WorkerInfo
	// HeardAt is the time at which the bus got the last announcement. A worker sends one every 3 s,
	// and is gone without one for 15 s.
	HeardAt time.Time `json:"heard_at"`
	// HeardAgoS is the time in seconds since then.
	HeardAgoS float64 `json:"heard_ago_s"`
}

// silentAfter is the age in seconds of an announcement whose worker has left one out.
const silentAfter = 5

// isSilent reports whether the worker should have been heard since.
func (w Worker) isSilent() bool { return w.HeardAgoS > silentAfter }

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

	now := time.Now()
	found := Bus{Runs: []Run{}, Workers: []Worker{}}
	for _, w := range workers {
		found.Workers = append(found.Workers, newWorker(w, now))
	}

	for _, m := range runs {
		if wanted != nil && !wanted(m) {
			continue
		}

		found.Runs = append(found.Runs, Describe(m, workers, leases, now))
	}

	return found, nil
}

// Describe returns the status of a run at a time, by its manifest, and the workers and the leases of its bus.
func Describe(
	m proto.Manifest, workers []proto.WorkerInfo, leases map[string]proto.CollectorLease, now time.Time,
) Run {
	lease, held := leases[m.Run]
	r := Run{Manifest: m, InputName: m.Input.Name(), AgeS: secondsSince(m.CreatedAt, now)}
	r.Missing, r.Served = progress.MissingModels(m, workers)
	if held {
		r.Collector = newCollector(lease, now)
	}

	r.Problem = r.findProblem(now)
	r.Progress = r.measureProgress(lease.Progress, now)

	return r
}

func newWorker(w proto.WorkerInfo, now time.Time) Worker {
	return Worker{
		WorkerInfo: w,
		HeardAt:    w.ReceivedAt,
		HeardAgoS:  secondsSince(w.ReceivedAt, now),
	}
}

func newCollector(l proto.CollectorLease, now time.Time) *Collector {
	return &Collector{
		CollectorInfo: l.CollectorInfo,
		RenewedAt:     l.ReceivedAt,
		RenewedAgoS:   secondsSince(l.ReceivedAt, now),
	}
}

// secondsSince returns the time from a moment until now in seconds, to a tenth. The clocks of two
// machines may differ.
func secondsSince(at, now time.Time) float64 {
	return math.Round(10*max(0, now.Sub(at).Seconds())) / 10
}

// measureProgress returns the progress of the run. reported is the report of its collector, or nil.
func (r Run) measureProgress(reported *proto.CollectorProgress, now time.Time) Progress {
	p := Progress{
		Total:    r.Input.Requests,
		Done:     r.Counts.Done,
		Failed:   r.Counts.Failed,
		Durable:  r.Counts.Done,
		ElapsedS: r.elapsed(now),
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
	if left := reported.Remaining; left != nil {
		p.RemainingS, p.RemainingLowS, p.RemainingHighS = new(math.Round(left.Expected)), new(math.Round(left.Low)),
			new(math.Round(left.High))
	}

	return p
}

// elapsed returns the time in seconds from the run's creation to its end, or until now.
func (r Run) elapsed(now time.Time) float64 {
	if r.EndedAt != nil {
		now = *r.EndedAt
	}
	return secondsSince(r.CreatedAt, now)
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
		return "promptmill serve --api is still storing its input, or was stopped: it continues once serve --api is " +
			"started again; promptmill delete --force " + r.Run + " removes it"
	case r.State == proto.StateValidating:
		return "its submit is still storing the input, or was stopped: the same promptmill submit with --run " + r.Run +
			" continues it; promptmill delete --force " + r.Run + " removes it"
	case r.Collector == nil:
		return "no process collects it: " + CollectFix(r.Manifest)
	case r.State == proto.StateInProgress && len(r.Missing) > 0 && len(r.Served) > 0:
		return fmt.Sprintf("no worker serves %s; the workers serve %s",
			strings.Join(r.Missing, ", "), strings.Join(r.Served, ", "))
	case r.State == proto.StateInProgress && len(r.Missing) > 0:
		return fmt.Sprintf("no worker serves %s", strings.Join(r.Missing, ", "))
	}

	return ""
}
