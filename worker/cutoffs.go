package worker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/limit"
)

// A proxy or a load balancer in front of a model server waits only so long for an answer.
// Then it says 504, or closes the connection, and the server has worked for nothing: each
// such attempt costs as much as an answer. Attempts that end so after the same time, while
// no answer takes longer, tell that there is such a limit. From then on:
//
//   - What is cut off is put aside until nothing else is left, and is then sent again with
//     fewer at once: a server with fewer requests answers each of them sooner. What is cut
//     off with few at once, too, fails and says why.
//   - If nothing is answered at all, the smallest of those put aside is sent alone. If that
//     is cut off too, none will come through: all go back to the bus, and the run stops, or
//     the worker waits, as for a server that refuses all. The same goes for a run that has
//     had answers, when many in a row are cut off at first, and many once more. Where others
//     are answered still, those that were sent again fail.
//   - A proxy takes a server out that it has waited for in vain (nginx: max_fails), and says
//     502. That is no sign that the server has died, and costs no attempt.

const (
	cutLeast  = time.Second            // what ends sooner ends for another reason
	cutSame   = 0.05                   // of them, at most, two times may be apart that count as the same
	cutJitter = 100 * time.Millisecond // which they may always be apart
	cutSeen   = 3                      // as many tell
	cutKept   = 16                     // that are compared
	cutTries  = 3                      // of a request
	cutNever  = 8                      // cut off, with no answer ever, before one is sent alone
	cutAgain  = 32                     // cut off once more, with no answer between, before that
	cutSpared = 20                     // attempts of a request that a proxy has no server for, at no cost
	cutSettle = 2 * time.Second
	cutStill  = 10 * time.Minute // without trying more at once, where that did not do
	cutMarked = time.Minute      // so long a proxy may take the server out: nginx 10 s, others longer
)

// cutHint says what to do about answers that are cut off.
const cutHint = "raise its time limit (nginx: proxy_read_timeout, haproxy: timeout server, caddy: response_header_timeout and read_timeout, " +
	"Traefik: responseHeaderTimeout, AWS ALB: idle timeout, 60 s by default), give the model server's own address as --url, " +
	"or ask for shorter answers: --set max_tokens=N"

// cutOffText says that answers are cut off.
func cutOffText(after time.Duration) string {
	digits := 0
	if after < 10*time.Second {
		digits = 1
	}
	return fmt.Sprintf("something in front of the model server cuts answers off after %.*f s", digits, after.Seconds())
}

// cutoffs are the attempts that something in front of the server has cut off.
type cutoffs struct {
	n     atomic.Int64 // tasks put aside
	open  atomic.Int64 // tasks that were cut off and have not ended
	after atomic.Int64 // the [time.Duration] that is left for an answer; 0: no limit is known
	watch atomic.Bool  // there is a limit, or there are times that may show one
	waits atomic.Bool  // nothing else is sent until one has been sent alone
	most  atomic.Int64 // requests at once; 0: as many as the limiter says

	mu      sync.Mutex
	ages    []time.Duration // that may show a limit
	latest  time.Time       // when the latest was cut off
	row     int             // cut off, with no answer between
	again   int             // of these, not for the first time
	first   []time.Time     // when the latest began that were cut off for the first time
	aside   []*task
	closed  bool
	probing bool      // one is sent alone now
	refused bool      // all were cut off before
	changed time.Time // when most was set
	good    int       // answers to requests that began after that
	cut     int       // cut off, of these
	fewer   bool      // most is for what was cut off before, and only for that
	fell    bool      // most has gone down since then
	proven  int       // with so many at once none was cut off
	still   time.Time // until then most does not go up
}

// sameDuration reports whether two times are the same, as time limits go.
func sameDuration(a, b time.Duration) bool {
	return (a - b).Abs() <= max(cutJitter, time.Duration(cutSame*float64(min(a, b))))
}

// is reports whether an attempt that ended without an answer was cut off, if a limit is known.
// timeout says that something said so.
func (c *cutoffs) is(took time.Duration, timeout bool) bool {
	after := time.Duration(c.after.Load())
	return after > 0 && (sameDuration(after, took) || timeout && took > after)
}

// note takes in an attempt that ended without an answer, and may have been cut off. It
// reports whether it was, and whether that is news.
func (c *cutoffs) note(begin time.Time, took time.Duration, timeout bool) (cut, news bool) {
	if took < cutLeast {
		return false, false
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	if timeout || c.after.Load() > 0 {
		c.latest = time.Now()
	}

	if c.is(took, timeout) {
		c.count(begin, true)
		return true, false
	}

	c.watch.Store(true)
	if len(c.ages) == cutKept {
		c.ages = c.ages[1:]
	}

	c.ages = append(c.ages, took)
	sorted := slices.Sorted(slices.Values(c.ages))
	for i := 0; i+cutSeen <= len(sorted); i++ {
		if first, last := sorted[i], sorted[i+cutSeen-1]; sameDuration(first, last) && first <= took && took <= last {
			c.after.Store(int64(first))
			c.ages, c.latest, c.row = nil, time.Now(), cutSeen-1
			c.count(begin, true)
			return true, true
		}
	}

	return false, false
}

// answered takes in an answer. One that took longer than what was cut off shows that there is
// no such limit, or none any more: it returns whether one was known. This is in the way of
// each answer.
func (c *cutoffs) answered(begin time.Time, took time.Duration) (forgotten bool) {
	if !c.watch.Load() {
		return false
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	c.ages = slices.DeleteFunc(c.ages, func(age time.Duration) bool { return age < took })
	c.count(begin, false)

	after := time.Duration(c.after.Load())
	if forgotten = after > 0 && took > after && !sameDuration(after, took); forgotten {
		c.after.Store(0)
		c.most.Store(0)
		c.refused = false
	}

	c.watch.Store(c.after.Load() > 0 || len(c.ages) > 0)

	return forgotten
}

// count counts an attempt that was cut off or answered, and moves the number of requests at
// once, if that is held down: up while none is cut off, down if most are. Whoever calls it
// holds the lock.
func (c *cutoffs) count(begin time.Time, cut bool) {
	if c.row++; !cut {
		c.row, c.again = 0, 0
	}

	most := int(c.most.Load())
	if most == 0 || begin.Before(c.changed) {
		return
	}

	if cut {
		c.cut++
	} else {
		c.good++
	}

	if c.good+c.cut < max(4, most) {
		return
	}

	now := time.Now()
	switch {
	case c.cut > 0 && c.proven > 0 && most > c.proven:
		most, c.fell, c.still = c.proven, true, now.Add(cutStill)
	case c.cut > c.good:
		most, c.fell = max(1, most/2), true
	case c.cut == 0:
		c.proven = max(c.proven, most)
		switch {
		case now.Before(c.still):
		case c.fell:
			most += max(1, most/4)
		default:
			most *= 2
		}
	}

	c.most.Store(int64(most))
	c.changed, c.good, c.cut = now, 0, 0
}

// hold lets no more than most requests be at the server at once, for a while at least.
// Whoever calls it holds the lock.
func (c *cutoffs) hold(most int, still time.Duration) {
	c.most.Store(int64(most))
	c.changed, c.good, c.cut = time.Now(), 0, 0
	c.fewer, c.fell, c.proven, c.still = false, false, 0, c.changed.Add(still)
}

// full reports whether no more requests may be sent now.
func (c *cutoffs) full(l *limit.Limiter) bool {
	if c.waits.Load() {
		return true
	}

	most := c.most.Load()
	switch {
	case most == 0:
		return false
	case most > int64(l.Limit()): // it holds nothing down any more
		c.most.CompareAndSwap(most, 0)
		return false
	}

	return l.InFlight() >= int(most)
}

// cutFirst notes that a task was cut off for the first time, in an attempt that began at a time.
func (c *cutoffs) cutFirst(begin time.Time) {
	c.open.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.first) == cutAgain {
		c.first = c.first[1:]
	}
	c.first = append(c.first, begin)
}

// ended notes that a task has got its result, or goes back to the bus.
func (c *cutoffs) ended(t *task) {
	if t.cutOffs > 0 {
		c.open.Add(-1)
	}
}

// recent reports whether something was cut off a short time ago.
func (c *cutoffs) recent(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.latest.IsZero() && now.Sub(c.latest) < cutMarked
}

// put puts a task aside. It returns false after close.
func (c *cutoffs) put(t *task) bool {
	c.mu.Lock()
	defer c.mu.Unlock()

	if t.cutOffs > 1 {
		c.again++
	}

	if c.closed {
		return false
	}

	c.aside = append(c.aside, t)
	c.n.Store(int64(len(c.aside)))

	return true
}

// take takes out the tasks of which wanted is true.
func (c *cutoffs) take(wanted func(*task) bool) (out []*task) {
	c.mu.Lock()
	defer c.mu.Unlock()

	c.aside = slices.DeleteFunc(c.aside, func(t *task) bool {
		if wanted(t) {
			out = append(out, t)
			return true
		}
		return false
	})

	c.n.Store(int64(len(c.aside)))

	return out
}

// close takes out all, and lets none in any more.
func (c *cutoffs) close() []*task {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	return c.take(func(*task) bool { return true })
}

// recordCutOff reports whether an attempt that ended without an answer was cut off, and says so once.
func (w *Worker) recordCutOff(j classification, begin time.Time, took time.Duration) bool {
	cut, news := w.cutoffs.note(begin, took, isTimeoutStatus(j.result.Status))
	if news {
		w.cfg.Log.Warn().Str("server", w.cfg.Server.URL()).Str("hint", cutHint).
			Msg(cutOffText(time.Duration(w.cutoffs.after.Load())) +
				"; what is cut off is sent again at the end, with fewer at once")
	}
	return cut
}

// setCutOffAside puts a task aside that was cut off, or gives it up.
func (w *Worker) setCutOffAside(t *task, j classification, begin time.Time, took time.Duration) {
	w.health.recordProgress(time.Now()) // the server may well have been at work
	t.attempts++

	if t.cutOffs++; t.cutOffs == 1 {
		w.cutoffs.cutFirst(begin)
	}

	w.stats.recordAttempt(took, proto.CodeCutOff)

	few := w.cutoffs.most.Load()
	if t.cutOffs >= cutTries && few > 0 && int(few) <= w.fewestAtOnce() || t.attemptsUsed() >= w.cfg.Attempts {
		t.finish(w.cutResult(t, j), took)
		return
	}

	w.stats.Retries.Add(1)
	t.reasons = append(t.reasons, proto.CodeCutOff)

	if !w.cutoffs.put(t) {
		t.handBack()
		return
	}

	if w.cutsOffEverything(false) {
		w.cutoffs.waits.Store(true)
	}

	if t.shard.run.paused.Load() { // perhaps since a moment; others may have taken it out
		for _, t := range w.cutoffs.take(func(other *task) bool { return other == t }) {
			t.handBack()
		}
	}

	w.fetchWake.notify()
}

// cutResult is what becomes of a task that is given up: the answer that it had, or why it has none.
func (w *Worker) cutResult(t *task, j classification) proto.Result {
	if t.truncated != nil {
		return *t.truncated
	}

	last := fmt.Sprint("status ", j.result.Status)
	if j.result.Err != nil {
		last = j.result.Err.Message
	}

	return proto.Result{Err: &proto.ResultError{
		Code:    proto.CodeCutOff,
		Message: fmt.Sprintf("%s, this one %d times: %s", cutOffText(time.Duration(w.cutoffs.after.Load())), t.cutOffs, last),
	}}
}

// fewestAtOnce is how many at once are the last that is tried.
func (w *Worker) fewestAtOnce() int { return max(1, w.cfg.Limiter.Limit()/8) }

// cutsOffEverything reports whether nothing comes through any more, as far as can be told with many at
// once. alone says that nothing else is left.
func (w *Worker) cutsOffEverything(alone bool) bool {
	c := &w.cutoffs
	c.mu.Lock()
	row, again, refused := c.row, c.again, c.refused
	c.mu.Unlock()
	if again >= cutAgain {
		return true
	}

	sample := w.refusals.sample.Load()
	never := len(w.cfg.Samples) == 0 && (sample == nil || !sample.answered)

	return never && row > 0 && (alone || refused || row >= cutNever)
}

// retryCutOffs sends again what was cut off, when it is time for that.
func (w *Worker) retryCutOffs() {
	c := &w.cutoffs
	c.mu.Lock()
	n, probing := len(c.aside), c.probing
	settled := time.Since(c.latest) > cutSettle
	c.mu.Unlock()
	if probing {
		return
	}

	if n == 0 {
		c.waits.Store(false)
		if c.open.Load() == 0 {
			c.letGo()
		}
		return
	}

	// Nothing else is left, and nothing is on its way.
	alone := settled && w.held.load() == int64(n)+w.refusals.n.Load()
	stuck := w.cutsOffEverything(alone)
	c.waits.Store(stuck)

	if w.stats.InFlight.Load() > 0 || w.Down() {
		return
	}

	switch {
	case stuck:
		w.startCutOffProbe()
	case alone:
		w.sendFewer()
	}
}

// sendFewer sends what was cut off once more, half as many at once as before, and at last an
// eighth.
func (w *Worker) sendFewer() {
	c := &w.cutoffs
	c.mu.Lock()

	most := w.fewestAtOnce()
	if slices.ContainsFunc(c.aside, func(t *task) bool { return t.cutOffs == 1 }) {
		most = max(1, w.cfg.Limiter.Limit()/2)
	}

	c.hold(most, cutStill)
	c.fewer = true
	c.mu.Unlock()
	w.releaseCutOffs()
}

// letGo lets as many requests be at the server as the limiter says, after what was cut off has
// been sent with fewer at once.
func (c *cutoffs) letGo() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fewer {
		c.fewer = false
		c.most.Store(0)
	}
}

// releaseCutOffs queues all that was put aside.
func (w *Worker) releaseCutOffs() {
	for _, t := range w.cutoffs.take(func(*task) bool { return true }) {
		w.requeueAfter(t, 0)
	}
}

// startCutOffProbe sends the smallest of what was cut off alone.
func (w *Worker) startCutOffProbe() {
	c := &w.cutoffs
	var t *task
	c.mu.Lock()

	for _, other := range c.aside {
		if t == nil || len(other.Body) < len(t.Body) {
			t = other
		}
	}

	c.probing = t != nil
	c.mu.Unlock()

	if t != nil && len(c.take(func(other *task) bool { return other == t })) == 1 {
		w.attempts.Go(func() { w.runCutOffProbe(t) })
		return
	}

	c.mu.Lock()
	c.probing = false // it was taken out by others
	c.mu.Unlock()
}

// endProbe lets requests through again, most at once.
func (c *cutoffs) endProbe(most int) {
	c.mu.Lock()
	c.probing, c.row, c.again = false, 0, 0
	c.hold(most, 0)
	c.mu.Unlock()
	c.waits.Store(false)
}

// runCutOffProbe sends a task with nothing beside it, and decides whether anything comes through.
func (w *Worker) runCutOffProbe(t *task) {
	begin, calls, era := time.Now(), t.shard.run.requests, w.health.epoch()
	call, cancel := context.WithTimeout(t.shard.run.requestsIn(era), w.cfg.Timeout)
	w.stats.InFlight.Add(1)
	j := classify(t.URL, t.Body, w.cfg.Server.Post(call, t.URL, t.Body))
	w.stats.InFlight.Add(-1)
	cancel()
	took := time.Since(begin)

	c := &w.cutoffs
	switch {
	case j.result.Status == 0 && calls.Err() != nil: // the end of the run, or of the grace period
		t.handBack()
		c.mu.Lock()
		c.probing = false
		c.mu.Unlock()
	case j.verdict == retry && j.cut && c.is(took, isTimeoutStatus(j.result.Status)):
		w.giveUpCutOffs(t, j)
	case j.verdict == unsent, j.cut && took < cutLeast, j.result.Status == 0 && era.Err() != nil:
		// there is no server just now
		if era.Err() == nil {
			w.probeServer(calls)
		}

		if !c.put(t) {
			t.handBack()
		}

		c.mu.Lock()
		c.probing = false
		c.mu.Unlock()
	default: // with fewer at once, some come through
		c.endProbe(max(1, w.cfg.Limiter.Limit()/4))
		w.releaseCutOffs()
		w.decideNext(calls, t, j, begin, took)
	}
}

// cutsOffNewRequests reports whether the latest of those that were sent for the first time were all cut off.
func (w *Worker) cutsOffNewRequests() bool {
	passed := w.made.Add(time.Duration(w.refusals.latest.Load()))
	c := &w.cutoffs
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.first) == cutAgain &&
		!slices.ContainsFunc(c.first, func(begin time.Time) bool { return !begin.After(passed) })
}

// giveUpCutOffs goes on when not even one request alone came through: a run stops, and a worker
// waits. One that has had answers gives up those that were tried with fewer at once; so does a
// run where others that were sent for the first time come through: these take too long each by
// itself.
func (w *Worker) giveUpCutOffs(t *task, j classification) {
	c := &w.cutoffs
	err := &RefusedError{
		Server:   w.cfg.Server.URL(),
		Path:     t.URL,
		Status:   j.result.Status,
		CutAfter: time.Duration(c.after.Load()),
	}

	s := w.refusals.sample.Load()
	answers := s != nil && s.answered
	if w.cfg.StopRefused && (!answers || w.cutsOffNewRequests()) {
		w.stop(err) // nothing is sent any more
		t.handBack()
		return
	}

	if answers {
		t.attempts++
		t.cutOffs++ // not for the first time
		for _, t := range append(c.take(func(t *task) bool { return t.cutOffs > 1 }), t) {
			t.finish(w.cutResult(t, j), 0)
		}

		c.endProbe(max(1, w.cfg.Limiter.Limit()/2))
		return
	}

	t.handBack()
	w.markRefusing(err)
	c.endProbe(1)
	c.mu.Lock()
	c.refused = true
	c.mu.Unlock()
}
