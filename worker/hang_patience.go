package worker

import "time"

// quickAnswersToReset is the number of answers in a row that must come within the usual time
// until the server no longer counts as slow. Long requests may lie between short ones.
const quickAnswersToReset = 32

// hangPatience decides how long a server may make no progress until it counts as hung. A server
// that counts its tokens and counts none for a while hangs. One that counts nothing and answers
// nothing may hang, or be at a long answer: it gets twice the time after each hang.
type hangPatience struct {
	// countsTokens is true if the server counts tokens while it works, so that there is no doubt.
	countsTokens bool
	// extended is the time without an answer that a slow server gets; 0: the usual time.
	extended time.Duration
	// quick is the number of answers in a row that came within the usual time.
	quick int
}

// limit returns how long the server may make no progress, and whether it may only be slow if it
// makes none for longer.
func (p *hangPatience) limit(usual time.Duration) (limit time.Duration, maybeSlow bool) {
	if p.countsTokens {
		return usual, false
	}
	return max(usual, p.extended), true
}

// double gives the server twice the time that it had, most at the longest, and returns it.
func (p *hangPatience) double(had, most time.Duration) time.Duration {
	p.extended = max(had, min(2*had, most))
	p.quick = 0
	return p.extended
}

// recordAnswer records an answer, and whether it came within the usual time. A server that was
// slow only for a while has the usual time again after some quick answers.
func (p *hangPatience) recordAnswer(quick bool) {
	switch {
	case p.extended == 0:
		return
	case !quick:
		p.quick = 0
		return
	}

	if p.quick++; p.quick == quickAnswersToReset {
		p.quick, p.extended = 0, 0
	}
}
