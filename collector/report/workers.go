package report

import (
	"fmt"
	"strings"

	"github.com/promptmill/promptmill/collector/metadata"
)

// workers are who did the work.
func workers(b *builder) Section {
	s := Section{ID: "workers", Title: "Workers", Columns: []Column{
		{Name: "Worker"}, {Name: "Requests", Number: true}, {Name: "Share", Number: true}, {Name: "req/s", Number: true},
		{Name: "Energy", Number: true}, {Name: "Power", Number: true}, {Name: "Load time", Number: true}, {Name: "GPUs"}, {Name: "Model server"},
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
			done = part(*w.Requests, all)
			rate = figure(metadata.Per(float64(*w.Requests), b.run.Results.InferenceTimeSeconds), amount)
		}
		s.add(w.Called(), figure(whole(w.Requests), integer), done, rate,
			figure(w.EnergyJoules, func(j float64) string { return amount(j/joulesPerKWh) + " kWh" }),
			figure(power(w), func(p float64) string { return integer(p) + " W" }),
			figure(w.ModelLoadTimeSeconds, shortly), words(gpuNames(w)), words(orUnknown(w.Platform)))
	}
	return s
}

// power is the mean power of a worker's cards together.
func power(w metadata.Worker) *float64 {
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

func orUnknown(s *string) string {
	if s == nil {
		return unknown.Text
	}
	return *s
}
