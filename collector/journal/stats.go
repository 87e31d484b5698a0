package journal

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// FrameStats counts output lines by how their requests went. Each count is of lines in the
// output, so the counts of a run are the sums over its frames.
type FrameStats struct {
	// Attempts are the requests that ended on each attempt, by its number from "1".
	Attempts map[string]int64 `json:"attempts,omitempty"`
	// Retried are the attempts that were followed by another, by the reason of the failure.
	Retried map[string]int64 `json:"retried,omitempty"`
	// Finish are the answers of a good status by their finish reason, or "none" where they
	// have no reason. Answers that are kept beside an error are among them.
	Finish map[string]int64 `json:"finish,omitempty"`
	// Failures are the failed requests by cause.
	Failures map[string]int64 `json:"failures,omitempty"`
	// Workers are the requests by the worker that ran them.
	Workers map[string]int64 `json:"workers,omitempty"`
	// Examples are the custom_ids of failed requests, one for each cause.
	Examples map[string]string `json:"examples,omitempty"`
	// Messages are the messages of the failures of Examples, by cause. A cause without one was counted
	// by a program that kept none.
	Messages map[string]string `json:"messages,omitempty"`

	// Latency is the milliseconds of the last attempts of the answered requests, and Total is
	// the milliseconds from the start of their first attempts to the end of the last ones. A program
	// that did not know Total counted Slowest by Latency.
	Latency *Sketch `json:"latency,omitempty"`
	Total   *Sketch `json:"total,omitempty"`
	// Costs are the costs of all attempts; nil: they were not counted.
	Costs *Costs `json:"costs,omitempty"`
	// Prompt and Completion are the tokens of the answered requests that report their usage.
	Prompt     *Sketch `json:"prompt,omitempty"`
	Completion *Sketch `json:"completion,omitempty"`
	// CachedTokens are the prompt tokens that servers had cached, as far as they report it.
	CachedTokens int64 `json:"cached_tokens,omitempty"`
	// ReasoningTokens are the completion tokens of the models' reasoning, as far as servers report it.
	ReasoningTokens int64 `json:"reasoning_tokens,omitempty"`
	// Slowest and Longest are a few answered requests, by latency and by completion tokens.
	Slowest []metadata.Outlier `json:"slowest,omitempty"`
	Longest []metadata.Outlier `json:"longest,omitempty"`
}

// Names come out of answers. There are a few of each kind; if there are ever more, or whole
// texts, they are counted as one.
const (
	maxNames  = 1000 // of each kind
	maxName   = 256  // bytes
	otherName = "other"
	// maxMessages bounds the messages, which are longer. Each frame has its own.
	maxMessages = 100
)

// maxOutliers is the number of outliers of each kind.
const maxOutliers = 5

// AddLine counts a line of a worker, whose name is empty if the line does not have it. text is the line.
func (s *FrameStats) AddLine(l proto.Line, text []byte, worker string) {
	if l.Attempts > 0 {
		addCount(&s.Attempts, strconv.FormatInt(l.Attempts, 10), 1)
	}

	unexplained := l.Attempts - 1
	for reason := range bytes.SplitSeq(l.Retried, []byte{','}) {
		if len(reason) > 0 {
			addCount(&s.Retried, string(reason), 1)
			unexplained--
		}
	}

	if unexplained > 0 {
		addCount(&s.Retried, "unknown", unexplained)
	}

	if l.Status >= 200 && l.Status < 300 {
		finish := l.Finish
		if finish == "" {
			finish = "none"
		}
		addCount(&s.Finish, finish, 1)
	}

	s.addCosts(l, worker)

	if l.OK {
		s.addMeasures(l)
	} else {
		addCount(&s.Failures, l.ErrorCode, 1)
		s.addExample(l.ErrorCode, func() (id, message string) { return displayID(l), findMessage(text) })
	}

	if worker != "" && !isSkipped(l) {
		addCount(&s.Workers, worker, 1)
	}
}

// addMeasures adds how long an answer took, and how long it is.
func (s *FrameStats) addMeasures(l proto.Line) {
	if l.LatencyMS >= 0 {
		addValue(&s.Latency, float64(l.LatencyMS))
	}

	if l.TotalMS >= 0 {
		addValue(&s.Total, float64(l.TotalMS))
	}

	o := metadata.Outlier{LatencySeconds: float64(max(0, l.LatencyMS, l.TotalMS)) / 1000}
	if l.PromptTokens+l.CompletionTokens > 0 {
		addValue(&s.Prompt, float64(l.PromptTokens))
		addValue(&s.Completion, float64(l.CompletionTokens))
		s.CachedTokens += l.CachedTokens
		s.ReasoningTokens += l.ReasoningTokens
		o.CompletionTokens = &l.CompletionTokens
	}

	slow := isOutlier(s.Slowest, o, compareLatency)
	long := l.CompletionTokens > 0 && isOutlier(s.Longest, o, compareLength)
	if slow || long {
		o.CustomID = displayID(l)
	}

	if slow {
		keepOutlier(&s.Slowest, o, compareLatency)
	}

	if long {
		keepOutlier(&s.Longest, o, compareLength)
	}
}

// addExample keeps the custom_id and the message of a failure for its cause, unless there is one.
func (s *FrameStats) addExample(cause string, example func() (id, message string)) {
	if len(cause) > maxName || len(s.Examples) >= maxNames {
		cause = otherName
	}

	if _, known := s.Examples[cause]; known {
		return
	}

	if s.Examples == nil {
		s.Examples = map[string]string{}
	}

	id, message := example()
	s.Examples[cause] = id
	if message != "" && len(s.Messages) < maxMessages {
		if s.Messages == nil {
			s.Messages = map[string]string{}
		}
		s.Messages[cause] = message
	}
}

// findMessage returns the message of a failed line: of its error, or of the server's answer.
func findMessage(line []byte) string {
	_, body, failure, err := proto.ParseLineBody(new(jsonscan.Scanner), line)
	if err != nil {
		return ""
	}

	if len(failure) > 0 && string(failure) != "null" {
		return proto.ErrorMessage(failure)
	}

	return proto.ErrorMessage(body)
}

// Merge adds other statistics.
func (s *FrameStats) Merge(other FrameStats) {
	for _, both := range []struct {
		to   *map[string]int64
		from map[string]int64
	}{
		{&s.Attempts, other.Attempts},
		{&s.Retried, other.Retried},
		{&s.Finish, other.Finish},
		{&s.Failures, other.Failures},
		{&s.Workers, other.Workers},
	} {
		for name, n := range both.from {
			addCount(both.to, name, n)
		}
	}

	for _, cause := range slices.Sorted(maps.Keys(other.Examples)) {
		s.addExample(cause, func() (id, message string) { return other.Examples[cause], other.Messages[cause] })
	}

	s.CachedTokens += other.CachedTokens
	s.ReasoningTokens += other.ReasoningTokens
	s.mergeCosts(other)
	mergeSketch(&s.Latency, other.Latency)
	mergeSketch(&s.Total, other.total())
	mergeSketch(&s.Prompt, other.Prompt)
	mergeSketch(&s.Completion, other.Completion)

	for _, o := range other.Slowest {
		keepOutlier(&s.Slowest, o, compareLatency)
	}

	for _, o := range other.Longest {
		keepOutlier(&s.Longest, o, compareLength)
	}
}

// addCount adds n to the count of a name.
func addCount(counts *map[string]int64, name string, n int64) {
	if *counts == nil {
		*counts = map[string]int64{}
	}
	if _, known := (*counts)[name]; !known && (len(*counts) >= maxNames || len(name) > maxName) {
		name = otherName
	}
	(*counts)[name] += n
}

// displayID returns a line's custom_id for people.
func displayID(l proto.Line) string {
	text, err := jsonscan.Unquote(l.CustomID)
	if err != nil {
		text = l.CustomID
	}

	return ShortenID(string(text))
}

// ShortenID returns a custom_id as figures have it: the examples of failures and the outliers. One of more than
// 256 bytes is cut, and ends in "...".
func ShortenID(id string) string {
	if len(id) > maxName {
		return strings.ToValidUTF8(id[:maxName], "") + "..."
	}

	return id
}

// compareLatency puts the slowest first. Among equals the first that came stays.
func compareLatency(a, b metadata.Outlier) int {
	return cmp.Compare(b.LatencySeconds, a.LatencySeconds)
}

// compareLength puts the longest first. Among equals the first that came stays.
func compareLength(a, b metadata.Outlier) int {
	return cmp.Compare(metadata.OrZero(b.CompletionTokens), metadata.OrZero(a.CompletionTokens))
}

// isOutlier reports whether a request has a place among the first of a list.
func isOutlier(list []metadata.Outlier, o metadata.Outlier, compare func(a, b metadata.Outlier) int) bool {
	return len(list) < maxOutliers || compare(o, list[len(list)-1]) < 0
}

// keepOutlier gives a request its place in the list, if it has one.
func keepOutlier(list *[]metadata.Outlier, o metadata.Outlier, compare func(a, b metadata.Outlier) int) {
	if !isOutlier(*list, o, compare) {
		return
	}
	*list = append(*list, o)
	slices.SortStableFunc(*list, compare)
	*list = (*list)[:min(len(*list), maxOutliers)]
}

// isSkipped reports whether a line is of a request that was refused, or not executed. A
// request that crashed each server it came to was executed, though it ended none of its
// attempts.
func isSkipped(l proto.Line) bool {
	return !l.OK && l.Attempts == 0 && l.ErrorCode != proto.CodePoison
}
