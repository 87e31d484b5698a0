package worker

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/promptmill/promptmill/worker/limit"
)

// A proxy or a load balancer in front of a model server waits only for a limited time for an
// answer. Then it sends 504, or closes the connection, and the server has worked for nothing: each
// such attempt costs as much as an answer. Attempts that end so after the same time, while no
// answer takes longer, show such a time limit. From then on:
//
//   - A request that is cut off is set aside until nothing else is left, and is then sent again
//     with fewer at once: a server with fewer requests answers each of them sooner. A request
//     that is cut off also with few at once fails and reports why.
//   - If nothing is answered at all, the smallest of those set aside is sent alone. If that is
//     cut off too, none will come through: all go back to the bus, and the run stops, or the
//     worker waits, as for a server that refuses all. The same holds for a run that has had
//     answers, when many in a row are cut off at first, and many once more. Where others are
//     still answered, those that were sent again fail.
//   - A proxy takes a server out that it has waited for in vain (nginx: max_fails), and sends
//     502. That is no sign that the server has died, and costs no attempt.

const (
	// cutOffTries is the number of attempts of a request that may be cut off.
	cutOffTries = 3
	// cutOffsBeforeProbe is the number of attempts cut off, with no answer ever, before one
	// request is sent alone.
	cutOffsBeforeProbe = 8
	// repeatedCutOffsBeforeProbe is the number of requests cut off more than once, with no answer
	// between, before that.
	repeatedCutOffsBeforeProbe = 32
	// proxyDownTime is the time for which a proxy may take the server out: nginx 10 s, others
	// longer.
	proxyDownTime = time.Minute
)

// cutOffFix is the fix for answers that are cut off.
const cutOffFix = "raise its time limit (nginx: proxy_read_timeout, haproxy: timeout server, " +
	"caddy: response_header_timeout and read_timeout, Traefik: responseHeaderTimeout, " +
	"AWS ALB: idle timeout, 60 s by default), give the model server's own address as --url, " +
	"or ask for shorter answers: --set max_tokens=N"

// cutOffText says after which time answers are cut off.
func cutOffText(after time.Duration) string {
	digits := 0
	if after < 10*time.Second {
		digits = 1
	}
	return fmt.Sprintf("something in front of the model server cuts answers off after %.*f s", digits, after.Seconds())
}

// cutoffs holds the requests that something in front of the server has cut off, and the
// evidence from the attempts.
type cutoffs struct {
	limiter    *limit.Limiter
	admissions *admissions
	changes    *broadcast // of n, and of whether requests may be sent
	// hasSamples is true if a server has answered requests of the run before.
	hasSamples bool

	// n is the number of tasks set aside.
	n atomic.Int64
	// open is the number of tasks that were cut off and have not ended.
	open atomic.Int64
	// blocked is true if nothing else is sent until one request was sent alone.
	blocked atomic.Bool

	// mu guards the fields below, and those of detector and throttle that are not atomic.
	mu       sync.Mutex
	detector cutoffDetector
	throttle cutoffThrottle
	// inRow is the number of attempts cut off since the last answer, and repeatedInRow the
	// number of these that were not the first of their request.
	inRow, repeatedInRow int
	// firstBegins has the start times of the latest requests that were cut off for the first time.
	firstBegins []time.Time
	aside       []*task
	closed      bool
	// probing is true while one request is sent alone.
	probing bool
	// provenTotal is true once a request that was sent alone was cut off.
	provenTotal bool
}

// recordLost records an attempt that ended without an answer, and may have been cut off. timedOut
// is true if its status is that of a time limit. It reports whether the attempt was cut off, and
// whether that is the first to show the limit.
func (c *cutoffs) recordLost(begin time.Time, took time.Duration, timedOut bool) (cut, isNew bool) {
	c.mu.Lock()
	defer c.mu.Unlock()

	cut, isNew = c.detector.recordLost(took, timedOut)
	if isNew {
		c.inRow = cutOffsToDetect - 1
	}

	if cut {
		c.inRow++
		c.throttle.record(begin, true)
	}

	return cut, isNew
}

// recordAnswer records an answer, and reports whether it shows that a limit which was known is
// none, or none any more. Each answer calls it.
func (c *cutoffs) recordAnswer(begin time.Time, took time.Duration) (limitGone bool) {
	if !c.detector.watching.Load() {
		return false
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	limitGone = c.detector.recordAnswer(took)
	c.inRow, c.repeatedInRow = 0, 0
	c.throttle.record(begin, false)

	if limitGone {
		c.throttle.clearLimit()
		c.provenTotal = false
	}

	c.changes.notify()

	return limitGone
}

// recordFirst records that a task was cut off for the first time, in an attempt that began at a
// time.
func (c *cutoffs) recordFirst(begin time.Time) {
	c.open.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()

	if len(c.firstBegins) == repeatedCutOffsBeforeProbe {
		c.firstBegins = c.firstBegins[1:]
	}

	c.firstBegins = append(c.firstBegins, begin)
}

// recordEnd records that a task has got its result, or goes back to the bus.
func (c *cutoffs) recordEnd(t *task) {
	if t.cutOffs > 0 {
		c.open.Add(-1)
	}
}

// timeLimit returns the time after which answers are cut off; 0: none is known.
func (c *cutoffs) timeLimit() time.Duration { return time.Duration(c.detector.limit.Load()) }

// matchesLimit reports whether an attempt that ended without an answer was cut off.
func (c *cutoffs) matchesLimit(took time.Duration, timedOut bool) bool {
	return c.detector.matchesLimit(took, timedOut)
}

// isRecent reports whether something was cut off so short a time ago that a proxy may have taken
// the server out for it.
func (c *cutoffs) isRecent(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.detector.latest.IsZero() && now.Sub(c.detector.latest) < proxyDownTime
}

// isFull reports whether no more requests may be sent now.
func (c *cutoffs) isFull() bool { return c.blocked.Load() || c.throttle.isFull(c.limiter) }

// setBlocked sets whether nothing is sent until one request was sent alone.
func (c *cutoffs) setBlocked(blocked bool) {
	if c.blocked.Swap(blocked) != blocked {
		c.changes.notify()
	}
}

// recordFreedSlot wakes the goroutines that wait for the throttle, after an attempt has ended.
func (c *cutoffs) recordFreedSlot() {
	if c.throttle.limit.Load() > 0 {
		c.changes.notify()
	}
}

// fewestAtOnce returns the lowest concurrency that is tried.
func (c *cutoffs) fewestAtOnce() int { return max(1, c.limiter.Limit()/8) }

// isHopeless reports whether a task that was cut off fails, since it was tried with the lowest
// concurrency.
func (c *cutoffs) isHopeless(t *task) bool {
	limit := int(c.throttle.limit.Load())
	return t.cutOffs >= cutOffTries && limit > 0 && limit <= c.fewestAtOnce()
}

// cutsOffAll reports whether nothing comes through any more, as far as that shows with many
// requests at once. nothingElse is true if only the requests set aside are left.
func (c *cutoffs) cutsOffAll(nothingElse bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()

	if c.repeatedInRow >= repeatedCutOffsBeforeProbe {
		return true
	}

	neverAnswered := !c.hasSamples && !c.admissions.hasAnswer()

	return neverAnswered && c.inRow > 0 && (nothingElse || c.provenTotal || c.inRow >= cutOffsBeforeProbe)
}

// cutsOffFirstAttempts reports whether the latest requests that were sent for the first time were
// all cut off.
func (c *cutoffs) cutsOffFirstAttempts() bool {
	admitted, _ := c.admissions.latestBegin()

	c.mu.Lock()
	defer c.mu.Unlock()

	return len(c.firstBegins) == repeatedCutOffsBeforeProbe &&
		!slices.ContainsFunc(c.firstBegins, func(begin time.Time) bool { return !begin.After(admitted) })
}

// add sets a task aside. It returns false, and does not keep it, after close.
func (c *cutoffs) add(t *task) bool {
	c.mu.Lock()
	defer c.mu.Unlock()

	if t.cutOffs > 1 {
		c.repeatedInRow++
	}

	if c.closed {
		return false
	}

	c.aside = append(c.aside, t)
	c.n.Store(int64(len(c.aside)))
	c.changes.notify()

	return true
}

// take removes the tasks for which wanted returns true, and returns them.
func (c *cutoffs) take(wanted func(*task) bool) (taken []*task) {
	c.mu.Lock()
	defer c.mu.Unlock()

	taken, c.aside = extractFunc(c.aside, wanted)

	c.n.Store(int64(len(c.aside)))

	return taken
}

// surveyAside returns the number of tasks set aside, when something was last cut off, and whether
// a task is sent alone now.
func (c *cutoffs) surveyAside() (n int, latest time.Time, probing bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.aside), c.detector.latest, c.probing
}

// takeAll removes all tasks, and returns them.
func (c *cutoffs) takeAll() []*task { return c.take(func(*task) bool { return true }) }

// takeTask removes a task. It returns false if another goroutine has taken it.
func (c *cutoffs) takeTask(t *task) bool {
	return len(c.take(func(other *task) bool { return other == t })) == 1
}

// close returns all tasks, and keeps no more from now on.
func (c *cutoffs) close() []*task {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()

	return c.takeAll()
}

// beginProbe removes the smallest task, to send it alone, and returns it; nil if there is none.
func (c *cutoffs) beginProbe() *task {
	c.mu.Lock()
	defer c.mu.Unlock()

	if len(c.aside) == 0 {
		return nil
	}

	smallest := slices.MinFunc(c.aside, func(a, b *task) int { return len(a.Body) - len(b.Body) })
	c.aside = slices.DeleteFunc(c.aside, func(t *task) bool { return t == smallest })
	c.n.Store(int64(len(c.aside)))
	c.probing = true

	return smallest
}

// abortProbe records that the request which was sent alone has shown nothing.
func (c *cutoffs) abortProbe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.probing = false
}

// endProbe lets requests through again, limit at once. provenTotal is true if even the request
// that was sent alone was cut off.
func (c *cutoffs) endProbe(limit int, provenTotal bool) {
	c.mu.Lock()
	c.probing, c.inRow, c.repeatedInRow = false, 0, 0
	c.throttle.setLimit(limit, 0)

	if provenTotal {
		c.provenTotal = true
	}

	c.mu.Unlock()

	c.blocked.Store(false)
	c.changes.notify()
}

// throttleAside lowers the concurrency for the tasks set aside: to half of the limiter's for tasks
// that were cut off once, and at last to an eighth.
func (c *cutoffs) throttleAside() {
	c.mu.Lock()
	defer c.mu.Unlock()

	limit := c.fewestAtOnce()
	if slices.ContainsFunc(c.aside, func(t *task) bool { return t.cutOffs == 1 }) {
		limit = max(1, c.limiter.Limit()/2)
	}

	c.throttle.setLimit(limit, throttleHoldTime)
	c.throttle.forAside = true
}

// liftThrottle ends the throttle that was set for the tasks set aside.
func (c *cutoffs) liftThrottle() {
	c.mu.Lock()
	defer c.mu.Unlock()

	if c.throttle.forAside {
		c.throttle.forAside = false
		c.throttle.clearLimit()
		c.changes.notify()
	}
}
