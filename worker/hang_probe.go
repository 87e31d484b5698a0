package worker

import (
	"context"
	"time"
)

// A server that counts its tokens and counts none for a while hangs. One that counts
// nothing and answers nothing may hang, or be at a long answer. So one request that it did
// not answer is sent to it again, with twice the patience each time, up to the timeout of an
// attempt. These are attempts of that request, and an answer is not thrown away: so a server
// that is only slow gets done, and a request that never ends does not keep a run from ending.

// hangProbe is what the worker does about a server that may hang or be slow. The health's lock
// guards it.
type hangProbe struct {
	counts   bool          // the server counts tokens while it works: there is no doubt
	patience time.Duration // without an answer; 0: the usual
	quick    int           // answers in a row that came within the usual time
	task     *task         // that the server gets again
	trying   bool          // now
}

// takeTask takes the task out if wanted is true of it and the server does not have it now.
func (d *hangProbe) takeTask(wanted func(*task) bool) *task {
	t := d.task
	if t == nil || d.trying || !wanted(t) {
		return nil
	}
	d.task = nil
	return t
}

// count notes whether the server counts its tokens while it works.
func (h *serverHealth) count(counts bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hangProbe.counts = counts
}

// patience is how long the server may make no progress until it counts as hung, and whether
// there is doubt about that.
func (h *serverHealth) patience(usual time.Duration) (patience time.Duration, doubted bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hangProbe.counts {
		return usual, false
	}
	return max(usual, h.hangProbe.patience), true
}

// quickEnough is how many answers in a row must come within the usual time until the server
// does not count as slow any more. Long requests may lie between short ones.
const quickEnough = 32

// answered notes that the server has answered a request, and whether within the usual time.
// A server that was only slow for a while has the usual patience again after some of these.
func (h *serverHealth) answered(now time.Time, quick bool) {
	h.mu.Lock()
	defer h.mu.Unlock()

	h.lastProgress = now
	d := &h.hangProbe
	switch {
	case d.patience == 0:
	case !quick:
		d.quick = 0
	default:
		if d.quick++; d.quick == quickEnough {
			d.quick, d.patience = 0, 0
		}
	}
}

// double gives the server twice the time, up to the most, and returns it.
func (h *serverHealth) double(patience, most time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hangProbe.patience = max(patience, min(2*patience, most))
	h.hangProbe.quick = 0
	return h.hangProbe.patience
}

// endStalled goes on with a task that the server had when it was found to hang. Others may have
// a server that answers it. If there is doubt, the smallest stays, to be sent again.
func (w *Worker) endStalled(t *task, took time.Duration) {
	h := &w.health
	h.offerCanary(t.Request)
	h.mu.Lock()
	d, back := &h.hangProbe, t
	doubted := !d.counts && w.cfg.Process == nil
	if doubted {
		w.countStall(t, took)
	}

	if doubted && !d.trying && (d.task == nil || len(t.Body) < len(d.task.Body)) {
		back, d.task = d.task, t
	}

	h.mu.Unlock()

	if back != nil {
		back.handBack()
	}
}

// countStall counts an attempt that was cut off. The last attempt is left: it gets all its
// time.
func (w *Worker) countStall(t *task, took time.Duration) {
	w.stats.recordAttempt(took, "stall")
	if t.attemptsUsed()+1 >= w.cfg.Attempts {
		return
	}
	w.stats.Retries.Add(1)
	t.attempts++
	t.reasons = append(t.reasons, "stall")
}

// dropStalled hands back the task that waits to be sent again, if gone is true of it.
func (w *Worker) dropStalled(gone func(*task) bool) {
	h := &w.health
	h.mu.Lock()
	t := h.hangProbe.takeTask(gone)
	h.mu.Unlock()
	if t != nil {
		t.handBack()
	}
}

// startHangProbe sends a request again to a server that may hang or be slow. It reports whether
// there is one to send, or on its way.
func (w *Worker) startHangProbe() bool {
	h := &w.health
	h.mu.Lock()
	defer h.mu.Unlock()

	d := &h.hangProbe
	if d.task == nil || d.trying {
		return d.task != nil
	}

	d.trying = true
	t, patience := d.task, max(d.patience, w.cfg.Stall)
	if t.attemptsUsed()+1 >= w.cfg.Attempts {
		patience = w.cfg.Timeout
	}

	w.attempts.Go(func() { w.runHangProbe(t, patience) })

	return true
}

// runHangProbe sends the task again, and decides what follows for it and for the server.
func (w *Worker) runHangProbe(t *task, patience time.Duration) {
	begin, calls := time.Now(), t.shard.run.requests
	call, cancel := context.WithTimeout(calls, patience)
	w.stats.InFlight.Add(1)
	j := classify(t.URL, t.countedBody(), w.cfg.Server.Post(call, t.URL, t.Body))
	w.stats.InFlight.Add(-1)
	cancel()
	took := time.Since(begin)

	h := &w.health
	answered, last := j.verdict == final || j.result.Status != 0, t.attemptsUsed()+1 >= w.cfg.Attempts
	cut := !answered && calls.Err() != nil
	again := !answered && !cut && (j.verdict == unsent || !last)
	h.mu.Lock()
	h.hangProbe.trying = false
	if !again {
		h.hangProbe.task = nil
	}

	h.mu.Unlock()

	switch {
	case answered:
		w.markUp()
		w.decideNext(calls, t, j, begin, took)
	case cut:
		t.handBack()
	case j.verdict == unsent: // the server has gone
	case again:
		w.countStall(t, took)
		h.double(patience, w.cfg.Timeout)
	default: // it had its time; others may not take so long
		w.finishAttempt(t, j, took)
		w.reopenServer()
	}
}
