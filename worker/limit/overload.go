package limit

import (
	"math"
	"time"
)

// Servers that refuse what they cannot hold (vLLM and SGLang with a bounded queue,
// Ollama: 503; Dynamo: 529) or allow only so many requests in a second (proxies: 429 or
// 503) are the one clear sign of too much. A few refusals say nothing, since proxies give
// them at random.
//
// Which of the two it is, no status or header says in a way that all agree on. So it is
// found out. First requests begin only as fast as the server took them lately: that meets a
// limit on the rate. Then, for a moment, they begin as others end, and no more are there at
// once than when the server refused: if it takes clearly more that way, the limit is one on
// requests at once, and is kept as a ceiling. Otherwise the pace goes on.
const (
	refused      = 0.2 // of the answers, before it counts
	refusedLeast = 5

	// While requests are paced, each window says whether the server takes them.
	windowTime  = 500 * time.Millisecond
	windowMost  = 4 * time.Second
	windowLeast = 5    // requests taken
	refusedSome = 0.05 // of them, before the pace falls

	trialTime   = 3 * time.Second  // of a pace, and then under a ceiling
	trialMore   = 15 * time.Second // if there are few requests
	trialLeast  = 20               // of them
	trialPays   = 1.05
	trialRest   = time.Minute
	ceilingTime = 20 * time.Second

	looseTime = 10 * time.Second // after so long without need a pace ends

	// Refusals that stay as many however slow requests come are not for want of room.
	inVain      = 0.35 // of the pace is left
	inVainShare = 0.6  // of the first share is refused still
	ignoreTime  = time.Minute
)

// stance is what the limiter does about refusals.
type stance int

const (
	open     stance = iota // nothing
	paced                  // requests begin at a pace
	limiting               // a trial: as many at once as under a ceiling, without a pace
)

// overload watches for refusals.
type overload struct {
	stance stance
	pace   pacer

	// The window, and what has begun in it.
	since    time.Time
	begun    int
	refused  int
	ended    int
	answered int           // that and what began before, without refusals
	after    time.Duration // the longest wait that a refusal has asked for

	silent               bool      // the server refused everything in the last window
	loose                time.Time // since then the pace has held nothing back
	cuts                 int       // windows in a row with too many refusals
	share                float64   // of requests refused, in the first of them
	first                float64   // what the server took then, in a second
	cutBegun, cutRefused int       // in the others of them
	ignored              time.Time // until then refusals do not count

	found  time.Time // when the pace was found
	taken  int       // requests that the server took since
	full   float64   // how many others were there when a request was refused, summed
	fulls  int       // over so many
	before int       // the limit before a trial
	tried  time.Time // the last one

	ceiling int       // how many at once the server takes; 0: unknown
	until   time.Time // so long that is believed
}

// reset begins a window.
func (v *overload) reset(now time.Time) {
	v.since, v.begun, v.refused, v.ended, v.answered, v.after, v.pace.held = now, 0, 0, 0, 0, 0, false
}

// add counts an answer. It returns true when the server refuses too much to go on like this.
func (v *overload) add(s Slot, o Outcome, limit int, now time.Time) bool {
	if !o.Overload {
		v.answered++
	}

	if s.begin.Before(v.since) {
		return false
	}

	v.ended++
	if o.Overload {
		v.refused++
		v.after = max(v.after, o.After)
		v.full += float64(s.others)
		v.fulls++
	}

	if v.stance != open {
		return false
	}

	most := max(limit, roundRequests)
	if o.Overload && v.refused >= refusedLeast && float64(v.refused) > refused*float64(most) {
		return !now.Before(v.ignored)
	}

	if v.ended >= most {
		v.reset(now)
	}

	return false
}

// refuse begins a pace after refusals, or goes back under a ceiling that is known.
func (l *Limiter) refuse(now time.Time) {
	v := &l.overload
	now = now.Add(1) // what begins in this instant began before
	if v.ceiling > 0 && l.limit > v.ceiling && l.limit <= v.ceiling*5/4+1 {
		l.keepUnder(v.ceiling, now)
		return
	}

	rate := float64(v.begun-v.refused) / max(windowTime, now.Sub(v.since)).Seconds()
	v.stance = paced
	v.pace = pacer{
		rate: max(1/silence.Seconds(), rate),
		next: now,
		step: growMost / 2, // the first estimate is rough
	}

	v.silent, v.cuts, v.loose = false, 0, now
	v.found, v.full, v.fulls = time.Time{}, 0, 0
	v.reset(now)
}

// judgeWindow ends a window of paced requests, or a trial, if it is time.
func (l *Limiter) judgeWindow(now time.Time) {
	v := &l.overload
	passed := now.Sub(v.since)
	if v.stance == limiting {
		vain := v.refused > refusedLeast && float64(v.refused) > 2*refusedSome*float64(v.begun)
		if vain || passed >= trialTime && v.begun-v.refused >= trialLeast || passed >= trialMore {
			l.endTrial(passed, now)
		}
		return
	}

	taken := v.begun - v.refused
	all := v.begun > 0 && taken == 0 && v.answered == 0 && l.inFlight == 0
	if passed < windowTime || taken < windowLeast && v.refused > 0 && passed < windowMost && !all && !v.silent {
		return
	}

	v.taken += taken
	rate, share := float64(taken)/passed.Seconds(), float64(v.refused)/float64(max(1, v.begun))
	binds := v.pace.held && float64(v.begun)/passed.Seconds() > v.pace.rate/2
	if binds {
		v.loose = now
	}

	switch {
	case v.begun == 0 && v.silent: // the next one waits still
	case all: // a proxy whose server is away, or a limit that counts in long windows
		v.pace.cut(1/silence.Seconds(), now)
		v.pace.next = now.Add(max(silence, min(v.after, silenceMax)))
		v.silent = true
	case v.silent, now.Sub(v.loose) > looseTime:
		v.stance, v.pace = open, pacer{}
	case v.refused > 1 && share > refusedSome:
		l.slow(rate, share, now)
	default:
		if taken >= windowLeast {
			v.cuts = 0
		}
		if binds {
			v.pace.grow(now)
		}
	}

	v.reset(now)
}

// slow lowers the pace to the rate at which the server took requests.
func (l *Limiter) slow(rate, share float64, now time.Time) {
	v := &l.overload
	if v.cuts++; v.cuts == 1 {
		v.share, v.first = share, rate
		v.cutBegun, v.cutRefused = 0, 0
	} else {
		v.cutBegun += v.begun
		v.cutRefused += v.refused
	}

	if v.cuts > 2 && v.pace.rate < inVain*v.first && float64(v.cutRefused) > inVainShare*v.share*float64(v.cutBegun) {
		v.stance, v.pace, v.ignored = open, pacer{}, now.Add(ignoreTime)
		return
	}

	if v.cuts == 1 {
		rate = max(rate, v.pace.clean)
	}

	v.pace.cut(rate, now)

	atOnce := int(math.Round(v.full / float64(v.fulls)))
	switch {
	case v.found.IsZero():
		v.found, v.taken = now, 0
	case l.cfg.Min == l.cfg.Max:
	case now.Sub(v.found) >= trialTime && now.Sub(v.tried) >= trialRest:
		v.stance, v.before = limiting, l.limit
		l.set(atOnce, now)
	}
}

// endTrial ends a trial of a ceiling.
func (l *Limiter) endTrial(passed time.Duration, now time.Time) {
	v := &l.overload
	under := float64(v.begun-v.refused) / passed.Seconds()
	at := float64(v.taken) / v.since.Sub(v.found).Seconds()
	share := float64(v.refused) / float64(max(1, v.begun))
	v.tried = now
	if under >= trialPays*at && share <= 2*refusedSome || under >= at && v.refused == 0 {
		l.keepUnder(l.limit, now)
		return
	}

	v.stance = paced
	v.found, v.taken = now, 0
	v.pace.next = now
	v.reset(now)
	l.set(v.before, now)
}

// keepUnder holds the limit at a ceiling for a while.
func (l *Limiter) keepUnder(ceiling int, now time.Time) {
	v := &l.overload
	v.stance, v.pace = open, pacer{}
	v.ceiling, v.until = ceiling, now.Add(ceilingTime)
	v.reset(now)
	l.climb.rest(now)
	l.climb.nextUp, l.climb.nextDown = v.until, later(l.climb.nextDown, v.until.Add(restUp))
	l.gauges.pause(v.until)
	l.set(ceiling, now)
	l.climb.base = l.limit
}

// top is the highest limit to try now.
func (l *Limiter) top(now time.Time) int {
	if now.Before(l.overload.until) {
		return min(l.max, max(l.cfg.Min, l.overload.ceiling))
	}
	return l.max
}
