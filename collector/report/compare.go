package report

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/promptmill/promptmill/collector/estimate"
	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/metadata"
)

// Named is a run and the path of its metadata.
type Named struct {
	Path string
	Run  *metadata.Run
}

// displayName is the run's name beside others. Runs of one label are common: the same work, done
// again.
func (n Named) displayName() string {
	if n.Run.Label != "" && n.Run.TestID != "" {
		return n.Run.Label + " (" + n.Run.TestID + ")"
	}
	return cmp.Or(n.Run.TestID, strings.TrimSuffix(filepath.Base(n.Path), ".meta.json"))
}

// nameRuns names runs beside each other: by their models, and where several have one model by the
// run too.
func nameRuns(runs []Named) []string {
	models := map[string]int{}
	for _, n := range runs {
		models[n.Run.Model]++
	}

	names := make([]string, len(runs))
	for i, n := range runs {
		switch {
		case n.Run.Model == "":
			names[i] = n.displayName()
		case models[n.Run.Model] > 1:
			names[i] = n.Run.Model + ", " + n.displayName()
		default:
			names[i] = n.Run.Model
		}
	}

	return names
}

// comparison makes the sections of the comparison of runs, the fastest first.
type comparison struct {
	runs  []Named
	names []string
	Options
}

// Compare puts runs side by side, the fastest in output tokens per second first.
// Differences are from the first. Of the options it uses the estimates, the workers and the prices.
func Compare(runs []Named, o Options) *Report {
	runs = slices.Clone(runs)
	slices.SortStableFunc(runs, func(a, b Named) int {
		return cmp.Or(cmp.Compare(valueOrNaN(outputRate(b.Run.Results)), valueOrNaN(outputRate(a.Run.Results))),
			cmp.Compare(valueOrNaN(requestRate(b.Run.Results)), valueOrNaN(requestRate(a.Run.Results))))
	})

	r := &Report{
		SchemaVersion: Version,
		Title:         fmt.Sprintf("Comparison of %s", figures.Plural(int64(len(runs)), "run")),
		Verdict:       VerdictCompared,
		Conclusions:   []Conclusion{},
		Sections:      []Section{},
		Next:          []Command{},
	}
	if len(runs) == 0 {
		return r
	}

	c := &comparison{runs: runs, names: nameRuns(runs), Options: o}
	r.Warning, r.Answer = c.warning(), c.answer()
	r.charts = buildComparedCharts(runs, c.names)

	for _, s := range []Section{c.buildSpeeds(), c.buildLoads(), c.buildEstimates(), c.buildMachines()} {
		r.AddSection(s)
	}

	for i, n := range runs[1:] {
		b := &builder{run: n.Run, Options: Options{Baseline: runs[0].Run}, baseline: c.names[0]}
		if text := concludeSpeed(b); text != "" {
			r.Conclusions = append(r.Conclusions, Conclusion{"speed", c.names[i+1] + ": " + lowerFirst(text)})
		}
	}

	return r
}

// warning names the runs that ran on another input than the first; empty if none did.
func (c *comparison) warning() string {
	var others []string
	for i, n := range c.runs[1:] {
		if known, same := compareInputs(n.Run, c.runs[0].Run); known && !same {
			others = append(others, c.names[i+1])
		}
	}

	switch len(others) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("Different inputs: %s did not run on the same input as %s. Their figures say little about each other.",
			others[0], c.names[0])
	}

	return fmt.Sprintf("Different inputs: %s did not run on the same input as %s. Their figures say little about each other.",
		strings.Join(others[:len(others)-1], ", ")+" and "+others[len(others)-1], c.names[0])
}

// explainUnknownInputs says of which runs it is not known whether they had the input of the first one;
// empty: of none.
func (c *comparison) explainUnknownInputs() string {
	var unknown []string
	for i, n := range c.runs[1:] {
		if known, _ := compareInputs(n.Run, c.runs[0].Run); !known {
			unknown = append(unknown, c.names[i+1])
		}
	}

	if len(unknown) == 0 {
		return ""
	}

	return fmt.Sprintf("It is not known whether %s ran on the same input as %s.",
		strings.Join(unknown, " or "), c.names[0])
}

// answer names the fastest run, with its lead over the next one.
func (c *comparison) answer() string {
	first := c.runs[0].Run.Results
	quantity, rate := "output tokens", outputRate
	if outputRate(first) == nil {
		quantity, rate = "requests", requestRate
	}

	if rate(first) == nil {
		return "The rates of these runs are not known."
	}

	rank := "the fastest"
	if len(c.runs) == 2 {
		rank = "faster"
	}

	text := fmt.Sprintf("%s is %s: %s %s/s", c.names[0], rank, figures.Amount(*rate(first)), quantity)
	if v := requestRate(first); v != nil && quantity != "requests" {
		text += " and " + figures.Amount(*v) + " requests/s"
	}

	if len(c.runs) < 2 {
		return text + "."
	}

	next := c.runs[1].Run.Results
	d := relativeChange(rate(first), rate(next))
	switch {
	case d == nil:
		return text + "."
	case *d <= alike:
		return fmt.Sprintf("%s and %s are equally fast: %s and %s %s/s.", c.names[0], c.names[1],
			figures.Amount(*rate(first)), figures.Amount(*rate(next)), quantity)
	}

	text += fmt.Sprintf(", against %s", figures.Amount(*rate(next)))
	if v := requestRate(next); v != nil && quantity != "requests" {
		text += " and " + figures.Amount(*v)
	}

	return text + " for " + c.names[1] + "."
}

// lowerFirst continues a sentence.
func lowerFirst(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToLower(first)) + text[size:]
}

// valueOrNaN orders the unknown behind all that is known.
func valueOrNaN(v *float64) float64 {
	if v == nil {
		return -1
	}
	return *v
}

// buildSideBySide is a table with a row for each run.
func (c *comparison) buildSideBySide(id, title string, columns []Column, cells func(Named) []Cell) Section {
	s := Section{ID: id, Title: title, Columns: append([]Column{{Name: "Run"}}, columns...)}
	for i, n := range c.runs {
		s.AddRow(c.names[i], cells(n)...)
	}
	return s
}

func (c *comparison) buildSpeeds() Section {
	first := c.runs[0].Run
	s := c.buildSideBySide("speed", "Speed", []Column{
		{Name: "Output tokens/s", Number: true},
		{Name: "Difference in tokens", Number: true},
		{Name: "Requests/s", Number: true},
		{Name: "Difference in requests", Number: true},
		{Name: "90% interval", Number: true},
		{Name: "Input tokens/s", Number: true},
		{Name: "Input"},
	}, func(n Named) []Cell {
		r := n.Run.Results
		tokens, requests, interval := TextCell("first"), TextCell("first"), Cell{}
		if n.Run != first {
			tokens = FigureCell(relativeChange(outputRate(r), outputRate(first.Results)), figures.Change)
			requests = FigureCell(relativeChange(requestRate(r), requestRate(first.Results)), figures.Change)

			interval = unknown
			if low, high, ok := speedInterval(n.Run, first); ok {
				interval = TextCell(figures.Change(low) + " to " + figures.Change(high))
			}
		}

		return []Cell{
			FigureCell(outputRate(r), figures.Amount), tokens,
			FigureCell(requestRate(r), figures.Amount), requests, interval,
			FigureCell(r.InputTokensPerSec, figures.Amount), inputCell(n.Run, first),
		}
	})

	if text := c.explainUnknownInputs(); text != "" {
		s.AddNote("%s", text)
	}
	s.AddNote("Differences are from the first run. The 90%% interval is that of the difference in requests/s if both ran again; short runs have none.")

	return s
}

// inputCell says whether a run had the input of the first one.
func inputCell(run, first *metadata.Run) Cell {
	if run == first {
		return TextCell("the same")
	}

	switch known, same := compareInputs(run, first); {
	case !known:
		return unknown
	case same:
		return TextCell("the same")
	}

	return TextCell("ANOTHER INPUT")
}

func (c *comparison) buildLoads() Section {
	return c.buildSideBySide("requests", "Requests", []Column{
		{Name: "Requests", Number: true},
		{Name: "Answered", Number: true},
		{Name: "Time worked", Number: true},
		{Name: "Median latency (ms)", Number: true},
		{Name: "p99 latency (ms)", Number: true},
		{Name: "Input tokens", Number: true},
		{Name: "From a prefix cache", Number: true},
		{Name: "Output tokens", Number: true},
	}, func(n Named) []Cell {
		r := n.Run.Results

		return []Cell{
			CountCell(countRequests(n.Run)), answeredCell(n.Run), FigureCell(&r.InferenceTimeSeconds, figures.Duration),
			FigureCell(medianOf(r.LatencySeconds), figures.Milliseconds),
			FigureCell(p99Of(r.LatencySeconds), figures.Milliseconds),
			FigureCell(toFloat(r.PromptTokens), figures.Integer),
			FigureCell(toFloat(r.CachedPromptTokens), figures.Integer),
			FigureCell(toFloat(r.CompletionTokens), figures.Integer),
		}
	})
}

// buildEstimates estimates the time and the cost of other numbers of requests with each run's model.
func (c *comparison) buildEstimates() Section {
	s := Section{ID: "estimates", Title: "Estimates", Columns: []Column{{Name: "Requests"}, {Name: "Run"}}}
	of := make([]*builder, len(c.runs))
	for i, n := range c.runs {
		of[i] = &builder{run: n.Run, Options: c.Options}
		of[i].addEstimate()
	}

	counts := fleets
	if c.Workers > 0 && !slices.Contains(counts, c.Workers) {
		counts = append(slices.Clone(counts), c.Workers)
		slices.Sort(counts)
	}

	for _, n := range counts {
		s.Columns = append(s.Columns, Column{Name: figures.Plural(int64(n), "worker"), Number: true})
	}
	s.Columns = append(s.Columns, costColumns()...)

	for j, e := range of[0].estimates {
		for i, b := range of {
			run := estimate.FromMetadata(b.run)
			cells := []Cell{TextCell(c.names[i])}
			for _, n := range counts {
				if b.run.Results.SuccessCount == 0 || len(b.run.Workers) == 0 {
					cells = append(cells, unknown)
					continue
				}
				cells = append(cells, intervalCell(estimate.Of(run, b.estimates[j].Requests, n)))
			}

			s.AddRow(figures.Count(int64(e.Requests)), append(cells, estimateCosts(b.run, c.Prices, e.Requests)...)...)
		}
	}

	// A name alone is no estimate.
	s.Rows = slices.DeleteFunc(s.Rows, func(row []Cell) bool {
		return !slices.ContainsFunc(row[2:], func(c Cell) bool { return !c.isUnknown() })
	})
	if len(s.Rows) == 0 {
		return Section{}
	}

	s.AddNote("Each time is followed by its 90%% interval. Loading the model is left out. A worker is one model server with its GPUs; several are assumed to share no bottleneck.")
	if note := c.Prices.unitNote(); note != "" {
		s.AddNote("%s", note)
	}

	return s
}

func (c *comparison) buildMachines() Section {
	return c.buildSideBySide("machines", "Machines", []Column{
		{Name: "Workers", Number: true},
		{Name: "GPUs"},
		{Name: "Load time", Number: true},
		{Name: "Model size", Number: true},
		{Name: "GPU memory", Number: true},
		{Name: "J per 1,000 output tokens", Number: true},
		{Name: "Model server"},
		{Name: "Started (UTC)"},
		{Name: "Run id"},
	}, func(n Named) []Cell {
		workers := unknown
		if n.Run.Workers != nil {
			workers = CountCell(len(n.Run.Workers))
		}

		r := n.Run.Results

		return []Cell{
			workers, KnownCell(ListCards(n.Run)), FigureCell(r.ModelLoadTimeSeconds, figures.Short),
			FigureCell(toFloat(ModelSize(n.Run)), figures.Size),
			FigureCell(toFloat(PeakMemory(n.Run)), figures.Size),
			FigureCell(r.JoulesPer1000OutputTokens, figures.Amount), KnownCell(n.Run.Platform),
			TextCell(formatDate(n.Run.Timestamp)), TextCell(n.displayName()),
		}
	})
}

// ListCards are the cards of all workers of a run.
func ListCards(run *metadata.Run) string {
	var all metadata.Worker
	seen := map[string]bool{} // several workers may see a card
	for _, w := range run.Workers {
		for _, g := range w.GPUs {
			if g.UUID == "" || !seen[g.UUID] {
				all.GPUs = append(all.GPUs, g)
			}
			seen[g.UUID] = true
		}
	}

	if len(all.GPUs) == 0 {
		return ""
	}

	return gpuNames(all)
}
