package report

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/promptmill/promptmill/collector/metadata"
)

// tallied are names with their counts, the most frequent first.
func tallied(counts map[string]int64) []string {
	return slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
}

func sum(counts map[string]int64) (n int64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// called is a cause in words: that which is a number, or http_ and a number, is a
// status of HTTP.
func called(cause string) string {
	status := strings.TrimPrefix(cause, "http_")
	if n, err := strconv.Atoi(status); err == nil && n >= 100 && n <= 599 {
		return "HTTP " + status
	}
	return cause
}

// failures are those that are in the errors file.
func failures(b *builder) Section {
	r := b.run.Results
	s := Section{
		ID:      "failures",
		Title:   "Failures",
		Columns: append(columns("Requests", "Share"), Column{Name: "For example"}),
	}

	s.Columns[0].Name = "Cause"
	for _, cause := range tallied(r.Failures) {
		n := r.Failures[cause]
		s.add(called(cause), number(n), part(n, int64(requests(b.run))), words(r.FailureExamples[cause]))
	}

	return s
}

// outliers are single requests to look at.
func outliers(b *builder) Section {
	s := Section{
		ID:      "outliers",
		Title:   "Slow and long answers",
		Columns: append(columns("E2EL (ms)", "Generated tokens"), Column{Name: "Why it is here"}),
	}

	s.Columns[0].Name = "custom_id"
	add := func(why string, list []metadata.Outlier) {
		for _, o := range list {
			s.add(o.CustomID, figure(&o.LatencySeconds, milliseconds),
				figure(whole(o.CompletionTokens), integer), words(why))
		}
	}

	add("slow", b.run.Results.Slowest)
	add("long", b.run.Results.Longest)

	return s
}

// finishReasons are why answers ended.
func finishReasons(b *builder) Section {
	counts := b.run.Results.FinishReasons
	s := Section{ID: "finish_reasons", Title: "Finish reasons", Columns: columns("Answers", "Share")}
	for _, reason := range tallied(counts) {
		s.add(reason, number(counts[reason]), part(counts[reason], sum(counts)))
	}
	return s
}

// attempts are how often requests were tried, and why again.
func attempts(b *builder) Section {
	r := b.run.Results
	s := Section{ID: "attempts", Title: "Attempts", Columns: columns("Number", "Share")}
	total := sum(r.AttemptsHistogram)
	for _, n := range slices.SortedFunc(maps.Keys(r.AttemptsHistogram), byNumber) {
		s.add("Requests that ended on attempt "+n, number(r.AttemptsHistogram[n]), part(r.AttemptsHistogram[n], total))
	}

	for _, why := range tallied(r.AttemptFailures) {
		s.add("Attempts repeated after "+called(why), number(r.AttemptFailures[why]),
			part(r.AttemptFailures[why], max(r.Attempts, r.AttemptFailures[why])))
	}

	if ours(b.run) {
		if r.Redeliveries != nil {
			s.add("Shards delivered again", number(*r.Redeliveries), Cell{})
		}
		s.add("Duplicate answers dropped", number(r.DuplicatesDropped), Cell{})
	}

	return s
}

// byNumber orders numbers in text.
func byNumber(a, b string) int {
	x, _ := strconv.Atoi(a)
	y, _ := strconv.Atoi(b)
	return cmp.Or(cmp.Compare(x, y), cmp.Compare(a, b))
}
