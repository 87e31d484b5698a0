// Package status looks at a bus: at its runs, at its workers, and at the obstacles of a run.
//
// [Look] reads a bus once, and PrintRuns, PrintRun and PrintWorkers print the result. [Run] is also
// the JSON form of promptmill list and status.
package status

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// Run is the status of a run.
type Run struct {
	proto.Manifest
	// Collector is null if no process collects the run now.
	Collector *proto.CollectorInfo `json:"collector"`
	// Missing are the models of the run that no ready worker serves, and Served the models that
	// ready workers serve.
	Missing []string `json:"missing_models"`
	Served  []string `json:"served_models"`
	// Problem is the reason why the run is not done. Empty if there is none.
	Problem string `json:"problem"`
}

// Bus is the content of a bus.
type Bus struct {
	// Runs are its runs, never nil.
	Runs []Run
	// Workers are its workers.
	Workers []proto.WorkerInfo
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

	found := Bus{Runs: []Run{}, Workers: workers}
	for _, m := range runs {
		if wanted != nil && !wanted(m) {
			continue
		}

		r := Run{Manifest: m}
		r.Missing, r.Served = progress.MissingModels(m, workers)

		if holder, ok, err := b.Leases.Holder(ctx, m.Run); err == nil && ok {
			r.Collector = &holder
		}

		r.Problem = r.findProblem(time.Now())
		found.Runs = append(found.Runs, r)
	}

	return found, nil
}

// ProblemAfter is the age at which a run without a worker or a collector has a problem.
const ProblemAfter = 10 * time.Second

// findProblem returns the obstacle of the run, or an empty string.
func (r Run) findProblem(now time.Time) string {
	old := now.Sub(r.CreatedAt) >= ProblemAfter
	switch {
	case r.State == proto.StateFailed:
		return "it was refused: " + r.Manifest.Problem
	case r.State.Ended():
		return ""
	case r.Manifest.Problem != "":
		return "it is not collected: " + r.Manifest.Problem
	case !old:
		return ""
	case r.State == proto.StateValidating:
		return "its submit stores the input, or was stopped: the same promptmill submit with --run " + r.Run +
			" resumes it, promptmill delete --force " + r.Run + " removes it"
	case r.Collector == nil:
		return "no process collects it: promptmill collect " + r.Run + " -o OUT, or promptmill serve"
	case r.State == proto.StateInProgress && len(r.Missing) > 0 && len(r.Served) > 0:
		return fmt.Sprintf("no worker serves %s; served are %s",
			strings.Join(r.Missing, ", "), strings.Join(r.Served, ", "))
	case r.State == proto.StateInProgress && len(r.Missing) > 0:
		return fmt.Sprintf("no worker serves %s; there is no worker that is ready", strings.Join(r.Missing, ", "))
	}

	return ""
}
