package limit

import (
	"math"
	"slices"
	"time"
)

// Gauges are what a server tells of itself. Other clients' requests are among them.
type Gauges struct {
	Running     int     // requests that are being computed
	Waiting     int     // requests in the server's queue
	KVUsage     float64 // of the memory for running requests, 0 to 1; below 0: unknown
	Preemptions float64 // running requests put back into the queue for want of memory, a counter
	Tokens      float64 // generated, a counter; below 0: unknown
}

const (
	gaugesStale = 5 * time.Second // after so long without gauges the limit climbs without
	settleTime  = 500 * time.Millisecond
	proveTime   = time.Second     // for what a doubling brings, if that is much
	doubtTime   = 8 * time.Second // if it is little
	queueShare  = 0.05            // of what runs, kept waiting; a server must not be without a next request
	kvFull      = 0.95
	braked      = 0.98            // what is left of the limit after preemptions
	preempted   = 0.20            // of the requests, before that happens; each costs half a request
	brakeTime   = 5 * time.Second // a running request fills its memory only by and by
	tightTime   = time.Minute     // after preemptions the limit grows in small steps
	firstStep   = 0.05            // by which the limit grows when the queue is found empty; it doubles
)

// gauges is what the limiter remembers of them.
type gauges struct {
	ignored bool // they are not those of one server

	last Gauges
	at   time.Time
	// queued says that the server has had more than it runs: its queue decides.
	queued bool
	queues [4]int  // our part of the queue, of late
	empty  int     // observations in a row that found it empty
	grow   float64 // the next step up
	paused time.Time
	braked time.Time // for preemptions

	ended       int     // requests, since
	preemptions float64 // was this

	changed     time.Time // when the limit was
	tokens      float64   // at tokensAt, after the server has settled
	tokensAt    time.Time
	tokensSince bool
}

// lead reports whether the gauges decide on the limit, instead of the rates measured on
// single requests.
func (g *gauges) lead(now time.Time, p phase) bool {
	return !g.at.IsZero() && now.Sub(g.at) < gaugesStale && (g.queued || p == growing)
}

// pause keeps the limit from growing for a while.
func (g *gauges) pause(until time.Time) { g.paused = until }

// Observe takes in the gauges. It is called once or twice a second.
func (l *Limiter) Observe(now Gauges) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, g, c := l.advance(), &l.gauges, &l.climb
	if g.ignored {
		return
	}
	before, known := g.last, !g.at.IsZero()
	g.last, g.at = now, at
	if l.cfg.Min == l.cfg.Max || l.overload.stance == limiting {
		return
	}
	// What we have in the queue is our part of all that is at the server.
	part := 1.0
	if all := now.Running + now.Waiting; all > l.inFlight {
		part = float64(l.inFlight) / float64(all)
	}
	queue := int(math.Ceil(part * float64(now.Waiting)))
	want := max(1, int(queueShare*part*float64(now.Running)))
	// A queue comes and goes. What stands is the least of it over some time (as CoDel
	// tells a bad queue from a good one, RFC 8289).
	copy(g.queues[1:], g.queues[:])
	g.queues[0] = queue
	standing := slices.Min(g.queues[:])
	if queue == 0 {
		g.empty++
	} else {
		g.empty = 0
	}
	lost := now.Preemptions - g.preemptions
	if !known || lost < 0 || g.ended > max(2*l.limit, 100) {
		g.ended, g.preemptions = 0, now.Preemptions
	}
	switch {
	case known && lost > 1 && lost > preempted*float64(max(g.ended, l.limit/2)) && at.Sub(g.braked) > brakeTime:
		g.ended, g.preemptions, g.braked = 0, now.Preemptions, at
		g.bound(c)
		g.paused = at.Add(brakeTime)
		l.move(int(braked*float64(l.limit)), at)
	case standing > want:
		filling := float64(now.Running) > 1.02*float64(before.Running)
		if fit := l.inFlight - standing + want; !filling && fit < l.limit {
			g.bound(c)
			l.move(fit, at)
			g.queues = [4]int{} // what stood is gone
		}
	case queue > 0:
		g.bound(c)
	case l.inFlight < l.limit-max(1, l.limit/20), at.Before(g.paused), at.Sub(g.changed) < settleTime:
		// There is no demand for more, or it is too early.
	case g.queued && g.empty > 1:
		l.follow(now, at)
	case c.phase == growing:
		l.double(now, at)
	}
}

// bound lets the queue decide from now on.
func (g *gauges) bound(c *climb) {
	g.queued, g.grow = true, firstStep
	c.phase = holding
}

// move sets the limit by the gauges.
func (l *Limiter) move(n int, at time.Time) {
	l.gauges.changed, l.gauges.tokensSince = at, false
	l.set(min(n, l.top(at)), at)
	l.climb.base = l.limit
}

// follow raises the limit, since the server's queue has run empty: a little at first,
// then more and more. After a doubling without a queue the search begins anew.
func (l *Limiter) follow(now Gauges, at time.Time) {
	g := &l.gauges
	factor := 1 + g.grow
	if now.KVUsage > 0 {
		factor = min(factor, max(1+firstStep/2, kvFull/now.KVUsage))
	}
	if at.Sub(g.braked) < tightTime {
		factor = 1 + firstStep/2
		g.paused = at.Add(brakeTime / 2)
	} else if g.grow *= 2; g.grow > 1 {
		g.queued, g.grow = false, 0
		l.climb.phase, l.climb.rate = growing, 0
	}
	l.move(max(l.limit+1, int(factor*float64(l.limit))), at)
}

// double doubles the limit while the server generates more for it.
func (l *Limiter) double(now Gauges, at time.Time) {
	g, c := &l.gauges, &l.climb
	if now.Tokens >= 0 {
		if !g.tokensSince {
			g.tokens, g.tokensAt, g.tokensSince = now.Tokens, at, true
			return
		}
		passed := at.Sub(g.tokensAt)
		rate := (now.Tokens - g.tokens) / passed.Seconds()
		if passed < proveTime || c.rate > 0 && rate < 1.3*c.rate && passed < doubtTime {
			return
		}
		if c.rate > 0 && rate < pays*c.rate {
			// It has room for more, but makes no more of it. What it does at the base is
			// measured anew, on single requests.
			c.hold(at)
			g.grow = firstStep
			l.move(c.base, at)
			return
		}
		c.rate = rate
	}
	c.base = l.limit
	factor := 2.0
	if now.KVUsage > 0 {
		factor = min(factor, kvFull/now.KVUsage)
	}
	if factor < 1.05 || l.limit >= l.top(at) {
		c.hold(at)
		g.grow = firstStep
		return
	}
	base := c.base
	l.move(int(factor*float64(l.limit)), at)
	c.base = base
}
