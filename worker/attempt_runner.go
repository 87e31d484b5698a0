package worker

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/answer"
	"github.com/promptmill/promptmill/worker/limit"
)

// runAttempt runs a task once, in a slot that it gives back. era ends when the server is
// found to hang.
func (w *Worker) runAttempt(era context.Context, t *task, slot limit.Slot) {
	begin := time.Now()
	if t.attempts == 0 && t.crashes == 0 {
		t.firstAttempt = begin
	}

	calls := t.shard.run.requests
	call, cancel := context.WithTimeout(t.shard.run.requestsIn(era), w.cfg.Timeout)
	w.stats.InFlight.Add(1)
	j := classify(t.URL, t.countedBody(), w.cfg.Server.Post(call, t.URL, t.Body))
	cancel()
	w.stats.InFlight.Add(-1)

	if t.prefixes != nil {
		w.queue.markEnded(t, j.ok(), time.Since(begin))
	}

	w.cfg.Limiter.Release(slot, limit.Outcome{Work: j.work, Overload: j.overload, After: j.after})

	took := time.Since(begin)
	switch {
	case j.verdict == final || j.result.Status != 0:
		w.health.answered(time.Now(), took <= w.cfg.Stall)
	case calls.Err() != nil: // cut off by the end of the grace period, or of the run
		t.handBack()
		return
	case era.Err() != nil: // the server hangs: perhaps another does not
		w.endStalled(t, took)
		return
	}

	if j.ours {
		w.lowerLimit()
		w.requeueAfter(t, backoffDelay(1))
		return
	}

	if j.verdict == unsent {
		w.markDown("waiting for the model server", errors.New(j.result.Err.Message))
		w.requeueAfter(t, backoffDelay(1))
		return
	}

	w.decideNext(calls, t, j, begin, took)
}

// decideNext goes on with a task that the server had, and that ended one way or the other.
func (w *Worker) decideNext(calls context.Context, t *task, j classification, begin time.Time, took time.Duration) {
	if j.verdict == retry && w.decideLost(calls, t, j, begin, took) {
		return
	}

	if j.verdict != loading {
		t.loadingSince = time.Time{}
	}

	switch {
	case j.verdict == loading:
		if w.awaitModel(t, j) {
			return
		}
		j.verdict = retry
	case j.mayMeanAll():
		w.setAside(t, j, took)
		return
	case j.verdict == final:
		w.admitRequest(t, j, begin, took)
	}

	w.finishAttempt(t, j, took)
}

// loadingMost is how long a request's model may be loaded until its attempts count: by then,
// another one may be kept from its own.
const loadingMost = 15 * time.Minute

// awaitModel has a task tried again, at no cost, whose model the server is loading. It returns
// false after that has taken too long.
func (w *Worker) awaitModel(t *task, j classification) bool {
	now := time.Now()
	if t.loadingSince.IsZero() {
		t.loadingSince = now
	}

	if now.Sub(t.loadingSince) > loadingMost {
		return false
	}

	w.cfg.Log.Debug().Uint32("seq", t.Index).Str("reason", j.reason).Msg("the server loads the model; trying again")
	w.requeueAfter(t, max(j.after, backoffDelay(1)))

	return true
}

// decideLost goes on with a task whose attempt was lost: the server has died of it, or something
// in front of the server has cut it off, or has taken the server out for that. It returns false
// if none of these is so.
func (w *Worker) decideLost(calls context.Context, t *task, j classification, begin time.Time, took time.Duration) bool {
	marked := (j.cut || j.overload) && w.cutoffs.recent(time.Now())
	switch {
	case (j.crash || marked && j.overload) && w.confirmCrash(calls, begin):
		if w.cutoffs.recent(time.Now()) && w.requeueSpared(t) { // perhaps since this moment
			return true
		}
		w.stats.recordAttempt(took, "server_died")
		w.recordCrash(t)
	case j.cut && w.recordCutOff(j, begin, took):
		w.setCutOffAside(t, j, begin, took)
	case marked && j.result.Status == http.StatusBadGateway && took < cutLeast: // there is a server again
		return w.requeueSpared(t)
	default:
		return false
	}

	return true
}

// requeueSpared has a task tried again, at no cost, that a proxy may have had no server for. It does so
// only so often: the task may be what the server dies of.
func (w *Worker) requeueSpared(t *task) bool {
	if t.spared == cutSpared {
		return false
	}
	t.spared++
	w.requeueAfter(t, backoffDelay(1))
	return true
}

// lowerLimit has fewer requests at the server at once, since this process may not open more
// files.
func (w *Worker) lowerLimit() {
	if !w.cfg.Limiter.Lower() {
		return
	}
	if w.health.firstTime("files") {
		w.cfg.Log.Warn().Int("at_once", w.cfg.Limiter.Limit()).
			Msg("this process may not open more files; having fewer requests at once (ulimit -n raises that)")
	}
}

// finishAttempt ends a task with the result of its attempt, or has it tried again.
func (w *Worker) finishAttempt(t *task, j classification, took time.Duration) {
	t.attempts++
	if j.verdict == final {
		w.latency.add(took)
		w.stats.TokensIn.Add(j.content.PromptTokens)
		w.stats.TokensOut.Add(j.content.CompletionTokens)
		w.cfg.Server.CountAnswer(j.content.CompletionTokens)
		j = w.checkAnswer(t, j, took)
	}

	if j.malformed != "" && j.malformed == t.malformed {
		j.verdict = final
	}

	t.malformed = j.malformed
	if j.overload {
		t.overloads++
	}

	w.stats.recordAttempt(took, j.reason)
	if j.verdict == final || t.attemptsUsed() >= w.cfg.Attempts {
		if t.truncated != nil && !j.ok() {
			j.result, took = *t.truncated, t.truncatedTook // the first answer, cut off as it is, is better than none
		}
		t.finish(j.result, took)
		return
	}

	w.stats.Retries.Add(1)
	t.reasons = append(t.reasons, j.reason)

	wait := max(j.after, backoffDelay(t.attempts), t.shard.run.budget.Withdraw(time.Now()))
	if wait > budgetPatience {
		w.warnFailing(j)
	}

	w.cfg.Log.Debug().Uint32("seq", t.Index).Str("reason", j.reason).Int("attempt", t.attempts).
		Dur("wait_ms", wait).Msg("retry")
	w.requeueAfter(t, wait)
}

// checkAnswer looks at an answer as the run's settings want it: was it cut off, does it match
// the schema. Either is a reason to ask once more.
func (w *Worker) checkAnswer(t *task, j classification, took time.Duration) classification {
	f := t.shard.run
	if !j.ok() {
		return j
	}

	f.budget.Deposit()
	if f.moreTokens > 0 && j.content.Finish == "length" && t.truncated == nil {
		if body, ok := answer.MoreTokens(t.Body, f.moreTokens); ok {
			result := j.result
			t.truncated, t.truncatedTook, t.Body = &result, took, body
			j.verdict, j.reason = retry, "length"
			return j
		}
	}

	if f.schema == nil {
		return j
	}

	err := errors.New("the answer has no text")
	if j.content.Text != nil {
		err = f.schema.Check(j.content.Text)
	}
	if err == nil {
		return j
	}

	j.reason = proto.CodeSchemaMismatch
	j.result.Err = &proto.ResultError{Code: proto.CodeSchemaMismatch, Message: err.Error()}

	if !t.mismatched {
		t.mismatched = true
		j.verdict = retry
	}

	return j
}

// warnFailing says, once in a while, that nearly all attempts fail.
func (w *Worker) warnFailing(j classification) {
	if w.health.mayWarn(time.Now()) {
		w.cfg.Log.Warn().Str("server", w.cfg.Server.URL()).Str("reason", j.reason).
			Str("answer", excerpt(j.result.Body)).
			Msg("the model server fails more requests than it answers; trying slowly")
	}
}

// requeueAfter queues a task again after a wait, or hands it back when the worker stops or
// its run is not worked for any more.
func (w *Worker) requeueAfter(t *task, wait time.Duration) {
	if t.shard.run.paused.Load() || !w.queue.pushAfter(t, wait) {
		t.handBack()
	}
}
