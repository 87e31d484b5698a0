package summary

import (
	"fmt"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// printDepartures prints how many workers left before the end, and what that cost, if any did.
func printDepartures(s *terminal.Screen, departures []metadata.Departure) {
	if len(departures) == 0 {
		return
	}

	vanished, thrown := 0, int64(0)
	for _, d := range departures {
		if d.VanishedAt != nil {
			vanished++
		}
		thrown += d.ThrownAway + d.LostInFlight
	}

	text := fmt.Sprintf("      %s left before the end", countWorkers(len(departures)))
	if vanished > 0 {
		text += fmt.Sprintf(", %s of them vanished", terminal.FormatCount(vanished))
	}

	s.Printf("%s; requests thrown away: %s", text, terminal.FormatCount(int(thrown)))
}

// countWorkers returns a number of workers in words.
func countWorkers(n int) string {
	if n == 1 {
		return "1 worker"
	}
	return terminal.FormatCount(n) + " workers"
}
