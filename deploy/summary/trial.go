package summary

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/collector/estimate"
	"github.com/promptmill/promptmill/collector/quality"
	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// PrintTrial prints the result of a trial: the answer, a table of the variants, and the files. output is NAME, as in
// NAME.trial.html.
func PrintTrial(s *terminal.Screen, r *trial.Result, output string) {
	s.Printf("\n%s", r.Answer)
	for _, finding := range r.Findings {
		s.Printf("%s", finding)
	}

	if r.Warning != "" {
		s.Print(terminal.Line{{Text: r.Warning, Colour: terminal.Yellow}})
	}

	if len(r.Variants) > 0 {
		width, _ := s.Size()
		var table bytes.Buffer
		tabulateTrial(r).Print(&table, width) // a buffer takes all
		s.Printf("")
		for line := range strings.Lines(table.String()) {
			s.Print(terminal.NewLine(strings.TrimSuffix(line, "\n")))
		}
		s.Printf("")
	}

	s.Print(terminal.Line{
		{Text: fmt.Sprintf("  %-10s", "page"), Colour: terminal.Dim},
		{Text: files.Short(output+trial.HTMLSuffix) + ", .md and .json", Whole: true},
	})

	for _, next := range r.Next {
		s.Printf("%s:", next.Why)
		s.Printf("  %s", terminal.Command(next.Line))
	}
}

// tabulateTrial returns the table of the variants. On a narrow terminal the speed, and what ended a variant, stay
// longest.
func tabulateTrial(r *trial.Result) terminal.Columns {
	variant := terminal.Column{Head: "VARIANT", CutAt: 5, Least: 16}
	state := terminal.Column{Head: "STATE", DropAt: 6}
	speed := terminal.Column{Head: "REQ/S (90%)", BriefAt: 7}
	success := terminal.Column{Head: "ANSWERED", DropAt: 4}
	tokens := terminal.Column{Head: "OUT TOK/S", DropAt: 3}
	latency := terminal.Column{Head: "P50", DropAt: 2}
	load := terminal.Column{Head: "LOAD", DropAt: 1}
	cost := terminal.Column{Head: "COST/1000", DropAt: 8}
	good := terminal.Column{Head: strings.ToUpper(string(r.Measure)), DropAt: 9}

	for _, row := range r.Variants {
		name := row.Name
		if row.Beside {
			name += " (beside)"
		}

		full, brief := formatSpeed(row.Speed)
		variant.Cells = append(variant.Cells, name)
		state.Cells = append(state.Cells, string(row.State))
		speed.Cells, speed.Brief = append(speed.Cells, full), append(speed.Brief, brief)
		success.Cells = append(success.Cells, formatShare(row.Success))
		tokens.Cells = append(tokens.Cells, formatFigure(row.OutputTokensPerSec, formatRate))
		latency.Cells = append(latency.Cells, formatFigure(row.LatencyP50Seconds, formatSeconds))
		load.Cells = append(load.Cells, formatFigure(row.LoadSeconds, terminal.FormatElapsed))
		cost.Cells = append(cost.Cells, formatFigure(row.CostPer1000Answers, func(x float64) string {
			return strings.TrimSpace(fmt.Sprintf("%s %.2g", r.Currency, x))
		}))
		good.Cells = append(good.Cells, formatQuality(row.Quality, r.Measure))
	}

	table := terminal.Columns{variant, state, speed, success, tokens, latency, load}
	isKnown := func(cells []string) bool {
		return slices.ContainsFunc(cells, func(text string) bool { return text != unknown })
	}
	for _, c := range []terminal.Column{cost, good} {
		if isKnown(c.Cells) {
			table = append(table, c)
		}
	}

	return table
}

// unknown stands for a figure that is not known.
const unknown = "-"

// formatFigure formats a figure that may be unknown.
func formatFigure(x *float64, format func(float64) string) string {
	if x == nil {
		return unknown
	}
	return format(*x)
}

// formatSeconds formats a latency.
func formatSeconds(s float64) string {
	if s < 10 {
		return fmt.Sprintf("%.2gs", s)
	}
	return terminal.FormatElapsed(s)
}

// formatSpeed formats a speed with its interval, and without.
func formatSpeed(s *trial.Speed) (full, brief string) {
	switch {
	case s == nil:
		return unknown, unknown
	case s.Problem != estimate.NoProblem || s.Rate == 0:
		return "about " + formatRate(s.Mean), "about " + formatRate(s.Mean)
	}

	brief = formatRate(s.Rate)

	return fmt.Sprintf("%s (%s-%s)", brief, formatRate(s.Low), formatRate(s.High)), brief
}

// formatShare formats a share as a percentage that is 100% only for all.
func formatShare(s *quality.Share) string {
	switch {
	case s == nil || s.Of == 0:
		return unknown
	case s.Count == s.Of:
		return "100%"
	}
	return fmt.Sprintf("%.1f%%", min(99.9, 100*s.Share))
}

// formatQuality formats the quality by which variants are compared.
func formatQuality(q *quality.Quality, by trial.Measure) string {
	switch {
	case q == nil:
		return unknown
	case by == trial.Right:
		return formatShare(q.Expected)
	case by == trial.Formed:
		return formatShare(q.Schema)
	case by == trial.Scored && q.Score != nil:
		return fmt.Sprintf("%.3f", q.Score.Mean)
	}

	return unknown
}
