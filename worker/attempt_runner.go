package worker

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/openai"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
)

const (
	// maxLoadingTime is the longest time that a server may load a request's model before the
	// request's attempts count: by then, another model may be kept from being loaded.
	maxLoadingTime = 15 * time.Minute
	// maxSpared is the number of attempts of a request that cost nothing since a proxy may have
	// had no server for them.
	maxSpared = 20

	// reasonDoubted is why a request was sent again whose answer may have been that of another one.
	reasonDoubted = "doubted"
)

// attemptRunner makes the attempts: it sends a request to the model server, classifies the answer,
// and then finishes the request, queues it again, or sets it aside until other requests show
// the meaning of the answer.
type attemptRunner struct {
	server     *modelserver.Server
	limiter    *limit.Limiter
	health     *serverHealth
	state      *serverState
	progress   *serverProgress
	failures   *failureStreak
	queue      *requestQueue
	admissions *admissions
	refusals   *refusals
	cutoffs    *cutoffs
	stalled    *stalledTask
	quarantine *quarantine
	budgets    *retryBudgets
	stats      *Stats
	sampler    *loadSampler
	observer   Observer // nil: none
	latency    *latencyEstimate
	latencies  *runLatencies
	costs      *departureCosts
	fetchWake  signal // notified when a request is set aside: that makes room
	log        zerolog.Logger

	maxAttempts int
	timeout     time.Duration // of one attempt
	stall       time.Duration // without progress, until the server counts as hung
}

// run makes an attempt and decides the next step.
func (a *attemptRunner) run(job attemptJob) {
	t, run := job.task, job.task.shard.run
	begin := time.Now()
	c, took := a.send(run.requestsIn(job.epoch), t, a.timeout)

	if t.prefixes != nil {
		a.queue.markEnded(t, c.ok(), took)
	}

	a.limiter.Release(job.slot, limit.Outcome{Work: c.work, Overload: c.overload, After: c.after})
	a.cutoffs.recordFreedSlot()

	switch {
	case c.isFromServer():
		a.progress.recordAnswer(time.Now(), took <= a.stall)
	case run.requests.Err() != nil: // the end of the grace period, or of the run
		if !run.ended.Load() {
			a.costs.countThrownAway(run.id, took)
		}

		t.handBack()
		return
	case job.epoch.Err() != nil: // the server hangs; another one may not
		a.endStalled(t, took)
		return
	}

	if c.outOfFiles {
		a.health.lowerLimit()
		a.requeueAfter(t, backoffDelay(1))
		return
	}

	if c.verdict == unsent {
		a.state.markDown("waiting for the model server", errors.New(c.result.Err.Message))
		a.requeueAfter(t, backoffDelay(1))
		return
	}

	a.decideNext(t, c, begin, took)
}

// send posts a task's request, classifies the answer, and records the attempt, or both if the request was
// sent again since its answer was doubted. It returns how long the last one took.
func (a *attemptRunner) send(
	ctx context.Context, t *task, timeout time.Duration,
) (c classification, took time.Duration) {
	begin, parent := time.Now(), ctx
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	ctx, traceParent := a.beginObserved(ctx, t, begin)

	a.stats.InFlight.Add(1)
	defer a.stats.InFlight.Add(-1)

	t.shard.sent.add(t.Index)
	a.sampler.begin(t.shard.run.id)
	defer a.sampler.end(t.shard.run.id)

	a.failures.begin(t, begin)
	defer a.failures.end(t)

	answer := a.server.Post(ctx, t.URL, t.Body)
	end := time.Now()
	if answer.Doubted != nil {
		a.countDoubted(t, answer.Doubted, begin)
		begin = answer.Doubted.Resent
	}

	c = classify(t.URL, t.countedBody(), answer)
	took = end.Sub(begin)
	t.recordAttempt(costOf(c, took), begin, end)
	a.endObserved(t, c, Attempt{Begin: begin, Took: took, TraceParent: traceParent}, parent.Err() != nil)

	return c, took
}

// countDoubted counts an attempt whose answer may have been that of another request. It uses up none of the
// attempts of the task, which has done nothing for it.
func (a *attemptRunner) countDoubted(t *task, d *modelserver.DoubtedAnswer, begin time.Time) {
	content, _ := openai.ReadAnswer(t.URL, t.countedBody(), d.Body)
	cost := attemptCost{attempts: 1, time: d.Took, tokens: content.Usage.Completion}
	t.recordAttempt(cost, begin, begin.Add(d.Took))

	t.attempts++
	t.doubted++
	t.reasons = append(t.reasons, reasonDoubted)

	a.stats.recordAttempt(d.Took, reasonDoubted)
	a.stats.Retries.Add(1)
}

// decideNext decides the next step after an attempt that reached the server.
func (a *attemptRunner) decideNext(t *task, c classification, begin time.Time, took time.Duration) {
	if c.verdict == retry && a.decideLost(t, c, begin, took) {
		return
	}

	a.failures.record(c, took, time.Now())

	if c.verdict != loading {
		t.loadingSince = time.Time{}
	}

	switch {
	case c.verdict == loading:
		if a.awaitModel(t, c) {
			return
		}
		c.verdict = retry
	case c.mayMeanAll():
		a.setRefusalAside(t, c, took)
		return
	case c.verdict == final:
		a.recordAdmission(t.Request, c, begin, took)
	}

	a.finishAttempt(t, c, took)
}

// decideLost decides the next step after an attempt that was lost: the server has died of it, or
// something in front of the server has cut it off, or has taken the server out for a cut-off. It
// returns false if none of these holds.
func (a *attemptRunner) decideLost(t *task, c classification, begin time.Time, took time.Duration) bool {
	mayBeProxy := (c.maybeCutOff || c.overload) && a.cutoffs.isRecent(time.Now())
	mayBeCrash := c.maybeCrash || mayBeProxy && c.overload
	switch {
	case mayBeCrash && a.health.confirmCrash(t.shard.run.requests, begin):
		if a.cutoffs.isRecent(time.Now()) && a.requeueSpared(t) { // it may have become so meanwhile
			return true
		}

		a.stats.recordAttempt(took, "server_died")
		a.recordCrash(t)
	case c.maybeCutOff && a.isCutOff(c, begin, took):
		a.setCutOffAside(t, c, begin, took)
	case mayBeProxy && c.result.Status == http.StatusBadGateway && took < leastCutOffTime:
		return a.requeueSpared(t) // the proxy has a server again
	default:
		return false
	}

	return true
}

// awaitModel queues a task again, at no cost, whose model the server is loading. It returns false
// if that has taken too long.
func (a *attemptRunner) awaitModel(t *task, c classification) bool {
	now := time.Now()
	if t.loadingSince.IsZero() {
		t.loadingSince = now
	}

	if now.Sub(t.loadingSince) > maxLoadingTime {
		return false
	}

	a.log.Debug().Str("run", t.shard.run.id).Uint32("index", t.Index).Str("reason", c.reason).
		Msg("the server is loading the model; retrying")
	a.requeueAfter(t, max(c.after, backoffDelay(1)))

	return true
}

// requeueSpared queues a task again, at no cost, that a proxy may have had no server for. It
// returns false if it has done so too often: the server may die of the task.
func (a *attemptRunner) requeueSpared(t *task) bool {
	if t.spared == maxSpared {
		return false
	}

	t.spared++
	a.requeueAfter(t, backoffDelay(1))

	return true
}

// recordCrash records that the server died while it had the task.
func (a *attemptRunner) recordCrash(t *task) {
	t.crashes++
	t.reasons = append(t.reasons, "server_died")
	a.stats.Retries.Add(1)

	if t.crashes > isolateAfter {
		t.failPoisoned("the model server", t.crashes)
		return
	}

	a.quarantine.add(t)
	a.queue.wake()
}

// recordAdmission records that the server let in a request, and releases the requests set
// aside that this settles. Each answer calls it.
func (a *attemptRunner) recordAdmission(r proto.Request, c classification, begin time.Time, took time.Duration) {
	a.admissions.record(r, c, begin, took)

	if a.refusals.n.Load() > 0 {
		a.settleRefusals(begin)
	}

	if c.ok() && a.cutoffs.recordAnswer(begin, took) {
		a.releaseCutOffs()
	}
}

// setRefusalAside keeps a refusal until other requests show which requests it means.
func (a *attemptRunner) setRefusalAside(t *task, c classification, took time.Duration) {
	if !a.refusals.add(t, c, took) {
		t.handBack()
		return
	}

	if t.shard.run.paused.Load() { // it may have become so since; others may have taken the task
		if a.refusals.takeTask(t) {
			t.handBack()
		}
		return
	}

	if begin, ok := a.admissions.latestBegin(); ok { // the request may have ended since
		a.settleRefusals(begin)
	}

	a.fetchWake.notify()
}

// settleRefusals finishes the refusals that came before a request began that was let in. A page
// is retried, and so is a 429: its quota is then one of a minute. (Gemini has the same message
// for that as OpenAI has for an account without credit.)
func (a *attemptRunner) settleRefusals(begin time.Time) {
	for _, r := range a.refusals.takeBefore(begin) {
		c := r.classification
		switch {
		case c.page != "":
		case c.overload:
			c.verdict = retry
		default:
			c.verdict, c.reason = final, ""
		}

		a.finishAttempt(r.task, c, r.took)
	}
}

// isCutOff reports whether an attempt that ended without an answer was cut off, and logs that once.
func (a *attemptRunner) isCutOff(c classification, begin time.Time, took time.Duration) bool {
	cut, isNew := a.cutoffs.recordLost(begin, took, isTimeoutStatus(c.result.Status))
	if isNew {
		a.log.Warn().Str("server", a.server.URL()).Str("hint", cutOffFix).
			Msg(cutOffText(a.cutoffs.timeLimit()) + "; those requests are sent again at the end, with fewer at once")
	}

	return cut
}

// setCutOffAside keeps a task that was cut off until nothing else is left, or gives it up.
func (a *attemptRunner) setCutOffAside(t *task, c classification, begin time.Time, took time.Duration) {
	a.progress.record(time.Now()) // the server may well have been at work
	t.attempts++

	if t.cutOffs++; t.cutOffs == 1 {
		a.cutoffs.recordFirst(begin)
	}

	a.stats.recordAttempt(took, proto.CodeCutOff)

	if a.cutoffs.isHopeless(t) || t.attemptsUsed() >= a.maxAttempts {
		t.finishCutOff(c, a.cutoffs.timeLimit(), costOf(c, took))
		return
	}

	a.stats.Retries.Add(1)
	t.reasons = append(t.reasons, proto.CodeCutOff)

	if !a.cutoffs.add(t) {
		t.handBack()
		return
	}

	if a.cutoffs.cutsOffAll(false) {
		a.cutoffs.setBlocked(true)
	}

	if t.shard.run.paused.Load() && a.cutoffs.takeTask(t) { // others may have taken the task
		t.handBack()
	}

	a.fetchWake.notify()
}

// releaseCutOffs queues all requests again that were cut off.
func (a *attemptRunner) releaseCutOffs() {
	for _, t := range a.cutoffs.takeAll() {
		a.requeueAfter(t, 0)
	}
}

// endStalled decides the next step of a task that the server had when it was found to hang. Other
// workers may have a server that answers it. If the server may only be slow, the smallest task
// stays, to be sent again.
func (a *attemptRunner) endStalled(t *task, took time.Duration) {
	a.state.offerCanary(t.Request)

	rest := t
	if a.health.process == nil && a.progress.maybeSlow() {
		a.countStall(t, took)
		rest = a.stalled.offer(t)
	}

	if rest != nil {
		rest.handBack()
	}
}

// countStall counts an attempt that a hang ended. The last attempt of a task does not count: it
// gets all its time.
func (a *attemptRunner) countStall(t *task, took time.Duration) {
	a.stats.recordAttempt(took, "stall")
	if t.attemptsUsed()+1 >= a.maxAttempts {
		return
	}

	a.stats.Retries.Add(1)
	t.attempts++
	t.reasons = append(t.reasons, "stall")
}

// releaseStalled queues the task again that waits to be sent to a server which may hang.
func (a *attemptRunner) releaseStalled() {
	if t := a.stalled.take(func(*task) bool { return true }); t != nil {
		a.requeueAfter(t, 0)
	}
}

// finishAttempt ends a task with the result of its attempt, or retries it.
func (a *attemptRunner) finishAttempt(t *task, c classification, took time.Duration) {
	t.attempts++
	if c.verdict == final {
		a.latency.add(took)
		if c.ok() {
			a.latencies.add(t.kind(), took)
		}

		a.stats.TokensIn.Add(c.content.Usage.Prompt)
		a.stats.TokensOut.Add(c.content.Usage.Completion)
		a.server.CountAnswer(c.content.Usage.Completion)
		c = a.checkAnswer(t, c, took)
	}

	if c.malformed != "" && c.malformed == t.malformed {
		c.verdict = final
	}

	t.malformed = c.malformed
	if c.overload {
		t.overloads++
	}

	a.stats.recordAttempt(took, c.reason)

	if c.verdict != final && t.attemptsUsed() < a.maxAttempts {
		a.retryLater(t, c)
		return
	}

	if t.truncated != nil && !c.ok() { // the first answer, truncated as it is, is better than none
		t.finish(*t.truncated, t.truncatedCost)
		return
	}

	t.finish(c.result, costOf(c, took))
}

// retryLater queues a task again for its next attempt.
func (a *attemptRunner) retryLater(t *task, c classification) {
	a.stats.Retries.Add(1)
	t.reasons = append(t.reasons, c.reason)

	run := t.shard.run.id
	wait := max(c.after, backoffDelay(t.attempts), a.budgets.Withdraw(run, time.Now()))
	if wait > failingServerWait {
		a.warnFailing(c)
	}

	a.log.Debug().Str("run", run).Uint32("index", t.Index).Str("reason", c.reason).Int("attempt", t.attempts).
		Dur("wait_ms", wait).Msg("request failed; retrying")
	a.requeueAfter(t, wait)
}

// checkAnswer checks an answer as the run's settings want it: whether it is complete, and whether
// it matches the schema. If not, the request is sent once more.
func (a *attemptRunner) checkAnswer(t *task, c classification, took time.Duration) classification {
	if !c.ok() {
		return c
	}

	run := t.shard.run
	a.budgets.Deposit(run.id)

	if run.moreTokens > 0 && c.content.Finish == "length" && t.truncated == nil {
		if body, ok := openai.RaiseTokenLimit(t.Body, run.moreTokens); ok {
			result := c.result
			result.Err = run.checkSchema(c) // it is kept if no later answer is better

			t.truncated, t.truncatedCost, t.Body = &result, costOf(c, took), body
			c.verdict, c.reason = retry, "length"
			return c
		}
	}

	mismatch := run.checkSchema(c)
	if mismatch == nil {
		return c
	}

	c.reason = proto.CodeSchemaMismatch
	c.result.Err = mismatch

	if !t.mismatched {
		t.mismatched = true
		c.verdict = retry
	}

	return c
}

// warnFailing logs, once in a while, that nearly all attempts fail.
func (a *attemptRunner) warnFailing(c classification) {
	if words, _ := a.failures.current(); words != "" {
		return // the log has a warning of it
	}

	if a.health.mayWarn(time.Now()) {
		a.log.Warn().Str("server", a.server.URL()).Str("error", c.describeFailure()).
			Msg("the model server fails more requests than it answers; retrying slowly")
	}
}

// requeueAfter queues a task again after a wait, or hands it back if the worker stops or its run
// is paused or has ended.
func (a *attemptRunner) requeueAfter(t *task, wait time.Duration) {
	if t.shard.run.paused.Load() || !a.queue.pushAfter(t, wait) {
		t.handBack()
	}
}
