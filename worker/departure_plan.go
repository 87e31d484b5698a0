package worker

import (
	"cmp"
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/limit"
)

const (
	// maxPublishTime is the most time before a deadline that is left to store results and to return
	// shards; publishPart is the part of the notice that it is at most. Half of it is for the shards, and
	// a quarter for the last report; the rest is for the end of the process.
	maxPublishTime = 2 * time.Second
	publishPart    = 20

	// planEvery is the time between two looks at what still fits.
	planEvery = 200 * time.Millisecond

	// forecastFor is the time for which a forecast of latencies is used.
	forecastFor = 200 * time.Millisecond

	// maxReason is the most bytes of a reason that are announced.
	maxReason = 500
)

// departurePlan decides which requests a worker that leaves may still begin. Until the worker leaves
// all of them may.
type departurePlan struct {
	latencies *runLatencies
	limiter   *limit.Limiter

	// ages returns how long the requests of a kind in flight have taken until now.
	ages func(requestKind, time.Time) []time.Duration

	// changes is notified when the departure is set.
	changes broadcast

	leaving atomic.Bool

	// mu guards the fields below.
	mu        sync.Mutex
	departure Departure
	noticed   time.Time // when the worker got the first notice
	cutoff    time.Time // when what is in flight is cancelled
	busEnd    time.Time // when the last result has to be stored, and the last shard returned
	reportEnd time.Time // when the last report has to be sent
	slots     slotClock // since the first notice
	forecasts map[requestKind]datedForecast
}

// datedForecast is a forecast and its time.
type datedForecast struct {
	latencyForecast
	at time.Time
}

// set sets the departure, and returns false if there is one with an earlier deadline already.
func (p *departurePlan) set(d Departure, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()

	if d.Deadline.Before(now) {
		d.Deadline = now
	}

	isFirst := !p.leaving.Load()
	if !isFirst && !d.Deadline.Before(p.departure.Deadline) {
		return false
	}

	if isFirst {
		p.noticed = now
		p.slots.note(now, p.limiter.Limit())
	}

	d.Reason = cmp.Or(shortenReason(d.Reason), p.departure.Reason, defaultReason)
	p.departure = d
	p.setTimes(now)
	p.leaving.Store(true)
	p.changes.notify()

	return true
}

// shortenReason returns a reason as it is announced. It may have a path or a URL in it, and readers drop an
// announcement with a text that is too long.
func shortenReason(reason string) string {
	reason = proto.Printable(reason)
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "..."
	}
	return reason
}

// stays reports whether the worker stays until the deadline when it has nothing to do.
func (p *departurePlan) stays() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.departure.Stay
}

// setTimes sets the times of the last steps. The caller holds the lock.
func (p *departurePlan) setTimes(now time.Time) {
	deadline := p.departure.Deadline
	margin := min(maxPublishTime, deadline.Sub(now)/publishPart)
	p.cutoff = deadline.Add(-margin)

	if margin == 0 { // the machine may be there for a moment still
		p.busEnd, p.reportEnd = now.Add(busGrace), now.Add(busGrace+withdrawTimeout)
		return
	}

	p.busEnd, p.reportEnd = deadline.Add(-margin/2), deadline.Add(-margin/4)
}

// noteSlots takes in the limit of the worker, which may change after the notice.
func (p *departurePlan) noteSlots(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slots.note(now, p.limiter.Limit())
}

// isLeaving reports whether the worker leaves.
func (p *departurePlan) isLeaving() bool { return p.leaving.Load() }

// describe returns the departure, without its costs; nil: the worker does not leave.
func (p *departurePlan) describe() *proto.Departure {
	if !p.isLeaving() {
		return nil
	}

	p.mu.Lock()
	defer p.mu.Unlock()

	return &proto.Departure{
		Reason:    p.departure.Reason,
		NoticedAt: p.noticed.UTC(),
		Deadline:  p.departure.Deadline.UTC(),
		Slots:     p.slots.mean(time.Now()),
	}
}

// noticedAt returns when the worker got the first notice.
func (p *departurePlan) noticedAt() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.noticed
}

// timeLeft returns the time until what is in flight is cancelled; false: the worker does not leave.
func (p *departurePlan) timeLeft(now time.Time) (time.Duration, bool) {
	if !p.isLeaving() {
		return 0, false
	}

	p.mu.Lock()
	defer p.mu.Unlock()

	return p.cutoff.Sub(now), true
}

// forecast returns how long the next request of a kind takes.
func (p *departurePlan) forecast(kind requestKind, now time.Time) latencyForecast {
	p.mu.Lock()
	defer p.mu.Unlock()

	if f, ok := p.forecasts[kind]; ok && now.Sub(f.at) < forecastFor {
		return f.latencyForecast
	}

	f := p.latencies.forecast(kind, p.ages(kind, now))
	if p.forecasts == nil {
		p.forecasts = map[requestKind]datedForecast{}
	}

	p.forecasts[kind] = datedForecast{f, now}

	return f
}

// forgetForecasts has the next forecasts take in all latencies until then.
func (p *departurePlan) forgetForecasts() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.forecasts)
}

// fits reports whether a request of a kind that begins after a wait ends in time.
func (p *departurePlan) fits(kind requestKind, now time.Time, wait time.Duration) bool {
	left, leaving := p.timeLeft(now)
	return !leaving || wait+p.forecast(kind, now).bound <= left
}

// countFitting returns about how many more requests of a kind the worker can begin in time, besides
// those that wait for a slot. inFlight of the slots are taken.
func (p *departurePlan) countFitting(kind requestKind, now time.Time, waiting, inFlight int) int {
	left, _ := p.timeLeft(now)
	f := p.forecast(kind, now)
	window := left - p.limiter.Pause() - f.bound // in which requests may begin
	if window < 0 {
		return 0
	}

	slots := p.limiter.Limit()
	rounds := float64(window) / float64(f.mean)

	return max(0, slots-inFlight) + int(float64(slots)*rounds) - waiting
}

// selectLate returns a function that reports of each of the waiting tasks, in their order, whether
// it does not get a slot early enough. inFlight requests are at the model server.
func (p *departurePlan) selectLate(now time.Time, inFlight int) func(*task) bool {
	slots := max(1, p.limiter.Limit())
	ahead := time.Duration(0) // the time in all slots that the requests before take
	free := slots - inFlight
	pause := p.limiter.Pause()

	return func(t *task) bool {
		mean := p.forecast(t.kind(), now).mean
		wait := max(pause, t.notBefore.Sub(now))
		if wait > 0 && !p.fits(t.kind(), now, wait) {
			return true
		}

		if free > 0 {
			free--
		} else {
			ahead += mean
			wait = max(wait, pause+ahead/time.Duration(slots))
		}

		return !p.fits(t.kind(), now, wait)
	}
}

// awaitIdleEnd calls end when a worker that has nothing to do has to end. It returns when ctx ends.
func (p *departurePlan) awaitIdleEnd(ctx context.Context, end func()) {
	p.await(ctx, func() time.Time {
		if p.departure.Stay {
			return p.cutoff
		}
		return p.noticed
	}, end)
}

// awaitCutoff calls end when what is in flight has to be cancelled. It returns when ctx ends.
func (p *departurePlan) awaitCutoff(ctx context.Context, end func()) {
	p.await(ctx, func() time.Time { return p.cutoff }, end)
}

// awaitBusEnd calls end when nothing more may be stored on the bus. It returns when ctx ends.
func (p *departurePlan) awaitBusEnd(ctx context.Context, end func()) {
	p.await(ctx, func() time.Time { return p.busEnd }, end)
}

// await calls end at a time of the departure, which point returns. It returns when ctx ends.
func (p *departurePlan) await(ctx context.Context, point func() time.Time, end func()) {
	for {
		changed := p.changes.changed()

		var due <-chan time.Time
		if p.isLeaving() {
			p.mu.Lock()
			left := time.Until(point())
			p.mu.Unlock()

			if left <= 0 {
				end()
				return
			}

			due = time.After(left)
		}

		select {
		case <-changed:
		case <-due:
		case <-ctx.Done():
			return
		}
	}
}

// reportBy returns until when the last report may be sent: for a while from now, and not after the
// departure.
func (p *departurePlan) reportBy(now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()

	by := now.Add(withdrawTimeout)
	if p.isLeaving() && p.reportEnd.Before(by) {
		return p.reportEnd
	}

	return by
}
