package pipeline

import (
	"context"
	"iter"
	"maps"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// endedRuns passes the runs of a server that have ended to its [Events], each at least once. The nil
// value passes nothing.
type endedRuns struct {
	events Events
	// collects reports whether a run is the server's. Others have an owner who waits for their end.
	collects func(proto.Manifest) bool
	log      zerolog.Logger
	wake     chan struct{}

	// passing is held while a run is passed: one at a time, so that a run is not passed twice at once.
	passing sync.Mutex

	// mu guards the fields below.
	mu      sync.Mutex
	waiting map[string]proto.Manifest // to be passed, by id
	passed  map[string]runEnd         // the last end of each run that was passed
}

// runEnd is one end of a run, which may be retried, or be another run of the same id.
type runEnd struct {
	createdAt time.Time
	retries   int
	state     proto.State
}

func newEndedRuns(events Events, collects func(proto.Manifest) bool, log zerolog.Logger) *endedRuns {
	return &endedRuns{
		events:   events,
		collects: collects,
		log:      log,
		wake:     make(chan struct{}, 1),
		waiting:  map[string]proto.Manifest{},
		passed:   map[string]runEnd{},
	}
}

func endOf(m proto.Manifest) runEnd { return runEnd{m.CreatedAt.UTC(), m.Retries, m.State} }

// add adds the ended ones of some runs. It does not wait until they are passed.
func (e *endedRuns) add(runs iter.Seq[proto.Manifest]) {
	if e == nil {
		return
	}

	e.mu.Lock()
	defer e.mu.Unlock()

	for m := range runs {
		if m.State.Ended() && e.collects(m) && e.passed[m.Run] != endOf(m) {
			e.waiting[m.Run] = m
		}
	}

	if len(e.waiting) == 0 {
		return
	}

	select {
	case e.wake <- struct{}{}:
	default: // run will look anyway
	}
}

// follow adds the ended ones of all runs on the bus, and forgets those that have left it.
func (e *endedRuns) follow(all map[string]proto.Manifest) {
	if e == nil {
		return
	}

	e.add(maps.Values(all))

	e.mu.Lock()
	defer e.mu.Unlock()

	maps.DeleteFunc(e.passed, func(run string, _ runEnd) bool { return all[run].Run == "" })
}

// run passes the runs that are added, until ctx ends.
func (e *endedRuns) run(ctx context.Context) error {
	const mostPause = 30 * time.Second
	for pause := time.Second; ; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-e.wake:
		}

		for _, m := range e.listWaiting() {
			err := e.passWaiting(ctx, m)
			if err == nil {
				pause = time.Second
				continue
			}

			if ctx.Err() == nil {
				e.log.Warn().Err(err).Str("run", m.Run).Msg("failed to note the end of a run for its events; retrying")
			}

			bus.Sleep(ctx, pause)
			pause = min(2*pause, mostPause)

			select {
			case e.wake <- struct{}{}:
			default:
			}
		}
	}
}

// listWaiting returns the runs that are to be passed.
func (e *endedRuns) listWaiting() (list []proto.Manifest) {
	e.mu.Lock()
	defer e.mu.Unlock()

	for _, m := range e.waiting {
		list = append(list, m)
	}

	return list
}

// isPassed reports whether an end of a run was passed.
func (e *endedRuns) isPassed(m proto.Manifest) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.passed[m.Run] == endOf(m)
}

// passWaiting passes a run that was added, unless a sweep has passed it meanwhile.
func (e *endedRuns) passWaiting(ctx context.Context, m proto.Manifest) error {
	e.passing.Lock()
	defer e.passing.Unlock()

	e.mu.Lock()
	waits := endOf(e.waiting[m.Run]) == endOf(m)
	e.mu.Unlock()

	if !waits {
		return nil
	}

	return e.passOnce(ctx, m)
}

// pass passes an ended run, unless it was passed.
func (e *endedRuns) pass(ctx context.Context, m proto.Manifest) error {
	if e == nil || !e.collects(m) {
		return nil
	}

	e.passing.Lock()
	defer e.passing.Unlock()

	return e.passOnce(ctx, m)
}

// passOnce is pass for the caller that holds passing.
func (e *endedRuns) passOnce(ctx context.Context, m proto.Manifest) error {
	if !e.isPassed(m) {
		if err := e.events.AddRun(ctx, m); err != nil {
			return err
		}
	}

	e.mu.Lock()
	defer e.mu.Unlock()

	e.passed[m.Run] = endOf(m)
	if endOf(e.waiting[m.Run]) == endOf(m) {
		delete(e.waiting, m.Run)
	}

	return nil
}
