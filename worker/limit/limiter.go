// Package limit finds how many requests a server should have at once: as many as let
// it produce the most, and no more.
//
// A [Limiter] is told when requests begin and end and, where the server shows them,
// its gauges. It knows nothing of HTTP, and needs no goroutine: each event moves it on.
package limit

import (
	"context"
	"sync"
	"time"
)

// Config bounds a limiter.
type Config struct {
	Min   int // requests at once, at least. Defaults to 1.
	Max   int // at most. Defaults to 2,048. Equal to Min it makes a fixed limit.
	Start int // at first. Defaults to 8.
}

// DefaultMax is the most requests at once that a limiter tries by default: twice what
// vLLM runs at once on a large GPU.
const DefaultMax = 2048

// Limiter decides how many requests are at a server at once. It is safe for
// concurrent use.
type Limiter struct {
	cfg  Config
	free chan struct{} // has one element after a slot may have become free

	mu       sync.Mutex
	limit    int
	slots    int // of the server; 0: unknown
	max      int // cfg.Max, or the server's slots and one more
	inFlight int
	area     float64   // the integral of inFlight over time, in request-seconds
	at       time.Time // until then
	beat     time.Time // the last one; zero: nobody beats
	lowered  time.Time // by Lower, the last time

	meter    meter
	climb    climb
	overload overload
	gauges   gauges
	spare    spare
}

// New returns a limiter.
func New(cfg Config) *Limiter {
	cfg.Min = max(1, cfg.Min)
	if cfg.Max == 0 {
		cfg.Max = DefaultMax
	}

	cfg.Max = max(cfg.Min, cfg.Max)
	if cfg.Start == 0 {
		cfg.Start = 8
	}

	now := time.Now()
	l := &Limiter{
		cfg:  cfg,
		free: make(chan struct{}, 1),
		max:  cfg.Max,
		at:   now,
	}

	l.overload.since = now
	l.set(cfg.Start, now)
	l.climb.first, l.climb.base = l.limit, l.limit

	return l
}

// Fixed returns a limiter of n slots, at least one, that stays as it is.
func Fixed(n int) *Limiter { return New(Config{Min: max(1, n), Max: max(1, n)}) }

// Slot is a place at the server. What it remembers of its beginning tells at its end
// how many others there were.
type Slot struct {
	begin  time.Time
	area   float64
	others int
}

// Acquire waits for a slot. It fails only when ctx ends.
func (l *Limiter) Acquire(ctx context.Context) (Slot, error) {
	for {
		s, wait, ok := l.tryAcquire()
		if ok {
			return s, nil
		}

		var paced <-chan time.Time
		if wait > 0 {
			paced = time.After(wait)
		}

		select {
		case <-l.free:
		case <-paced:
		case <-ctx.Done():
			return Slot{}, context.Cause(ctx)
		}
	}
}

// tryAcquire takes a slot if there is one. Otherwise it returns how long to wait for the next
// try, if that is known.
func (l *Limiter) tryAcquire() (s Slot, wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.inFlight >= l.limit {
		return Slot{}, 0, false
	}

	now, v := l.advance(), &l.overload
	if v.stance != open {
		l.judgeWindow(now)
	}

	if v.stance == paced {
		if wait := v.pace.wait(now); wait > 0 {
			return Slot{}, wait, false
		}
	}

	v.begun++
	v.pace.take(now)
	s = Slot{begin: now, area: l.area, others: l.inFlight}
	l.inFlight++
	l.wake()

	return s, 0, true
}

// Outcome is how a request ended.
type Outcome struct {
	// Work is what the server produced, in tokens or whatever else grows with the effort;
	// 0 if the request failed.
	Work float64
	// Overload says that the server refused the request because it has too many.
	Overload bool
	// After is how long the refusal asks to wait; 0 if it does not say.
	After time.Duration
}

// Release gives a slot back.
func (l *Limiter) Release(s Slot, o Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()

	now := l.advance()
	l.inFlight--
	defer l.wake()

	if l.overload.add(s, o, l.limit, now) {
		l.refuse(now)
		return
	}

	if l.cfg.Min == l.cfg.Max || l.overload.stance == limiting {
		return
	}

	l.gauges.ended++
	if o.Work > 0 && !s.begin.Before(l.meter.since) {
		l.meter.add(now.Sub(s.begin).Seconds(), l.area-s.area, o.Work)
		l.step(now)
	}
}

// Lower takes a quarter of the limit away, of a fixed one too, and does not let it grow
// beyond that again: this process has no room for more requests at once. It does so once in
// a while, since many see that at the same time, and reports whether it did.
func (l *Limiter) Lower() bool {
	l.mu.Lock()
	defer l.mu.Unlock()

	now := l.advance()
	if l.limit <= 1 || now.Sub(l.lowered) < settleTime {
		return false
	}

	l.lowered = now
	l.max = max(1, min(l.limit, l.inFlight+1)*3/4)
	l.cfg.Max = l.max
	l.cfg.Min = min(l.cfg.Min, l.max)
	l.climb.base = min(l.climb.base, l.max)
	l.set(l.max, now)

	return true
}

// Limit is the number of slots as it is now.
func (l *Limiter) Limit() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limit
}

// InFlight is the number of slots taken.
func (l *Limiter) InFlight() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inFlight
}

// SetSlots tells how many requests the server runs at once, if it says so: more never help.
// One more waits there at first, so that a slot is never empty for the time that an answer and
// the next request travel; what that brings is measured.
func (l *Limiter) SetSlots(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.gauges.ignored { // these are of one of several servers, too
		return
	}

	if n <= 0 || n == l.slots {
		return
	}

	now := time.Now()
	l.slots, l.max, l.spare = n, min(l.cfg.Max, n+1), spare{}
	l.climb.phase = holding
	l.climb.rest(now)
	l.set(l.max, now)
}

// StartAt begins the search at a limit that was found before, if it has found nothing yet and the
// server says nothing of its slots. It reports whether it does. Below 1 the limit is unknown.
func (l *Limiter) StartAt(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()

	c := &l.climb
	if n < 1 || l.cfg.Min == l.cfg.Max || l.slots > 0 || c.phase != growing || c.rate > 0 || l.limit != c.first {
		return false
	}

	l.set(n, l.advance())
	c.first, c.base = l.limit, l.limit

	return true
}

// Found is the limit that the search has found; 0 while it searches, or if it does not.
func (l *Limiter) Found() int {
	l.mu.Lock()
	defer l.mu.Unlock()

	switch {
	case l.cfg.Min == l.cfg.Max, l.slots > 0, l.overload.stance != open:
		return 0
	case l.gauges.queued:
		return l.limit
	case l.climb.phase == growing:
		return 0
	}

	return l.climb.base
}

// set changes the limit, and begins a round of measuring.
func (l *Limiter) set(n int, now time.Time) {
	n = max(l.cfg.Min, min(l.max, n))
	l.climb.settled = n <= l.limit
	l.limit = n
	l.meter = meter{since: now}
	l.wake()
}

// A process that is stopped (Ctrl-Z, a suspended job, a frozen machine) and goes on finds
// that its requests took as long as it was away, which says nothing of the server.
const (
	// BeatEvery is how often [Limiter.Beat] has to be called, if it is called at all.
	BeatEvery = 250 * time.Millisecond
	// MissedBeat is the time without a beat after which the process counts as having been
	// stopped.
	MissedBeat = time.Second
)

// Beat tells the limiter that this process runs. What was measured across a time without
// beats is left out, and the search begins again.
func (l *Limiter) Beat() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.advance()
	l.beat = now
}

// noticeGap begins the search again after a time in which this process did not run.
func (l *Limiter) noticeGap(now time.Time) {
	if l.beat.IsZero() || now.Sub(l.beat) < MissedBeat {
		return
	}
	l.beat = now
	l.restart(now)
}

// IgnoreGauges has [Limiter.Observe] and [Limiter.SetSlots] do nothing from now on: the gauges are
// not those of one server, as when a load balancer answers with another replica's each time.
// What was concluded from them is dropped. The search begins again by climbing on answers, at
// no less than Config.Start.
func (l *Limiter) IgnoreGauges() {
	l.mu.Lock()
	defer l.mu.Unlock()

	now := l.advance()
	if l.gauges.ignored {
		return
	}

	l.gauges = gauges{ignored: true}
	l.slots, l.max = 0, l.cfg.Max
	l.climb.base = max(l.climb.base, l.climb.first)
	l.restart(now)
}

// restart begins the search again, at the limit that is known to be good.
func (l *Limiter) restart(now time.Time) {
	if l.cfg.Min == l.cfg.Max {
		return
	}

	g, c := &l.gauges, &l.climb
	if c.phase != probing {
		c.base = max(c.base, l.limit)
	}

	c.phase, c.rate, c.best = growing, 0, 0
	g.at, g.queues, g.empty, g.grow, g.queued = time.Time{}, [4]int{}, 0, firstStep, false
	g.changed, g.tokensSince = now, false
	l.overload.reset(now)
	l.spare = spare{}

	if l.slots > 0 {
		c.base = l.max
	}

	l.set(c.base, now)
}

// advance brings the integral up to now.
func (l *Limiter) advance() time.Time {
	now := time.Now()
	l.noticeGap(now)
	l.area += float64(l.inFlight) * now.Sub(l.at).Seconds()
	l.at = now
	return now
}

// wake lets somebody who waits look for a slot. Who gets one wakes the next.
func (l *Limiter) wake() {
	if l.inFlight >= l.limit {
		return
	}
	select {
	case l.free <- struct{}{}:
	default:
	}
}
