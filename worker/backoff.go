package worker

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// backoffFirst is the longest wait after the first attempt. It doubles up to backoffMax.
	backoffFirst = 500 * time.Millisecond
	backoffMax   = 30 * time.Second
	// retryAfterMax is the longest wait that a server may ask for. A longer one is shortened.
	retryAfterMax = 10 * time.Minute
	// afterEpoch, in seconds, is longer than any wait, and shorter than the time since 1970.
	afterEpoch = 1e9
)

// backoffDelay returns the wait after the given number of attempts: exponential with full jitter,
// so that requests that failed together are not retried together (Brooker, "Exponential Backoff
// And Jitter", AWS, 2015).
func backoffDelay(attempts int) time.Duration {
	ceiling := backoffMax
	if shift := attempts - 1; shift < 6 {
		ceiling = min(backoffMax, backoffFirst<<shift)
	}
	return time.Duration(rand.Int64N(int64(ceiling)))
}

// retryAfter returns the wait that a refusal asks for, in its Retry-After header or in those of
// a rate limit that is used up; 0 if it asks for none.
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

	// OpenAI, and the proxies that copy it: "1s", "6m0s", "20ms".
	wait := time.Duration(0)
	for _, unit := range []string{"Requests", "Tokens"} {
		if h.Get("X-RateLimit-Remaining-"+unit) == "0" {
			reset, _ := time.ParseDuration(h.Get("X-RateLimit-Reset-" + unit))
			wait = max(wait, clampWait(reset.Seconds()))
		}
	}

	return wait
}

// parseRateLimitItem returns how much of the limit is left, and the seconds until there is more,
// from an item of a RateLimit field, such as "default";r=0;t=30.
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

// parseWait parses a wait: in seconds, or until a date, or until a time in seconds since 1970,
// which some servers send.
func parseWait(value string, h http.Header, now time.Time) time.Duration {
	if sent, err := http.ParseTime(h.Get("Date")); err == nil {
		now = sent // by the clock of the server, which may differ from ours
	}

	if seconds, err := strconv.ParseFloat(value, 64); err == nil && seconds >= 0 {
		if seconds > 1000*afterEpoch { // OpenRouter sends milliseconds
			seconds /= 1000
		}
		if seconds > afterEpoch {
			seconds -= float64(now.UnixMilli()) / 1000
		}
		return clampWait(seconds)
	}

	if date, err := http.ParseTime(value); err == nil {
		return clampWait(date.Sub(now).Seconds())
	}

	return 0
}

// clampWait returns a wait of at most retryAfterMax.
func clampWait(seconds float64) time.Duration {
	return min(time.Duration(max(0, min(seconds, 1e6))*float64(time.Second)), retryAfterMax)
}
