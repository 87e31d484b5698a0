package metadata

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// ErrFormat is wrapped by the errors of [Read] that are about the contents of a file.
var ErrFormat = errors.New("not the metadata of a run")

// Read reads a file of metadata, of promptmill or of another tool that uses the same
// names. Totals and rates that follow from the rest are filled in where they are
// missing.
func Read(path string) (*Run, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}

	r, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}

	return r, nil
}

// Parse reads metadata. Its errors wrap [ErrFormat].
func Parse(text []byte) (*Run, error) {
	var has struct {
		Results *struct {
			Success *int     `json:"success_count"`
			Seconds *float64 `json:"inference_time_seconds"`
		} `json:"results"`
	}
	if err := json.Unmarshal(text, &has); err != nil {
		return nil, describeDecodeError(text, err)
	}

	switch {
	case has.Results == nil:
		return nil, fmt.Errorf("%w: it has no results", ErrFormat)
	case has.Results.Success == nil || has.Results.Seconds == nil:
		return nil, fmt.Errorf("%w: its results lack success_count or inference_time_seconds", ErrFormat)
	}

	var r Run
	dated := struct {
		*Run
		Timestamp flexibleTime `json:"timestamp"` // instead of the run's own
	}{Run: &r}
	if err := json.Unmarshal(text, &dated); err != nil {
		return nil, describeDecodeError(text, err)
	}

	r.Timestamp = time.Time(dated.Timestamp)
	if r.SchemaVersion > Version {
		return nil, fmt.Errorf("%w that this program can read: schema_version %d, it knows %d",
			ErrFormat, r.SchemaVersion, Version)
	}

	switch res := r.Results; {
	case min(res.SuccessCount, res.FailureCount, res.NotSentCount) < 0 || res.InferenceTimeSeconds < 0:
		return nil, fmt.Errorf("%w: a count or a time is below zero", ErrFormat)
	case res.NotSentCount > res.FailureCount:
		return nil, fmt.Errorf("%w: not_sent_count %d is more than failure_count %d, which includes it",
			ErrFormat, res.NotSentCount, res.FailureCount)
	}

	if err := r.Series.validate(); err != nil {
		return nil, err
	}

	for _, h := range []*Histogram{
		r.Results.LatencyHistogram, r.Results.PromptTokensHistogram, r.Results.CompletionTokensHistogram,
	} {
		if err := h.validate(); err != nil {
			return nil, err
		}
	}

	r.fillDerived()

	return &r, nil
}

// flexibleTime is a time in any of the forms that tools write: with or without a zone, which
// is then taken to be UTC. A time in another form is as good as none.
type flexibleTime time.Time

func (m *flexibleTime) UnmarshalJSON(text []byte) error {
	var s string
	if json.Unmarshal(text, &s) != nil {
		s = "" // another type than a string
	}

	for _, form := range []string{time.RFC3339, "2006-01-02T15:04:05", time.DateTime} {
		if t, err := time.Parse(form, s); err == nil {
			*m = flexibleTime(t)
			return nil
		}
	}

	return nil
}

// fillDerived computes what follows from the rest.
func (r *Run) fillDerived() {
	if r.Test.NumRequests == 0 {
		r.Test.NumRequests = r.Results.SuccessCount + r.Results.FailureCount
	}

	res := &r.Results
	if res.NotSentCount == 0 { // older versions counted them elsewhere
		notSent := res.Failures[proto.CodeCancelled] + res.Failures[proto.CodeExpired]
		if r.Manifest != nil {
			notSent = int64(r.Manifest.Counts.Skipped)
		}

		res.NotSentCount = int(max(0, min(notSent, int64(res.FailureCount))))
	}

	if res.TotalTokens == nil && res.PromptTokens != nil && res.CompletionTokens != nil {
		res.TotalTokens = new(*res.PromptTokens + *res.CompletionTokens)
	}

	for _, rate := range []struct {
		to *(*float64)
		of *int64
	}{
		{&res.ThroughputTokensPerSec, res.TotalTokens},
		{&res.InputTokensPerSec, res.PromptTokens},
		{&res.OutputTokensPerSec, res.CompletionTokens},
		{&res.ThroughputRequestsPerSec, new(int64(res.CountSent()))},
	} {
		if *rate.to == nil && rate.of != nil {
			*rate.to = Per(float64(*rate.of), res.InferenceTimeSeconds)
		}
	}
}

// Per is a rate, or null if no time passed, or so little that there is no such number.
func Per(amount, seconds float64) *float64 {
	if rate := amount / seconds; seconds > 0 && !math.IsInf(rate, 0) {
		return &rate
	}
	return nil
}

// describeDecodeError describes a text that cannot be decoded as metadata.
func describeDecodeError(text []byte, err error) error {
	other, ok := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case !json.Valid(text):
		return fmt.Errorf("%w: it is not one JSON object", ErrFormat)
	case ok && other.Field == "":
		return fmt.Errorf("%w: it is a JSON %s, not an object", ErrFormat, other.Value)
	case ok:
		return fmt.Errorf("%w: a JSON %s cannot be its %s", ErrFormat, other.Value, other.Field)
	}

	return fmt.Errorf("%w: %w", ErrFormat, err)
}
