package limit

import (
	"math"
	"time"
)

// overloadState is the reaction of the limiter to refusals.
type overloadState int

const (
	accepting overloadState = iota // nothing
	pacing                         // requests begin at a pace
	trialing                       // requests begin as others end, under a limit that may be the server's
)

// Accepting: how many refusals start a pace.
const (
	refusedShare = 0.2 // of the answers in a window
	minRefused   = 5   // requests
)

// Pacing: each window shows whether the server takes the requests.
const (
	minWindow        = 500 * time.Millisecond
	maxWindow        = 4 * time.Second
	minWindowTaken   = 5    // requests that the server took
	slowRefusedShare = 0.05 // refused part of the requests for which the pace falls

	idlePaceTime = 10 * time.Second // without need after which a pace ends

	// Refusals that stay as many however slowly requests come are not for want of room: the
	// pace has fallen below futilePace of the first rate, and futileShare of the first share of
	// refusals remains. They are ignored for ignoreTime.
	futilePace  = 0.35
	futileShare = 0.6
	ignoreTime  = time.Minute
)

// Trialing: whether the server limits the requests in flight.
const (
	minTrialTime  = 3 * time.Second  // of a pace, and then of a trial
	maxTrialTime  = 15 * time.Second // of a trial with few requests
	minTrialTaken = 20               // requests
	minTrialGain  = 1.05
	trialCooldown = time.Minute      // between trials
	ceilingTime   = 20 * time.Second // for which the limit stays under a ceiling that was found
)

// overloadController watches for refusals. Servers that refuse excess requests (vLLM and
// SGLang with a bounded queue, Ollama: 503; Dynamo: 529) or allow a number of requests per
// second (proxies: 429 or 503) are the one clear sign of too much. A few refusals say nothing,
// since proxies give them at random.
//
// No status or header distinguishes the two limits in a way that all servers agree on. So the
// controller finds it out. First requests begin only as fast as the server took them before:
// that meets a limit on the rate. Then, for a moment, they begin as others end, with no more in
// flight than when the server refused: if it takes clearly more that way, it limits the
// requests in flight, and the limit stays under that ceiling. Otherwise the pace continues.
type overloadController struct {
	win *window

	state overloadState
	pace  pacer

	// The window, and the requests that began in it.
	since    time.Time
	begun    int
	refused  int
	ended    int
	answered int           // without a refusal, also of requests that began before
	after    time.Duration // the longest wait that a refusal has asked for

	// The pace.
	silent                   bool      // the server refused everything in the last window
	neededAt                 time.Time // the last time that the pace held a request back
	cuts                     int       // windows in a row with too many refusals
	firstShare               float64   // refused part of the requests in the first of them
	firstRate                float64   // requests per second that the server took in it
	laterBegun, laterRefused int       // in the others of them
	ignoreUntil              time.Time // before which refusals do not count

	foundAt    time.Time // when the pace was found
	taken      int       // requests that the server took since then
	othersSum  float64   // requests in flight beside a refused one, summed
	othersSeen int       // number of these refusals

	// The trial.
	limitBefore int
	triedAt     time.Time // end of the last trial
}

// startWindow starts a window.
func (v *overloadController) startWindow(now time.Time) {
	v.since, v.begun, v.refused, v.ended, v.answered, v.after, v.pace.held = now, 0, 0, 0, 0, 0, false
}

// accept ends the pace or the trial.
func (v *overloadController) accept(now time.Time) {
	v.state, v.pace = accepting, pacer{}
	v.startWindow(now)
}

// countAnswer counts an answer. It reports whether the server refuses enough that a pace must
// start.
func (v *overloadController) countAnswer(s Slot, o Outcome, now time.Time) bool {
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
		v.othersSum += float64(s.others)
		v.othersSeen++
	}

	if v.state != accepting {
		return false
	}

	answers := max(v.win.limit, minRoundRequests)
	if o.Overload && v.refused >= minRefused && float64(v.refused) > refusedShare*float64(answers) {
		return !now.Before(v.ignoreUntil)
	}

	if v.ended >= answers {
		v.startWindow(now)
	}

	return false
}

// startPacing starts a pace after refusals. If the limit has only just left a ceiling that is
// known, it returns that instead.
func (v *overloadController) startPacing(now time.Time) (ceiling int) {
	if known := v.win.ceiling; known > 0 && v.win.limit > known && v.win.limit <= known*5/4+1 {
		return known
	}

	rate := float64(v.begun-v.refused) / max(minWindow, now.Sub(v.since)).Seconds()
	v.state = pacing
	v.pace = pacer{
		rate: max(1/silentRetry.Seconds(), rate),
		next: now,
		step: maxPaceStep / 2, // the first estimate is rough
	}

	v.silent, v.cuts, v.neededAt = false, 0, now
	v.foundAt, v.othersSum, v.othersSeen = time.Time{}, 0, 0
	v.startWindow(now)

	return 0
}

// endWindow ends a window of a pace, or a trial, if it is time. It returns the ceiling that a
// trial has found.
func (v *overloadController) endWindow(now time.Time) (ceiling int) {
	switch v.state {
	case pacing:
		v.judgeWindow(now)
	case trialing:
		if passed := now.Sub(v.since); v.isTrialOver(passed) {
			return v.endTrial(passed, now)
		}
	}

	return 0
}

// judgeWindow changes the pace by the answers of a window, if there are enough.
func (v *overloadController) judgeWindow(now time.Time) {
	passed, taken := now.Sub(v.since), v.begun-v.refused
	allRefused := v.begun > 0 && taken == 0 && v.answered == 0 && v.win.inFlight == 0
	if passed < minWindow {
		return
	}

	if taken < minWindowTaken && v.refused > 0 && passed < maxWindow && !allRefused && !v.silent {
		return
	}

	v.taken += taken
	rate, share := float64(taken)/passed.Seconds(), float64(v.refused)/float64(max(1, v.begun))
	isNeeded := v.pace.held && float64(v.begun)/passed.Seconds() > v.pace.rate/2
	if isNeeded {
		v.neededAt = now
	}

	switch {
	case v.begun == 0 && v.silent: // the next request still waits
	case allRefused: // a proxy whose server is away, or a limit that counts in long windows
		v.pace.cutRate(1/silentRetry.Seconds(), now)
		v.pace.next = now.Add(max(silentRetry, min(v.after, maxSilentRetry)))
		v.silent = true
	case v.silent, now.Sub(v.neededAt) > idlePaceTime:
		v.state, v.pace = accepting, pacer{}
	case v.refused > 1 && share > slowRefusedShare:
		v.slowDown(rate, share, now)
	default:
		if taken >= minWindowTaken {
			v.cuts = 0
		}
		if isNeeded {
			v.pace.growRate(now)
		}
	}

	v.startWindow(now)
}

// slowDown lowers the pace to the rate at which the server took requests. It gives the pace up
// if that is futile, and starts a trial if it is time.
func (v *overloadController) slowDown(rate, share float64, now time.Time) {
	if v.cuts++; v.cuts == 1 {
		v.firstShare, v.firstRate = share, rate
		v.laterBegun, v.laterRefused = 0, 0
	} else {
		v.laterBegun += v.begun
		v.laterRefused += v.refused
	}

	if v.cuts > 2 && v.pace.rate < futilePace*v.firstRate &&
		float64(v.laterRefused) > futileShare*v.firstShare*float64(v.laterBegun) {
		v.state, v.pace, v.ignoreUntil = accepting, pacer{}, now.Add(ignoreTime)
		return
	}

	if v.cuts == 1 {
		rate = max(rate, v.pace.clean)
	}

	v.pace.cutRate(rate, now)

	switch {
	case v.foundAt.IsZero():
		v.foundAt, v.taken = now, 0
	case v.win.isFixed():
	case now.Sub(v.foundAt) >= minTrialTime && now.Sub(v.triedAt) >= trialCooldown:
		v.state, v.limitBefore = trialing, v.win.limit
		v.win.setLimit(int(math.Round(v.othersSum/float64(v.othersSeen))), now)
	}
}

// isTrialOver reports whether a trial has shown enough.
func (v *overloadController) isTrialOver(passed time.Duration) bool {
	isRefusing := v.refused > minRefused && float64(v.refused) > 2*slowRefusedShare*float64(v.begun)
	return isRefusing || passed >= minTrialTime && v.begun-v.refused >= minTrialTaken || passed >= maxTrialTime
}

// endTrial compares the rate that the server took in a trial with its rate at the pace. It returns
// the ceiling if the trial brought more, and otherwise continues the pace.
func (v *overloadController) endTrial(passed time.Duration, now time.Time) (ceiling int) {
	tried := float64(v.begun-v.refused) / passed.Seconds()
	paced := float64(v.taken) / v.since.Sub(v.foundAt).Seconds()
	share := float64(v.refused) / float64(max(1, v.begun))
	v.triedAt = now

	if tried >= minTrialGain*paced && share <= 2*slowRefusedShare || tried >= paced && v.refused == 0 {
		return v.win.limit
	}

	v.state = pacing
	v.foundAt, v.taken = now, 0
	v.pace.next = now
	v.startWindow(now)
	v.win.setLimit(v.limitBefore, now)

	return 0
}
