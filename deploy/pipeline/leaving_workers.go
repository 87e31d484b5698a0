package pipeline

import (
	"context"
	"sync"

	"github.com/promptmill/promptmill/worker"
)

// leavingWorkers passes the departures of a process on to its workers.
type leavingWorkers struct {
	// onAllLeft is called once the workers were asked to leave, and none is left.
	onAllLeft func()

	// mu guards the fields below.
	mu      sync.Mutex
	workers map[*worker.Worker]bool
	latest  *worker.Departure // nil: they stay
}

// follow passes on the departures that come, until ctx ends.
func (l *leavingWorkers) follow(ctx context.Context, departures <-chan worker.Departure) {
	for {
		select {
		case d, ok := <-departures:
			if !ok {
				departures = nil
				continue
			}

			l.leave(d)
		case <-ctx.Done():
			return
		}
	}
}

// leave lets all workers leave.
func (l *leavingWorkers) leave(d worker.Departure) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.latest == nil || d.Deadline.Before(l.latest.Deadline) {
		l.latest = &d
	}

	for w := range l.workers {
		w.Leave(d)
	}

	l.endIfAllLeft()
}

// add adds a worker that begins. It leaves at once if the others were asked to.
func (l *leavingWorkers) add(w *worker.Worker) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.workers == nil {
		l.workers = map[*worker.Worker]bool{}
	}

	l.workers[w] = true
	if l.latest != nil {
		w.Leave(*l.latest)
	}
}

// remove removes a worker that has ended.
func (l *leavingWorkers) remove(w *worker.Worker) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.workers, w)
	l.endIfAllLeft()
}

// endIfAllLeft calls onAllLeft if it is time for that. The caller holds the lock.
func (l *leavingWorkers) endIfAllLeft() {
	if l.latest != nil && len(l.workers) == 0 {
		l.onAllLeft()
	}
}
