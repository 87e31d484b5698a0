package worker

import (
	"sync"
	"time"

	"github.com/promptmill/promptmill/worker/limit"
)

// quickAnswersToReset is the number of answers in a row that must come within the usual time
// until the server no longer counts as slow. Long requests may lie between short ones.
const quickAnswersToReset = 32

// serverProgress records when the server last made progress, and how long it may make none until
// it counts as hung. A server that counts its tokens and counts none for a while hangs. One that
// counts nothing and answers nothing may hang, or be at a long answer: it gets twice the time after
// each hang.
type serverProgress struct {
	// mu guards the fields below.
	mu sync.Mutex
	// last is the time at which the server last made progress. (A number of seconds in place of
	// a time would follow steps of the wall clock.)
	last time.Time
	// lastRan is the time at which this process was last seen to run; zero: nothing watches it.
	lastRan time.Time
	// countsTokens is true if the server counts tokens while it works. If it counts none, it
	// hangs for sure.
	countsTokens bool
	// extended is the time without an answer that a slow server gets; 0: the usual time.
	extended time.Duration
	// quick is the number of answers in a row that came within the usual time.
	quick int
}

// record records that the server does something.
func (p *serverProgress) record(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = now
}

// recordAnswer records an answer to a request, and whether it came within the usual time. A server
// that was slow only for a while has the usual time again after some quick answers.
func (p *serverProgress) recordAnswer(now time.Time, quick bool) {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.last = now

	switch {
	case p.extended == 0:
		return
	case !quick:
		p.quick = 0
		return
	}

	if p.quick++; p.quick == quickAnswersToReset {
		p.quick, p.extended = 0, 0
	}
}

// recordRunning records that this process runs. The server is not to blame for a time without
// progress in which this process did not run.
func (p *serverProgress) recordRunning(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()

	if !p.lastRan.IsZero() && now.Sub(p.lastRan) > limit.MissedBeat {
		p.last = now
	}

	if now.After(p.lastRan) {
		p.lastRan = now
	}
}

// setCountsTokens sets whether the server counts its tokens while it works.
func (p *serverProgress) setCountsTokens(counts bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.countsTokens = counts
}

// maybeSlow reports whether a server without progress may be slow, and need not hang.
func (p *serverProgress) maybeSlow() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.countsTokens
}

// idleFor returns how long the server has made no progress.
func (p *serverProgress) idleFor(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Sub(p.last)
}

// patience returns how long the server may make no progress until it counts as hung.
func (p *serverProgress) patience(usual time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()

	if p.countsTokens {
		return usual
	}

	return max(usual, p.extended)
}

// extendPatience gives the server twice the time that it had, most at the longest, and returns it.
func (p *serverProgress) extendPatience(had, most time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.extended = max(had, min(2*had, most))
	p.quick = 0

	return p.extended
}
