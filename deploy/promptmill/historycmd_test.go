package main

import (
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// A run that began by one clock and ended by another, which is behind, took no time
// below nothing.
func TestTimesByTwoClocks(t *testing.T) {
	t.Parallel()

	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for ended, want := range map[time.Duration]float64{time.Minute: 60, -time.Hour: 0} {
		end := begin.Add(ended)
		if got := newEntry(proto.Manifest{CreatedAt: begin, EndedAt: &end}).TotalTimeSeconds; got != want {
			t.Errorf("ended %s after it began, it took %v s, want %v s", ended, got, want)
		}
	}

	for ago, want := range map[time.Duration]string{90 * time.Second: "1m", -time.Hour: "0s"} {
		if got := terminal.FormatAge(ago); got != want {
			t.Errorf("%s ago is %s, want %s", ago, got, want)
		}
	}
}
