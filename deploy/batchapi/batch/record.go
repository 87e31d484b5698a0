package batch

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// record has the fields of a batch that are on disk. A record that readers have does not change:
// changes are made to a copy.
type record struct {
	// Version is the version of the format.
	Version          int               `json:"version"`
	Run              string            `json:"run"`
	Owner            string            `json:"owner,omitempty"`
	Endpoint         string            `json:"endpoint"`
	InputFileID      string            `json:"input_file_id"`
	CompletionWindow string            `json:"completion_window"`
	Metadata         map[string]string `json:"metadata,omitempty"`
	IdempotencyKey   string            `json:"idempotency_key,omitempty"`
	// InputSHA256 is the hash of the input, by which two requests are compared.
	InputSHA256 string `json:"input_sha256,omitempty"`
	// InputName is the name of the input file, as the client gave it.
	InputName string `json:"input_name,omitempty"`
	// Settings are the settings of the run at the creation of the batch.
	Settings proto.Settings `json:"settings"`
	// OutputExpiresAfter is the time in seconds after the end at which the output is removed.
	// 0: never.
	OutputExpiresAfter int64 `json:"output_expires_after,omitempty"`
	// OutputFileID and ErrorFileID are the ids that the files of the output have or will have.
	OutputFileID string `json:"output_file_id"`
	ErrorFileID  string `json:"error_file_id"`

	State  proto.State  `json:"state"`
	Errors []InputError `json:"errors,omitempty"`
	// Counts are the counts at the last change of the state.
	Counts counts   `json:"counts"`
	Models []string `json:"models,omitempty"`
	// Retries counts the times that the failed requests of the ended run were run again.
	Retries int `json:"retries,omitempty"`
	// RetriedAt is the time of the last of them.
	RetriedAt time.Time `json:"retried_at,omitzero"`

	CreatedAt time.Time `json:"created_at"`
	// ExpiresAt is the end of the completion window. Zero: a retry has no such end.
	ExpiresAt    time.Time `json:"expires_at"`
	InProgressAt time.Time `json:"in_progress_at,omitzero"`
	FinalizingAt time.Time `json:"finalizing_at,omitzero"`
	CompletedAt  time.Time `json:"completed_at,omitzero"`
	FailedAt     time.Time `json:"failed_at,omitzero"`
	ExpiredAt    time.Time `json:"expired_at,omitzero"`
	CancellingAt time.Time `json:"cancelling_at,omitzero"`
	CancelledAt  time.Time `json:"cancelled_at,omitzero"`
	// OutputAt and ErrorsAt are the times at which the files of the output got their first line.
	OutputAt time.Time `json:"output_at,omitzero"`
	ErrorsAt time.Time `json:"errors_at,omitzero"`

	// Elsewhere is the output of a run that another process has collected, as HOST:PATH.
	Elsewhere string `json:"elsewhere,omitempty"`
	// RemoveRun reports that parts of the cancelled or expired run may be on the bus.
	RemoveRun bool `json:"remove_run,omitempty"`
	// OutputDeleted and ErrorsDeleted report that the file was deleted.
	OutputDeleted bool `json:"output_deleted,omitempty"`
	ErrorsDeleted bool `json:"errors_deleted,omitempty"`
	// Notified reports that [Config.Ended] has been called with success.
	Notified bool `json:"notified,omitempty"`

	// ordered reports that the server writes ordered outputs. The lines of the journal have another order,
	// so the files appear at the end of the batch. It is not on disk.
	ordered bool
	// problem is that of the manifest, while the batch has not ended. It is not on disk.
	problem string
}

// recordVersion is the version of the format of records.
const recordVersion = 1

// counts are the requests and the tokens of a batch. Completed and Failed count requests with a
// synced line.
type counts struct {
	Total       int   `json:"total"`
	Completed   int   `json:"completed"`
	Failed      int   `json:"failed"`
	Input       int64 `json:"input_tokens,omitempty"`
	CachedInput int64 `json:"cached_input_tokens,omitempty"`
	Output      int64 `json:"output_tokens,omitempty"`
	Reasoning   int64 `json:"reasoning_tokens,omitempty"`
}

// IDPrefix begins the ids of batches.
const IDPrefix = "batch_"

// id returns the id of the batch.
func (r *record) id() string { return IDPrefix + r.Run }

// countsOf returns the counts of a run.
func countsOf(m proto.Manifest) counts {
	return counts{
		Total:     m.Input.Requests,
		Completed: m.Counts.Done - m.Counts.Failed,
		Failed:    m.Counts.Failed,
		Input:     m.Counts.PromptTokens,
		Output:    m.Counts.CompletionTokens,
	}
}

// most returns the larger of each of two counts. The counts on the bus begin again after a loss
// of its store, until the collector has written what the journal has.
func (c counts) most(d counts) counts {
	return counts{
		Total:       max(c.Total, d.Total),
		Completed:   max(c.Completed, d.Completed),
		Failed:      max(c.Failed, d.Failed),
		Input:       max(c.Input, d.Input),
		CachedInput: max(c.CachedInput, d.CachedInput),
		Output:      max(c.Output, d.Output),
		Reasoning:   max(c.Reasoning, d.Reasoning),
	}
}

// rank orders the states: a batch moves to a state of a higher rank only, unless its run is retried.
func rank(s proto.State) int {
	switch s {
	case proto.StateValidating:
		return 0
	case proto.StateInProgress, proto.StatePaused:
		return 1
	case proto.StateFinalizing:
		return 2
	case proto.StateCancelling:
		return 3
	}

	return 4
}

// follow returns the record after a look at the manifest of its run. It is pure: times come
// from the manifest, and from now where that has none.
func (r record) follow(m proto.Manifest, now time.Time) record {
	if m.State == proto.StateValidating || r.isBeforeRetry(m) {
		return r
	}

	r.problem = ""
	if !m.State.Ended() {
		r.problem = m.Problem
	}

	if m.Retries > r.Retries && r.State != proto.StateFailed {
		r.retry(m, now)
	}

	if r.State.Ended() {
		return r
	}

	state := m.State
	switch {
	case state == proto.StatePaused:
		state = proto.StateInProgress
	case r.State == proto.StateCancelling && state.Ended():
		state = proto.StateCancelled // the run had ended before its collector saw that it is cancelled
	}

	if len(r.Models) == 0 {
		r.Models = modelsOf(m)
	}

	r.Retries = m.Retries
	if state.Ended() {
		r.Counts = countsOf(m)
	} else {
		r.Counts = r.Counts.most(countsOf(m))
	}

	r.noteOutput(now)

	if rank(state) > rank(r.State) {
		r.enter(state, m, now)
	}

	return r
}

// isBeforeRetry reports whether a manifest is older than the retry that the record has seen.
func (r *record) isBeforeRetry(m proto.Manifest) bool {
	return m.Retries < r.Retries && !m.StateSince().After(r.RetriedAt)
}

// retry begins the batch again, since its run was retried. The counts have no failed requests then, and the
// files of the output are written again.
func (r *record) retry(m proto.Manifest, now time.Time) {
	r.Retries, r.RetriedAt = m.Retries, now
	if m.State == proto.StateInProgress && !m.StateAt.IsZero() {
		r.RetriedAt = m.StateAt
	}

	r.ExpiresAt = time.Time{}
	if end := m.Policy.ExpiresAt; end != nil {
		r.ExpiresAt = *end
	}

	r.Counts.Failed = 0
	if r.State == proto.StateValidating {
		return
	}

	r.State = proto.StateInProgress
	r.InProgressAt = cmp.Or(r.InProgressAt, r.RetriedAt)
	r.FinalizingAt, r.CompletedAt, r.ExpiredAt = time.Time{}, time.Time{}, time.Time{}
	r.CancellingAt, r.CancelledAt = time.Time{}, time.Time{}
	r.RemoveRun, r.OutputDeleted, r.ErrorsDeleted, r.Notified = false, false, false, false
}

// enter moves the record to a state, and fills in the times of those that it has passed unseen.
func (r *record) enter(state proto.State, m proto.Manifest, now time.Time) {
	at := m.StateSince()
	if state.Ended() && m.EndedAt != nil {
		at = *m.EndedAt
	}
	if at.IsZero() {
		at = now
	}

	began := at
	if state != proto.StateInProgress && !m.CreatedAt.IsZero() {
		began = m.CreatedAt
	}
	if r.InProgressAt.IsZero() && state != proto.StateFailed {
		r.InProgressAt = latest(began, r.CreatedAt)
	}

	at = latest(at, r.CreatedAt, r.InProgressAt, r.RetriedAt, r.FinalizingAt, r.CancellingAt)
	switch state {
	case proto.StateFinalizing:
		r.FinalizingAt = at
	case proto.StateCompleted:
		r.FinalizingAt = cmp.Or(r.FinalizingAt, at)
		r.CompletedAt = at
	case proto.StateExpired:
		r.FinalizingAt = cmp.Or(r.FinalizingAt, at)
		r.ExpiredAt = at
	case proto.StateCancelling:
		r.CancellingAt = at
	case proto.StateCancelled:
		r.CancellingAt = cmp.Or(r.CancellingAt, at)
		r.CancelledAt = at
	case proto.StateFailed:
		r.FailedAt = at
		if len(r.Errors) == 0 {
			r.Errors = []InputError{{Code: codeRefused, Message: endSentence(m.Problem)}}
		}
	}

	r.State = state
}

// codeRefused is the code of a batch whose run the collector has refused.
const codeRefused = "run_refused"

// fail ends the batch without a run.
func (r *record) fail(now time.Time, errors []InputError) {
	r.State, r.FailedAt, r.Errors = proto.StateFailed, latest(now, r.CreatedAt, r.InProgressAt), errors
}

// expire ends the batch without a run.
func (r *record) expire(now time.Time) {
	r.State, r.ExpiredAt = proto.StateExpired, latest(now, r.CreatedAt)
}

// cancel ends the batch without a run.
func (r *record) cancel(now time.Time) {
	at := latest(now, r.CreatedAt, r.InProgressAt, r.CancellingAt)
	r.State, r.CancelledAt = proto.StateCancelled, at
	r.CancellingAt = cmp.Or(r.CancellingAt, at)
}

// noteOutput notes that there are lines.
func (r *record) noteOutput(now time.Time) {
	if r.Counts.Completed > 0 && r.OutputAt.IsZero() {
		r.OutputAt = now
	}
	if r.Counts.Failed > 0 && r.ErrorsAt.IsZero() {
		r.ErrorsAt = now
	}
}

// modelsOf returns the models that the requests of a run name.
func modelsOf(m proto.Manifest) []string {
	return slices.Sorted(maps.Keys(m.Input.Models))
}

// latest returns the latest of some times.
func latest(first time.Time, others ...time.Time) time.Time {
	for _, t := range others {
		if t.After(first) {
			first = t
		}
	}
	return first
}

// endedAt returns the time at which the batch ended; zero: it has not.
func (r *record) endedAt() time.Time {
	return latest(r.CompletedAt, r.FailedAt, r.ExpiredAt, r.CancelledAt)
}

// outputExpiresAt returns the time at which the files of the output are removed; zero: never,
// or not yet known.
func (r *record) outputExpiresAt() time.Time {
	if r.OutputExpiresAfter == 0 || !r.State.Ended() {
		return time.Time{}
	}
	return r.endedAt().Add(time.Duration(r.OutputExpiresAfter) * time.Second)
}

// describe returns the batch as clients see it.
func (r *record) describe() Batch {
	b := Batch{
		ID:               r.id(),
		Run:              r.Run,
		Owner:            r.Owner,
		Endpoint:         r.Endpoint,
		InputFileID:      r.InputFileID,
		CompletionWindow: r.CompletionWindow,
		Metadata:         r.Metadata,
		State:            r.State,
		Models:           r.Models,
		Errors:           r.Errors,
		Total:            r.Counts.Total,
		Completed:        r.Counts.Completed,
		Failed:           r.Counts.Failed,
		CreatedAt:        r.CreatedAt,
		InProgressAt:     r.InProgressAt,
		FinalizingAt:     r.FinalizingAt,
		CompletedAt:      r.CompletedAt,
		FailedAt:         r.FailedAt,
		ExpiredAt:        r.ExpiredAt,
		CancellingAt:     r.CancellingAt,
		CancelledAt:      r.CancelledAt,
		Retries:          r.Retries,
		Problem:          r.problem,
		ExpiresAt:        r.ExpiresAt,
	}

	if r.hasAnswers() {
		b.OutputFileID = r.OutputFileID
	}

	if r.Counts.Completed > 0 && r.Elsewhere == "" {
		b.Usage = &Usage{
			Input:           r.Counts.Input,
			CachedInput:     r.Counts.CachedInput,
			Output:          r.Counts.Output,
			ReasoningOutput: r.Counts.Reasoning,
		}
	}

	if r.hasFailures() {
		b.ErrorFileID = r.ErrorFileID
	}

	return b
}

// hasAnswers reports whether the output has answers, and can be read here.
func (r *record) hasAnswers() bool { return r.Counts.Completed > 0 && r.isReadable() }

// hasFailures reports whether the output has failed requests, and can be read here.
func (r *record) hasFailures() bool { return r.Counts.Failed > 0 && r.isReadable() }

// isReadable reports whether the output is here, and its lines stay where they are.
func (r *record) isReadable() bool { return r.Elsewhere == "" && (!r.ordered || r.State.Ended()) }

// isSame reports whether a record is, on disk, as another one. Counts alone are no difference while
// the batch is at work: the manifest has them.
func (r *record) isSame(old *record) bool {
	return r.State == old.State && r.Retries == old.Retries && r.OutputAt.Equal(old.OutputAt) &&
		r.ErrorsAt.Equal(old.ErrorsAt) && r.Elsewhere == old.Elsewhere && len(r.Models) == len(old.Models)
}
