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
	observeSoon  = 100 * time.Millisecond
	observeEvery = 500 * time.Millisecond

	gaugesStale = 5 * time.Second // after so long without gauges the limit climbs without
	settleTime  = 500 * time.Millisecond
	proveTime   = 300 * time.Millisecond // for what a doubling brings, if that is much
	doubtTime   = 8 * time.Second        // if it is little
	noteEvery   = 400 * time.Millisecond // between the queues that are compared
	queueShare  = 0.05                   // of what runs, kept waiting; a server must not be without a next request
	kvFull      = 0.95
	braked      = 0.98            // what is left of the limit after preemptions
	preempted   = 0.20            // of the requests, before that happens; each costs half a request
	brakeTime   = 5 * time.Second // a running request fills its memory only by and by
	tightTime   = time.Minute     // after preemptions the limit grows in small steps
	firstStep   = 0.05            // by which the limit grows when the queue is found empty; it doubles
)

// readily is how far the limit grows as fast as the gauges are read, as long as nothing waits
// in the server: so many requests at once hardly harm any, and a queue is seen at once. Beyond
// that each doubling has to bring more tokens. (TCP's slow start does as much: it doubles with
// each round until the first sign of a queue. Jacobson, 1988.)
const readily = 64

// gauges is what the limiter remembers of them.
type gauges struct {
	ignored bool // they are not those of one server

	at      time.Time
	counted bool      // they tell of tokens
	noted   time.Time // when queues and running got their last
	running int
	// queued says that the server has had more than it runs: its queue decides.
	queued   bool
	standing int     // the least of queues
	queues   [4]int  // our part of the queue, of late
	empty    int     // observations in a row that found it empty
	grow     float64 // the next step up
	paused   time.Time
	braked   time.Time // for preemptions

	ended       int     // requests, since
	preemptions float64 // was this

	changed     time.Time // when the limit was
	tokens      float64   // at tokensAt, after the server has settled
	tokensAt    time.Time
	tokensSince bool
}

// led reports whether the gauges decide on the limit, instead of the rates measured on
// single requests.
func (l *Limiter) led(now time.Time) bool {
	g := &l.gauges
	if g.at.IsZero() || now.Sub(g.at) >= gaugesStale {
		return false
	}
	return g.queued || l.climb.phase == growing && (g.counted || l.limit < readily)
}

// pause keeps the limit from growing for a while.
func (g *gauges) pause(until time.Time) { g.paused = until }

// ObserveEvery is how often gauges are worth reading now: while the limit grows, each reading
// is a step.
func (l *Limiter) ObserveEvery() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()

	g := &l.gauges
	grows := l.climb.phase == growing && !g.queued && !g.ignored && l.overload.stance == open && l.cfg.Min < l.cfg.Max
	if grows && (l.inFlight == 0 || l.inFlight >= l.limit-l.limit/10 || time.Since(g.changed) < 2*settleTime) {
		return observeSoon
	}

	return observeEvery
}

// Observe takes in the gauges, as often as ObserveEvery says.
func (l *Limiter) Observe(now Gauges) {
	l.mu.Lock()
	defer l.mu.Unlock()

	at, g, c := l.advance(), &l.gauges, &l.climb
	if g.ignored {
		return
	}

	known := !g.at.IsZero()
	g.at, g.counted = at, now.Tokens >= 0

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
	if l.spare.none {
		want = 0
	}

	// A queue comes and goes. What stands is the least of it over some time (as CoDel
	// tells a bad queue from a good one, RFC 8289).
	filling := float64(now.Running) > 1.02*float64(g.running)
	note := at.Sub(g.noted) >= noteEvery
	if note {
		g.noted, g.running = at, now.Running
		copy(g.queues[1:], g.queues[:])
		g.queues[0] = queue
		if g.empty++; queue > 0 {
			g.empty = 0
		}
	}

	g.standing = min(queue, slices.Min(g.queues[:]))
	standing := g.standing

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
	case note && standing > want:
		if fit := l.inFlight - standing + want; !filling && fit < l.limit {
			g.bound(c)
			l.move(fit, at)
			g.queues = [4]int{} // what stood is gone
		}
	case queue > 0 && c.phase == growing && standing == 0:
		// Requests that came all at once are on their way through the server's queue.
	case queue > 0:
		g.bound(c)
	case l.inFlight < l.limit-max(1, l.limit/20), at.Before(g.paused):
		// There is no demand for more, or it is too early.
	case c.phase == growing && !g.queued:
		l.double(now, at)
	case l.spare.none:
	case g.queued && note && g.empty > 1 && at.Sub(g.changed) >= settleTime:
		l.follow(now, at)
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
	if now.Running < l.inFlight-max(1, l.inFlight/10) {
		return // some are on their way yet
	}

	if l.limit < readily {
		l.grow(min(2*l.limit, readily), now, at)
		return
	}

	if now.Tokens < 0 {
		return // the answers decide
	}

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
	l.grow(2*l.limit, now, at)
}

// grow raises the limit as far as the server's memory allows.
func (l *Limiter) grow(n int, now Gauges, at time.Time) {
	c, base := &l.climb, l.limit
	if now.KVUsage > 0 {
		n = min(n, int(kvFull/now.KVUsage*float64(base)))
	}

	if n*20 < base*21 || base >= l.top(at) {
		c.base = base
		c.hold(at)
		l.gauges.grow = firstStep
		return
	}

	l.move(n, at)
	c.base = base
}
