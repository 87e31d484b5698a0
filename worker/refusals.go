package worker

import (
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A wrong key, a server that has moved, a model that no server has: a fault of all requests must
// not fail them one by one. An answer such as 401 or 404 does not show whether it means its
// request or all of them. So it is set aside, and other requests decide:
//
//   - A request that began later and was let in shows that the refusal meant its own request
//     alone. Then it is the result.
//   - If there is none, the worker sends a request again that was let in before. If that is
//     refused too, the server refuses all: the worker takes no more requests, those set aside go
//     back to the bus as if they had never been sent, and that one request is sent again from
//     time to time.
//   - If none was ever let in, the server refuses all as soon as it has refused enough, or all
//     that there is.
//
// A page in place of an answer (a login, a notice of maintenance) is set aside in the same way.
// If it meant its own request alone, that is tried again.

const (
	// enoughSureRefusals is the number of refusals that decides if they can hardly mean single
	// requests.
	enoughSureRefusals = 8
	// enoughRefusals is the number that decides if they can: refusals of content, or of a model
	// that only some lines name.
	enoughRefusals = 64
)

// refusals holds the requests whose refusal may mean all requests.
type refusals struct {
	changes *broadcast // of n and enough

	// n is the number of requests set aside.
	n atomic.Int64
	// enough is true if the refusals are enough to decide their meaning.
	enough atomic.Bool

	// mu guards the fields below.
	mu     sync.Mutex
	aside  []refusal
	closed bool
}

// refusal is a request that was refused.
type refusal struct {
	task           *task
	classification classification
	took           time.Duration
	ended          time.Time
}

// add sets a refusal aside. It returns false, and does not keep it, after close.
func (r *refusals) add(t *task, c classification, took time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()

	if r.closed {
		return false
	}

	r.aside = append(r.aside, refusal{
		task:           t,
		classification: c,
		took:           took,
		ended:          time.Now(),
	})

	r.updateCounts()

	return true
}

// take removes the refusals for which wanted returns true, and returns them.
func (r *refusals) take(wanted func(refusal) bool) (taken []refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()

	taken, r.aside = extractFunc(r.aside, wanted)

	r.updateCounts()

	return taken
}

// takeTask removes the refusal of a task. It returns false if another goroutine has taken it.
func (r *refusals) takeTask(t *task) bool {
	return len(r.take(func(a refusal) bool { return a.task == t })) == 1
}

// takeBefore removes the refusals that came before a time, and returns them.
func (r *refusals) takeBefore(begin time.Time) []refusal {
	return r.take(func(a refusal) bool { return a.ended.Before(begin) })
}

// snapshot returns the refusals that are set aside.
func (r *refusals) snapshot() []refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.aside)
}

// close returns all refusals, and keeps no more from now on.
func (r *refusals) close() []refusal {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()

	return r.take(func(refusal) bool { return true })
}

// updateCounts sets n and enough. The caller holds mu.
func (r *refusals) updateCounts() {
	r.n.Store(int64(len(r.aside)))

	sure := 0
	for _, a := range r.aside {
		if hardlyMeansOne(a.classification.result.Status) {
			sure++
		}
	}

	r.enough.Store(sure >= enoughSureRefusals || len(r.aside) >= enoughRefusals)
	r.changes.notify()
}

// hardlyMeansOne reports whether a refusal with a status can hardly mean a single request. The
// status of a page is 0.
func hardlyMeansOne(status int) bool {
	switch status {
	case http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone:
		return false
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusInternalServerError,
		http.StatusNotImplemented, http.StatusServiceUnavailable:
		return false // of a model, or of a feature that the server lacks: other lines may not need it
	}

	return true
}
