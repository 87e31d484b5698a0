package modelserver

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// replicaDetector finds out whether the pages of metrics at one URL come from one server.
// Behind a load balancer each is another replica's: its gauges are a part of the load, and its
// counters jump back and forth. A restart of the only server is no such sign: its start time is
// newer, or its counters fall once.
//
// The time at which a model was "created" is no sign either: vLLM, SGLang and llama.cpp report
// the time of the answer there.
type replicaDetector struct {
	mu       sync.Mutex
	evidence string // of more than one server; empty: there is none

	known   bool // last and base are set
	last    processSample
	base    processSample // the first sample that may come from the process of last
	started float64       // the newest start time
	jumped  time.Time     // when a page last came from another process than the page before

	slots slotSurvey
}

// processSample has the figures of one page about its process, with the number of answers of its
// server up to then.
type processSample struct {
	at       time.Time
	started  float64    // in seconds of a clock of its host; 0: unknown
	engines  string     // the names of its engines
	counters [3]float64 // tokens, prompt tokens, preemptions; below 0: unknown

	answered int64 // tokens of all answers
	answers  int64
	inFlight int64
}

const (
	startTolerance = 1.0 // seconds by which the start times of one process may differ
	// restartTime is the time in which two jumps are no restarts: loading a model takes longer.
	restartTime = time.Minute
	// minCountedShare is the part of the answers' tokens that a server must have counted
	// itself. Of two that take turns, each counts a half.
	minCountedShare = 0.7
	minAnswers      = 64
	// minBusyShare is the part of the slots that must be busy while there are requests for all
	// of them. Of two servers with four slots, five requests keep 0.6 busy.
	minBusyShare   = 0.72
	minSlotSamples = 10
	// maxAnswersPerSlot is the number of answers that a slot may give per second until it is no
	// sign that it was found free: it is free between two of them.
	maxAnswersPerSlot = 10.0
)

// slotSurvey sums up readings of the slots of a server that has no page of metrics.
type slotSurvey struct {
	samples   int
	busy, all int
	since     time.Time // the first sample
	answers   int64     // at that time
	settled   bool      // it is known whether it is one server
}

// observeSlots takes a reading of the slots, and returns the evidence that they are of more
// than one server, or "".
func (i *replicaDetector) observeSlots(g processSample, busy, all int) string {
	i.mu.Lock()
	defer i.mu.Unlock()

	c := &i.slots
	if i.evidence != "" || c.settled || all == 0 || g.inFlight < int64(all) {
		return i.evidence
	}

	if c.samples == 0 {
		c.since, c.answers = g.at, g.answers
	}

	c.samples++
	c.busy += busy
	c.all += all
	if c.samples < minSlotSamples {
		return ""
	}

	c.settled = true
	quick := float64(g.answers-c.answers) > maxAnswersPerSlot*float64(all)*g.at.Sub(c.since).Seconds()
	if !quick && float64(c.busy) < minBusyShare*float64(c.all) {
		i.evidence = "slots are free while there are requests for all"
	}

	return i.evidence
}

// wantsSlots reports whether another reading of the slots could show something.
func (i *replicaDetector) wantsSlots() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.evidence == "" && !i.slots.settled
}

// observe takes a page, and returns the evidence that the pages are of more than one server, or "".
func (i *replicaDetector) observe(g processSample) string {
	i.mu.Lock()
	defer i.mu.Unlock()

	if i.evidence != "" {
		return i.evidence
	}

	last, known := i.last, i.known
	i.last, i.known = g, true
	switch {
	case g.started > 0 && g.started < i.started-startTolerance:
		i.evidence = "the start time went back"
	case g.started > i.started+startTolerance || !known:
		i.started, i.base = max(i.started, g.started), g
	case g.differsFrom(last):
		if !i.jumped.IsZero() && g.at.Sub(i.jumped) < restartTime {
			i.evidence = "counters jump back and forth"
		}
		i.jumped, i.base = g.at, g
	case g.missesAnswers(i.base):
		i.evidence = "fewer tokens are counted than the answers have"
	}

	return i.evidence
}

// differsFrom reports whether a page cannot be of the process that the last one was of.
func (g processSample) differsFrom(last processSample) bool {
	for n, count := range g.counters {
		if count >= 0 && count < last.counters[n] {
			return true
		}
	}

	// An engine that is new may only have had no request: SGLang names it with its first.
	there := strings.Split(g.engines, ",")
	for engine := range strings.SplitSeq(last.engines, ",") {
		if engine != "" && !slices.Contains(there, engine) {
			return true
		}
	}

	return false
}

// missesAnswers reports whether the process has counted far fewer tokens since base than came
// in answers. The requests that were in flight at base were counted in part before, so it waits
// for many more answers than these.
func (g processSample) missesAnswers(base processSample) bool {
	const tokens = 0
	if g.counters[tokens] < 0 || base.counters[tokens] < 0 ||
		g.answers-base.answers < max(minAnswers, 8*base.inFlight) {
		return false
	}
	return g.counters[tokens]-base.counters[tokens] < minCountedShare*float64(g.answered-base.answered)
}

// skipSlots records that the server does not report its slots.
func (i *replicaDetector) skipSlots() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.slots.settled = true
}

// forgetProcess records that the server could not be reached: another process may come in its
// place, on a machine with another clock.
func (i *replicaDetector) forgetProcess() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.known, i.started, i.slots = false, 0, slotSurvey{}
}

// isReplicated reports whether the pages are of more than one server.
func (i *replicaDetector) isReplicated() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.evidence != ""
}
