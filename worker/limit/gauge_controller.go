package limit

import (
	"math"
	"slices"
	"time"
)

// Gauges are a server's figures about itself. They include other clients' requests.
type Gauges struct {
	// Running is the number of requests that are being computed.
	Running int
	// Waiting is the number of requests in the server's queue.
	Waiting int
	// KVUsage is the used part of the memory for running requests, 0 to 1; below 0: unknown.
	KVUsage float64
	// Preemptions is a counter of running requests that were put back into the queue for want
	// of memory.
	Preemptions float64
	// Tokens is a counter of generated tokens; below 0: unknown.
	Tokens float64
}

// Reading the gauges.
const (
	observeSoon  = 100 * time.Millisecond // between readings while the limit grows
	observeEvery = 500 * time.Millisecond // otherwise
	gaugesStale  = 5 * time.Second        // after this time without gauges the climber decides
	settleTime   = 500 * time.Millisecond // from a change of the limit to gauges that show it
)

// Growing by the gauges.
const (
	// freeGrowthLimit is the limit up to which it grows as fast as the gauges are read, as long as
	// nothing waits in the server: this many requests at once hardly harm any server, and a
	// queue shows at once. Beyond it each doubling has to bring more tokens. (TCP's slow start
	// works the same way: it doubles with each round trip until the first sign of a queue.
	// Jacobson, 1988.)
	freeGrowthLimit = 64

	// A doubling is judged after minDoubleTime if it brings much, which is fastGainDouble, and
	// after maxDoubleTime otherwise.
	minDoubleTime  = 300 * time.Millisecond
	maxDoubleTime  = 8 * time.Second
	fastGainDouble = 1.3

	maxKVUsage = 0.95 // part of the server's memory that the limit may fill
)

// Bound by the queue.
const (
	queueShare     = 0.05 // kept waiting, as a part of the running requests: a server must not lack a next request
	queueSampleGap = 400 * time.Millisecond
	firstGrowth    = 0.05 // first step up when the queue is found empty; it doubles with each further one

	preemptionCut   = 0.98            // factor applied to the limit when preemptions exceed preemptionShare
	preemptionShare = 0.20            // preempted part of the requests that is tolerated; each costs half a request
	preemptionPause = 5 * time.Second // between cuts: a running request fills its memory only gradually
	cautiousTime    = time.Minute     // after a cut the limit grows in small steps
)

// gaugeController moves the limit by the server's gauges. First the limit grows. Once requests
// wait in the server, it is bound by the queue, which stays short: the limit falls by the
// excess in the queue, and rises when the queue is empty.
type gaugeController struct {
	win     *window
	climber *climber

	ignored    bool // the gauges do not belong to one server
	queueBound bool // the server has had more requests than it runs
	keepEmpty  bool // no request is to wait in the server; see queueTrial

	// The last reading.
	readAt      time.Time
	hasTokens   bool // it had a counter of tokens
	pausedUntil time.Time

	// Our part of the server's queue, sampled every queueSampleGap.
	sampledAt time.Time
	running   int    // at the last sample
	queues    [4]int // the last samples, the newest first
	standing  int    // the least of queues and of the last reading
	empty     int    // samples in a row without a queue
	growth    float64

	// Preemptions since the counter had this value.
	preemptions float64
	ended       int // requests that ended meanwhile
	cutAt       time.Time

	// Tokens since the counter had this value, at the current limit.
	changedAt time.Time // of the limit
	tokens    float64
	tokensAt  time.Time
	hasStart  bool // tokens and tokensAt are set
}

// decidesNow reports whether the gauges decide on the limit now, in place of the rates measured on
// single answers.
func (g *gaugeController) decidesNow(now time.Time) bool {
	if g.readAt.IsZero() || now.Sub(g.readAt) >= gaugesStale {
		return false
	}
	return g.queueBound || g.climber.phase == growing && (g.hasTokens || g.win.limit < freeGrowthLimit)
}

// isGrowing reports whether each reading is a step of growth now: the limit is in use, or was
// raised just now.
func (g *gaugeController) isGrowing() bool {
	w := g.win
	if g.climber.phase != growing || g.queueBound || g.ignored {
		return false
	}
	return w.inFlight == 0 || w.inFlight >= w.limit-w.limit/10 || time.Since(g.changedAt) < 2*settleTime
}

// pauseUntil keeps the limit from growing for a while.
func (g *gaugeController) pauseUntil(until time.Time) { g.pausedUntil = until }

// recordReading records that there are gauges, and reports whether they are the first.
func (g *gaugeController) recordReading(now Gauges, at time.Time) (first bool) {
	first = g.readAt.IsZero()
	g.readAt, g.hasTokens = at, now.Tokens >= 0
	return first
}

// steerLimit moves the limit by a reading of the gauges.
func (g *gaugeController) steerLimit(now Gauges, first bool, at time.Time) {
	w := g.win

	// Our requests in the queue are our share of all that is at the server.
	share := 1.0
	if all := now.Running + now.Waiting; all > w.inFlight {
		share = float64(w.inFlight) / float64(all)
	}

	queue := int(math.Ceil(share * float64(now.Waiting)))
	want := max(1, int(queueShare*share*float64(now.Running)))
	if g.keepEmpty {
		want = 0
	}

	sampled, filling := g.sampleQueue(queue, now.Running, at)
	switch {
	case g.hasPreempted(now.Preemptions, first, at):
		g.cutLimit(now.Preemptions, at)
	case sampled && g.standing > want:
		if fit := w.inFlight - g.standing + want; !filling && fit < w.limit {
			g.bindToQueue()
			g.moveLimit(fit, at)
			g.queues = [4]int{} // the standing queue is gone
		}
	case queue > 0 && g.climber.phase == growing && g.standing == 0:
		// Requests that came all at once are on their way through the server's queue.
	case queue > 0:
		g.bindToQueue()
	case w.inFlight < w.limit-max(1, w.limit/20), at.Before(g.pausedUntil):
		// There is no demand for more, or it is too early.
	case g.climber.phase == growing && !g.queueBound:
		g.doubleLimit(now, at)
	case g.keepEmpty:
	case g.queueBound && sampled && g.empty > 1 && at.Sub(g.changedAt) >= settleTime:
		g.followQueue(now, at)
	}
}

// sampleQueue records our part of the queue, if it is time for a sample, and updates the
// standing queue. A queue comes and goes: its standing part is its minimum over some time (as
// CoDel distinguishes a bad queue from a good one, RFC 8289). filling reports whether the
// server still takes more requests than at the last sample.
func (g *gaugeController) sampleQueue(queue, running int, at time.Time) (sampled, filling bool) {
	filling = float64(running) > 1.02*float64(g.running)
	sampled = at.Sub(g.sampledAt) >= queueSampleGap
	if sampled {
		g.sampledAt, g.running = at, running
		copy(g.queues[1:], g.queues[:])
		g.queues[0] = queue
		if g.empty++; queue > 0 {
			g.empty = 0
		}
	}

	g.standing = min(queue, slices.Min(g.queues[:]))

	return sampled, filling
}

// hasPreempted reports whether the server preempts more requests than is worth it.
func (g *gaugeController) hasPreempted(counter float64, first bool, at time.Time) bool {
	limit := g.win.limit
	lost := counter - g.preemptions
	if first || lost < 0 || g.ended > max(2*limit, 100) {
		g.ended, g.preemptions = 0, counter
	}

	return !first && lost > 1 && lost > preemptionShare*float64(max(g.ended, limit/2)) &&
		at.Sub(g.cutAt) > preemptionPause
}

// cutLimit lowers the limit after preemptions.
func (g *gaugeController) cutLimit(preemptions float64, at time.Time) {
	g.ended, g.preemptions, g.cutAt = 0, preemptions, at
	g.bindToQueue()
	g.pausedUntil = at.Add(preemptionPause)
	g.moveLimit(int(preemptionCut*float64(g.win.limit)), at)
}

// isCautious reports whether there were preemptions a short time ago.
func (g *gaugeController) isCautious(now time.Time) bool { return now.Sub(g.cutAt) < cautiousTime }

// bindToQueue lets the queue decide from now on.
func (g *gaugeController) bindToQueue() {
	g.queueBound, g.growth = true, firstGrowth
	g.climber.phase = holding
}

// moveLimit sets the limit, which is the climber's new base.
func (g *gaugeController) moveLimit(n int, at time.Time) {
	g.changedAt, g.hasStart = at, false
	g.win.setLimit(min(n, g.win.highestLimit(at)), at)
	g.climber.base = g.win.limit
}

// followQueue raises the limit, since the server's queue is empty: a little at first, then more
// and more. After a doubling without a queue the limit grows again as at the start.
func (g *gaugeController) followQueue(now Gauges, at time.Time) {
	limit := g.win.limit
	factor := 1 + g.growth
	if now.KVUsage > 0 {
		factor = min(factor, max(1+firstGrowth/2, maxKVUsage/now.KVUsage))
	}

	if g.isCautious(at) {
		factor = 1 + firstGrowth/2
		g.pausedUntil = at.Add(preemptionPause / 2)
	} else if g.growth *= 2; g.growth > 1 {
		g.queueBound, g.growth = false, 0
		g.climber.phase, g.climber.rate = growing, 0
	}

	g.moveLimit(max(limit+1, int(factor*float64(limit))), at)
}

// doubleLimit doubles the limit while the server generates more for it.
func (g *gaugeController) doubleLimit(now Gauges, at time.Time) {
	w, c := g.win, g.climber
	if now.Running < w.inFlight-max(1, w.inFlight/10) {
		return // some requests are still on their way
	}

	if w.limit < freeGrowthLimit {
		g.growLimit(min(2*w.limit, freeGrowthLimit), now, at)
		return
	}

	if now.Tokens < 0 {
		return // the climber decides
	}

	if !g.hasStart {
		g.tokens, g.tokensAt, g.hasStart = now.Tokens, at, true
		return
	}

	passed := at.Sub(g.tokensAt)
	rate := (now.Tokens - g.tokens) / passed.Seconds()
	if passed < minDoubleTime || c.rate > 0 && rate < fastGainDouble*c.rate && passed < maxDoubleTime {
		return
	}

	if c.rate > 0 && rate < minGainDouble*c.rate {
		// The server has room for more requests, but makes no more of them. The climber
		// measures the rate at the base again, on single answers.
		c.startHolding(at)
		g.growth = firstGrowth
		g.moveLimit(c.base, at)
		return
	}

	c.rate = rate
	g.growLimit(2*w.limit, now, at)
}

// growLimit raises the limit as far as the server's memory allows.
func (g *gaugeController) growLimit(n int, now Gauges, at time.Time) {
	base := g.win.limit
	if now.KVUsage > 0 {
		n = min(n, int(maxKVUsage/now.KVUsage*float64(base)))
	}

	if n*20 < base*21 || base >= g.win.highestLimit(at) {
		g.climber.base = base
		g.climber.startHolding(at)
		g.growth = firstGrowth
		return
	}

	g.moveLimit(n, at)
	g.climber.base = base
}

// restart forgets the queue and the readings.
func (g *gaugeController) restart(now time.Time) {
	g.readAt, g.queues, g.empty, g.growth, g.queueBound = time.Time{}, [4]int{}, 0, firstGrowth, false
	g.changedAt, g.hasStart = now, false
}
