package page

import (
	"cmp"
	"slices"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/deploy/control"
	"github.com/promptmill/promptmill/deploy/program"
	"github.com/promptmill/promptmill/deploy/status"
	"github.com/promptmill/promptmill/proto"
)

// mostEnded is the most ended runs of an overview. A bus keeps each for a day, and history has all.
const mostEnded = 50

// mostRunsOfWorker is the most runs that are named at a worker.
const mostRunsOfWorker = 20

// describer describes what was seen of a bus.
type describer struct {
	// host is the name of this machine.
	host string
	// retries reports that an ended run can be retried. The head of a single run ends with it.
	retries bool
	// owner returns the id of the key that has made a run; empty: none has.
	owner func(run string) string
}

// describeAll returns the overview of a sight. owner is that of the runs to show; empty: all. The time is left out.
func (d *describer) describeAll(s sight, owner string) Overview {
	o := Overview{Runs: []Run{}, Workers: []Worker{}, Problem: s.problem}

	all := d.selectRuns(s, owner)
	ended := 0
	for _, m := range all {
		if m.State.Ended() {
			if ended++; ended > mostEnded {
				o.EndedLeftOut++
				continue
			}
		}
		o.Runs = append(o.Runs, d.describeRun(s, m))
	}

	if owner != "" {
		return o
	}

	o.Bus = &s.bus
	names := proto.Labels(len(s.workers), func(i int) (name, id string) { return s.workers[i].Name, s.workers[i].ID })
	for i, w := range s.workers {
		o.Workers = append(o.Workers, describeWorker(w, names[i]))
	}

	return o
}

// selectRuns returns the runs of an owner, those that have not ended first, and then the latest first.
func (d *describer) selectRuns(s sight, owner string) (list []proto.Manifest) {
	for _, m := range s.runs {
		if owner == "" || d.owner(m.Run) == owner {
			list = append(list, m)
		}
	}

	rank := func(m proto.Manifest) (ended int, at time.Time) {
		if m.State.Ended() && m.EndedAt != nil {
			return 1, *m.EndedAt
		}
		return 0, m.CreatedAt
	}
	slices.SortFunc(list, func(a, b proto.Manifest) int {
		endedA, atA := rank(a)
		endedB, atB := rank(b)

		return cmp.Or(cmp.Compare(endedA, endedB), atB.Compare(atA), cmp.Compare(a.Run, b.Run))
	})

	return list
}

// describeRun returns a run of a sight.
func (d *describer) describeRun(s sight, m proto.Manifest) Run {
	of := status.Describe(m, s.workers, s.leases, s.at)

	r := Run{
		ID:         m.Run,
		Label:      m.Label,
		InputName:  of.InputName,
		Models:     nonNil(m.Models()),
		Missing:    of.Missing,
		State:      m.State,
		StateSince: m.StateSince(),
		CreatedAt:  m.CreatedAt,
		EndedAt:    m.EndedAt,
		ExpiresAt:  m.Policy.ExpiresAt,
		Priority:   m.Policy.Priority,
		Progress:   describeProgress(of),
		Failures:   m.Failures,
		Problem:    program.TypedCommands(of.Problem),
		Actions:    []string{},
	}

	if c := of.Collector; c != nil {
		r.Collector = &c.CollectorInfo
	}

	if host, _, ok := splitOutput(m.Output); ok && host != d.host {
		r.CollectedElsewhere = host
	}

	for _, a := range control.Actions {
		if a.IsPossible(m) && (a.Name != "retry" || d.retries) {
			r.Actions = append(r.Actions, a.Name)
		}
	}

	return r
}

// describeProgress returns how far a run is.
func describeProgress(of status.Run) Progress {
	p := Progress{
		Total:            of.Progress.Total,
		Done:             of.Progress.Done,
		Failed:           of.Progress.Failed,
		Durable:          of.Progress.Durable,
		RequestsPerS:     of.Progress.RequestsPerS,
		ElapsedS:         of.Progress.ElapsedS,
		PromptTokens:     of.Counts.PromptTokens,
		CompletionTokens: of.Counts.CompletionTokens,
	}

	left := of.Progress
	if left.RemainingS != nil {
		p.Remaining = &proto.Interval{
			Low:      metadata.OrZero(left.RemainingLowS),
			Expected: *left.RemainingS,
			High:     metadata.OrZero(left.RemainingHighS),
		}
	}

	return p
}

// describeWorker returns a worker under a name that no other one has.
func describeWorker(w proto.WorkerInfo, name string) Worker {
	v := Worker{
		ID:             cmp.Or(w.ID, w.Name),
		Name:           name,
		Host:           w.Host,
		Version:        w.Version,
		Server:         w.Server,
		Platform:       joinWords(w.Flavour, w.ServerVersion),
		Models:         w.Models,
		Ready:          w.Ready,
		Problem:        w.Problem,
		Engines:        w.Engines,
		InFlight:       w.InFlight,
		Limit:          w.Concurrency,
		Waiting:        w.Waiting,
		Done:           w.Done,
		RequestsPerS:   w.PerSecond,
		LatencySeconds: w.LatencySeconds,
		Since:          w.Since,
		HeardAt:        w.ReceivedAt,
		GPUs:           nonNil(w.GPU),
	}

	if d := w.Departure; d != nil {
		v.Departure = &Departure{Reason: d.Reason, Deadline: d.Deadline}
	}

	for run := range w.Runs {
		v.Runs = append(v.Runs, run)
	}
	slices.Sort(v.Runs)
	v.Runs = v.Runs[max(0, len(v.Runs)-mostRunsOfWorker):] // ids begin with the time

	return v
}

// joinWords joins two words of which each may be empty.
func joinWords(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + " " + b
}

// nonNil returns a list that is not null in JSON.
func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
