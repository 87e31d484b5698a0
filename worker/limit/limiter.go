package limit

import (
	"context"
	"sync"
	"time"
)

// Config bounds a limiter.
type Config struct {
	// Min is the least number of requests in flight. Defaults to 1.
	Min int
	// Max is the greatest number of requests in flight. Defaults to [DefaultMax]; equal to Min
	// it fixes the limit.
	Max int
	// Start is the limit at which the search starts. Defaults to 8.
	Start int
}

// DefaultMax is the default of Config.Max: twice the number of requests that vLLM runs at once
// on a large GPU.
const DefaultMax = 2048

// defaultStart is the default of Config.Start.
const defaultStart = 8

// Limiter decides how many requests are at a server at once. It is safe for concurrent use.
type Limiter struct {
	// mu guards the fields below, and all that they point to.
	mu       sync.Mutex
	win      *window
	climber  climber
	gauges   gaugeController
	trial    queueTrial
	overload overloadController

	lastBeat time.Time // zero: Beat is not called
	lowered  time.Time // last time by Lower
}

// New returns a limiter.
func New(cfg Config) *Limiter {
	cfg.Min = max(1, cfg.Min)
	if cfg.Max == 0 {
		cfg.Max = DefaultMax
	}

	cfg.Max = max(cfg.Min, cfg.Max)
	if cfg.Start == 0 {
		cfg.Start = defaultStart
	}

	now := time.Now()
	l := &Limiter{
		win: &window{
			free:    make(chan struct{}, 1),
			min:     cfg.Min,
			max:     cfg.Max,
			top:     cfg.Max,
			updated: now,
		},
	}

	l.climber.win = l.win
	l.gauges.win, l.gauges.climber = l.win, &l.climber
	l.trial.win, l.trial.gauges = l.win, &l.gauges
	l.overload.win, l.overload.since = l.win, now

	l.win.setLimit(cfg.Start, now)
	l.climber.first, l.climber.base = l.win.limit, l.win.limit

	return l
}

// Fixed returns a limiter of n slots, at least one, that never changes its limit by itself.
func Fixed(n int) *Limiter { return New(Config{Min: max(1, n), Max: max(1, n)}) }

// Slot is a place at the server. It remembers its start, from which Release computes how many
// other requests were in flight meanwhile.
type Slot struct {
	begin            time.Time
	inFlightIntegral float64
	others           int // in flight at the start
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
		case <-l.win.free:
		case <-paced:
		case <-ctx.Done():
			return Slot{}, context.Cause(ctx)
		}
	}
}

// tryAcquire takes a slot if there is one. Otherwise it returns how long to wait before the
// next try, if that is known.
func (l *Limiter) tryAcquire() (s Slot, wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()

	w, v := l.win, &l.overload
	if w.inFlight >= w.limit {
		return Slot{}, 0, false
	}

	now := l.advance()
	if ceiling := v.endWindow(now); ceiling > 0 {
		l.holdUnder(ceiling, now)
	}

	if v.state == pacing {
		if wait := v.pace.waitTime(now); wait > 0 {
			return Slot{}, wait, false
		}
	}

	v.begun++
	v.pace.takeTurn(now)

	s = Slot{begin: now, inFlightIntegral: w.inFlightIntegral, others: w.inFlight}
	w.inFlight++
	w.wakeNext()

	return s, 0, true
}

// Pause returns how long the server, which has refused requests, gets no more of them; 0: it may get one, if there is
// a slot.
func (l *Limiter) Pause() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.overload.state != pacing {
		return 0
	}

	return max(0, time.Until(l.overload.pace.next))
}

// Outcome is the result of a request.
type Outcome struct {
	// Work is the output of the server, in tokens or another unit that grows with the effort; 0
	// if the request failed.
	Work float64
	// Overload is set if the server refused the request because it has too many.
	Overload bool
	// After is the wait that the refusal asks for; 0 if it asks for none.
	After time.Duration
}

// Release returns a slot.
func (l *Limiter) Release(s Slot, o Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()

	now, w := l.advance(), l.win
	w.inFlight--
	defer w.wakeNext()

	if l.overload.countAnswer(s, o, now) {
		now = now.Add(1) // a request that begins in this instant began before the refusals
		if ceiling := l.overload.startPacing(now); ceiling > 0 {
			l.holdUnder(ceiling, now)
		}
		return
	}

	if w.isFixed() || l.overload.state == trialing {
		return
	}

	l.gauges.ended++
	if o.Work > 0 && !s.begin.Before(w.meter.since) {
		w.meter.addRequest(now.Sub(s.begin).Seconds(), w.inFlightIntegral-s.inFlightIntegral, o.Work)
		l.endRound(now)
	}
}

// endRound passes the measurements to the controller that decides now.
func (l *Limiter) endRound(now time.Time) {
	gaugesDecide := l.gauges.decidesNow(now)
	switch {
	case l.win.slots > 0, gaugesDecide && l.gauges.queueBound:
		if l.overload.state == accepting {
			l.trial.compareRates(now)
		}
	case !gaugesDecide:
		l.climber.endRound(now)
	}
}

// holdUnder keeps the limit under a ceiling for a while, and lets no controller grow it meanwhile.
func (l *Limiter) holdUnder(ceiling int, now time.Time) {
	until := now.Add(ceilingTime)
	l.win.holdUnder(ceiling, until)
	l.overload.accept(now)
	l.climber.coolDown(now, until, until.Add(upCooldown))
	l.gauges.pauseUntil(until)

	l.win.setLimit(ceiling, now)
	l.climber.base = l.win.limit
}

// Lower reduces the limit by a quarter, a fixed one too, and does not let it grow beyond that
// again: this process has no room for more requests at once. Many requests notice that at the
// same time, so it acts at most once per settleTime, and reports whether it did.
func (l *Limiter) Lower() bool {
	l.mu.Lock()
	defer l.mu.Unlock()

	now, w := l.advance(), l.win
	if w.limit <= 1 || now.Sub(l.lowered) < settleTime {
		return false
	}

	l.lowered = now
	w.top = max(1, min(w.limit, w.inFlight+1)*3/4)
	w.max = w.top
	w.min = min(w.min, w.top)
	l.climber.base = min(l.climber.base, w.top)
	w.setLimit(w.top, now)

	return true
}

// Limit returns the current number of slots.
func (l *Limiter) Limit() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.win.limit
}

// InFlight returns the number of slots in use.
func (l *Limiter) InFlight() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.win.inFlight
}

// SetSlots sets how many requests the server runs at once, if it reports that: more never help.
// One more waits there at first, so that a slot is not empty while an answer and the next
// request travel; a trial measures the gain. Below 1 the number is unknown.
func (l *Limiter) SetSlots(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.gauges.ignored { // the slots also belong to one of several servers
		return
	}

	w := l.win
	if n <= 0 || n == w.slots {
		return
	}

	now := time.Now()
	w.slots, w.top = n, min(w.max, n+1)
	l.trial.reset()
	l.climber.phase = holding
	l.climber.coolDown(now, now.Add(upCooldown), now.Add(upCooldown))
	w.setLimit(w.top, now)
}

// StartAt starts the search at a limit that was found before, unless the search has already
// found something or the server's slots are known. It reports whether it did. Below 1 the limit
// is unknown.
func (l *Limiter) StartAt(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()

	w, c := l.win, &l.climber
	if n < 1 || w.isFixed() || w.slots > 0 || c.phase != growing || c.rate > 0 || w.limit != c.first {
		return false
	}

	w.setLimit(n, l.advance())
	c.first, c.base = w.limit, w.limit

	return true
}

// Found returns the limit that the search has found; 0 while it searches, and for a limiter
// that does not search.
func (l *Limiter) Found() int {
	l.mu.Lock()
	defer l.mu.Unlock()

	switch {
	case l.win.isFixed(), l.win.slots > 0, l.overload.state != accepting:
		return 0
	case l.gauges.queueBound:
		return l.win.limit
	case l.climber.phase == growing:
		return 0
	}

	return l.climber.base
}

// ObserveEvery returns how often gauges are worth reading now: while the limit grows, each
// reading is a step.
func (l *Limiter) ObserveEvery() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.overload.state == accepting && !l.win.isFixed() && l.gauges.isGrowing() {
		return observeSoon
	}

	return observeEvery
}

// Observe takes the server's gauges, as often as ObserveEvery returns.
func (l *Limiter) Observe(g Gauges) {
	l.mu.Lock()
	defer l.mu.Unlock()

	now := l.advance()
	if l.gauges.ignored {
		return
	}

	first := l.gauges.recordReading(g, now)
	if l.win.isFixed() || l.overload.state == trialing {
		return
	}

	l.gauges.steerLimit(g, first, now)
}

// IgnoreGauges makes [Limiter.Observe] and [Limiter.SetSlots] do nothing from now on: the
// gauges do not belong to one server, as when a load balancer returns another replica's each
// time. Their effects are dropped. The search starts again with the climber, at no less than
// Config.Start.
func (l *Limiter) IgnoreGauges() {
	l.mu.Lock()
	defer l.mu.Unlock()

	now := l.advance()
	if l.gauges.ignored {
		return
	}

	l.gauges = gaugeController{win: l.win, climber: &l.climber, ignored: true}
	l.win.slots, l.win.top = 0, l.win.max
	l.climber.noisy = true
	l.climber.base = max(l.climber.base, l.climber.first)
	l.restart(now)
}

// A process that was stopped (Ctrl-Z, a suspended job, a frozen machine) and continues finds
// that its requests took as long as it was away, which says nothing about the server.
const (
	// BeatEvery is the time between calls of [Limiter.Beat], if there are any.
	BeatEvery = 250 * time.Millisecond
	// MissedBeat is the time without a call of Beat after which the process counts as having
	// been stopped.
	MissedBeat = time.Second
)

// Beat records that this process runs. The limiter drops measurements across a time without
// beats, and starts the search again.
func (l *Limiter) Beat() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.advance()
	l.lastBeat = now
}

// advance brings the limiter up to now. It starts the search again after a time in which this
// process did not run.
func (l *Limiter) advance() time.Time {
	now := time.Now()
	if !l.lastBeat.IsZero() && now.Sub(l.lastBeat) >= MissedBeat {
		l.lastBeat = now
		l.restart(now)
	}

	l.win.advanceTo(now)

	return now
}

// restart starts the search again, at the limit that is known to be good.
func (l *Limiter) restart(now time.Time) {
	if l.win.isFixed() {
		return
	}

	l.climber.restart()
	l.gauges.restart(now)
	l.overload.startWindow(now)
	l.trial.reset()

	if l.win.slots > 0 {
		l.climber.base = l.win.top
	}

	l.win.setLimit(l.climber.base, now)
}
