package worker

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// admissions records which requests the model server has let in: answered, or refused for their
// own sake. They show that a refusal, or an answer that was cut off, does not mean all requests.
// Each answer is recorded, so that takes no lock.
type admissions struct {
	created time.Time  // of the worker
	changes *broadcast // of isEmpty
	// latest is the time at which the latest request that was let in began, in nanoseconds
	// since created.
	latest atomic.Int64
	// sample is a request that was let in; nil: none was.
	sample atomic.Pointer[admittedRequest]
}

// admittedRequest is a request that the server has let in, and the time it took.
type admittedRequest struct {
	request  proto.Request
	answered bool
	took     time.Duration
}

// record records that the server let in a request that began at a time.
func (a *admissions) record(r proto.Request, c classification, begin time.Time, took time.Duration) {
	at := int64(begin.Sub(a.created))
	for old := a.latest.Load(); at > old && !a.latest.CompareAndSwap(old, at); old = a.latest.Load() {
	}

	// The quickest request that was answered is the cheapest to send again.
	if s := a.sample.Load(); s == nil || c.ok() && (!s.answered || took < s.took/4) {
		a.sample.Store(&admittedRequest{
			request:  proto.Request{URL: r.URL, Body: slices.Clone(r.Body)},
			answered: c.ok(),
			took:     took,
		})

		if s == nil {
			a.changes.notify()
		}
	}
}

// isEmpty reports whether no request was let in yet.
func (a *admissions) isEmpty() bool { return a.sample.Load() == nil }

// hasAnswer reports whether a request was answered.
func (a *admissions) hasAnswer() bool {
	s := a.sample.Load()
	return s != nil && s.answered
}

// latestBegin returns when the latest request that was let in began; false if there is none.
func (a *admissions) latestBegin() (time.Time, bool) {
	latest := a.latest.Load()
	return a.created.Add(time.Duration(latest)), latest > 0
}
