package summary

import (
	"bytes"
	"testing"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/deploy/terminal"
)

func TestPrintDepartures(t *testing.T) {
	t.Parallel()

	left := metadata.Departure{ThrownAway: 1}
	vanished := metadata.Departure{VanishedAt: new(time.Now()), LostInFlight: 1234}
	for _, tt := range []struct {
		departures []metadata.Departure
		want       string
	}{
		{nil, ""},
		{[]metadata.Departure{{}}, "      1 worker left before the end; requests thrown away: 0\n"},
		{
			[]metadata.Departure{left, vanished},
			"      2 workers left before the end, 1 of them vanished; requests thrown away: 1,235\n",
		},
	} {
		var out bytes.Buffer
		printDepartures(terminal.New(terminal.Config{Out: &out}), tt.departures)

		if out.String() != tt.want {
			t.Errorf("printed %q, want %q", out.String(), tt.want)
		}
	}
}
