package collector

import (
	"sync"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
)

// clock tells the time in which a run is worked on from that in which nobody does: it is
// paused, there is no worker, or its model server loads. Time in which the bus does not
// answer is of the first kind: it is part of what the run takes.
type clock struct {
	mu    sync.Mutex
	at    time.Time // until then the time is accounted for
	busy  time.Time // when somebody was seen at work last
	asked time.Time // since when the bus is being asked for news; zero: it is not
	spent times     // since it was taken last
}

// times are parts of the time since a run began.
type times struct {
	worked time.Duration // somebody was at work
	idle   time.Duration // nobody was
}

func newClock(now time.Time) *clock { return &clock{at: now, busy: now} }

// work notes that somebody is at work.
func (k *clock) work(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.owes(now) {
		k.presume(k.asked, now)
	}
	k.account(now)
	k.busy = later(k.busy, now)
}

// promptAnswer is how long the bus takes at most to give the news, unless it is away or has
// no leader.
const promptAnswer = 3 * time.Second

// ask notes that the bus is asked for news.
func (k *clock) ask(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = now
}

// answered notes that it has given them, or an error.
func (k *clock) answered(now time.Time, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil || k.owes(now) {
		k.presume(k.asked, now)
	}
	k.asked = time.Time{}
}

// blind notes that the bus did not answer in this time. Workers may have been at work: what
// they do is not seen, and what they answer waits for the bus. So it is no time in which
// nobody was.
func (k *clock) blind(from, to time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.presume(from, to)
}

// presume takes time in which nothing could be seen for time in which somebody was at
// work. The caller holds the lock.
func (k *clock) presume(from, to time.Time) {
	if k.owes(to) && k.asked.Before(from) {
		from = k.asked
	}
	k.account(from)
	k.busy = later(k.busy, to)
	k.account(to)
}

// owes reports whether the bus is asked for news and takes too long. The caller holds the
// lock.
func (k *clock) owes(now time.Time) bool {
	return !k.asked.IsZero() && now.Sub(k.asked) > promptAnswer
}

// account accounts for the time until now. The caller holds the lock.
func (k *clock) account(now time.Time) {
	if now.Sub(k.busy) > metadata.Quiet {
		k.spent.worked += max(0, k.busy.Sub(k.at))
		k.spent.idle += max(0, now.Sub(later(k.busy, k.at)))
	} else {
		k.spent.worked += max(0, now.Sub(k.at))
	}
	k.at = later(k.at, now)
}

// take returns what time was spent since it was taken last.
func (k *clock) take() times {
	k.mu.Lock()
	defer k.mu.Unlock()
	spent := k.spent
	k.spent = times{}
	return spent
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
