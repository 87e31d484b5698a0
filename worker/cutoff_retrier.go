package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
)

const (
	// cutOffCheckEvery is the time between two looks at the tasks set aside.
	cutOffCheckEvery = 250 * time.Millisecond
	// cutOffSettleTime is the time after the last cut-off until the tasks set aside are sent again.
	cutOffSettleTime = 2 * time.Second
)

// cutoffRetrier sends the requests that were cut off again: with fewer at once when nothing else
// is left, and one alone if nothing comes through.
type cutoffRetrier struct {
	server     *modelserver.Server
	limiter    *limit.Limiter
	health     *serverHealth
	state      *serverState
	cutoffs    *cutoffs
	refusals   *refusals
	admissions *admissions
	attempts   *attemptRunner
	pool       *attemptPool
	changes    *broadcast // of the tasks set aside
	stats      *Stats
	held       *heldCounter

	// stop ends the worker with an error; nil: it waits until the server answers a request.
	stop func(error)
}

// run sends the tasks that were cut off again, until ctx ends.
func (r *cutoffRetrier) run(ctx context.Context) {
	for r.changes.await(ctx, cutOffCheckEvery, r.hasWork) {
		if !r.state.isRefusing() {
			r.retryCutOffs()
		}
	}
}

// hasWork reports whether something was cut off that has not ended, or is held back for that.
func (r *cutoffRetrier) hasWork() bool {
	c := r.cutoffs
	return c.n.Load() > 0 || c.open.Load() > 0 || c.blocked.Load() || c.throttle.limit.Load() > 0
}

// retryCutOffs sends the tasks that were cut off again, if it is time for that.
func (r *cutoffRetrier) retryCutOffs() {
	c := r.cutoffs
	n, latest, probing := c.surveyAside()
	if probing {
		return
	}

	if n == 0 {
		c.setBlocked(false)
		if c.open.Load() == 0 {
			c.liftThrottle()
		}
		return
	}

	// Only the tasks set aside are left, and nothing is on its way.
	settled := time.Since(latest) > cutOffSettleTime
	nothingElse := settled && r.held.load() == int64(n)+r.refusals.n.Load()
	probe := c.cutsOffAll(nothingElse)
	c.setBlocked(probe)

	if r.stats.InFlight.Load() > 0 || r.state.isDown() {
		return
	}

	switch {
	case probe:
		if t := c.beginProbe(); t != nil {
			r.pool.startOther(func() { r.sendAlone(t) })
		}
	case nothingElse:
		c.throttleAside()
		r.attempts.releaseCutOffs()
	}
}

// sendAlone sends a task with nothing beside it, and decides whether anything comes through.
func (r *cutoffRetrier) sendAlone(t *task) {
	run, epoch := t.shard.run, r.state.epoch()
	begin := time.Now()
	c, took := r.attempts.send(run.requestsIn(epoch), t, r.attempts.timeout)
	switch {
	case c.result.Status == 0 && run.requests.Err() != nil: // the end of the run, or of the grace period
		if !run.ended.Load() {
			r.attempts.costs.countThrownAway(run.id, took)
		}

		t.handBack()
		r.cutoffs.abortProbe()

	case c.verdict == retry && c.maybeCutOff && r.cutoffs.matchesLimit(took, isTimeoutStatus(c.result.Status)):
		r.giveUpCutOffs(t, c)

	case c.verdict == unsent, c.maybeCutOff && took < leastCutOffTime, c.result.Status == 0 && epoch.Err() != nil:
		if epoch.Err() == nil { // there may be no server just now
			r.health.probeServer(run.requests)
		}

		if !r.cutoffs.add(t) {
			t.handBack()
		}

		r.cutoffs.abortProbe()

	default: // with fewer at once, some come through
		r.cutoffs.endProbe(max(1, r.limiter.Limit()/4), false)
		r.attempts.releaseCutOffs()
		r.attempts.decideNext(t, c, begin, took)
	}
}

// giveUpCutOffs decides the next step when a request was cut off even alone. A run stops, and a
// worker waits. A worker that has had answers fails the requests that were tried with fewer at
// once. A run does the same if others come through at their first attempt: those that fail take
// too long each by itself.
func (r *cutoffRetrier) giveUpCutOffs(t *task, c classification) {
	err := &RefusedError{
		Server:   r.server.URL(),
		Path:     t.URL,
		Status:   c.result.Status,
		CutAfter: r.cutoffs.timeLimit(),
	}

	hasAnswer := r.admissions.hasAnswer()
	switch {
	case r.stop != nil && (!hasAnswer || r.cutoffs.cutsOffFirstAttempts()):
		r.stop(err) // nothing is sent any more
		t.handBack()

	case hasAnswer:
		t.attempts++
		t.cutOffs++ // not for the first time
		for _, t := range append(r.cutoffs.take(func(t *task) bool { return t.cutOffs > 1 }), t) {
			t.finishCutOff(c, r.cutoffs.timeLimit(), attemptCost{})
		}
		r.cutoffs.endProbe(max(1, r.limiter.Limit()/2), false)

	default:
		t.handBack()
		r.state.markRefusing(err)
		r.cutoffs.endProbe(1, true)
	}
}

// finishCutOff ends a task that is given up with the truncated answer that it had, or why it has
// none. used is the cost of its last attempt, zero if that was not for this task alone.
func (t *task) finishCutOff(c classification, timeLimit time.Duration, used attemptCost) {
	if t.truncated != nil {
		t.finish(*t.truncated, t.truncatedCost)
		return
	}

	last := fmt.Sprint("status ", c.result.Status)
	if c.result.Err != nil {
		last = c.result.Err.Message
	}

	t.finish(proto.Result{Err: &proto.ResultError{
		Code:    proto.CodeCutOff,
		Message: fmt.Sprintf("%s, this one %d times: %s", cutOffText(timeLimit), t.cutOffs, last),
	}}, used)
}
