package limit

import "time"

// Pacing.
const (
	minPace        = 0.1         // requests per second
	silentRetry    = time.Second // between tries of a server that refuses everything
	maxSilentRetry = time.Minute // even if the server asks for a longer wait
	firstPaceStep  = 0.02
	maxPaceStep    = 1.0
	freePaceStep   = 0.3 // a rate that grows by this much was not near a limit
	minPaceHold    = time.Second
	maxPaceHold    = 3 * time.Second
)

// pacer spaces the beginnings of requests, so that a server that allows a number per second
// gets that many. It saves nothing up: the size of a burst is up to the server.
//
// The rate follows the capacity of the server, as TCP's follows the capacity of a path (Jacobson,
// "Congestion Avoidance and Control", 1988): refusals set it to the rate of the requests that
// were not refused, and without refusals it grows, slowly at first and then faster and faster,
// so that a limit that was lifted is noticed within seconds.
type pacer struct {
	rate      float64   // requests per second; 0: any number
	next      time.Time // beginning of the next request
	held      bool      // a request was held back in this window
	clean     float64   // the last rate at which nothing was refused
	step      float64   // by which the rate grows next
	holdUntil time.Time // before which it does not grow
	hold      time.Duration
}

// waitTime returns how long the next request has to wait; 0 if it may begin.
func (p *pacer) waitTime(now time.Time) time.Duration {
	if p.rate == 0 || !now.Before(p.next) {
		return 0
	}
	p.held = true
	return p.next.Sub(now)
}

// takeTurn records that a request begins.
func (p *pacer) takeTurn(now time.Time) {
	if p.rate == 0 {
		return
	}

	gap := time.Duration(float64(time.Second) / p.rate)
	if p.next.Before(now.Add(-gap)) {
		p.next = now
	}

	p.next = p.next.Add(gap)
}

// cutRate lowers the rate to the rate that the server took.
func (p *pacer) cutRate(rate float64, now time.Time) {
	p.rate = max(minPace, min(p.rate, rate))
	p.clean = min(p.clean, p.rate)
	p.step = firstPaceStep
	p.hold = min(maxPaceHold, max(minPaceHold, 2*p.hold))
	p.holdUntil = now.Add(p.hold)
}

// growRate raises the rate, since nothing was refused.
func (p *pacer) growRate(now time.Time) {
	if p.held {
		p.clean = p.rate
	}

	if now.Before(p.holdUntil) {
		return
	}

	p.rate *= 1 + p.step
	p.step = min(maxPaceStep, 2*p.step)
	if p.step >= freePaceStep {
		p.hold = 0
	}
}
