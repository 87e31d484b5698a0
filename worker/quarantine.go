package worker

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/promptmill/promptmill/proto"
)

// A request that kills the model server takes those with it that are there at the same
// time, and would do so again and again. So what a server died of is searched like a
// bad bulb: all that it had are suspects. They run in groups of the square root of their
// number, with nothing beside them; those of a group that dies again run alone. What
// kills a server alone, the third time, is given up, and nothing else.

// aloneAfter is after how many deaths a request runs alone.
const aloneAfter = 2

// quarantine are tasks that the model server had when it died.
type quarantine struct {
	mu    sync.Mutex
	tasks []*task
}

func (s *quarantine) add(tasks ...*task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tasks = append(s.tasks, tasks...)
}

func (s *quarantine) any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tasks) > 0
}

// take takes out the tasks of which wanted is true.
func (s *quarantine) take(wanted func(*task) bool) (out []*task) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.tasks = slices.DeleteFunc(s.tasks, func(t *task) bool {
		if wanted(t) {
			out = append(out, t)
			return true
		}
		return false
	})

	return out
}

// group takes out those that may run together: first those with one death, a few at a
// time, then the others, one by one.
func (s *quarantine) group() []*task {
	s.mu.Lock()

	n, left := 0, 1
	for _, t := range s.tasks {
		if t.crashes < aloneAfter {
			n++
		}
	}

	s.mu.Unlock()
	if n > 0 {
		left = int(math.Ceil(math.Sqrt(float64(n))))
	}

	return s.take(func(t *task) bool {
		if left == 0 || n > 0 && t.crashes >= aloneAfter {
			return false
		}
		left--
		return true
	})
}

// recordCrash notes that the server died while it had the task.
func (w *Worker) recordCrash(t *task) {
	t.crashes++
	t.reasons = append(t.reasons, "server_died")
	w.stats.Retries.Add(1)
	if t.crashes > aloneAfter {
		t.failPoisoned("the model server", t.crashes)
		return
	}

	w.quarantined.add(t)
	w.queue.wake()
}

// failPoisoned gives up a task.
func (t *task) failPoisoned(victim string, deaths int) {
	t.finish(proto.Result{Err: &proto.ResultError{
		Code:    proto.CodePoison,
		Message: fmt.Sprintf("%s died %d times while it ran this request, the last time with no other", victim, deaths),
	}}, 0)
}

// runIsolated runs suspects, and nothing beside them, until there are none or the server
// is down.
func (w *Worker) runIsolated(ctx context.Context) {
	w.attempts.Wait()
	for ctx.Err() == nil && !w.Down() {
		group := w.quarantined.group()
		if len(group) == 0 {
			return
		}

		w.cfg.Log.Info().Int("requests", len(group)).Int("deaths", group[0].crashes).
			Msg("running apart what the model server died of")

		for _, t := range group {
			if t.crashes >= aloneAfter && !t.shard.markIsolated(ctx, t.Index) {
				t.handBack()
				continue
			}
			w.begin(ctx, t)
		}

		w.attempts.Wait()
	}
}
