package worker

import (
	"net/http"
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name     string
		attempts int
		ceiling  time.Duration
	}{
		{"after the first attempt", 1, 500 * time.Millisecond},
		{"after the second", 2, time.Second},
		{"after the sixth", 6, 16 * time.Second},
		{"after the seventh", 7, 30 * time.Second},
		{"after enough failures to overflow a shift", 1000, 30 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			least, most := tt.ceiling, time.Duration(0)
			for range 1000 {
				d := backoffDelay(tt.attempts)
				least, most = min(least, d), max(most, d)
			}

			// Full jitter: 1000 waits come near both ends.
			if least < 0 || least > tt.ceiling/10 || most >= tt.ceiling || most < tt.ceiling*9/10 {
				t.Errorf("waits from %v to %v, want 0 to %v", least, most, tt.ceiling)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()

	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		name, value string
		want        time.Duration
	}{
		{"no header", "", 0},
		{"seconds", "7", 7 * time.Second},
		{"parts of a second, as some servers send", "0.25", 250 * time.Millisecond},
		{"no wait", "0", 0},
		{"a date", "Fri, 02 Jan 2026 03:05:05 GMT", time.Minute},
		{"a date that has passed", "Fri, 02 Jan 2026 03:03:05 GMT", 0},
		{"more than is believed", "86400", 10 * time.Minute},
		{"a date later than is believed", "Fri, 02 Jan 2027 03:04:05 GMT", 10 * time.Minute},
		{"more than a duration holds", "1e300", 10 * time.Minute},
		{"infinity", "inf", 10 * time.Minute},
		{"no number", "nan", 0},
		{"below zero", "-1", 0},
		{"a text", "soon", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			h := http.Header{}
			if tt.value != "" {
				h.Set("Retry-After", tt.value)
			}

			if got := retryAfter(h, now); got != tt.want {
				t.Errorf("retryAfter(%q) = %v, want %v", tt.value, got, tt.want)
			}
		})
	}

	t.Run("a date of a server whose clock is ahead by an hour", func(t *testing.T) {
		t.Parallel()
		h := http.Header{"Date": {"Fri, 02 Jan 2026 04:04:05 GMT"}, "Retry-After": {"Fri, 02 Jan 2026 04:04:09 GMT"}}
		if got, want := retryAfter(h, now), 4*time.Second; got != want {
			t.Errorf("retryAfter(%v) = %v, want %v", h, got, want)
		}
	})
}

// The headers of a rate limit ask for a wait as well.
func TestRateLimitHeaders(t *testing.T) {
	t.Parallel()

	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		name   string
		header map[string]string
		want   time.Duration
	}{
		{"milliseconds", map[string]string{"Retry-After-Ms": "1500", "Retry-After": "2"}, 1500 * time.Millisecond},
		{"Retry-After is the first of the others", map[string]string{"Retry-After": "3", "RateLimit": `"a";r=0;t=9`},
			3 * time.Second},
		{"RateLimit", map[string]string{"RateLimit-Policy": `"default";q=100;w=60`, "RateLimit": `"default";r=0;t=30`},
			30 * time.Second},
		{"RateLimit of two policies", map[string]string{"RateLimit": `"minute";r=7;t=30, "day"; r=0; t=40`},
			40 * time.Second},
		{"RateLimit that has some left", map[string]string{"RateLimit": `"default";r=50;t=30`}, 0},
		{"RateLimit-Reset", map[string]string{
			"RateLimit-Limit":     "100",
			"RateLimit-Remaining": "0",
			"RateLimit-Reset":     "5",
		}, 5 * time.Second},
		{"X-RateLimit-Reset as a time",
			map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1767323049"}, 4 * time.Second},
		{"X-RateLimit-Reset as a time in milliseconds",
			map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1767323049000"}, 4 * time.Second},
		{"X-RateLimit-Reset of a quota that is not used up",
			map[string]string{"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "60"}, 0},
		{"OpenAI's requests", map[string]string{
			"X-RateLimit-Remaining-Requests": "0",
			"X-RateLimit-Reset-Requests":     "1m2s",
			"X-RateLimit-Remaining-Tokens":   "5",
			"X-RateLimit-Reset-Tokens":       "6m0s",
		}, 62 * time.Second},
		{"OpenAI's tokens", map[string]string{
			"X-RateLimit-Remaining-Requests": "3",
			"X-RateLimit-Remaining-Tokens":   "0",
			"X-RateLimit-Reset-Tokens":       "20ms",
		}, 20 * time.Millisecond},
		{"no duration", map[string]string{"X-RateLimit-Remaining-Tokens": "0", "X-RateLimit-Reset-Tokens": "soon"}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			h := http.Header{}
			for name, value := range tt.header {
				h.Set(name, value)
			}

			if got := retryAfter(h, now); got != tt.want {
				t.Errorf("retryAfter(%v) = %v, want %v", h, got, tt.want)
			}
		})
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("3", `"default";r=0;t=30`, "0", "5", "1s")
	f.Add("", "r=0;t=", "0", "1e400", "-5s")
	f.Fuzz(func(t *testing.T, after, policy, left, reset, duration string) {
		h := http.Header{}
		h.Set("Retry-After", after)
		h.Set("RateLimit", policy)
		h.Set("RateLimit-Remaining", left)
		h.Set("RateLimit-Reset", reset)
		h.Set("X-RateLimit-Remaining-Tokens", left)
		h.Set("X-RateLimit-Reset-Tokens", duration)
		if got := retryAfter(h, time.Now()); got < 0 || got > retryAfterMax {
			t.Errorf("retryAfter(%v) = %v", h, got)
		}
	})
}
