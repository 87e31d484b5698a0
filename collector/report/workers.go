package report

import (
	"fmt"
	"strings"

	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/metadata"
)

// buildWorkers lists the workers.
func buildWorkers(b *builder) Section {
	s := Section{ID: "workers", Title: "Workers", Columns: []Column{
		{Name: "Worker"},
		{Name: "Requests", Number: true},
		{Name: "Share", Number: true},
		{Name: "Requests/s", Number: true},
		{Name: "Energy", Number: true},
		{Name: "Power", Number: true},
		{Name: "Load time", Number: true},
		{Name: "GPUs"},
		{Name: "Model server"},
	}}

	var all int64
	for _, w := range b.run.Workers {
		if w.Requests != nil {
			all += *w.Requests
		}
	}

	for _, w := range b.run.Workers {
		done, rate := unknown, unknown
		if w.Requests != nil {
			done = shareCell(*w.Requests, all)
			rate = FigureCell(metadata.Per(float64(*w.Requests), b.run.Results.InferenceTimeSeconds), figures.Amount)
		}

		s.AddRow(w.DisplayName(), FigureCell(toFloat(w.Requests), figures.Integer), done, rate,
			FigureCell(w.EnergyJoules, figures.Energy),
			FigureCell(meanPower(w), func(p float64) string { return figures.Integer(p) + " W" }),
			FigureCell(w.ModelLoadTimeSeconds, figures.Short), TextCell(gpuNames(w)),
			TextCell(describeServer(w)))
	}

	if several := listWorkers(b.run.Workers, func(w metadata.Worker) bool {
		return w.SeveralServers
	}); len(several) > 0 {
		s.AddNote("The URL of %s leads to more than one server: the memory, slots and load time that one of them reports are left out. Give each with --url to have these.",
			joinNames(several))
	}

	return s
}

// listWorkers are the names of the workers of which something is true.
func listWorkers(workers []metadata.Worker, is func(metadata.Worker) bool) (names []string) {
	for _, w := range workers {
		if is(w) {
			names = append(names, w.DisplayName())
		}
	}
	return names
}

// joinNames names the first of some workers, and counts the others.
func joinNames(names []string) string {
	switch n := len(names) - 1; n {
	case 0:
		return names[0]
	case 1:
		return names[0] + " and of " + names[1]
	default:
		return fmt.Sprintf("%s and of %d others", names[0], n)
	}
}

// meanPower is the mean power of a worker's cards together.
func meanPower(w metadata.Worker) *float64 {
	var watts float64
	for _, g := range w.GPUs {
		if g.PowerWattsMean == nil {
			return nil
		}
		watts += *g.PowerWattsMean
	}

	if len(w.GPUs) == 0 {
		return nil
	}

	return &watts
}

// gpuNames are the cards of a worker, equal ones counted.
func gpuNames(w metadata.Worker) string {
	var names []string
	counts := map[string]int{}
	for _, g := range w.GPUs {
		if counts[g.Name]++; counts[g.Name] == 1 {
			names = append(names, g.Name)
		}
	}

	for i, n := range names {
		if counts[n] > 1 {
			names[i] = fmt.Sprintf("%d x %s", counts[n], n)
		}
	}

	if names == nil {
		return unknown.Text
	}

	return strings.Join(names, ", ")
}

// describeServer names the model server of a worker, with its engines if it has several.
func describeServer(w metadata.Worker) string {
	text := textOrUnknown(w.Platform)
	if w.Engines > 1 {
		text += fmt.Sprintf(", %d engines", w.Engines)
	}
	return text
}

func textOrUnknown(s *string) string {
	if s == nil || *s == "" {
		return unknown.Text
	}
	return *s
}
