package worker

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The waits between attempts double from the first, up to the last.
const (
	backoffFirst  = 500 * time.Millisecond
	backoffLast   = 30 * time.Second
	retryAfterMax = 10 * time.Minute // a server that asks for more is not believed
)

// backoffDelay is the wait before the attempt after the given number of attempts:
// exponential with full jitter, so that requests that failed together do not come
// back together (Brooker, "Exponential Backoff And Jitter", AWS, 2015).
func backoffDelay(attempts int) time.Duration {
	ceiling := backoffLast
	if shift := attempts - 1; shift < 6 {
		ceiling = min(backoffLast, backoffFirst<<shift)
	}
	return time.Duration(rand.Int64N(int64(ceiling)))
}

// retryAfter is the wait that a refusal asks for: in its Retry-After header, or else in those
// that say when a limit on the rate that has nothing left begins anew; 0 if it asks for none.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil && ms >= 0 { // Azure OpenAI
		return clampWait(ms / 1000)
	}

	if value := h.Get("Retry-After"); value != "" { // RFC 9110, 10.2.3
		return parseWait(value, h, now)
	}

	// draft-ietf-httpapi-ratelimit-headers, from its version 8 on, and up to 7.
	for _, item := range strings.Split(strings.Join(h.Values("RateLimit"), ","), ",") {
		left, reset := parseRateLimitItem(item)
		if left == "0" && reset != "" {
			return parseWait(reset, h, now)
		}
	}

	for _, prefix := range []string{"RateLimit-", "X-RateLimit-"} {
		if h.Get(prefix+"Remaining") == "0" {
			return parseWait(h.Get(prefix+"Reset"), h, now)
		}
	}

	// OpenAI, and the proxies that do as it does: "1s", "6m0s", "20ms".
	wait := time.Duration(0)
	for _, what := range []string{"Requests", "Tokens"} {
		if h.Get("X-RateLimit-Remaining-"+what) == "0" {
			reset, _ := time.ParseDuration(h.Get("X-RateLimit-Reset-" + what))
			wait = max(wait, clampWait(reset.Seconds()))
		}
	}

	return wait
}

// parseRateLimitItem reads what is left, and the seconds until there is more, from an item of a
// RateLimit field, such as "default";r=0;t=30.
func parseRateLimitItem(item string) (left, reset string) {
	for _, parameter := range strings.Split(item, ";") {
		switch name, value, _ := strings.Cut(strings.TrimSpace(parameter), "="); name {
		case "r":
			left = value
		case "t":
			reset = value
		}
	}

	return left, reset
}

// parseWait reads a wait in seconds, or until a date, or until a time in seconds since
// 1970, which some give.
func parseWait(value string, h http.Header, now time.Time) time.Duration {
	if sent, err := http.ParseTime(h.Get("Date")); err == nil {
		now = sent // by the clock of the date, which may not agree with ours
	}

	if seconds, err := strconv.ParseFloat(value, 64); err == nil && seconds >= 0 {
		if seconds > 1000*sinceEpoch { // OpenRouter gives milliseconds
			seconds /= 1000
		}
		if seconds > sinceEpoch {
			seconds -= float64(now.UnixMilli()) / 1000
		}
		return clampWait(seconds)
	}

	if date, err := http.ParseTime(value); err == nil {
		return clampWait(date.Sub(now).Seconds())
	}

	return 0
}

// sinceEpoch is more than any wait in seconds, and less than the time in seconds since 1970.
const sinceEpoch = 1e9

// clampWait is a wait that is believed.
func clampWait(seconds float64) time.Duration {
	return min(time.Duration(max(0, min(seconds, 1e6))*float64(time.Second)), retryAfterMax)
}
