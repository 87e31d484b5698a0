package report

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/metadata"
)

// asked returns the departure of a worker that had a notice of 2 minutes.
func asked(worker string) metadata.Departure {
	noticed := time.Date(2026, 1, 1, 0, 0, 5, 0, time.UTC)

	return metadata.Departure{
		Worker:     worker,
		Reason:     "AWS takes it back",
		NoticedAt:  &noticed,
		Deadline:   new(noticed.Add(2 * time.Minute)),
		LeftAt:     new(noticed.Add(100 * time.Second)),
		Finished:   12,
		HandedBack: 8,
		TimeUsed:   new(0.83),
	}
}

func TestDepartures(t *testing.T) {
	t.Parallel()

	at := time.Date(2026, 1, 1, 0, 0, 9, 0, time.UTC)
	vanished := metadata.Departure{Worker: "c", VanishedAt: &at, LostInFlight: 4}
	cut, dead := asked("b"), asked("d")
	cut.ThrownAway, cut.ThrownAwaySeconds = 2, 61
	dead.VanishedAt, dead.LostInFlight, dead.LeftAt = vanished.VanishedAt, 3, nil

	for name, test := range map[string]struct {
		departures []metadata.Departure
		rows       [][]string
		says       string
	}{
		"none": {},
		"one that used its notice": {
			[]metadata.Departure{asked("a")},
			[][]string{{"a", "AWS takes it back", "2.0 min", "83%", "12", "8", "0"}},
			"1 worker left before the end after a notice: nothing was thrown away, and 8 requests went to others at once.",
		},
		"one that was too late": {
			[]metadata.Departure{cut},
			[][]string{{"b", "AWS takes it back", "2.0 min", "83%", "12", "8", "2 (1.0 min)"}},
			"1 worker left before the end after a notice: 2 requests in flight had to be run again, " +
				"and 8 requests went to others at once.",
		},
		"one that vanished": {
			[]metadata.Departure{vanished},
			[][]string{{"c", "vanished without notice", "about 4"}},
			"1 worker vanished before the end: 4 requests in flight had to be run again.",
		},
		"one that vanished before its deadline, and another": {
			[]metadata.Departure{asked("a"), dead},
			[][]string{
				{"a", "AWS takes it back", "2.0 min", "83%", "12", "8", "0"},
				{"d", "AWS takes it back; it vanished before it had left", "2.0 min", "83%", "12", "8", "about 3"},
			},
			"1 worker left before the end after a notice, and 1 vanished: 3 requests in flight had to be run again, " +
				"and 16 requests went to others at once.",
		},
	} {
		r := Build(some(func(r *metadata.Run) { r.Results.Departures = test.departures }), Options{})

		var rows [][]string
		for _, s := range r.Sections {
			if s.ID != "departures" {
				continue
			}

			for _, row := range s.Rows {
				var cells []string
				for _, c := range row {
					cells = append(cells, c.Text)
				}
				rows = append(rows, cells)
			}
		}

		says := ""
		for _, c := range r.Conclusions {
			if c.Rule == "departures" {
				says = c.Text
			}
		}

		if diff := cmp.Diff(test.rows, rows); diff != "" || says != test.says {
			t.Errorf("%s: %q, want %q; rows (-want +got):\n%s", name, says, test.says, diff)
		}
	}
}
