package progress

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/promptmill/promptmill/collector/estimate"
	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// TrialStart describes a trial as a process begins to work for it. It is the first object of --progress json, whose
// names are stable.
type TrialStart struct {
	// Type is "trial".
	Type string `json:"type"`
	Time string `json:"time"`
	// Inputs are the names of the inputs, for people.
	Inputs []string `json:"inputs"`
	// Variants are the names of the variants, in their order. Empty if they follow from each other, see Plan.
	Variants []string `json:"variants"`
	// Plan describes the search for variants. Empty: all are known.
	Plan string `json:"plan"`
	// Sample is the most requests that are drawn from the inputs.
	Sample int `json:"sample"`
	// Precision is the width of the interval of a speed, as a part of it, that ends a variant.
	Precision float64 `json:"precision"`
	// BudgetS is the longest time of measuring of a variant, and WithinS that of the trial, in seconds. 0: no end.
	BudgetS float64 `json:"budget_s"`
	WithinS float64 `json:"within_s"`
	// Page is the path of the page.
	Page string `json:"page"`
}

// Lines returns the description for people.
func (v TrialStart) Lines() []terminal.Line {
	what := terminal.CountOf(len(v.Variants), "variant")
	if v.Plan != "" {
		what = "settings"
	}

	lines := []terminal.Line{terminal.NewLine(fmt.Sprintf("trial of %s with up to %s of %s", what,
		terminal.CountOf(v.Sample, "request"), terminal.JoinFew(v.Inputs, 3)))}
	add := func(label, text string, whole bool) {
		lines = append(lines, terminal.Line{
			{Text: fmt.Sprintf("  %-10s", label), Colour: terminal.Dim},
			{Text: text, Whole: whole},
		})
	}

	each := fmt.Sprintf("until its speed is known within %s, for %s at most, plus its loading",
		formatShare(v.Precision), terminal.FormatElapsed(v.BudgetS))
	if v.WithinS > 0 {
		each += "; the trial ends after " + terminal.FormatElapsed(v.WithinS)
	}

	if v.Plan != "" {
		add("tries", v.Plan, false)
	} else {
		add("variants", terminal.JoinFew(v.Variants, 6), false)
	}
	add("each", each, false)
	add("page", files.Short(v.Page), true)

	return lines
}

// formatShare formats a part of something as a percentage.
func formatShare(share float64) string { return fmt.Sprintf("%.2g%%", 100*share) }

// VariantSample is the state of a variant at a moment, and the form of --progress json, whose names are stable. A null
// value is unknown.
type VariantSample struct {
	// Type is "variant".
	Type string `json:"type"`
	Time string `json:"time"`
	Name string `json:"name"`
	// State is "loading", or that of the variant: running, measured, beaten, failed or skipped.
	State string `json:"state"`
	// Doing is what the server does while it loads, and the reason of a variant that has ended.
	Doing string `json:"doing"`
	// ElapsedS is the time of this state in seconds.
	ElapsedS float64 `json:"elapsed_s"`
	Answered int     `json:"answered"`
	Failed   int     `json:"failed"`
	// RequestsPerS is the speed so far, which is between LowPerS and HighPerS nine times in ten.
	RequestsPerS *float64 `json:"requests_per_s"`
	LowPerS      *float64 `json:"low_per_s"`
	HighPerS     *float64 `json:"high_per_s"`
}

// setSpeed sets the figures of a speed.
func (v *VariantSample) setSpeed(s trial.Speed) {
	v.RequestsPerS, v.LowPerS, v.HighPerS = nil, nil, nil
	switch {
	case s.Problem == estimate.NoProblem && s.Rate > 0:
		v.RequestsPerS, v.LowPerS, v.HighPerS = new(s.Rate), new(s.Low), new(s.High)
	case s.Mean > 0:
		v.RequestsPerS = new(s.Mean)
	}
}

// formatSpeed formats the speed with its interval.
func (v VariantSample) formatSpeed() string {
	switch {
	case v.RequestsPerS == nil:
		return "speed not yet known"
	case v.LowPerS == nil:
		return formatRate(*v.RequestsPerS) + " req/s"
	}
	return fmt.Sprintf("%s req/s (%s-%s)", formatRate(*v.RequestsPerS), formatRate(*v.LowPerS), formatRate(*v.HighPerS))
}

// TrialDisplay shows the variants of a trial on a screen. Its methods are safe for concurrent use.
type TrialDisplay struct {
	screen    *terminal.Screen
	precision float64
	budget    time.Duration

	begun time.Time

	mu      sync.Mutex
	active  []*activeVariant
	speeds  map[string]float64 // of the variants that have ended
	shown   bool               // a variant has begun
	resumed bool               // others have ended before this process began, so that places are not known
}

// activeVariant is a variant that has begun and not ended.
type activeVariant struct {
	VariantSample

	number, of int
	due        time.Time // of the next line
}

// NewTrialDisplay returns a display. A variant ends at a precision, or after a budget.
func NewTrialDisplay(s *terminal.Screen, precision float64, budget time.Duration) *TrialDisplay {
	return &TrialDisplay{
		screen:    s,
		precision: precision,
		budget:    budget,
		begun:     time.Now(),
		speeds:    map[string]float64{},
	}
}

// ShowStart shows the description of a trial.
func (d *TrialDisplay) ShowStart(v TrialStart) {
	v.Type, v.Time = "trial", time.Now().UTC().Format(time.RFC3339)
	switch d.screen.Mode() {
	case terminal.ModeNone:
	case terminal.ModeJSON:
		d.screen.WriteJSON(v)
	default:
		d.screen.Print(v.Lines()...)
	}
}

// Begin shows that a variant begins.
func (d *TrialDisplay) Begin(v trial.Variant, number, of int) {
	d.mu.Lock()
	defer d.mu.Unlock()

	d.screen.SetRunShown(true)
	isResumed := !v.StartedAt.IsZero() && v.StartedAt.Before(d.begun)
	d.resumed = d.resumed || isResumed || !d.shown && number > 1
	d.shown = true

	a := &activeVariant{
		VariantSample: VariantSample{
			Type:  "variant",
			Name:  v.Name,
			State: "loading",
		},
		number: number,
		of:     of,
		due:    time.Now().Add(terminal.PlainEvery),
	}
	d.active = append(d.active, a)

	switch d.screen.Mode() {
	case terminal.ModeNone:
	case terminal.ModeJSON:
		d.write(a)
	default:
		d.screen.Printf("%d/%d %s: %s", number, of, v.Name, cmp.Or(v.Command, v.URL))
	}
}

// Loading shows what the server of a variant does until it is ready.
func (d *TrialDisplay) Loading(v trial.Variant, what string, waited time.Duration) {
	d.update(v, func(a *activeVariant) {
		a.State, a.Doing, a.ElapsedS = "loading", strings.TrimSuffix(what, ","), waited.Seconds() // without a time behind
	})
}

// Progress shows how far a variant is.
func (d *TrialDisplay) Progress(v trial.Variant, s Sample, speed trial.Speed) {
	d.update(v, func(a *activeVariant) {
		a.State, a.Doing, a.ElapsedS = string(trial.Running), "", s.ElapsedS
		a.Answered, a.Failed = s.Done-s.Failed, s.Failed
		a.setSpeed(speed)
	})
}

// update changes a variant and shows all.
func (d *TrialDisplay) update(v trial.Variant, change func(*activeVariant)) {
	d.mu.Lock()
	defer d.mu.Unlock()

	i := slices.IndexFunc(d.active, func(a *activeVariant) bool { return a.Name == v.Name })
	if i < 0 {
		return
	}

	a := d.active[i]
	change(a)
	d.draw()

	switch now := time.Now(); {
	case now.Before(a.due):
	case d.screen.Mode() == terminal.ModeJSON:
		d.write(a)
		a.due = now.Add(jsonEvery)
	case d.screen.Mode() == terminal.ModePlain:
		d.screen.Printf("%s  %s", now.Format(time.TimeOnly), d.formatLine(a).Plain())
		a.due = now.Add(terminal.PlainEvery)
	}
}

// End shows how a variant has ended.
func (d *TrialDisplay) End(v trial.Variant) {
	d.mu.Lock()
	defer d.mu.Unlock()

	i := slices.IndexFunc(d.active, func(a *activeVariant) bool { return a.Name == v.Name })
	a := &activeVariant{VariantSample: VariantSample{Type: "variant", Name: v.Name}}
	if i >= 0 {
		a = d.active[i]
		d.active = slices.Delete(d.active, i, i+1)
	}

	a.State, a.Doing = string(v.State), v.Reason
	if v.Run != nil {
		a.setSpeed(trial.MeasureSpeed(v))
	}

	d.draw()
	switch d.screen.Mode() {
	case terminal.ModeNone:
	case terminal.ModeJSON:
		d.write(a)
	default:
		d.screen.Print(d.formatEnd(a))
	}
}

// Close ends the live lines.
func (d *TrialDisplay) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()

	d.active = nil
	d.draw()
	d.screen.SetRunShown(false)
}

// write writes a variant as JSON.
func (d *TrialDisplay) write(a *activeVariant) {
	a.Time = time.Now().UTC().Format(time.RFC3339)
	d.screen.WriteJSON(a.VariantSample)
}

// draw draws the live lines.
func (d *TrialDisplay) draw() {
	var status []string
	var block []terminal.Line
	for _, a := range d.active {
		line := d.formatLine(a)
		block = append(block, line)
		status = append(status, line.Plain().String())
	}

	d.screen.SetStatus(strings.Join(status, "; "))
	if d.screen.Mode() == terminal.ModeBar {
		d.screen.Draw(block...)
	}
}

// formatLine formats a variant that is at work: what is most wanted comes first, since a narrow terminal cuts the rest.
func (d *TrialDisplay) formatLine(a *activeVariant) terminal.Line {
	const name = 32 // cells at most
	line := terminal.NewLine(fmt.Sprintf("%d/%d %s  ", a.number, a.of, terminal.TruncateName(a.Name, name)))
	if a.State == "loading" {
		return append(line, terminal.Span{Text: terminal.FormatElapsed(a.ElapsedS) + "  "},
			terminal.Span{Text: cmp.Or(a.Doing, "starting"), Colour: terminal.Yellow})
	}

	line = append(line, terminal.Span{Text: a.formatSpeed() + "  "})
	if a.LowPerS != nil {
		line = append(line, terminal.Span{
			Text: fmt.Sprintf("known within %s, wanted %s  ", formatShare((*a.HighPerS-*a.LowPerS) / *a.RequestsPerS),
				formatShare(d.precision)),
			Colour: terminal.Dim,
		})
	}

	// Its requests in flight end after its budget.
	line = append(line, terminal.Span{Text: terminal.FormatElapsed(min(a.ElapsedS, d.budget.Seconds())) + " of " +
		terminal.FormatElapsed(d.budget.Seconds()) + "  "})
	if a.Failed > 0 {
		line = append(line, terminal.Span{Text: terminal.FormatCount(a.Failed) + " failed  ", Colour: terminal.Red})
	}

	return append(line, terminal.Span{Text: terminal.FormatCount(a.Answered) + " answered", Colour: terminal.Dim})
}

// formatEnd formats a variant that has ended, with its rank so far.
func (d *TrialDisplay) formatEnd(a *activeVariant) terminal.Line {
	line := terminal.NewLine(a.Name + ": ")
	if a.number > 0 {
		line = terminal.NewLine(fmt.Sprintf("%d/%d %s: ", a.number, a.of, a.Name))
	}

	if a.State == string(trial.Failed) || a.State == string(trial.Skipped) {
		colour := terminal.Red
		if a.State == string(trial.Skipped) {
			colour = terminal.Yellow
		}
		return append(line, terminal.Span{Text: a.State, Colour: colour}, terminal.Span{Text: ": " + a.Doing})
	}

	text := a.formatSpeed()
	if a.RequestsPerS != nil {
		rank := 1
		for _, other := range d.speeds {
			if other > *a.RequestsPerS {
				rank++
			}
		}
		d.speeds[a.Name] = *a.RequestsPerS
		if len(d.speeds) > 1 && !d.resumed {
			text += fmt.Sprintf(", place %d of %d so far", rank, len(d.speeds))
		}
	}

	return append(line, terminal.Span{Text: text}, terminal.Span{Text: "; " + a.Doing, Colour: terminal.Dim})
}

// ShowDrawing returns a function that shows how far the drawing of a sample is.
func ShowDrawing(s *terminal.Screen) func(requests int, bytes int64) {
	return func(requests int, bytes int64) {
		s.ShowStatus(fmt.Sprintf("drawing the sample: %s requests, %d MB", terminal.FormatCount(requests), bytes>>20))
	}
}
