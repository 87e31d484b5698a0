package report

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/metadata"
)

// The report shows what was wasted, says at least where not all of it is known, and says nothing where
// nothing was wasted.
func TestWastedWork(t *testing.T) {
	t.Parallel()

	for name, test := range map[string]struct {
		wasted metadata.Wasted
		causes map[string]int64 // of repeated attempts
		want   [][]string
	}{
		"nothing": {wasted: metadata.Wasted{TokenShare: new(0.0), TimeShare: new(0.0)}},
		"refusals": {
			metadata.Wasted{
				DiscardedAttempts: 3, DiscardedSeconds: 1.5, TokenShare: new(0.0), TimeShare: new(0.02),
			},
			map[string]int64{"503": 3},
			[][]string{
				{"Time of attempts that were thrown away", "2%"},
				{"Attempts that were thrown away", "3 (1.5 s)"},
			},
		},
		"answers without content": {
			metadata.Wasted{
				DiscardedAttempts: 1, DiscardedSeconds: 2, DiscardedTokens: 20,
				TokenShare: new(0.02), TimeShare: new(0.03),
			},
			map[string]int64{"http_500": 1},
			[][]string{
				{"Output tokens that are not in the results", "2%"},
				{"Time of attempts that were thrown away", "3%"},
				{"Attempts that were thrown away", "1 (2.0 s, 20 output tokens)"},
			},
		},
		"a timeout beside them": {
			metadata.Wasted{TokenShare: new(0.02)},
			map[string]int64{"http_500": 1, "timeout": 1},
			[][]string{{"Output tokens that are not in the results", "at least 2%"}},
		},
		"a worker that died": {
			metadata.Wasted{RepeatedRequests: 11, TokenShare: new(0.02)},
			nil,
			[][]string{
				{"Output tokens that are not in the results", "at least 2%"},
				{"Requests sent again after a worker died", "at least 11"},
			},
		},
	} {
		run := some(func(r *metadata.Run) { r.Results.Wasted, r.Results.AttemptFailures = &test.wasted, test.causes })

		var got [][]string
		for _, s := range Build(run, Options{}).Sections {
			if s.ID != "wasted" {
				continue
			}
			for _, row := range s.Rows {
				got = append(got, []string{row[0].Text, row[1].Text})
			}
		}

		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// A run that is over within an interval has a mean above what its intervals count: that is no peak.
func TestAPeakIsNotBelowTheMean(t *testing.T) {
	t.Parallel()

	if got := peakOf(new(56.0), new(108.0)); got != nil {
		t.Errorf("got %v, want none", *got)
	}
	if got := peakOf(new(108.0), new(56.0)); got == nil || *got != 108 {
		t.Errorf("got %v, want 108", got)
	}
	if got := peakOf(new(5.0), nil); got == nil || *got != 5 {
		t.Errorf("got %v, want 5", got)
	}
}
