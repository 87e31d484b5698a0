package collector

import (
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
)

// collectionGap is the time before a session in which nobody collected the run: the run was interrupted,
// or was submitted and is collected later. The results that were stored meanwhile show how the time was
// spent. A result that was stored at a time, and whose request took so long, shows a worker at work from
// that request's start on. Between such times a run counts as idle as it does while it is collected:
// after [metadata.Quiet] without a sign of work.
type collectionGap struct {
	// It is settled how the time until from was spent, and to is the beginning of the session.
	from, to time.Time
	// begin is where from was at first: if that is before the first session, the beginning of the run.
	begin time.Time
	// lostFrom is the beginning of the part that the journal has as lost until results show work in
	// it; to: it has none. The part before is from before the first session.
	lostFrom time.Time
	// pauses are the parts before from without a sign of work, the oldest first. A later result may
	// show work in them: its request took longer.
	pauses []span
	read   bool // results of the gap were read
}

// span is a part of time.
type span struct{ from, to time.Time }

// maxPauses bounds the pauses that later results can show work in.
const maxPauses = 1000

// isSettled reports whether it is settled how the whole gap was spent.
func (g *collectionGap) isSettled() bool { return !g.from.Before(g.to) }

// noteResult takes in a result that was stored at a time in the gap, and the longest time that a
// request of it took. It returns how much of the gap was spent how, as far as that is news.
func (g *collectionGap) noteResult(at time.Time, took time.Duration) (t times) {
	g.read = true
	begin := at.Add(-took)
	g.reclaim(&t, begin, at)

	if g.isSettled() || !at.After(g.from) {
		return t
	}

	end := earlierOf(at, g.to)
	start := earlierOf(laterOf(begin, g.from), end)
	if g.isPause(span{g.from, start}) {
		g.addPause(&t, span{g.from, start})
	} else {
		g.addWork(&t, span{g.from, start})
	}

	g.addWork(&t, span{start, end})
	g.from = end

	return t
}

// noteLive takes in a result that comes while the run is collected, of a request that began before.
func (g *collectionGap) noteLive(now time.Time, took time.Duration) (t times) {
	if n := len(g.pauses); n > 0 && g.pauses[n-1].to.Equal(g.to) {
		g.reclaim(&t, laterOf(now.Add(-took), g.pauses[n-1].from), g.to)
	}
	return t
}

// settleRest settles the time from the last result of the gap to its end. complete says that there is a
// result for each request: then nobody works, and the results wait for the collector.
func (g *collectionGap) settleRest(complete bool) (t times) {
	if g.isSettled() {
		return t
	}

	rest := span{g.from, g.to}
	g.from = g.to

	early, late := rest.split(g.lostFrom)
	switch {
	case complete:
		t.lost += early.length()
	case early.length() > metadata.Quiet:
		g.addPause(&t, rest)
	case g.read:
		g.addWork(&t, early)
		g.addPause(&t, late)
	default: // the collector begins with the run, or resumes it
		g.addPause(&t, late)
	}

	return t
}

// isPause reports whether a part of the gap without a sign of work is a pause. Before its first request
// nobody works on a run, however short that is.
func (g *collectionGap) isPause(part span) bool {
	isFirst := part.from.Equal(g.begin) && part.from.Before(g.lostFrom)
	return part.length() > metadata.Quiet || isFirst && part.length() > 0
}

// addWork counts a part of the gap as worked.
func (g *collectionGap) addWork(t *times, part span) {
	_, late := part.split(g.lostFrom)
	t.worked += part.length()
	t.lost -= late.length()
}

// addPause counts a part of the gap without a sign of work: as idle before the first session, as lost
// after it.
func (g *collectionGap) addPause(t *times, part span) {
	if part.length() == 0 {
		return
	}

	early, _ := part.split(g.lostFrom)
	t.idle += early.length()

	g.pauses = append(g.pauses, part)
	g.pauses = g.pauses[max(0, len(g.pauses)-maxPauses):]
}

// reclaim counts the pauses between two times as worked. What is left of a pause is one only if it is
// long enough.
func (g *collectionGap) reclaim(t *times, from, to time.Time) {
	var rest []span
	for n := len(g.pauses); n > 0 && g.pauses[n-1].to.After(from); n-- {
		p := g.pauses[n-1]
		g.pauses = g.pauses[:n-1]

		before, after := p.split(laterOf(from, p.from))
		worked, after := after.split(earlierOf(to, p.to))
		if worked.length() == 0 {
			rest = append(rest, p)
			continue
		}

		early, _ := p.split(g.lostFrom)
		t.idle -= early.length()

		for _, part := range []span{after, before} {
			if !g.isPause(part) {
				g.addWork(t, part)
				continue
			}

			early, _ := part.split(g.lostFrom)
			t.idle += early.length()
			rest = append(rest, part)
		}

		g.addWork(t, worked)
	}

	for i := range rest {
		g.pauses = append(g.pauses, rest[len(rest)-1-i])
	}
}

// length returns the length of a part, which is not below zero.
func (s span) length() time.Duration { return max(0, s.to.Sub(s.from)) }

// split returns the parts before and after a time.
func (s span) split(at time.Time) (before, after span) {
	at = laterOf(s.from, earlierOf(at, s.to))
	return span{s.from, at}, span{at, s.to}
}

func earlierOf(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
