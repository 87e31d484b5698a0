package worker

import (
	"context"
	"strconv"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// Observer follows the requests of a worker, for telemetry. Its methods are called by many
// goroutines at a time, on the way of each request, so they must not block.
type Observer interface {
	// BeginAttempt is called before an attempt at a request. It returns the value of the header
	// traceparent (W3C Trace Context) to send with the attempt; empty: none.
	BeginAttempt(run string, index uint32, begin time.Time) (traceParent string)

	// EndAttempt is called at the end of each attempt, with or without an answer.
	EndAttempt(ObservedRequest, Attempt)

	// EndRequest is called once for each request that the worker took: when it has its result, or
	// when it is returned to the bus.
	EndRequest(EndedRequest)
}

// ObservedRequest names a request. It has nothing of the prompt.
type ObservedRequest struct {
	// Run and Shard are the ids of its run and of its shard, Index its place in the run.
	Run, Shard string
	Index      uint32
	// CustomID is the caller's name for it, as a JSON string with its quotes.
	CustomID []byte
	// Path is its endpoint, one of [proto.Endpoints].
	Path string
	// Model is the model that it names.
	Model string
}

// Attempt is one attempt at a request.
type Attempt struct {
	// Begin is its start, and Took the time until its answer was read or it failed.
	Begin time.Time
	Took  time.Duration
	// Status is the HTTP status of the answer, 0 without one.
	Status int
	// Error is the class of its error: an HTTP status, a code of a result, or [ErrorCancelled].
	// It is empty for an answer.
	Error string
	// PromptTokens and CompletionTokens are the tokens that the answer counts, and Finish is its
	// finish reason.
	PromptTokens, CompletionTokens int64
	Finish                         string
	// TraceParent is what [Observer.BeginAttempt] returned.
	TraceParent string
}

// ErrorCancelled is the class of an attempt that the worker ended: at its stop, at the end of the
// run, or since the model server hangs.
const ErrorCancelled = "cancelled"

// EndedRequest is a request that has its result, or goes back to the bus.
type EndedRequest struct {
	ObservedRequest

	// Attempts are the attempts of this worker, in their order.
	Attempts []Attempt
	// Returned is set if the request goes back to the bus, for another worker.
	Returned bool
	// Error is the class of the result's error, empty for an answer and for a request that is returned.
	Error string
}

// beginObserved tells the observer of an attempt that begins. It returns the attempt's context.
func (a *attemptRunner) beginObserved(ctx context.Context, t *task, begin time.Time) (context.Context, string) {
	if a.observer == nil {
		return ctx, ""
	}

	traceParent := a.observer.BeginAttempt(t.shard.run.id, t.Index, begin)
	if traceParent != "" {
		ctx = modelserver.WithTraceParent(ctx, traceParent)
	}

	return ctx, traceParent
}

// endObserved tells the observer of an attempt that has ended. cancelled is set if the worker ended it.
func (a *attemptRunner) endObserved(t *task, c classification, ended Attempt, cancelled bool) {
	if a.observer == nil {
		return
	}

	ended.Status = c.result.Status
	ended.Error = errorClass(c.result)
	ended.Finish = c.content.Finish
	ended.PromptTokens = c.content.Usage.Prompt
	ended.CompletionTokens = c.content.Usage.Completion

	if cancelled && ended.Status == 0 {
		ended.Error = ErrorCancelled
	}

	t.observed = append(t.observed, ended)
	a.observer.EndAttempt(t.describeObserved(), ended)
}

// endObserved tells the observer of the end of a task. r is its result; nil: it goes back to the bus.
func (t *task) endObserved(r *proto.Result) {
	observer := t.shard.jobs.observer
	if observer == nil {
		return
	}

	ended := EndedRequest{ObservedRequest: t.describeObserved(), Attempts: t.observed, Returned: r == nil}
	if r != nil {
		ended.Error = errorClass(*r)
	}

	observer.EndRequest(ended)
}

// describeObserved names a task's request.
func (t *task) describeObserved() ObservedRequest {
	return ObservedRequest{
		Run:      t.shard.run.id,
		Shard:    t.shard.id,
		Index:    t.Index,
		CustomID: t.CustomID,
		Path:     t.URL,
		Model:    t.shard.model,
	}
}

// errorClass returns the class of a result's error; empty: it is an answer.
func errorClass(r proto.Result) string {
	switch {
	case r.Err != nil:
		return r.Err.Code
	case r.Status < 200 || r.Status >= 300:
		return strconv.Itoa(r.Status)
	}
	return ""
}
