package pipeline

import (
	"context"
	"fmt"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// LimitError is the error of a run that a limit of its policy has stopped, or that may not continue
// before the limit is raised. The same call continues a stopped run.
type LimitError struct {
	// Reached is the limit.
	Reached proto.ReachedLimit
	// Failures counts the failed requests of the run so far by their causes, as its metadata does.
	Failures map[string]int64
	// FailedLines are output lines of failed requests, the latest first: enough for their messages.
	FailedLines [][]byte

	text string
}

// Error implements error.
func (e *LimitError) Error() string { return e.text }

// stoppedByLimit returns the error of a run that a limit has stopped.
func stoppedByLimit(reached proto.ReachedLimit) *LimitError {
	return &LimitError{Reached: reached, text: "stopped by " + reached.Name()}
}

// addCounts adds to the error the counts of the run: those that the limit is about, the causes of
// failures, and how much is done. They are higher than at the stop, since requests that were in
// flight have ended after it.
func (e *LimitError) addCounts(c proto.Counts, requests int, failures map[string]int64) {
	kept := progress.FormatKept(c.Done, requests, 0)
	switch {
	case e.Reached.MaxTokens > 0:
		e.Reached.Tokens = max(e.Reached.Tokens, c.PromptTokens+c.CompletionTokens)
		e.text += "; the run has used " + terminal.FormatCount(e.Reached.Tokens) + "; " + kept
	case e.Reached.Metric == proto.MetricTruncated:
		e.text += "; " + kept + ", " + terminal.FormatCount(c.Truncated) + " of them cut off at their token limit"
	default:
		e.text += "; " + kept + ", " + terminal.FormatCount(c.Failed) + " of them failed"
	}

	e.Failures = failures
}

// addDetails adds to the error the counts and the failed lines of a journal.
func (e *LimitError) addDetails(j *journal.Journal) {
	const enough = 1000 // lines

	s := j.State()
	var failures map[string]int64
	if s.Stats != nil {
		failures = s.Stats.Failures
	}

	e.addCounts(s.Counts, s.Manifest.Input.Requests, failures)
	e.FailedLines, _ = j.FailedLines(enough) // the counts alone will do
}

// checkLimits returns an error that names the field of a limit that cannot be used.
func checkLimits(p proto.RunPolicy) error {
	if p.MaxTokens < 0 {
		return fmt.Errorf("MaxTokens is %d, must not be negative", p.MaxTokens)
	}

	for _, t := range p.FailIf {
		if err := t.Validate(); err != nil {
			return fmt.Errorf("FailIf: %w", err)
		}
	}

	return nil
}

// checkTokens refuses to continue a run that has used all its tokens. fix is the hint.
func checkTokens(m proto.Manifest, fix string) error {
	used := m.FindTokensUsedUp()
	if used == nil || m.Counts.Done >= m.Input.Requests {
		return nil
	}

	return exit.LimitReached(used.Key(), &LimitError{
		Reached: *used,
		text:    fmt.Sprintf("run %s: %s; nothing was sent", m.Run, used),
	}, fix)
}

// raiseTokens is the hint for a run of the run command that has used all its tokens.
const raiseTokens = "give the same command with a higher --max-tokens to continue; nothing is lost"

// limitFix returns the hint for a run that a limit has stopped.
func (r *runner) limitFix(reached proto.ReachedLimit) string {
	switch {
	case reached.MaxTokens > 0:
		return raiseTokens
	case reached.Metric == proto.MetricTruncated:
		return "raise the token limit of the requests and choose another output with -o " +
			"(--set max_tokens=N sets it only where a request has none), " +
			"or run the same command again without --fail-if to continue"
	}

	const fix = "fix the cause, then run the same command again to continue"
	retry := "--retry"
	switch {
	case r.cfg.Format.Plain: // the lines will not say which requests failed
		return fix
	case r.cfg.Bus.External():
		retry = "promptmill retry " + r.journal.State().Manifest.Run
	}

	return fix + "; once the run is complete, " + retry + " runs its failed requests again"
}

// describeStop returns the error of a run on a bus that a limit has stopped. then is what else is to
// be done.
func describeStop(run string, stop *LimitError, then string) error {
	stop.text = "run " + run + " is " + stop.text
	return exit.LimitReached(stop.Reached.Key(), stop, progress.FormatResume(run, stop.Reached)+then)
}

// endAtLimit has the parts end when a limit has stopped the run, and returns the function that
// reports the limit. begin is called when the parts begin to end.
func (p *Parts) endAtLimit(begin func(proto.ReachedLimit)) (report func(proto.ReachedLimit)) {
	stopped := make(chan proto.ReachedLimit, 1)
	p.Watchers = append(p.Watchers, func(ctx context.Context) error {
		select {
		case reached := <-stopped:
			begin(reached)
			return stoppedByLimit(reached)
		case <-ctx.Done():
			return nil
		}
	})

	return func(reached proto.ReachedLimit) {
		select {
		case stopped <- reached:
		default: // the parts end already
		}
	}
}
