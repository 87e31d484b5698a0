package trial

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/estimate"
	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/proto"
)

const (
	// mostPairs is the number of comparisons of answers that the page shows.
	mostPairs = 30
	// longestLabel is the most of a name that sentences and tables have, in characters.
	longestLabel = 40
)

// Report is the result as the page and Markdown show it.
func (r *Result) Report() *report.Report {
	page := &report.Report{
		SchemaVersion: report.Version,
		Title:         fmt.Sprintf("Trial %s: %s", r.Name, figures.Plural(int64(len(r.Variants)), "variant")),
		Subtitle:      r.subtitle(),
		Warning:       r.Warning,
		Verdict:       r.verdict(),
		Answer:        r.Answer,
		Conclusions:   []report.Conclusion{},
		Sections:      []report.Section{},
		Next:          r.Next,
	}
	for _, text := range r.Findings {
		page.Conclusions = append(page.Conclusions, report.Conclusion{Rule: "trial", Text: text})
	}

	for _, s := range []report.Section{
		r.buildVariants(), r.buildPlot(), r.buildUnmeasured(), r.buildEstimates(), r.buildServers(), r.buildCosts(),
		r.buildAgreements(), r.buildAnswers(), r.buildSettings(), r.buildMethod(),
	} {
		page.AddSection(s)
	}

	return page
}

func (r *Result) subtitle() string {
	var parts []string
	if !r.CreatedAt.IsZero() {
		parts = append(parts, r.CreatedAt.UTC().Format("2 January 2006, 15:04 UTC"))
	}
	if len(r.Input.Files) > 0 {
		parts = append(parts, strings.Join(r.Input.Files, ", "))
	}
	if r.Input.Sample > 0 {
		parts = append(parts, "a sample of "+figures.Plural(int64(r.Input.Sample), "request"))
	}
	if !r.Done {
		parts = append(parts, "running")
	}

	return strings.Join(parts, " · ")
}

// verdict is the colour of the answer.
func (r *Result) verdict() report.Verdict {
	switch {
	case r.best() != nil:
		return report.VerdictCompared
	case r.Done:
		return report.VerdictFailed
	}
	return report.VerdictPartial
}

// newTable begins a table with a row for each variant.
func newTable(id, title string, columns ...string) report.Section {
	s := report.Section{ID: id, Title: title, Columns: []report.Column{{Name: "Variant"}}}
	for _, c := range columns {
		s.Columns = append(s.Columns, report.Column{Name: c, Number: true})
	}
	return s
}

// label is the name of a variant with its rank, by which the plot marks it.
func (r *Result) label(i int) string { return fmt.Sprintf("%d. %s", i+1, r.Variants[i].shortName()) }

// buildVariants is the table that the trial is about.
func (r *Result) buildVariants() report.Section {
	s := newTable("variants", "Variants", "Answered", "Requests/s", "90% interval", "Output tokens/s", "Input tokens/s",
		"p50 latency (s)", "p99 latency (s)", qualityColumn(r.Measure))
	if r.effectiveGoal() == Cost {
		s.Columns = append(s.Columns, report.Column{Name: "Cost per 1,000", Number: true})
	}
	s.Columns = append(s.Columns, report.Column{Name: differenceColumn(r.effectiveGoal()), Number: true},
		report.Column{Name: "So the difference is"})

	for i := range r.Variants {
		row := &r.Variants[i]
		if row.Speed == nil {
			continue
		}

		cells := []report.Cell{
			answeredCell(row), rateCell(row), intervalCell(row),
			report.FigureCell(row.OutputTokensPerSec, figures.Amount),
			report.FigureCell(row.InputTokensPerSec, figures.Amount),
			report.FigureCell(row.LatencyP50Seconds, figures.Amount),
			report.FigureCell(row.LatencyP99Seconds, figures.Amount), r.qualityCell(row),
		}
		if r.effectiveGoal() == Cost {
			cells = append(cells, report.FigureCell(row.CostPer1000Answers, r.prices.Format))
		}

		s.AddRow(r.label(i), append(cells, r.differenceCells(row)...)...)
	}

	if len(s.Rows) == 0 {
		return report.Section{}
	}

	s.AddNote("Requests/s are answered requests per second of the steady part of each run: the warm-up and the end are left out. Tokens/s are those of a mean answer at that speed. Where no interval is known, the rate is the mean of the whole run.")
	s.AddNote("Differences are from the best variant, by %s. One is real if its %s interval leaves out no difference; else it is noise as far as this trial shows.",
		goalInWords(r.effectiveGoal()), map[bool]string{true: "90%", false: "99%"}[r.effectiveGoal() == Best])

	return s
}

// goalInWords is what a goal ranks by.
func goalInWords(g Goal) string {
	switch g {
	case Best:
		return "quality"
	case Cost:
		return "cost"
	}
	return "requests/s"
}

func differenceColumn(g Goal) string { return "Difference in " + goalInWords(g) }

// qualityColumn is the head of the column of a quality.
func qualityColumn(m Measure) string {
	switch m {
	case Right:
		return "Right"
	case Scored:
		return "Mean score"
	case Formed:
		return "Match the schema"
	}

	return "Quality"
}

func answeredCell(row *Row) report.Cell {
	if row.Success == nil {
		return report.KnownCell("")
	}
	return report.Cell{
		Text:  figures.Share(int64(row.Success.Count), int64(row.Success.Of)),
		Value: new(100 * row.Success.Share),
	}
}

func rateCell(row *Row) report.Cell {
	rate := row.Speed.rate()
	text := figures.Amount(rate)
	if row.Speed.Problem != estimate.NoProblem {
		text += " (mean)"
	}

	return report.Cell{Text: text, Value: &rate}
}

func intervalCell(row *Row) report.Cell {
	if row.Speed.Problem != estimate.NoProblem {
		return report.TextCell(string(row.Speed.Problem))
	}
	return report.TextCell(figures.Amount(row.Speed.Low) + " to " + figures.Amount(row.Speed.High))
}

// qualityCell is the quality of a row with its interval.
func (r *Result) qualityCell(row *Row) report.Cell {
	q, ok := row.qualityOf(r.Measure)
	if !ok {
		return report.KnownCell("")
	}

	if r.Measure == Scored {
		return report.Cell{
			Text:  fmt.Sprintf("%s (%s to %s)", figures.Fixed(q.Mean, 2), figures.Fixed(q.Low, 2), figures.Fixed(q.High, 2)),
			Value: &q.Mean,
		}
	}

	return report.Cell{
		Text:  fmt.Sprintf("%s (%s to %s)", percent(q.Mean), percent(q.Low), percent(q.High)),
		Value: new(100 * q.Mean),
	}
}

// differenceCells are the difference from the best by the goal and what is to be thought of it.
func (r *Result) differenceCells(row *Row) []report.Cell {
	if row == r.best() {
		return []report.Cell{report.TextCell("best"), report.TextCell("–")}
	}

	difference := report.KnownCell("")
	switch goal := r.effectiveGoal(); {
	case row.SpeedDifference == nil,
		goal == Best && row.QualityDifference == nil,
		goal == Cost && row.CostDifference == nil:
		return []report.Cell{difference, difference}
	case goal == Best:
		d := *row.QualityDifference
		difference = report.Cell{
			Text:  fmt.Sprintf("%s (%s to %s)", r.signedQuality(d.Mean), r.signedQuality(d.Low), r.signedQuality(d.High)),
			Value: &d.Mean,
		}
	case goal == Cost:
		difference = ratioCell(*row.CostDifference)
	default:
		difference = ratioCell(*row.SpeedDifference)
	}

	text := "noise"
	switch p := r.problem(row); {
	case p != estimate.NoProblem:
		text = "unknown: " + string(p)
	case r.isReal(row):
		text = "real"
	}

	return []report.Cell{difference, report.TextCell(text)}
}

// ratioCell is a ratio as a change, with its interval.
func ratioCell(d Difference) report.Cell {
	text := figures.Change(d.Ratio - 1)
	if d.Problem == estimate.NoProblem {
		text += fmt.Sprintf(" (%s to %s)", figures.Change(d.Low-1), figures.Change(d.High-1))
	}

	return report.Cell{Text: text, Value: new(d.Ratio - 1)}
}

// signedQuality is a difference in quality with its sign.
func (r *Result) signedQuality(d float64) string {
	if r.Measure == Scored {
		return signedFixed(d, 2)
	}
	return signedFixed(100*d, 1)
}

// signedFixed writes a number with its sign, and nothing without one.
func signedFixed(v float64, decimals int) string {
	text := fmt.Sprintf("%+.*f", decimals, v)
	if strings.Trim(text, "+-0.") == "" {
		return text[1:]
	}
	return text
}

// buildUnmeasured lists the variants that did not end as they should, with the reasons.
func (r *Result) buildUnmeasured() report.Section {
	s := report.Section{
		ID:      "ends",
		Title:   "Variants that failed, ended early or are not done",
		Columns: []report.Column{{Name: "Variant"}, {Name: "State"}, {Name: "Log"}},
	}
	for i, row := range r.Variants {
		if row.State == Measured && row.Speed != nil || row.State == "" && row.Beside {
			continue
		}

		text := string(row.State)
		if row.Reason != "" {
			text += ": " + row.Reason
		}
		s.AddRow(r.label(i), report.KnownCell(text), report.KnownCell(row.Log))
	}

	return s
}

// buildEstimates is how long jobs take with each variant.
func (r *Result) buildEstimates() report.Section {
	s := newTable("estimates", "Estimates")
	var counts []int
	for _, row := range r.Variants {
		for _, e := range row.Estimates {
			if !slices.Contains(counts, e.Requests) {
				counts = append(counts, e.Requests)
			}
		}
	}

	for _, n := range counts {
		s.Columns = append(s.Columns, report.Column{Name: figures.Plural(int64(n), "request"), Number: true})
	}
	s.Columns = append(s.Columns, report.Column{Name: "Loading, besides", Number: true})

	stretched := false
	for i, row := range r.Variants {
		if len(row.Estimates) == 0 {
			continue
		}

		var cells []report.Cell
		for _, n := range counts {
			cell := report.KnownCell("")
			for _, e := range row.Estimates {
				if e.Requests == n {
					cell, stretched = estimateCell(e), stretched || e.Problem != estimate.NoProblem
				}
			}
			cells = append(cells, cell)
		}

		s.AddRow(r.label(i), append(cells, report.FigureCell(row.LoadSeconds, figures.Duration))...)
	}

	if len(s.Rows) == 0 {
		return report.Section{}
	}

	s.AddNote("Each time is followed by its 90%% interval, for as many workers as the variant had. The loading of the model is left out.")
	if stretched {
		s.AddNote("Times with \"about\" assume that the mean rate of a run holds: they are no estimates, and have no interval.")
	}

	return s
}

func estimateCell(e Estimate) report.Cell {
	if e.Problem != estimate.NoProblem {
		return report.Cell{Text: "about " + figures.Duration(e.Median), Value: &e.Median}
	}
	return report.Cell{
		Text:  figures.Around(e.Median, e.Low, e.High),
		Value: &e.Median,
	}
}

// buildServers is the loading and the memory of each server.
func (r *Result) buildServers() report.Section {
	s := newTable("servers", "Loading and memory", "Loading", "Download", "Weights", "Compilation", "Graphs", "Warm-up",
		"Model size", "KV cache", "CUDA graphs", "GPU memory in use")
	for i, row := range r.Variants {
		l, cells := row.loadParts(), []report.Cell{report.FigureCell(row.LoadSeconds, figures.Short)}
		for _, part := range []*float64{
			l.DownloadSeconds, l.WeightsSeconds, l.CompileSeconds, l.GraphsSeconds, l.WarmUpSeconds,
		} {
			cells = append(cells, report.FigureCell(finite(part), figures.Short))
		}

		s.AddRow(r.label(i), append(cells, sizeCell(row.Memory.Weights), sizeCell(row.Memory.KVCache),
			sizeCell(row.Memory.Graphs), sizeCell(row.Memory.Used))...)
	}

	if slices.ContainsFunc(r.Variants, func(row Row) bool { return row.loadParts() != (proto.ModelLoad{}) }) {
		s.AddNote("The parts of the loading are those that the log of the server names; the rest is imports and the like.")
	}

	return s
}

func sizeCell(bytes *int64) report.Cell {
	if bytes == nil {
		return report.KnownCell("")
	}
	return report.FigureCell(new(float64(*bytes)), figures.Size)
}

// buildCosts is the energy and the price of 1,000 answers with each variant.
func (r *Result) buildCosts() report.Section {
	s := newTable("cost", "Energy and cost of 1,000 answers", "Energy (kJ)", "Machine and energy", "Difference from the best",
		"The same tokens at an API")
	hours := false
	for i := range r.Variants {
		row := &r.Variants[i]
		difference := report.KnownCell("")
		if row.CostDifference != nil {
			difference = ratioCell(*row.CostDifference)
		}

		var kilojoules *float64
		if row.JoulesPer1000Answers != nil {
			kilojoules = new(*row.JoulesPer1000Answers / 1000)
		}

		hours = hours || row.PricePerHour != nil
		s.AddRow(r.label(i), report.FigureCell(kilojoules, figures.Amount),
			report.FigureCell(row.CostPer1000Answers, r.prices.Format), difference,
			report.FigureCell(row.APICostPer1000Answers, r.prices.Format))
	}

	if hours {
		s.AddNote("The cost is that of the hours of the machine at the variant's speed, and of the energy where its price is given.")
	}
	if slices.ContainsFunc(r.Variants, func(row Row) bool { return row.CostDifference != nil }) {
		s.AddNote("The intervals of the differences are those of the speeds.")
	}
	if !slices.ContainsFunc(r.Variants, func(row Row) bool {
		return row.JoulesPer1000Answers != nil || row.CostPer1000Answers != nil || row.APICostPer1000Answers != nil
	}) {
		return report.Section{}
	}

	return s
}

// buildAgreements says how often two variants give the same answer.
func (r *Result) buildAgreements() report.Section {
	s := report.Section{
		ID:    "agreement",
		Title: "Agreement",
		Columns: []report.Column{
			{Name: "Variants"},
			{Name: "Common requests", Number: true},
			{Name: "Same answer", Number: true},
			{Name: "Difference in quality", Number: true},
		},
	}
	for i, a := range r.Agreements {
		if i == mostPairs {
			s.AddNote("The first %d of %s pairs; the JSON form has all.", mostPairs, figures.Count(int64(len(r.Agreements))))
			break
		}

		same, difference := report.KnownCell(""), report.KnownCell("")
		if share := a.Agreement; share != nil {
			same = report.Cell{
				Text:  fmt.Sprintf("%s (%s to %s)", percent(share.Share), percent(share.Low), percent(share.High)),
				Value: new(100 * share.Share),
			}
		}
		if d := a.Difference; d != nil {
			difference = report.Cell{
				Text:  fmt.Sprintf("%s (%s to %s)", r.signedQuality(d.Mean), r.signedQuality(d.Low), r.signedQuality(d.High)),
				Value: &d.Mean,
			}
		}

		s.AddRow(shorten(a.First, longestLabel)+" and "+shorten(a.Second, longestLabel), report.CountCell(a.Common), same, difference)
	}

	return s
}

// buildAnswers is the quality, the length and the ends of the answers of each variant.
func (r *Result) buildAnswers() report.Section {
	s := newTable("answers", "Answers", "Requests", "Right", "Mean score", "Match the schema", "At the first attempt",
		"Output tokens, mean", "p99", "Characters, mean", "Empty")
	s.Columns = append(s.Columns, report.Column{Name: "Finish reasons"}, report.Column{Name: "Failures"})
	for i := range r.Variants {
		row := &r.Variants[i]
		if row.Run == nil {
			continue
		}

		cells := []report.Cell{report.CountCell(row.Requests)}
		for _, m := range []Measure{Right, Scored, Formed} {
			cells = append(cells, (&Result{Measure: m}).qualityCell(row))
		}

		atOnce, characters, empty := report.KnownCell(""), report.KnownCell(""), report.KnownCell("")
		if q := row.Quality; q != nil {
			if s := q.SchemaAtOnce; s != nil && s.Of > 0 {
				atOnce = report.Cell{Text: percent(s.Share), Value: new(100 * s.Share)}
			}
			characters, empty = report.FigureCell(&q.Characters, figures.Amount), report.CountCell(q.Empty)
		}

		mean, p99 := report.KnownCell(""), report.KnownCell("")
		if d := row.Run.Results.CompletionTokensPerRequest; d != nil {
			mean, p99 = report.FigureCell(&d.Mean, figures.Amount), report.FigureCell(&d.P99, figures.Integer)
		}

		s.AddRow(r.label(i), append(cells, atOnce, mean, p99, characters, empty,
			report.KnownCell(listCounts(row.Run.Results.FinishReasons)),
			report.KnownCell(listCounts(withoutUnsent(row.Run.Results.Failures))))...)
		if q := row.Quality; q != nil && q.Wrong != nil {
			s.AddNote("A wrong answer of %s: %s.", row.shortName(), quoteWrong(*q.Wrong))
		}
	}

	return s
}

// withoutUnsent leaves out the requests that a variant did not come to before it ended: they are no failures.
func withoutUnsent(failures map[string]int64) map[string]int64 {
	sent := maps.Clone(failures)
	delete(sent, proto.CodeCancelled)

	return sent
}

// listCounts lists names with their counts, the most frequent first.
func listCounts(counts map[string]int64) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})

	var parts []string
	for _, n := range names {
		parts = append(parts, report.DescribeCause(n)+" "+figures.Count(counts[n]))
	}

	return strings.Join(parts, ", ")
}

// buildSettings is what each variant is, with the command of its server.
func (r *Result) buildSettings() report.Section {
	s := report.Section{
		ID:      "settings",
		Title:   "Settings and servers",
		Columns: []report.Column{{Name: "Variant"}, {Name: "Model"}, {Name: "Settings"}, {Name: "Server"}, {Name: "URL"}},
	}
	s.Columns = append(s.Columns, report.Column{Name: "Context", Number: true},
		report.Column{Name: "Concurrency", Number: true}, report.Column{Name: "Cards"}, report.Column{Name: "Measured (UTC)"})
	for i, row := range r.Variants {
		var settings []string
		for _, v := range row.Settings {
			settings = append(settings, v.Name+"="+v.Value)
		}

		platform, cards, context, concurrency, at := "", "", report.KnownCell(""), report.KnownCell(""), row.StartedAt
		if run := row.Run; run != nil {
			platform, cards = run.Platform, report.ListCards(run)
			if n := run.Config.MaxModelLen; n != nil {
				context = report.CountCell(*n)
			}
			if n := run.Config.Concurrency; n != nil {
				concurrency = report.CountCell(*n)
			}
			if at.IsZero() {
				at = run.Timestamp
			}
		}

		s.AddRow(fmt.Sprintf("%d. %s", i+1, row.Name), report.KnownCell(row.Model), report.KnownCell(strings.Join(settings, ", ")),
			report.KnownCell(platform), report.KnownCell(row.URL), context, concurrency, report.KnownCell(cards),
			report.KnownCell(formatTime(at)))
		if row.Command != "" {
			s.Commands = append(s.Commands, report.Command{Why: "The server of " + row.shortName(), Line: row.Command})
		}
	}

	return s
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04")
}

// buildMethod says how the trial was measured.
func (r *Result) buildMethod() report.Section {
	s := report.Section{ID: "method", Title: "How it was measured"}
	if r.Input.Sample > 0 {
		of := ""
		if r.Input.Requests > 0 {
			of = " of " + figures.Count(int64(r.Input.Requests))
		}
		s.AddNote("All variants run the same sample: %s%s, drawn uniformly and ordered so that each beginning of it has short and long prompts in the same proportion.",
			figures.Plural(int64(r.Input.Sample), "request"), of)
	}

	if r.Precision > 0 {
		s.AddNote("A variant ends once the 90%% interval of its requests/s is narrower than %s of them%s, or the sample is over.",
			percent(r.Precision), r.describeBudget())
	}

	beaten := 0
	for _, row := range r.Variants {
		if row.State == Beaten {
			beaten++
		}
	}
	if beaten > 0 {
		s.AddNote("%s ended early, since the 99.9%% interval of the speed lay below that of the best: such figures are of fewer requests.",
			figures.Plural(int64(beaten), "variant"))
	}

	if r.SideBySide {
		s.AddNote("The variants took turns in rounds, and differences are those of common rounds where there are five or more: a drift of the machine hits all alike.")
	} else if len(r.Variants) > 1 {
		s.AddNote("The variants ran one after the other. The intervals hold the noise of each run, not a drift of the machine between runs, such as a card that grows hot.")
	}

	if slices.ContainsFunc(r.Variants, func(row Row) bool { return row.Beside }) {
		s.AddNote("Variants of other trials and runs were put beside, at another time and perhaps on another card or sample.")
	}

	s.AddNote("An interval holds the truth nine times in ten if the server goes on as it did. The best of many is a little flattered by chance: run the real job with the chosen one and compare.")

	return s
}

func (r *Result) describeBudget() string {
	if r.BudgetSeconds <= 0 {
		return ""
	}
	return ", after " + figures.Duration(r.BudgetSeconds) + " of measuring"
}
