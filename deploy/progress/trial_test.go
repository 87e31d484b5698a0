package progress

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/collector/estimate"
	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// showTrial shows a trial of a variant that loads, runs, and ends, on a screen in a mode.
func showTrial(mode terminal.Mode) string {
	var out bytes.Buffer
	screen := terminal.New(terminal.Config{Out: &out, Mode: mode, Size: func() (int, int) { return 120, 24 }})
	d := NewTrialDisplay(screen, 0.05, 10*time.Minute)
	d.ShowStart(TrialStart{
		Inputs:    []string{"tickets.jsonl"},
		Variants:  []string{"gemma", "qwen"},
		Sample:    20000,
		Precision: 0.05,
		BudgetS:   600,
		Page:      "tickets.trial.html",
	})

	gemma := trial.Variant{Name: "gemma", Command: "vllm serve gemma", State: trial.Running}
	d.Begin(gemma, 1, 2)
	d.Loading(gemma, "loading the model", 75*time.Second)
	tooFew := trial.Speed{Mean: 6, Problem: estimate.Problem("too few")}
	d.Progress(gemma, Sample{Done: 30, Failed: 2, ElapsedS: 5}, tooFew)
	d.Progress(gemma, Sample{Done: 1204, Failed: 2, ElapsedS: 190}, trial.Speed{Rate: 12, Low: 11, High: 13, Mean: 11})

	gemma.State, gemma.Reason = trial.Failed, "the server ended"
	d.End(gemma)
	qwen := trial.Variant{Name: "qwen", State: trial.Skipped, Reason: "the time was over"}
	d.End(qwen)
	d.Close()
	d.Progress(gemma, Sample{}, trial.Speed{}) // is late, and shows nothing

	return out.String()
}

// The live line has the speed with its interval, and how far that is from the wanted one.
func TestTrialDisplay(t *testing.T) {
	t.Parallel()

	for mode, want := range map[terminal.Mode][]string{
		terminal.ModeBar: {
			"trial of 2 variants with up to 20,000 requests of tickets.jsonl",
			"until its speed is known within 5%, for 10m00s at most, plus its loading",
			"1/2 gemma: vllm serve gemma\n",
			"1/2 gemma  1m15s  loading the model",
			"1/2 gemma  6.0 req/s  5s of 10m00s  2 failed  28 answered",
			"1/2 gemma  12 req/s (11-13)  known within 17%, wanted 5%  3m10s of 10m00s  2 failed  1,202 answered",
			"1/2 gemma: failed: the server ended\n",
			"qwen: skipped: the time was over\n",
		},
		terminal.ModePlain: {
			"trial of 2 variants", "1/2 gemma: vllm serve gemma\n", "1/2 gemma: failed: the server ended\n",
		},
		terminal.ModeJSON: {
			`"type":"trial"`, `"state":"loading"`, `"state":"failed","doing":"the server ended"`, `"name":"qwen","state":"skipped"`,
		},
	} {
		got := showTrial(mode)
		for _, text := range want {
			if !strings.Contains(got, text) {
				t.Errorf("%s: %q is not in\n%q", mode, text, got)
			}
		}
	}

	if got := showTrial(terminal.ModeNone); got != "" {
		t.Errorf("without progress, %q is shown", got)
	}
}

// The places of variants are counted among those that have ended, if all of these are known.
func TestTrialPlaces(t *testing.T) {
	t.Parallel()

	d := NewTrialDisplay(terminal.New(terminal.Config{Out: &bytes.Buffer{}}), 0.05, time.Minute)
	for _, step := range []struct {
		name string
		rate float64
		want string
	}{
		{"a", 10, "a: 10 req/s (9.0-11); done"},
		{"b", 5, "b: 5.0 req/s (4.0-6.0), place 2 of 2 so far; done"},
		{"c", 20, "c: 20 req/s (19-21), place 1 of 3 so far; done"},
	} {
		a := &activeVariant{VariantSample: VariantSample{Name: step.name, State: string(trial.Measured), Doing: "done"}}
		a.setSpeed(trial.Speed{Rate: step.rate, Low: step.rate - 1, High: step.rate + 1})
		if got := d.formatEnd(a).Plain().String(); got != step.want {
			t.Errorf("%q, want %q", got, step.want)
		}
	}

	d.Begin(trial.Variant{Name: "d", StartedAt: time.Now().Add(-time.Hour)}, 1, 4)
	a := &activeVariant{VariantSample: VariantSample{Name: "d", State: string(trial.Measured), Doing: "done"}}
	a.setSpeed(trial.Speed{Mean: 7, Problem: estimate.Problem("too few")})
	if got, want := d.formatEnd(a).Plain().String(), "d: 7.0 req/s; done"; got != want {
		t.Errorf("in a trial that goes on: %q, want %q", got, want)
	}
}
