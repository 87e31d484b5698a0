package scale

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/promptmill/promptmill/deploy/status"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

const (
	// DefaultWithin is the time from its start in which a run is to end, where nothing else is said.
	DefaultWithin = time.Hour
	// leastTime is the least time that is left: a box takes minutes until its model is loaded, so more boxes do not
	// end a run that is late any sooner.
	leastTime = 5 * time.Minute
	// expiryPart is the part of the time before the end of a run's time that is planned with: the requests that are
	// left then fail.
	expiryPart = 0.9
)

// Work is the work of a bus, and its workers.
type Work struct {
	status.Bus
	// Pending has the shards that wait or are at workers, by run and model, of runs with several models. A run that is
	// missing has its requests left shared out by the models of its input.
	Pending map[string]map[string]int
}

// Question asks for the boxes that are wanted.
type Question struct {
	// Model is the model that the boxes serve, and All asks for boxes that serve all models.
	Model string
	All   bool
	// Within is the time from its start, or from when it was resumed or retried, in which a run is to end, and By the
	// time at which all runs are to end. Zero for both: a run is to end by the end of its own time and, without
	// one, within Default. A run never has more time than its own.
	Within  time.Duration
	By      time.Time
	Default time.Duration
	// Max is the most boxes. 0: no limit.
	Max int
}

// Answer is the number of boxes that are wanted, and what it follows from.
type Answer struct {
	// Model is the model that was asked for; null: all.
	Model *string `json:"model"`
	// Value is the number of boxes. It is 0 if nothing is left and no worker holds a request.
	Value int `json:"value"`
	// RequestsLeft are the requests that have not ended, of runs that work.
	RequestsLeft int `json:"requests_left"`
	// Boxes is the number of boxes that take requests now.
	Boxes int `json:"boxes"`
	// BoxRequestsPerS is the rate of one box; null: none was measured yet, or the models differ.
	BoxRequestsPerS *float64 `json:"box_requests_per_s"`
	// By is the time at which the last of the runs is to end; null: nothing is left.
	By *time.Time `json:"by"`
	// Reason is a sentence for people.
	Reason string `json:"reason"`
}

// demand is the work that is left of a model, in boxes.
type demand struct {
	left     float64   // requests
	exact    float64   // boxes, if they could be divided
	most     float64   // boxes that the requests fill
	by       time.Time // zero: nothing is left
	measured bool
}

// Want returns the boxes that are wanted at a time.
func (m *Meter) Want(w Work, q Question, now time.Time) Answer {
	models := []string{q.Model}
	if q.All {
		models = ListModels(w.Runs)
	}

	sum := demand{measured: true}
	for _, model := range models {
		d := m.measureDemand(w, q, model, now)
		sum.left, sum.exact, sum.most = sum.left+d.left, sum.exact+d.exact, sum.most+d.most
		sum.measured = sum.measured && d.measured
		if d.by.After(sum.by) {
			sum.by = d.by
		}
	}

	a := Answer{RequestsLeft: int(math.Ceil(sum.left - rounding)), Boxes: w.countBoxes(models)}
	if !q.All {
		a.Model = &q.Model
		if found, ok := m.find(q.Model); ok {
			a.BoxRequestsPerS = &found.perSecond
		}
	}
	if a.RequestsLeft > 0 {
		a.By = &sum.by
	}
	a.Value, a.Reason = sum.decide(a.RequestsLeft, w.holds(models), q.Max)

	return a
}

// rounding is the largest error of a sum of fractions.
const rounding = 1e-9

// measureDemand returns the work that is left of a model.
func (m *Meter) measureDemand(w Work, q Question, model string, now time.Time) (d demand) {
	found, measured := m.find(model)
	d.measured = measured
	for _, r := range w.Runs {
		left := w.countLeft(r, model, !q.All)
		if left <= 0 {
			continue
		}

		by, seconds := q.plan(r, now)
		d.left += left
		if by.After(d.by) {
			d.by = by
		}
		if measured {
			d.exact += left / (found.perSecond * seconds)
		}
	}

	switch {
	case d.left == 0:
		d.measured = true
	case measured:
		d.most = math.Ceil(d.left / max(1, found.slots))
	default:
		d.exact, d.most = 1, 1 // one box shows what a box does
	}

	return d
}

// decide returns the number of boxes and the reason for it.
func (d demand) decide(left int, held bool, most int) (value int, reason string) {
	boxes := min(math.Ceil(d.exact-rounding), d.most)
	requests := terminal.CountOf(left, "request") + " left"
	switch {
	case left == 0 && held:
		return 1, "nothing is left to begin, but a worker holds requests"
	case left == 0:
		return 0, "nothing is left"
	case most > 0 && boxes > float64(most):
		return most, fmt.Sprintf("%s want %.3g boxes, more than max", requests, boxes)
	case !d.measured:
		return max(1, int(boxes)), requests + ", and no box of the model was measured yet"
	case boxes < math.Ceil(d.exact-rounding):
		return int(boxes), requests + ", which fill no more boxes"
	}

	return max(1, int(min(boxes, 1e9))), fmt.Sprintf("%s want %.3g boxes", requests, d.exact)
}

// plan returns when a run is to end, and the seconds until then.
func (q Question) plan(r status.Run, now time.Time) (by time.Time, seconds float64) {
	within, least := q.Within, leastTime
	switch {
	case !q.By.IsZero():
		by = q.By
	case within > 0:
		by = r.StateSince().Add(within)
	case r.Policy.ExpiresAt == nil:
		within = q.Default
		by = r.StateSince().Add(within)
	}
	if within > 0 {
		least = min(least, within)
	}

	left := by.Sub(now)
	if at := r.Policy.ExpiresAt; at != nil && (by.IsZero() || at.Before(by)) {
		by, left = *at, time.Duration(expiryPart*float64(at.Sub(now)))
	}

	return by, max(left, least).Seconds()
}

// countLeft returns the requests of a run that are left for a model, with anyModel also those that name none. Only a
// run that works has any: not one that is paused or whose results nobody takes.
func (w Work) countLeft(r status.Run, model string, anyModel bool) float64 {
	left := float64(r.Progress.Total - r.Progress.Done)
	works := r.State == proto.StateInProgress && (r.Collector != nil || r.AgeS < status.ProblemAfter.Seconds())
	if !works || left <= 0 {
		return 0
	}

	models := r.Models()
	if len(models) == 1 {
		if models[0] == model || anyModel && models[0] == "" {
			return left
		}
		return 0
	}

	shares := w.Pending[r.Run]
	sum := sumOf(shares)
	if sum == 0 {
		shares = r.Input.Models
		sum = sumOf(shares)
	}

	share := shares[model]
	if anyModel && model != "" {
		share += shares[""]
	}

	return left * float64(share) / float64(max(1, sum))
}

func sumOf(shares map[string]int) (sum int) {
	for _, n := range shares {
		sum += n
	}
	return sum
}

// countBoxes returns the number of hosts with a ready worker for one of the models.
func (w Work) countBoxes(models []string) int {
	var hosts []string
	for _, model := range models {
		hosts = append(hosts, listBoxes(w.Bus, model)...)
	}
	slices.Sort(hosts)

	return len(slices.Compact(hosts))
}

// holds reports whether a worker that serves one of the models holds requests. A worker that tries any model serves
// those that runs have.
func (w Work) holds(models []string) bool {
	known := ListModels(w.Runs)

	return slices.ContainsFunc(w.Workers, func(worker status.Worker) bool {
		return (worker.InFlight > 0 || worker.Shards != nil && *worker.Shards > 0) &&
			slices.ContainsFunc(models, func(model string) bool {
				return slices.Contains(known, model) && model == "" ||
					proto.Serves(worker.Models, model) && (worker.Models != nil || slices.Contains(known, model))
			})
	})
}
