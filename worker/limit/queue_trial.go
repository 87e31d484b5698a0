package limit

import (
	"math"
	"time"
)

// Trials of the queue.
const (
	minGainEmpty   = 1.03 // gain for which a queue without requests is kept
	keptWithQueue  = 0.99 // part of the rate for which a queue with requests is kept: it notices new slots at once
	trialRequests  = 8    // least number of requests that a rate is of
	firstTrialWait = 2 * time.Second
	minTrialWait   = 30 * time.Second // between trials
	maxTrialWait   = 4 * time.Minute
)

// queueTrial tries whether requests should wait in the server at all, while the queue or the
// server's slots decide on the limit. A request that waits there keeps a slot from being empty
// while an answer and the next request travel. But waiting requests are not free everywhere: a
// server may look through its queue at each step, or make room in its cache for requests that
// it cannot run yet. So both are tried from time to time, and the better one is kept.
type queueTrial struct {
	win    *window
	gauges *gaugeController

	running bool    // the other policy is being tried
	rate    float64 // before the trial
	limit   int     // before the trial
	beganAt time.Time
	next    time.Time
	wait    time.Duration // before the next trial
}

// reset forgets all trials, and lets requests wait in the server.
func (t *queueTrial) reset() {
	*t = queueTrial{win: t.win, gauges: t.gauges}
	t.gauges.keepEmpty = false
}

// compareRates ends a round of measuring, if it has enough requests: it starts a trial, or ends the
// one that runs.
func (t *queueTrial) compareRates(now time.Time) {
	w, m := t.win, &t.win.meter
	if t.gauges.isCautious(now) {
		return
	}

	if t.next.IsZero() {
		t.next = now.Add(firstTrialWait)
	}

	need := max(w.limit, trialRequests)
	if now.Before(t.next) || m.requests < need || now.Sub(m.since) < minRoundTime {
		return
	}

	gap := 0.0
	if t.running {
		gap = math.Abs(m.rate()/t.rate - 1)
	}

	if !m.isPrecise(need, gap, now) {
		return
	}

	if !w.isFilled() {
		w.startRound(now)
		return
	}

	if t.running {
		t.endTrial(m.rate(), now)
	} else {
		t.startTrial(m.rate(), now)
	}
}

// startTrial tries the other policy for the queue, at a limit that is changed by the requests
// that wait.
func (t *queueTrial) startTrial(rate float64, now time.Time) {
	t.running, t.rate, t.limit, t.beganAt = true, rate, t.win.limit, now

	waiting := max(1, t.gauges.standing)
	if t.gauges.keepEmpty {
		waiting = max(1, int(queueShare*float64(t.win.limit)))
	}

	if t.gauges.keepEmpty = !t.gauges.keepEmpty; t.gauges.keepEmpty {
		waiting = -waiting
	}

	t.gauges.moveLimit(t.win.limit+waiting, now)
}

// endTrial keeps the policy that was tried, or returns to the one before.
func (t *queueTrial) endTrial(rate float64, now time.Time) {
	t.running = false

	least := minGainEmpty
	if !t.gauges.keepEmpty {
		least = keptWithQueue
	}

	if rate >= least*t.rate {
		t.wait = minTrialWait
	} else {
		cost := (1 - rate/t.rate) / maxProbeCost * float64(now.Sub(t.beganAt))
		t.wait = min(maxTrialWait, max(minTrialWait, 2*t.wait, time.Duration(cost)))
		t.gauges.keepEmpty = !t.gauges.keepEmpty
		t.gauges.moveLimit(t.limit, now)
	}

	t.next = now.Add(t.wait)
}
