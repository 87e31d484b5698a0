package limit

import "time"

// pacer spaces the beginnings of requests, so that a server that allows so many in a second
// gets as many. It saves up nothing, since what a server allows as a burst is its own affair.
//
// The rate follows what the server takes, as TCP's follows what a path takes (Jacobson,
// "Congestion Avoidance and Control", 1988): refusals set it to the rate of the requests that
// were not refused, and without refusals it grows, slowly at first and then faster and
// faster, so that a limit that was lifted is noticed within seconds.
type pacer struct {
	rate  float64   // requests that may begin in a second; 0: any number
	next  time.Time // when the next one may
	held  bool      // it has held one back in this window
	clean float64   // the last rate at which nothing was refused
	step  float64   // by which the rate grows next
	still time.Time // until then it does not grow
	rest  time.Duration
}

const (
	slowest    = 0.1         // requests a second
	silence    = time.Second // between tries of a server that refuses all
	growFirst  = 0.02
	growMost   = 1.0
	growAnew   = 0.3 // a rate that grows by so much was not near a limit
	restMin    = time.Second
	restMax    = 3 * time.Second
	silenceMax = time.Minute // a server that asks for a longer pause is asked then all the same
)

// wait is how long the next request has to wait; 0: it may begin.
func (p *pacer) wait(now time.Time) time.Duration {
	if p.rate == 0 || !now.Before(p.next) {
		return 0
	}
	p.held = true
	return p.next.Sub(now)
}

// take notes that a request begins.
func (p *pacer) take(now time.Time) {
	if p.rate == 0 {
		return
	}

	gap := time.Duration(float64(time.Second) / p.rate)
	if p.next.Before(now.Add(-gap)) {
		p.next = now
	}

	p.next = p.next.Add(gap)
}

// cut lowers the rate to what the server took.
func (p *pacer) cut(rate float64, now time.Time) {
	p.rate = max(slowest, min(p.rate, rate))
	p.clean = min(p.clean, p.rate)
	p.step = growFirst
	p.rest = min(restMax, max(restMin, 2*p.rest))
	p.still = now.Add(p.rest)
}

// grow raises the rate, since nothing was refused.
func (p *pacer) grow(now time.Time) {
	if p.held {
		p.clean = p.rate
	}

	if now.Before(p.still) {
		return
	}

	p.rate *= 1 + p.step
	p.step = min(growMost, 2*p.step)
	if p.step >= growAnew {
		p.rest = 0
	}
}
