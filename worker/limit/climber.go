package limit

import (
	"math"
	"time"
)

// climbPhase is a phase of the climber.
type climbPhase int

const (
	growing climbPhase = iota // doubles it
	holding                   // keeps it at the base
	probing                   // tries whether another one is better
)

// Growing.
const (
	// minGainDouble is the least gain in rate for which a doubling is kept. A server whose
	// tokens per second rise as n/(n+h), as a batch's do, then gets to 97 % of its best rate.
	minGainDouble = 1.03
	// obviousGain shows at once that a server has room. A smaller gain may come from a queue
	// that is still filling up: its first requests hardly wait.
	obviousGain = 1.6
	// smallGain is less than the gain of a doubling on a server with room.
	smallGain = 1.2
)

// Probing.
const (
	// probeUp is the factor of a step up. It must bring minGainUp: a sixth of its gain on a
	// server with room.
	probeUp   = 1.125
	minGainUp = 1.006

	// probeDown is the factor of the smallest step down. It may cost nothing that can be seen:
	// at most 1-keptDown, or after a large step lossShareDown of its cost on a server
	// with room. All steps down together may not cost more than 1-keptDownAll of the best rate.
	probeDown     = 0.96
	keptDown      = 0.995
	lossShareDown = 0.05
	keptDownAll   = 0.99

	// maxProbeCost is the part of the rate that the probes that are taken back may cost, where
	// the base is at most fewRequests.
	maxProbeCost = 0.02
	fewRequests  = 16
)

// The climber's waits between probes that bring nothing. A probe of more is nearly free,
// a probe of less costs its part of the rate.
const (
	firstCooldown = 2 * time.Second
	upCooldown    = 20 * time.Second
	downCooldown  = 2 * time.Minute
)

// A round of measuring has at least as many requests as are in flight, and takes a minimum of
// requests and time.
const (
	minRoundRequests = 16
	minRoundTime     = 500 * time.Millisecond

	// Where a few percent count, a round lasts until the standard error of its rate is
	// relErrTarget, at most maxRoundFactor times as many requests or maxRoundTime.
	relErrTarget   = 0.01
	maxRoundFactor = 8
	maxRoundTime   = 15 * time.Second
)

// climber searches for the limit by the output rate of the server, measured on single
// answers. It doubles the limit while that brings more, and then tries a little less and a
// little more from time to time, since servers change: another client comes, prompts grow
// longer.
type climber struct {
	win *window

	phase climbPhase
	noisy bool // the answers come from several servers

	first     int     // limit at the start of the search
	base      int     // limit that is known to be good
	rate      float64 // at the base, averaged over some rounds; 0: not measured
	bestRate  float64 // the best of all rates, with a short memory
	oldRate   float64 // rate at the base before the server changed; 0: it has not
	downStep  float64 // factor of the next step down; it shrinks while steps down are kept
	higher    int     // a limit above the base that seemed to bring nothing; 0: none
	highRate  float64 // the rate at higher
	changedAt time.Time

	probedAt         time.Time // start of the current probe
	nextUp, nextDown time.Time
	waitUp, waitDown time.Duration
}

// endRound ends the round of measuring, if it has enough requests, and decides on the limit.
func (c *climber) endRound(now time.Time) {
	w := c.win
	if !c.isRoundOver(now) {
		return
	}

	if !w.isFilled() {
		w.startRound(now)
		return
	}

	rate := w.meter.rate()
	if !w.settled && (c.phase == probing || c.rate > 0 && rate < obviousGain*c.rate) {
		w.settled = true
		w.startRound(now)
		return
	}

	switch c.phase {
	case growing:
		c.doubleLimit(rate, now)
	case holding:
		c.holdBase(rate, now)
	case probing:
		c.endProbe(rate, now)
	}
}

// isRoundOver reports whether the round has enough requests to decide on.
func (c *climber) isRoundOver(now time.Time) bool {
	w, m := c.win, &c.win.meter
	need := max(w.limit, minRoundRequests)
	if m.requests < need || now.Sub(m.since) < minRoundTime {
		return false
	}

	// Behind a load balancer the replicas have more or fewer requests by chance, so that a few
	// requests say little.
	near := c.noisy && c.rate > 0 && m.rate() < smallGain*c.rate
	if c.phase == growing && !near || !w.settled {
		return true
	}

	return m.isPrecise(need, c.rateGap(m.rate()), now)
}

// rateGap returns how far a rate is from that of the base, as a part of it; 0 outside of a probe.
func (c *climber) rateGap(rate float64) float64 {
	if c.rate == 0 || c.phase != probing {
		return 0
	}
	return math.Abs(rate/c.rate - 1)
}

// doubleLimit doubles the limit if the last doubling brought enough, and otherwise returns to
// the base.
func (c *climber) doubleLimit(rate float64, now time.Time) {
	w := c.win
	if c.rate == 0 || rate >= minGainDouble*c.rate {
		c.base, c.rate = w.limit, rate
		if w.limit < w.highestLimit(now) {
			w.setLimit(min(2*w.limit, w.highestLimit(now)), now)
			return
		}
	}

	higher := w.limit
	c.startHolding(now)
	c.higher, c.highRate = higher, rate
	w.setLimit(c.base, now)
}

// holdBase records the rate at the base, and starts a probe if it is time.
func (c *climber) holdBase(rate float64, now time.Time) {
	w := c.win
	if c.rate == 0 && c.noisy && c.higher > c.base && c.highRate >= minGainDouble*rate {
		// The base looked better than it is, by the few requests that it was measured on.
		c.phase, c.base, c.rate = growing, c.higher, c.highRate
		w.setLimit(min(2*c.higher, w.highestLimit(now)), now)
		return
	}

	c.higher = 0
	if !c.recordBaseRate(rate, now) {
		w.startRound(now)
		return
	}

	c.startProbe(now)
}

// startHolding holds the limit at its base, whose rate is measured again.
func (c *climber) startHolding(now time.Time) {
	if c.phase == growing && c.base <= c.first {
		c.downStep = 0.5 // even the first limit was more than enough
	} else {
		c.downStep = probeDown
	}

	c.phase, c.rate, c.bestRate, c.higher = holding, 0, 0, 0
	c.waitUp, c.waitDown = firstCooldown, firstCooldown
	c.nextUp, c.nextDown = now.Add(c.waitUp), now
}

// coolDown holds the limit where it is: no probe up before one time, and none down before the
// other.
func (c *climber) coolDown(now, up, down time.Time) {
	down = laterOf(c.nextDown, down)
	c.startHolding(now)
	c.nextUp, c.nextDown = up, down
}

// laterOf returns the later of two times.
func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// recordBaseRate records a rate that was measured at the base. It returns false when the server
// has changed since the last round: then this rate is a mixture of before and after.
func (c *climber) recordBaseRate(rate float64, now time.Time) bool {
	if c.rate == 0 {
		if c.oldRate > 0 && rate >= 0.9*c.oldRate { // the server is as before, or faster
			c.downStep, c.nextUp = probeDown, time.Time{}
			c.nextDown = laterOf(c.nextDown, c.changedAt.Add(upCooldown))
		}
		c.rate, c.bestRate, c.oldRate = rate, rate, 0
		return true
	}

	if rate < 0.8*c.rate || rate > 1.25*c.rate {
		c.rate, c.bestRate, c.oldRate, c.changedAt = 0, 0, c.rate, now
		c.waitUp, c.waitDown = firstCooldown, firstCooldown
		c.downStep, c.nextDown = 0.5, time.Time{}
		return false
	}

	c.rate += (rate - c.rate) / 3
	c.bestRate = max(c.rate, 0.999*c.bestRate)

	return true
}

// startProbe tries another limit, if it is time.
func (c *climber) startProbe(now time.Time) {
	w := c.win
	c.base = w.limit

	want := 0
	switch {
	case !now.Before(c.nextDown) && w.limit > w.min:
		want = min(w.limit-1, int(float64(w.limit)*c.downStep))
	case !now.Before(c.nextUp) && w.limit < w.highestLimit(now):
		want = min(w.highestLimit(now), max(w.limit+1, int(float64(w.limit)*probeUp)))
	}

	if want == 0 {
		w.startRound(now)
		return
	}

	c.phase, c.probedAt = probing, now
	w.setLimit(want, now)
}

// endProbe keeps the limit that was tried, or returns to the base.
func (c *climber) endProbe(rate float64, now time.Time) {
	w := c.win
	switch isUp := w.limit > c.base; {
	case isUp && rate >= minGainUp*c.rate:
		c.phase, c.base, c.rate = growing, w.limit, rate
		w.setLimit(2*w.limit, now)
		return
	case isUp:
		c.waitUp = min(2*c.waitUp, upCooldown)
		c.nextUp = now.Add(c.waitUp)
	case c.isFreeStepDown(rate):
		c.phase, c.base, c.rate = holding, w.limit, rate
		c.downStep = min(c.downStep, max(0.7, c.downStep*c.downStep))
		c.waitDown, c.nextDown = firstCooldown, now
		w.startRound(now)
		c.startProbe(now)
		return
	case c.downStep < probeDown: // the step was too large, or it only looked so: try a smaller one
		c.downStep = min(probeDown, math.Sqrt(c.downStep))
		c.nextDown = now.Add(max(firstCooldown, c.probeInterval(rate, now)))
	default:
		c.waitDown = min(3*c.waitDown, downCooldown)
		c.nextDown = now.Add(max(c.waitDown, c.probeInterval(rate, now)))
	}

	c.phase = holding
	w.setLimit(c.base, now)
}

// isFreeStepDown reports whether a step down has cost nothing that counts.
func (c *climber) isFreeStepDown(rate float64) bool {
	stepped := 1 - float64(c.win.limit)/float64(c.base)
	return rate >= c.rate*min(keptDown, 1-lossShareDown*stepped) && rate >= keptDownAll*c.bestRate
}

// probeInterval returns how long to wait after a probe that brought less: where few requests
// are in flight, one less is a large part.
func (c *climber) probeInterval(rate float64, now time.Time) time.Duration {
	if c.base > fewRequests {
		return 0
	}
	return min(downCooldown, time.Duration((1-rate/c.rate)/maxProbeCost*float64(now.Sub(c.probedAt))))
}

// restart starts the search again from the base.
func (c *climber) restart() {
	if c.phase != probing {
		c.base = max(c.base, c.win.limit)
	}
	c.phase, c.rate, c.bestRate = growing, 0, 0
}
