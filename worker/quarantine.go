package worker

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
)

// A request that kills the model server takes those with it that are there at the same time, and
// would do so again and again. So the request that did it is searched like a bad bulb: all that
// the server had are suspects. They run in groups of the square root of their number, with nothing
// beside them; those of a group that dies again run alone. A request that kills a server alone,
// the third time, is given up, and no other.

// isolateAfter is the number of crashes after which a request runs alone.
const isolateAfter = 2

// quarantine holds the tasks that the model server had when it died, and runs them apart from
// all others.
type quarantine struct {
	state *serverState
	log   zerolog.Logger

	// start begins an attempt at a task as soon as there is a slot.
	start func(context.Context, *task)
	// wait waits until no attempt is under way.
	wait func()

	// mu guards the fields below.
	mu    sync.Mutex
	tasks []*task
}

func (q *quarantine) add(tasks ...*task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tasks = append(q.tasks, tasks...)
}

func (q *quarantine) isEmpty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.tasks) == 0
}

// take removes the tasks for which wanted returns true, and returns them.
func (q *quarantine) take(wanted func(*task) bool) (taken []*task) {
	q.mu.Lock()
	defer q.mu.Unlock()

	taken, q.tasks = extractFunc(q.tasks, wanted)

	return taken
}

// takeGroup removes tasks that may run together, and returns them: first a few of those with one
// crash, then the others, one by one.
func (q *quarantine) takeGroup() []*task {
	together := q.countTogether()

	left := 1
	if together > 0 {
		left = int(math.Ceil(math.Sqrt(float64(together))))
	}

	return q.take(func(t *task) bool {
		if left == 0 || together > 0 && t.crashes >= isolateAfter {
			return false
		}
		left--
		return true
	})
}

// countTogether returns the number of tasks that may run together.
func (q *quarantine) countTogether() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()

	for _, t := range q.tasks {
		if t.crashes < isolateAfter {
			n++
		}
	}

	return n
}

// run runs the tasks, and nothing beside them, until there are none or the server is down.
func (q *quarantine) run(ctx context.Context) {
	q.wait()

	for ctx.Err() == nil && !q.state.isDown() {
		group := q.takeGroup()
		if len(group) == 0 {
			return
		}

		q.log.Info().Int("requests", len(group)).Int("deaths", group[0].crashes).
			Msg("isolating requests that were in flight when the model server crashed")

		for _, t := range group {
			if t.crashes >= isolateAfter && !t.shard.markIsolated(ctx, t.Index) {
				t.handBack()
				continue
			}
			q.start(ctx, t)
		}

		q.wait()
	}
}

// failPoisoned gives up a task that victim, the model server or the worker, died of.
func (t *task) failPoisoned(victim string, deaths int) {
	t.finish(proto.Result{Err: &proto.ResultError{
		Code: proto.CodePoison,
		Message: fmt.Sprintf("%s died %d times while it ran this request, the last time with no other",
			victim, deaths),
	}}, attemptCost{})
}
