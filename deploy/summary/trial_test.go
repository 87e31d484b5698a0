package summary

import (
	"bytes"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/collector/estimate"
	"github.com/promptmill/promptmill/collector/quality"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// The answer comes first, then the table as wide as the terminal, the files and the next command.
func TestPrintTrial(t *testing.T) {
	t.Parallel()

	r := &trial.Result{
		Answer:   "gemma: 1.6 times the throughput of qwen.",
		Findings: []string{"qwen is noise."},
		Warning:  "The inputs differ.",
		Measure:  trial.Right,
		Currency: "EUR",
		Variants: []trial.Row{
			{
				Variant: trial.Variant{
					Name:    "gemma",
					State:   trial.Measured,
					Quality: &quality.Quality{Expected: &quality.Share{Count: 9, Of: 10, Share: 0.9}},
				},
				Success:            &quality.Share{Count: 1999, Of: 2000, Share: 0.9995},
				Speed:              &trial.Speed{Rate: 12.34, Low: 12, High: 12.7},
				OutputTokensPerSec: new(1533.0),
				LatencyP50Seconds:  new(1.25),
				LoadSeconds:        new(75.0),
				CostPer1000Answers: new(0.0456),
			},
			{
				Variant: trial.Variant{Name: "qwen", State: trial.Beaten},
				Speed:   &trial.Speed{Mean: 7, Problem: estimate.Problem("too few")},
			},
			{Variant: trial.Variant{Name: "llama", State: trial.Failed}, Beside: true},
		},
		Next: []report.Command{{Why: "run all", Line: "promptmill run x"}},
	}

	var out bytes.Buffer
	PrintTrial(terminal.New(terminal.Config{Out: &out, Size: func() (int, int) { return 120, 24 }}), r, "dir/t")
	want := `
gemma: 1.6 times the throughput of qwen.
qwen is noise.
The inputs differ.

VARIANT         STATE     REQ/S (90%)       ANSWERED  OUT TOK/S  P50   LOAD   COST/1000  RIGHT
gemma           measured  12.3 (12.0-12.7)  99.9%     1,533      1.2s  1m15s  EUR 0.046  90.0%
qwen            beaten    about 7.0         -         -          -     -      -          -
llama (beside)  failed    -                 -         -          -     -      -          -

  page      dir/t.trial.html, .md and .json
run all:
  promptmill run x
`
	if got := out.String(); got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}

	out.Reset()
	PrintTrial(terminal.New(terminal.Config{Out: &out, Size: func() (int, int) { return 60, 24 }}), r, "dir/t")
	for line := range strings.Lines(out.String()) {
		if len(line) > 61 {
			t.Errorf("the line %q is wider than the terminal", line)
		}
	}
}
