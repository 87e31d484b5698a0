package worker

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// The waits between attempts double from the first, up to the last.
const (
	backoffFirst  = 500 * time.Millisecond
	backoffLast   = 30 * time.Second
	retryAfterMax = 10 * time.Minute // a server that asks for more is not believed
)

// backoff is the wait before the attempt after the given number of attempts:
// exponential with full jitter, so that requests that failed together do not come
// back together (Brooker, "Exponential Backoff And Jitter", AWS, 2015).
func backoff(attempts int) time.Duration {
	ceiling := backoffLast
	if shift := attempts - 1; shift < 6 {
		ceiling = min(backoffLast, backoffFirst<<shift)
	}
	return time.Duration(rand.Int64N(int64(ceiling)))
}

// retryAfter is the wait that an answer asks for in its Retry-After header, in
// seconds or as a date (RFC 9110, 10.2.3); 0 if it asks for none.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseFloat(value, 64); err == nil && seconds >= 0 {
		return min(time.Duration(min(seconds, 1e6)*float64(time.Second)), retryAfterMax)
	}
	if date, err := http.ParseTime(value); err == nil {
		if sent, err := http.ParseTime(h.Get("Date")); err == nil {
			now = sent // by the clock of the date, which may not agree with ours
		}
		return min(max(0, date.Sub(now)), retryAfterMax)
	}
	return 0
}
