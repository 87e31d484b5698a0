package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/modelserver"
)

const (
	// refusalCheckEvery is the time between two looks at the tasks set aside.
	refusalCheckEvery = 250 * time.Millisecond
	// refusalSettleTime is the time after the last refusal until those that are left decide.
	refusalSettleTime = 2 * time.Second
	// refusingRetryFirst is the time until a server that refuses all requests gets one again. It
	// doubles up to refusingRetryMax.
	refusingRetryFirst = 2 * time.Second
	refusingRetryMax   = time.Minute
)

// refusalWatcher decides whether the refusals that are set aside mean all requests, and tries a
// server that refuses all requests again from time to time.
type refusalWatcher struct {
	server     *modelserver.Server
	state      *serverState
	refusals   *refusals
	admissions *admissions
	attempts   *attemptRunner
	held       *heldCounter
	timeout    time.Duration // of a request
	changes    *broadcast    // of the tasks set aside, and of the server's state

	// samples are requests that a server has answered before this worker started.
	samples []proto.Request
	// stop ends the worker with an error; nil: it waits until the server takes a request.
	stop func(error)
}

// run watches the refusals until ctx ends.
func (w *refusalWatcher) run(ctx context.Context) {
	wait, tried := refusingRetryFirst, time.Time{}
	for w.changes.await(ctx, refusalCheckEvery, w.hasWork) {
		if !w.state.isRefusing() {
			mayAsk := w.refusals.n.Load() > 0 && !w.state.isDown() && time.Since(tried) >= refusingRetryFirst
			if mayAsk && w.decideRefusals(ctx) {
				tried = time.Now()
			}
			continue
		}

		if time.Since(tried) < wait {
			continue
		}

		if w.retryServer(ctx) {
			wait = refusingRetryFirst
		} else {
			wait = min(2*wait, refusingRetryMax)
		}

		tried = time.Now()
	}
}

// hasWork reports whether something is set aside, or the server refuses all requests.
func (w *refusalWatcher) hasWork() bool { return w.refusals.n.Load() > 0 || w.state.isRefusing() }

// decideRefusals finds out whether the server refuses all requests, if there are enough
// refusals, or nothing else is left that could show it. It reports whether it has asked the
// server.
func (w *refusalWatcher) decideRefusals(ctx context.Context) bool {
	all := w.refusals.snapshot()
	if len(all) == 0 {
		return false
	}

	first, last := all[0], all[len(all)-1]
	nothingElse := w.held.load() == int64(len(all)) && time.Since(last.ended) > refusalSettleTime
	if !w.refusals.enough.Load() && !nothingElse {
		return false
	}

	var page *proto.Request
	if first.classification.page != "" {
		page = &first.task.Request
	}

	refused, err := w.sendSample(ctx, page)
	switch {
	case ctx.Err() != nil, refused == nil && err == nil: // let in: that has settled the refusals
		return true
	case errors.Is(err, errNoSample):
		refused = newRefusedError(w.server.URL(), first.task.URL, first.classification)
	case err != nil: // the server fails in another way now
		return true
	}

	if w.stop != nil && w.admissions.isEmpty() {
		w.stop(refused)
	} else {
		w.state.markRefusing(refused)
	}

	return true
}

// retryServer sends a request to a server that refuses all requests, and reports whether the
// server has let it in.
func (w *refusalWatcher) retryServer(ctx context.Context) bool {
	refused, err := w.sendSample(ctx, nil)
	if refused == nil && err == nil {
		w.state.markAccepting()
		return true
	}

	if refused == nil && w.admissions.isEmpty() {
		w.state.markReopened() // none was ever let in, but a request that is on the bus now may be
	}

	return false
}

var errNoSample = errors.New("no request was let in yet")

// sendSample sends a request again that the server has let in before. It returns the refusal if
// that is refused now, and an error if the answer does not show whether it is. If none was let
// in, it sends page, the request that got a page, since that may pass at once.
func (w *refusalWatcher) sendSample(ctx context.Context, page *proto.Request) (refused *RefusedError, err error) {
	samples := w.samples
	if s := w.admissions.sample.Load(); s != nil {
		samples = []proto.Request{s.request}
	}

	if page != nil && len(samples) == 0 {
		samples = []proto.Request{*page}
	}

	err = errNoSample
	for _, s := range samples {
		begin := time.Now()
		limited, cancel := context.WithTimeout(ctx, w.timeout)
		c := classify(s.URL, s.Body, w.server.Post(limited, s.URL, s.Body))
		cancel()

		switch {
		case c.verdict == final:
			w.attempts.recordAdmission(s, c, begin, time.Since(begin))
			return nil, nil
		case c.mayMeanAll():
			refused, err = newRefusedError(w.server.URL(), s.URL, c), nil
		default:
			return nil, fmt.Errorf("the request fails: %s", c.reason)
		}
	}

	return refused, err
}
