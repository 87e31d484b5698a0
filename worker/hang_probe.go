package worker

import (
	"sync"
	"time"
)

// A server that counts no tokens and answers nothing may hang, or be at a long answer. So one
// request that it did not answer is sent to it again, with twice the patience each time, up to the
// timeout of an attempt. These are attempts of that request, and an answer counts: so a server
// that is only slow makes progress, and a request that never ends does not keep a run from ending.

// stalledTask holds the one task that is sent again to a server which may hang or be slow.
type stalledTask struct {
	mu      sync.Mutex
	task    *task
	sending bool // the server has it now
}

// offer keeps the smaller of t and the task held before, and returns the other one; nil if there
// is no other.
func (s *stalledTask) offer(t *task) (other *task) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.sending || s.task != nil && len(t.Body) >= len(s.task.Body) {
		return t
	}

	other, s.task = s.task, t

	return other
}

// take removes the task if wanted returns true for it and the server does not have it now.
func (s *stalledTask) take(wanted func(*task) bool) *task {
	s.mu.Lock()
	defer s.mu.Unlock()

	t := s.task
	if t == nil || s.sending || !wanted(t) {
		return nil
	}

	s.task = nil

	return t
}

// beginSend returns the task, to send it; nil if there is none, or the server has it now. pending
// reports whether there is one.
func (s *stalledTask) beginSend() (t *task, pending bool) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.task == nil || s.sending {
		return nil, s.task != nil
	}

	s.sending = true

	return s.task, true
}

// endSend ends the send that beginSend began. keep is true if the task is sent once more.
func (s *stalledTask) endSend(keep bool) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.sending = false
	if !keep {
		s.task = nil
	}
}

// hangProbe sends the stalled task again, to find out whether a server hangs or is slow.
type hangProbe struct {
	state    *serverState
	progress *serverProgress
	stalled  *stalledTask
	attempts *attemptRunner
	pool     *attemptPool
}

// startProbe sends the stalled task again. It reports whether there is one, or one on its way.
func (p *hangProbe) startProbe() bool {
	t, pending := p.stalled.beginSend()
	if t == nil {
		return pending
	}

	patience := p.progress.patience(p.attempts.stall)
	if p.isLastAttempt(t) {
		patience = p.attempts.timeout
	}

	p.pool.startOther(func() { p.sendStalled(t, patience) })

	return true
}

// isLastAttempt reports whether the task has one attempt left. It gets all its time.
func (p *hangProbe) isLastAttempt(t *task) bool { return t.attemptsUsed()+1 >= p.attempts.maxAttempts }

// sendStalled sends the task, and decides the next step for it and for the server.
func (p *hangProbe) sendStalled(t *task, patience time.Duration) {
	run, last := t.shard.run, p.isLastAttempt(t)
	begin := time.Now()
	c, took := p.attempts.send(run.requests, t, patience)

	answered := c.isFromServer()
	stopped := !answered && run.requests.Err() != nil
	again := !answered && !stopped && (c.verdict == unsent || !last)
	p.stalled.endSend(again)

	switch {
	case answered:
		p.state.markUp()
		p.attempts.decideNext(t, c, begin, took)
	case stopped:
		t.handBack()
	case c.verdict == unsent: // the server is gone
	case again:
		p.attempts.countStall(t, took)
		p.progress.extendPatience(patience, p.attempts.timeout)
	default: // it had its time; others may take less
		p.attempts.finishAttempt(t, c, took)
		p.state.markReopened()
	}
}
