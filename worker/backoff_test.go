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
		{"after so many that a shift would overflow", 1000, 30 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			least, most := tt.ceiling, time.Duration(0)
			for range 1000 {
				d := backoff(tt.attempts)
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
