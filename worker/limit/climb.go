package limit

import (
	"math"
	"time"
)

// Without gauges the limit climbs on what the server produces. It doubles while that
// pays, and then tries a little less and a little more from time to time, since servers
// change: another client comes, prompts grow longer.

// phase is what the limit does.
type phase int

const (
	growing phase = iota // doubles
	holding              // stays where it is good
	probing              // tries whether another is better
)

const (
	// pays is what a doubling must bring to be kept. A server whose tokens a second come
	// as n/(n+h), as a batch's do, then gets to 97% of what it can.
	pays = 1.03
	// clear is what shows at once that a server has room. Less may come of a queue that
	// is still filling up: its first requests hardly wait.
	clear = 1.6
	// nearly is less than what a doubling brings where it clearly pays.
	nearly = 1.2
	// A step up must bring a sixth of what it would on a server with room.
	stepUp   = 1.125
	paysUp   = 1.006
	stepDown = 0.96
	// A step down may cost nothing that can be seen: this, or after a large step a
	// twentieth of what it would on a server with room. All steps down together may not
	// cost more than costsAll of the best.
	costsDown  = 0.995
	costsShare = 0.05
	costsAll   = 0.99
	// Nor may the probes that are taken back cost more than this part, where it is a few.
	costsProbes = 0.02
	aFew        = 16
)

// How long the limit rests between tries that bring nothing. A try of more is nearly
// free, a try of less costs what it takes away.
const (
	restFirst = 2 * time.Second
	restUp    = 20 * time.Second
	restDown  = 2 * time.Minute
)

// A round of measuring has as many requests as are in flight, at least some, and takes
// some time.
const (
	roundRequests = 16
	roundTime     = 500 * time.Millisecond
	// Where a few percent count, a round goes on until it is sure of them, within reason.
	sure      = 0.01
	maxRounds = 8
	longRound = 15 * time.Second
)

// climb is where the limit stands on its way.
type climb struct {
	phase phase
	first int     // the limit at the beginning
	base  int     // the limit that is known to be good
	rate  float64 // there, over some rounds
	best  float64 // of all rates, with a short memory
	was   float64 // rate before the server changed; 0: it has not
	down  float64 // factor of the next step down; it grows while steps down are kept
	high  int     // a limit above the base that did not pay, as it looked; 0: none
	above float64 // the rate there

	// settled says that a raised limit has had time to fill the server's queue.
	settled bool

	changed          time.Time // when the server did
	tried            time.Time // when this probe began
	nextUp, nextDown time.Time
	restUp, restDown time.Duration
}

// step ends the round of measuring, if it has enough, and decides what comes next.
func (l *Limiter) step(now time.Time) {
	switch {
	case l.slots > 0, l.led(now) && l.gauges.queued:
		l.weigh(now)
		return
	case l.led(now):
		return
	}

	m, c := l.meter, &l.climb
	need := max(l.limit, roundRequests)
	if m.n < need || now.Sub(m.since) < roundTime {
		return
	}

	// Behind a load balancer the replicas have more or fewer requests by chance, so that a few
	// requests say little.
	near := l.gauges.ignored && c.rate > 0 && m.rate() < nearly*c.rate
	if (c.phase != growing || near) && c.settled && m.n < maxRounds*need && now.Sub(m.since) < longRound &&
		m.doubt() > max(sure, c.gap(m.rate())/3) {
		return
	}

	if m.meanLoad() < 0.9*float64(l.limit) { // too few requests to say what the limit does
		l.meter = meter{since: now}
		return
	}

	rate := m.rate()
	if !c.settled && (c.phase == probing || c.rate > 0 && rate < clear*c.rate) {
		c.settled = true
		l.meter = meter{since: now}
		return
	}

	switch c.phase {
	case growing:
		if c.rate == 0 || rate >= pays*c.rate {
			c.base, c.rate = l.limit, rate
			if l.limit < l.top(now) {
				l.set(min(2*l.limit, l.top(now)), now)
				return
			}
		}

		high := l.limit
		c.hold(now)
		c.high, c.above = high, rate
		l.set(c.base, now)
	case holding:
		if c.rate == 0 && l.gauges.ignored && c.high > c.base && c.above >= pays*rate {
			// The base looked better than it is, by the few requests it was measured on.
			c.phase, c.base, c.rate = growing, c.high, c.above
			l.set(min(2*c.high, l.top(now)), now)
			return
		}

		c.high = 0
		if !c.note(rate, now) {
			l.meter = meter{since: now}
			return
		}

		l.try(now)
	case probing:
		l.judge(rate, now)
	}
}

// gap is how far a rate is from that of the base, as a part of it.
func (c *climb) gap(rate float64) float64 {
	if c.rate == 0 || c.phase != probing {
		return 0
	}
	return math.Abs(rate/c.rate - 1)
}

// afford is how long a probe that brought less has to be the last one: of a few requests at
// once, one less is a large part.
func (c *climb) afford(rate float64, now time.Time) time.Duration {
	if c.base > aFew {
		return 0
	}
	return min(restDown, time.Duration((1-rate/c.rate)/costsProbes*float64(now.Sub(c.tried))))
}

// hold begins to hold the limit at its base, where the rate is measured anew.
func (c *climb) hold(now time.Time) {
	if c.phase == growing && c.base <= c.first {
		c.down = 0.5 // even the first limit was more than enough
	} else {
		c.down = stepDown
	}

	c.phase, c.rate, c.best, c.high = holding, 0, 0, 0
	c.restUp, c.restDown = restFirst, restFirst
	c.nextUp, c.nextDown = now.Add(c.restUp), now
}

// rest keeps the limit as it is for a while.
func (c *climb) rest(now time.Time) {
	down := c.nextDown
	c.hold(now)
	c.nextUp, c.nextDown = now.Add(restUp), later(down, now.Add(restUp))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// note takes in a rate measured at the base. It returns false when the server has
// changed since the last: then this rate is of before and after.
func (c *climb) note(rate float64, now time.Time) bool {
	if c.rate == 0 {
		if c.was > 0 && rate >= 0.9*c.was { // it is as before, or faster
			c.down, c.nextDown, c.nextUp = stepDown, later(c.nextDown, c.changed.Add(restUp)), time.Time{}
		}
		c.rate, c.best, c.was = rate, rate, 0
		return true
	}

	if rate < 0.8*c.rate || rate > 1.25*c.rate {
		c.rate, c.best, c.was, c.changed = 0, 0, c.rate, now
		c.restUp, c.restDown = restFirst, restFirst
		c.down, c.nextDown = 0.5, time.Time{}
		return false
	}

	c.rate += (rate - c.rate) / 3
	c.best = max(c.rate, 0.999*c.best)

	return true
}

// try begins to probe, if it is time.
func (l *Limiter) try(now time.Time) {
	c := &l.climb
	c.base = l.limit

	want := 0
	switch {
	case !now.Before(c.nextDown) && l.limit > l.cfg.Min:
		want = min(l.limit-1, int(float64(l.limit)*c.down))
	case !now.Before(c.nextUp) && l.limit < l.top(now):
		want = min(l.top(now), max(l.limit+1, int(float64(l.limit)*stepUp)))
	}

	if want == 0 {
		l.meter = meter{since: now}
		return
	}

	c.phase, c.tried = probing, now
	l.set(want, now)
}

// judge ends a probe.
func (l *Limiter) judge(rate float64, now time.Time) {
	c := &l.climb
	switch up := l.limit > c.base; {
	case up && rate >= paysUp*c.rate:
		c.phase, c.base, c.rate = growing, l.limit, rate
		l.set(2*l.limit, now)
		return
	case up:
		c.restUp = min(2*c.restUp, restUp)
		c.nextUp = now.Add(c.restUp)
	case rate >= c.rate*min(costsDown, 1-costsShare*(1-float64(l.limit)/float64(c.base))) && rate >= costsAll*c.best:
		c.phase, c.base, c.rate = holding, l.limit, rate
		c.down = min(c.down, max(0.7, c.down*c.down))
		c.restDown, c.nextDown = restFirst, now
		l.meter = meter{since: now}
		l.try(now)
		return
	case c.down < stepDown: // too far at once, or it only looked so; less then
		c.down = min(stepDown, math.Sqrt(c.down))
		c.nextDown = now.Add(max(restFirst, c.afford(rate, now)))
	default:
		c.restDown = min(3*c.restDown, restDown)
		c.nextDown = now.Add(max(c.restDown, c.afford(rate, now)))
	}

	c.phase = holding
	l.set(c.base, now)
}
