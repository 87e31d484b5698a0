package collector

import (
	"sync"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
)

// activityTimer parts the time in which a run is worked on from the time in which it is not:
// it is paused, there is no worker, or its model server loads. Time in which the bus does
// not answer counts as worked: it is part of what the run takes. An activityTimer is safe
// for concurrent use.
type activityTimer struct {
	mu          sync.Mutex // guards the fields below
	accountedTo time.Time  // until then the time is accounted for
	lastWork    time.Time  // when a worker was seen at work last
	askedSince  time.Time  // since when the bus is being asked for news; zero: it is not
	spent       times      // since it was taken last
}

// times are parts of the time since a run began.
type times struct {
	worked time.Duration // a worker was at work
	idle   time.Duration // no worker was
	lost   time.Duration // nobody collected the run, and no worker was seen at work
}

// add adds other times.
func (t *times) add(other times) {
	t.worked += other.worked
	t.idle += other.idle
	t.lost += other.lost
}

func newActivityTimer(now time.Time) *activityTimer {
	return &activityTimer{accountedTo: now, lastWork: now}
}

// restart forgets the time before now.
func (t *activityTimer) restart(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()

	t.accountedTo, t.lastWork, t.askedSince, t.spent = now, now, time.Time{}, times{}
}

// noteWork notes that a worker is at work.
func (t *activityTimer) noteWork(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()

	if t.isOverdue(now) {
		t.presumeWork(t.askedSince, now)
	}

	t.account(now)
	t.lastWork = laterOf(t.lastWork, now)
}

// promptAnswer is the longest time that the bus takes to answer, unless it is away or has
// no leader.
const promptAnswer = 3 * time.Second

// noteAsk notes that the bus is asked for news.
func (t *activityTimer) noteAsk(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()

	t.askedSince = now
}

// noteAnswer notes that the bus has given the news, or an error.
func (t *activityTimer) noteAnswer(now time.Time, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()

	if err != nil || t.isOverdue(now) {
		t.presumeWork(t.askedSince, now)
	}

	t.askedSince = time.Time{}
}

// noteBlind notes that the bus did not answer in this time. Workers may have been at work:
// their work is not seen, and their answers wait for the bus. So the time does not count
// as idle.
func (t *activityTimer) noteBlind(from, to time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()

	t.presumeWork(from, to)
}

// presumeWork counts time in which nothing could be seen as worked. The caller holds the
// lock.
func (t *activityTimer) presumeWork(from, to time.Time) {
	if t.isOverdue(to) && t.askedSince.Before(from) {
		from = t.askedSince
	}

	t.account(from)
	t.lastWork = laterOf(t.lastWork, to)
	t.account(to)
}

// isOverdue reports whether the bus is asked for news and takes too long. The caller holds
// the lock.
func (t *activityTimer) isOverdue(now time.Time) bool {
	return !t.askedSince.IsZero() && now.Sub(t.askedSince) > promptAnswer
}

// account accounts for the time until now. The caller holds the lock.
func (t *activityTimer) account(now time.Time) {
	if now.Sub(t.lastWork) > metadata.Quiet {
		t.spent.worked += max(0, t.lastWork.Sub(t.accountedTo))
		t.spent.idle += max(0, now.Sub(laterOf(t.lastWork, t.accountedTo)))
	} else {
		t.spent.worked += max(0, now.Sub(t.accountedTo))
	}

	t.accountedTo = laterOf(t.accountedTo, now)
}

// take returns the time that was spent since it was taken last.
func (t *activityTimer) take() times {
	t.mu.Lock()
	defer t.mu.Unlock()

	spent := t.spent
	t.spent = times{}

	return spent
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
