package proto

import (
	"fmt"
	"time"
)

// percentFrom is the number of ended requests from which a percentage is judged: of fewer, one
// failure more or less would decide.
const percentFrom = 100

// ReachedLimit is a limit of a run's policy, and the counts that reach it.
type ReachedLimit struct {
	// Limit is the text of the [Threshold]. Empty for [RunPolicy.MaxTokens].
	Limit string `json:"limit,omitempty"`
	// Metric is the metric of the threshold. Empty for tokens.
	Metric Metric `json:"metric,omitempty"`
	// Count is the count of the metric.
	Count int `json:"count,omitempty"`
	// Ended is the number of requests that were sent and have ended, Count among them.
	Ended int `json:"ended,omitempty"`
	// WholeRun reports that Count and Ended are of the whole run, and not of the time since its
	// latest start.
	WholeRun bool `json:"whole_run,omitempty"`
	// Tokens is the number of tokens that the run has used, and MaxTokens the limit. 0 for a
	// threshold.
	Tokens    int64 `json:"tokens,omitempty"`
	MaxTokens int64 `json:"max_tokens,omitempty"`
	// At is the time at which the limit stopped the run. Zero if it did not.
	At time.Time `json:"at,omitzero"`
}

// FindReachedLimit returns the first limit that a run has reached, or nil. since counts what has
// ended since the latest start of the run, and whole what has ended at all. Percentages are judged
// from 100 ended requests.
func (p RunPolicy) FindReachedLimit(since, whole Counts) *ReachedLimit {
	if used := whole.PromptTokens + whole.CompletionTokens; p.MaxTokens > 0 && used >= p.MaxTokens {
		return &ReachedLimit{Tokens: used, MaxTokens: p.MaxTokens}
	}

	for _, t := range p.FailIf {
		if (!t.Percent || since.Executed() >= percentFrom) && t.isReached(since) {
			return newReachedLimit(t, since)
		}
	}

	return nil
}

// FindReachedAtEnd returns the first threshold that the counts of a complete run reach, or nil.
func (p RunPolicy) FindReachedAtEnd(whole Counts) *ReachedLimit {
	for _, t := range p.FailIf {
		if t.isReached(whole) {
			r := newReachedLimit(t, whole)
			r.WholeRun = true
			return r
		}
	}

	return nil
}

// HasLimits reports whether the policy has a limit.
func (p RunPolicy) HasLimits() bool { return len(p.FailIf) > 0 || p.MaxTokens > 0 }

// WithLimits returns the policy with the limits of another.
func (p RunPolicy) WithLimits(of RunPolicy) RunPolicy {
	p.FailIf, p.MaxTokens = of.FailIf, of.MaxTokens
	return p
}

func newReachedLimit(t Threshold, c Counts) *ReachedLimit {
	return &ReachedLimit{Limit: t.String(), Metric: t.Metric, Count: t.count(c), Ended: c.Executed()}
}

// Name returns the limit without the counts, as a part of a sentence.
func (r ReachedLimit) Name() string {
	if r.MaxTokens > 0 {
		return fmt.Sprintf("the limit of %s tokens", FormatCount(r.MaxTokens))
	}
	return "the limit " + r.Limit
}

// Key returns the limit for programs: the text of the [Threshold], or max_tokens.
func (r ReachedLimit) Key() string {
	if r.MaxTokens > 0 {
		return "max_tokens"
	}
	return r.Limit
}

// String returns a sentence with the limit and the counts that reached it.
func (r ReachedLimit) String() string {
	if r.MaxTokens > 0 {
		return fmt.Sprintf("%s is reached: the run has used %s", r.Name(), FormatCount(r.Tokens))
	}

	what := "requests failed"
	if r.Metric == MetricTruncated {
		what = "answers were cut off at their token limit"
	}

	since := " since the last start"
	if r.WholeRun {
		since = ""
	}

	return fmt.Sprintf("%s is reached: %s of %s %s%s", r.Name(), FormatCount(r.Count),
		FormatCount(r.Ended), what, since)
}

// IsCounted reports whether counts of the run may contain the requests that reached the limit. Counts
// that are older have too few.
func (r ReachedLimit) IsCounted(c Counts) bool {
	count := c.Failed - c.Skipped
	if r.Metric == MetricTruncated {
		count = c.Truncated
	}

	return count >= r.Count && c.Executed() >= r.Ended && c.PromptTokens+c.CompletionTokens >= r.Tokens
}

// FindTokensUsedUp returns the limit of tokens if the run has used all of them, or nil.
func (m Manifest) FindTokensUsedUp() *ReachedLimit {
	used := m.Counts.PromptTokens + m.Counts.CompletionTokens
	if m.StoppedBy != nil {
		used = max(used, m.StoppedBy.Tokens) // not all of them may be in the synced output
	}

	if m.Policy.MaxTokens == 0 || used < m.Policy.MaxTokens {
		return nil
	}

	return &ReachedLimit{Tokens: used, MaxTokens: m.Policy.MaxTokens}
}

// LimitError is the error of a run that cannot continue before its limit is raised.
type LimitError struct {
	// Reached is the limit.
	Reached ReachedLimit
}

// Error implements error.
func (e *LimitError) Error() string { return e.Reached.String() }
