package limit

import "time"

// Servers that refuse what they cannot hold (vLLM and SGLang with a bounded queue,
// Ollama: 503; proxies: 429; Dynamo: 529) are the one clear sign of too much. A few
// refusals say nothing, since proxies give them at random.
const (
	refused      = 0.2 // of the answers, before it counts
	refusedLeast = 5
	refusedCut   = 0.9 // what is left of the limit
	refusedRest  = 5 * time.Second
	ceilingTime  = 60 * time.Second
)

// overload watches for refusals since the last cut.
type overload struct {
	since   time.Time // of the last cut
	n       int       // answers to requests that began after it
	refused int

	ceiling int       // a limit at which the server refused
	until   time.Time // so long that is believed
}

// add counts an answer. It returns true when the limit must be cut.
func (v *overload) add(s Slot, o Outcome, limit int) bool {
	if s.begin.Before(v.since) {
		return false
	}
	v.n++
	if o.Overload {
		v.refused++
	}
	window := max(limit, roundRequests)
	if o.Overload && v.refused >= refusedLeast && float64(v.refused) > refused*float64(window) {
		return true
	}
	if v.n >= window {
		v.n, v.refused = 0, 0
	}
	return false
}

// cut lowers the limit after refusals.
func (l *Limiter) cut(now time.Time) {
	now = now.Add(1) // what begins in this instant began before
	l.overload = overload{since: now, ceiling: l.limit, until: now.Add(ceilingTime)}
	l.climb.rest(now)
	l.climb.nextUp = now.Add(refusedRest)
	l.gauges.pause(now.Add(refusedRest))
	l.set(min(l.limit-1, int(refusedCut*float64(l.limit))), now)
	l.climb.base = l.limit
}

// top is the highest limit to try now.
func (l *Limiter) top(now time.Time) int {
	if now.Before(l.overload.until) {
		return min(l.max, max(l.cfg.Min, l.overload.ceiling-1))
	}
	return l.max
}
