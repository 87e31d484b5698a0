package metrics

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/promptmill/promptmill/deploy/scale"
)

// metricWanted are the boxes that the work left needs.
var metricWanted = newDesc("boxes_wanted",
	"Boxes that the requests left of a model need to end in time, as /scale answers it without parameters.", "model")

// mostWanted is the number of models whose boxes are exported, those with the most requests left.
const mostWanted = 100

// SetScaleWithin sets the time from its start in which a run without a time of its own is to end, for the boxes that
// are wanted. Defaults to [scale.DefaultWithin].
func (e *Exporter) SetScaleWithin(within time.Duration) {
	if e == nil {
		return
	}

	e.mu.Lock()
	defer e.mu.Unlock()

	e.within = within
}

// ScaleHandler answers how many boxes are wanted at the path [scale.Path].
func ScaleHandler(e *Exporter) http.Handler { return scale.Handler(e.wantBoxes) }

// errSilent is the error of a question while the bus does not answer.
var errSilent = errors.New("the bus does not answer")

// wantBoxes answers how many boxes are wanted.
func (e *Exporter) wantBoxes(q scale.Question) (scale.Answer, error) {
	if e == nil {
		return scale.Answer{}, scale.ErrNoBus
	}

	s, _ := e.snapshot(false)
	if s.bus == nil {
		return scale.Answer{}, scale.ErrNoBus
	}

	state := s.bus.look()
	if state == nil {
		return scale.Answer{}, errSilent
	}
	q.Default = s.within

	return s.bus.boxes.Want(state.work(), q, time.Now()), nil
}

// work returns what the bus has to do.
func (b *busState) work() scale.Work { return scale.Work{Bus: b.Bus, Pending: b.pending} }

// putWanted puts the boxes that are wanted for the models of the runs on the bus; nil: it does not answer.
func (s sink) putWanted(v *busView, b *busState, within time.Duration) {
	if b == nil {
		return
	}

	var answers []scale.Answer
	for _, model := range scale.ListModels(b.Runs) {
		q := scale.Question{Model: model, Default: within}
		answers = append(answers, v.boxes.Want(b.work(), q, time.Now()))
	}

	slices.SortStableFunc(answers, func(x, y scale.Answer) int { return cmp.Compare(y.RequestsLeft, x.RequestsLeft) })
	for _, a := range answers[:min(len(answers), mostWanted)] {
		s.gauge(metricWanted, float64(a.Value), *a.Model)
	}
}
