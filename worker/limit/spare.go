package limit

import (
	"math"
	"time"
)

// A request that waits in the server keeps a slot from being empty while an answer and the next
// request travel. But what waits is not free everywhere: a server may look through its queue at
// each step, or make room in its cache for what it cannot run yet. So both are tried from time
// to time, and what brings more is kept.
const (
	sparePays     = 1.03 // what must come of a queue without requests
	spareCosts    = 0.99 // what may be lost for one that has some, since it notices new slots at once
	spareRequests = 8    // at least, that a rate is of
	spareFirst    = 2 * time.Second
	spareRest     = 30 * time.Second
	spareRestMax  = 4 * time.Minute
)

// spare is what the limiter knows of requests that wait in the server.
type spare struct {
	none  bool // no request is to wait
	tries bool // and that is a trial, or the opposite is
	rate  float64
	limit int // before the trial
	began time.Time
	next  time.Time
	rest  time.Duration
}

// weigh compares the rate with requests in the server's queue with that without, while the
// queue or the server's slots decide on the limit.
func (l *Limiter) weigh(now time.Time) {
	s, m := &l.spare, l.meter
	if l.overload.stance != open || now.Sub(l.gauges.braked) < tightTime {
		return
	}

	if s.next.IsZero() {
		s.next = now.Add(spareFirst)
	}

	need := max(l.limit, spareRequests)
	if now.Before(s.next) || m.n < need || now.Sub(m.since) < roundTime {
		return
	}

	gap := 0.0
	if s.tries {
		gap = math.Abs(m.rate()/s.rate - 1)
	}

	if m.n < maxRounds*need && now.Sub(m.since) < longRound && m.doubt() > max(sure, gap/3) {
		return
	}

	if m.meanLoad() < 0.9*float64(l.limit) {
		l.meter = meter{since: now}
		return
	}

	if !s.tries {
		s.tries, s.rate, s.limit, s.began = true, m.rate(), l.limit, now
		waiting := max(1, l.gauges.standing)
		if s.none {
			waiting = max(1, int(queueShare*float64(l.limit)))
		}

		s.flip(l, waiting, now)
		return
	}

	s.tries = false
	pays := sparePays
	if !s.none {
		pays = spareCosts
	}

	if m.rate() >= pays*s.rate {
		s.rest = spareRest
	} else {
		cost := (1 - m.rate()/s.rate) / costsProbes * float64(now.Sub(s.began))
		s.rest = min(spareRestMax, max(spareRest, 2*s.rest, time.Duration(cost)))
		s.flip(l, 0, now)
		l.move(s.limit, now)
	}

	s.next = now.Add(s.rest)
}

// flip lets some requests wait in the server, or none of them.
func (s *spare) flip(l *Limiter, waiting int, now time.Time) {
	if s.none = !s.none; s.none {
		waiting = -waiting
	}
	l.move(l.limit+waiting, now)
}
