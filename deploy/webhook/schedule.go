package webhook

import "time"

// pauses are the times between the attempts of a delivery, the first of them after the first
// attempt. The last repeats.
var pauses = []time.Duration{
	5 * time.Second,
	30 * time.Second,
	2 * time.Minute,
	10 * time.Minute,
	30 * time.Minute,
	2 * time.Hour,
	6 * time.Hour,
}

const (
	// giveUpAfter is the time after which no attempt begins.
	giveUpAfter = 72 * time.Hour
	// maxRetryAfter is the longest pause that an endpoint may ask for.
	maxRetryAfter = 24 * time.Hour
)

// nextAttempt returns the time of the attempt after another that has failed, and whether there
// is one. jitter, from 0 to 1, makes the pause up to a fifth longer: many deliveries to an
// endpoint that was away do not come back at the same moment.
func nextAttempt(attempts int, since, now time.Time, retryAfter time.Duration, jitter float64) (time.Time, bool) {
	pause := pauses[min(max(1, attempts), len(pauses))-1]
	pause += time.Duration(jitter * float64(pause) / 5)
	at := now.Add(max(pause, min(retryAfter, maxRetryAfter)))

	return at, !at.After(since.Add(giveUpAfter))
}
