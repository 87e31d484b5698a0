package collector

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// Tally counts output lines by what they say of how their requests went. Each count is
// of lines in the output, so that those of a run can be added up frame by frame.
type Tally struct {
	// Attempts are the requests that ended on each attempt, by its number from "1".
	Attempts map[string]int64 `json:"attempts,omitempty"`
	// Retried are the attempts that were followed by another, by why they failed.
	Retried map[string]int64 `json:"retried,omitempty"`
	// Finish are the answers of a good status by why they ended, or "none" where they do
	// not say. Those that are kept beside an error are among them.
	Finish   map[string]int64 `json:"finish,omitempty"`
	Failures map[string]int64 `json:"failures,omitempty"` // failed requests by cause
	Workers  map[string]int64 `json:"workers,omitempty"`  // requests by the worker that ran them
	// Examples are the custom_ids of failed requests, one for each cause.
	Examples map[string]string `json:"examples,omitempty"`

	// Of the answered requests: the milliseconds of their last attempts and, where they
	// tell their usage, their tokens.
	Latency    *spread `json:"latency,omitempty"`
	Prompt     *spread `json:"prompt,omitempty"`
	Completion *spread `json:"completion,omitempty"`
	// CachedTokens are the prompt tokens that servers had read before, as far as they tell.
	CachedTokens int64 `json:"cached_tokens,omitempty"`
	// Slowest and Longest are a few of them, by latency and by completion tokens.
	Slowest []metadata.Outlier `json:"slowest,omitempty"`
	Longest []metadata.Outlier `json:"longest,omitempty"`
}

// Names come out of answers. There are a few of each kind; should there be ever more, or
// whole texts, they are counted as one.
const (
	maxNames  = 1000
	maxName   = 256
	otherName = "other"
	outliers  = 5
)

func count(counts *map[string]int64, name string, n int64) {
	if *counts == nil {
		*counts = map[string]int64{}
	}
	if _, known := (*counts)[name]; !known && (len(*counts) >= maxNames || len(name) > maxName) {
		name = otherName
	}
	(*counts)[name] += n
}

// add counts a line of a worker, whose name is empty if the line does not tell it.
func (t *Tally) add(l proto.Line, worker string) {
	if l.Attempts > 0 {
		count(&t.Attempts, strconv.FormatInt(l.Attempts, 10), 1)
	}

	unexplained := l.Attempts - 1
	for reason := range bytes.SplitSeq(l.Retried, []byte{','}) {
		if len(reason) > 0 {
			count(&t.Retried, string(reason), 1)
			unexplained--
		}
	}

	if unexplained > 0 {
		count(&t.Retried, "unknown", unexplained)
	}

	if l.Status >= 200 && l.Status < 300 {
		finish := l.Finish
		if finish == "" {
			finish = "none"
		}
		count(&t.Finish, finish, 1)
	}

	if l.OK {
		t.measure(l)
	} else {
		count(&t.Failures, l.ErrorCode, 1)
		t.example(l.ErrorCode, func() string { return customID(l) })
	}

	if worker != "" && !notRun(l) {
		count(&t.Workers, worker, 1)
	}
}

// measure takes in how long an answer took, and how long it is.
func (t *Tally) measure(l proto.Line) {
	var seconds float64
	if l.LatencyMS >= 0 {
		seconds = float64(l.LatencyMS) / 1000
		addTo(&t.Latency, float64(l.LatencyMS))
	}

	o := metadata.Outlier{LatencySeconds: seconds}
	if l.PromptTokens+l.CompletionTokens > 0 {
		addTo(&t.Prompt, float64(l.PromptTokens))
		addTo(&t.Completion, float64(l.CompletionTokens))
		t.CachedTokens += l.CachedTokens
		o.CompletionTokens = &l.CompletionTokens
	}

	slow, long := isOutlier(t.Slowest, o, slower), l.CompletionTokens > 0 && isOutlier(t.Longest, o, longer)
	if slow || long {
		o.CustomID = customID(l)
	}

	if slow {
		keep(&t.Slowest, o, slower)
	}

	if long {
		keep(&t.Longest, o, longer)
	}
}

// customID is a line's custom_id for people.
func customID(l proto.Line) string {
	text, err := jsonscan.Unquote(l.CustomID)
	if err != nil {
		text = l.CustomID
	}

	if len(text) > maxName {
		return strings.ToValidUTF8(string(text[:maxName]), "") + "..."
	}

	return string(text)
}

// The orders of outliers. Among equals the first that came stays.
func slower(a, b metadata.Outlier) int {
	return cmp.Compare(b.LatencySeconds, a.LatencySeconds)
}

func longer(a, b metadata.Outlier) int {
	return cmp.Compare(orEmpty(b.CompletionTokens), orEmpty(a.CompletionTokens))
}

// isOutlier reports whether a request has a place among the first of a list.
func isOutlier(list []metadata.Outlier, o metadata.Outlier, order func(a, b metadata.Outlier) int) bool {
	return len(list) < outliers || order(o, list[len(list)-1]) < 0
}

// keep gives a request its place in the list, if it has one.
func keep(list *[]metadata.Outlier, o metadata.Outlier, order func(a, b metadata.Outlier) int) {
	if !isOutlier(*list, o, order) {
		return
	}
	*list = append(*list, o)
	slices.SortStableFunc(*list, order)
	*list = (*list)[:min(len(*list), outliers)]
}

// example keeps a custom_id for a cause of failure, unless there is one.
func (t *Tally) example(cause string, id func() string) {
	if len(cause) > maxName || len(t.Examples) >= maxNames {
		cause = otherName
	}

	if _, known := t.Examples[cause]; known {
		return
	}

	if t.Examples == nil {
		t.Examples = map[string]string{}
	}

	t.Examples[cause] = id()
}

// Add adds what d counts to t.
func (t *Tally) Add(d Tally) {
	for _, both := range []struct {
		to   *map[string]int64
		from map[string]int64
	}{
		{&t.Attempts, d.Attempts},
		{&t.Retried, d.Retried},
		{&t.Finish, d.Finish},
		{&t.Failures, d.Failures},
		{&t.Workers, d.Workers},
	} {
		for name, n := range both.from {
			count(both.to, name, n)
		}
	}

	for cause, id := range d.Examples {
		t.example(cause, func() string { return id })
	}

	t.CachedTokens += d.CachedTokens
	mergeTo(&t.Latency, d.Latency)
	mergeTo(&t.Prompt, d.Prompt)
	mergeTo(&t.Completion, d.Completion)

	for _, o := range d.Slowest {
		keep(&t.Slowest, o, slower)
	}

	for _, o := range d.Longest {
		keep(&t.Longest, o, longer)
	}
}

// notRun reports whether a line is of a request that was refused, or not executed. One
// that killed each server it came to was, though it ended none of its attempts.
func notRun(l proto.Line) bool {
	return !l.OK && l.Attempts == 0 && l.ErrorCode != proto.CodePoison
}
