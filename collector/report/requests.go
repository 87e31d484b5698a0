package report

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/metadata"
)

// sortedByCount are names with their counts, the most frequent first.
func sortedByCount(counts map[string]int64) []string {
	return slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
}

func sumCounts(counts map[string]int64) (n int64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// DescribeCause is a cause in words: that which is a number, or http_ and a number, is a
// status of HTTP.
func DescribeCause(cause string) string {
	status := strings.TrimPrefix(cause, "http_")
	if n, err := strconv.Atoi(status); err == nil && n >= 100 && n <= 599 {
		return "HTTP " + status
	}
	return cause
}

// buildOutliers are single requests to look at.
func buildOutliers(b *builder) Section {
	s := Section{
		ID:      "outliers",
		Title:   "Slow and long answers",
		Columns: append(newColumns("Latency (ms)", "Output tokens"), Column{Name: "Reason"}),
	}

	s.Columns[0].Name = "custom_id"
	add := func(why string, list []metadata.Outlier) {
		for _, o := range list {
			s.AddRow(o.CustomID, FigureCell(&o.LatencySeconds, figures.Milliseconds),
				FigureCell(toFloat(o.CompletionTokens), figures.Integer), TextCell(why))
		}
	}

	add("slowest", b.run.Results.Slowest)
	add("longest", b.run.Results.Longest)

	return s
}

// buildFinishReasons are why answers ended.
func buildFinishReasons(b *builder) Section {
	counts := b.run.Results.FinishReasons
	s := Section{ID: "finish_reasons", Title: "Finish reasons", Columns: newColumns("Answers", "Share")}
	for _, reason := range sortedByCount(counts) {
		s.AddRow(reason, CountCell(counts[reason]), shareCell(counts[reason], sumCounts(counts)))
	}
	return s
}

// buildAttempts counts the attempts, and the causes of repeated ones.
func buildAttempts(b *builder) Section {
	r := b.run.Results
	s := Section{ID: "attempts", Title: "Attempts", Columns: newColumns("Number", "Share")}
	total := sumCounts(r.AttemptsHistogram)
	for _, n := range slices.SortedFunc(maps.Keys(r.AttemptsHistogram), compareNumbers) {
		s.AddRow("Requests that ended at attempt "+n, CountCell(r.AttemptsHistogram[n]),
			shareCell(r.AttemptsHistogram[n], total))
	}

	for _, why := range sortedByCount(r.AttemptFailures) {
		s.AddRow("Attempts repeated after "+DescribeCause(why), CountCell(r.AttemptFailures[why]),
			shareCell(r.AttemptFailures[why], max(r.Attempts, r.AttemptFailures[why])))
	}

	if isOurs(b.run) {
		if r.Redeliveries != nil {
			s.AddRow("Shards delivered again", CountCell(*r.Redeliveries), Cell{})
		}
		s.AddRow("Duplicate answers dropped", CountCell(r.DuplicatesDropped), Cell{})
	}

	return s
}

// compareNumbers orders numbers in text.
func compareNumbers(a, b string) int {
	x, _ := strconv.Atoi(a)
	y, _ := strconv.Atoi(b)
	return cmp.Or(cmp.Compare(x, y), cmp.Compare(a, b))
}
