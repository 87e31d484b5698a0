package modelserver

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// identity finds out whether the pages of metrics that one URL gives are those of one server.
// Behind a load balancer each is another replica's: its gauges are a part of the load, and its
// counters jump back and forth. A restart of the only server is not taken for that: its start
// time is newer, or its counters fall once.
//
// The time at which a model was "created" is no sign: vLLM, SGLang and llama.cpp give the time
// of the answer there.
type identity struct {
	mu      sync.Mutex
	several string // why they are of more than one server; empty: nothing says so

	known   bool // last and base are
	last    glimpse
	base    glimpse   // the first of what may be one process
	started float64   // the newest start time
	jumped  time.Time // when the page was last another one than before

	slots slotCount
}

// glimpse is what one page says of the process that it comes from, and what came of its
// server up to then.
type glimpse struct {
	at       time.Time
	started  float64    // in seconds of a clock of its host; 0: unknown
	engines  string     // the names of its engines
	counters [3]float64 // tokens, prompt tokens, preemptions; below 0: unknown

	answered int64 // tokens of all answers
	answers  int64
	inFlight int64
}

const (
	sameStart = 1.0 // seconds that the start times of one process may differ by
	// jumpsWithin is the time in which two jumps are no restarts: loading a model takes longer.
	jumpsWithin = time.Minute
	// countedLeast is the part of the answers' tokens that a server must have counted itself.
	// Of two that take turns, each counts a half.
	countedLeast = 0.7
	answersLeast = 64
	// busyLeast is the part of the slots that must be busy while there are requests for all of
	// them. Of two servers with four slots, five requests keep 0.6 busy.
	busyLeast = 0.72
	slotLooks = 10
	// slotAnswers is how many answers a second a slot may give until it is no sign that it was
	// found free: it is so between two of them.
	slotAnswers = 10.0
)

// slotCount sums up looks at the slots of a server that has no page of metrics.
type slotCount struct {
	looks     int
	busy, all int
	since     time.Time // the first look
	answers   int64     // then
	settled   bool      // it is known whether it is one server
}

// addSlots takes in a look at the slots, and returns why they are of more than one server, or "".
func (i *identity) addSlots(g glimpse, busy, all int) string {
	i.mu.Lock()
	defer i.mu.Unlock()

	c := &i.slots
	if i.several != "" || c.settled || all == 0 || g.inFlight < int64(all) {
		return i.several
	}

	if c.looks == 0 {
		c.since, c.answers = g.at, g.answers
	}

	c.looks++
	c.busy += busy
	c.all += all
	if c.looks < slotLooks {
		return ""
	}

	c.settled = true
	quick := float64(g.answers-c.answers) > slotAnswers*float64(all)*g.at.Sub(c.since).Seconds()
	if !quick && float64(c.busy) < busyLeast*float64(c.all) {
		i.several = "slots are free while there are requests for all"
	}

	return i.several
}

// wantsSlots reports whether another look at the slots could say something.
func (i *identity) wantsSlots() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.several == "" && !i.slots.settled
}

// add takes in a page, and returns why the pages are of more than one server, or "".
func (i *identity) add(g glimpse) string {
	i.mu.Lock()
	defer i.mu.Unlock()

	if i.several != "" {
		return i.several
	}

	last, known := i.last, i.known
	i.last, i.known = g, true
	switch {
	case g.started > 0 && g.started < i.started-sameStart:
		i.several = "the start time went back"
	case g.started > i.started+sameStart || !known:
		i.started, i.base = max(i.started, g.started), g
	case g.jumps(last):
		if !i.jumped.IsZero() && g.at.Sub(i.jumped) < jumpsWithin {
			i.several = "counters jump back and forth"
		}
		i.jumped, i.base = g.at, g
	case g.lacks(i.base):
		i.several = "fewer tokens are counted than the answers have"
	}

	return i.several
}

// jumps reports whether a page cannot be of the process that the last one was of.
func (g glimpse) jumps(last glimpse) bool {
	for n, count := range g.counters {
		if count >= 0 && count < last.counters[n] {
			return true
		}
	}

	// One that is not there yet may only have had no request: SGLang names it with its first.
	there := strings.Split(g.engines, ",")
	for engine := range strings.SplitSeq(last.engines, ",") {
		if engine != "" && !slices.Contains(there, engine) {
			return true
		}
	}

	return false
}

// lacks reports whether the process has counted far fewer tokens since base than came in
// answers. What was in flight at base was counted in part before, so that many more answers
// than these are waited for.
func (g glimpse) lacks(base glimpse) bool {
	const tokens = 0
	if g.counters[tokens] < 0 || base.counters[tokens] < 0 ||
		g.answers-base.answers < max(answersLeast, 8*base.inFlight) {
		return false
	}
	return g.counters[tokens]-base.counters[tokens] < countedLeast*float64(g.answered-base.answered)
}

// settleSlots notes that the slots are not told.
func (i *identity) settleSlots() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.slots.settled = true
}

// away notes that the server could not be reached: another process may come in its place, on a
// machine with another clock.
func (i *identity) away() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.known, i.started, i.slots = false, 0, slotCount{}
}

// isSeveral reports whether the pages are of more than one server.
func (i *identity) isSeveral() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.several != ""
}
