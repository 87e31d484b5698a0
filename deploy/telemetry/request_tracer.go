package telemetry

import (
	"context"
	"encoding/hex"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"github.com/promptmill/promptmill/proto/jsonscan"
	"github.com/promptmill/promptmill/worker"
)

const (
	// failuresPerSecond bounds the failed requests that are traced without having been chosen, and
	// failureBurst how many of them at once: the first failures of a run tell most.
	failuresPerSecond = 1
	failureBurst      = 10
)

// requestTracer makes the traces of requests: a span of kind client for the request, and one in
// it for each attempt. A trace is made when its request has ended, from what the worker has
// kept of it.
type requestTracer struct {
	tracer   trace.Tracer
	sampler  sampler
	failed   *rate.Limiter
	failures *failureLog
}

// newRequestTracer returns a tracer that traces a share of the requests.
func newRequestTracer(spans trace.TracerProvider, share float64, failures *failureLog) *requestTracer {
	return &requestTracer{
		tracer:   spans.Tracer(scopeName, trace.WithSchemaURL(semconv.SchemaURL)),
		sampler:  newSampler(share),
		failed:   rate.NewLimiter(failuresPerSecond, failureBurst),
		failures: failures,
	}
}

// The parts of a traceparent of version 00, see W3C Trace Context, 3.2.
const (
	parentBegin = "00-"
	parentEnd   = "-01" // sampled
	parentSpan  = len(parentBegin) + 2*len(trace.TraceID{}) + len("-")
)

// beginAttempt returns the traceparent of an attempt at a request that is chosen; empty for others.
func (r *requestTracer) beginAttempt(run string, index uint32) string {
	id := requestTraceID(run, index)
	if !r.sampler.has(id) {
		return ""
	}
	return parentBegin + id.String() + "-" + newSpanID().String() + parentEnd
}

// attemptSpanID returns the id of an attempt's span: that which its request to the server had.
func attemptSpanID(a worker.Attempt) (id trace.SpanID) {
	if len(a.TraceParent) == parentSpan+2*len(id)+len(parentEnd) {
		hex.Decode(id[:], []byte(a.TraceParent[parentSpan:parentSpan+2*len(id)])) // beginAttempt has made it
	}
	return id
}

// wants reports whether a request is traced. A request whose input was invalid was never sent.
func (r *requestTracer) wants(ended worker.EndedRequest) bool {
	switch {
	case len(ended.Attempts) == 0:
		return false
	case ended.Attempts[0].TraceParent != "":
		return true
	}

	return ended.Error != "" && r.failed.Allow()
}

// record makes the trace of a request that has ended. target is the URL of its attempts.
func (r *requestTracer) record(ended worker.EndedRequest, at endpoint, target string) {
	first, last := ended.Attempts[0], ended.Attempts[len(ended.Attempts)-1]

	ctx := withIDs(context.Background(), spanIDs{trace: requestTraceID(ended.Run, ended.Index)})
	name := at.operation
	if at.model != "" {
		name += " " + at.model
	}

	ctx, span := r.tracer.Start(ctx, name,
		trace.WithNewRoot(),
		trace.WithSpanKind(trace.SpanKindClient),
		trace.WithTimestamp(first.Begin),
		trace.WithAttributes(at.attributes()...),
		trace.WithAttributes(describeRequest(ended)...),
	)

	for i, a := range ended.Attempts {
		r.recordAttempt(ctx, ended.Run, ended.Index, i, a, at, target)
	}

	if ended.Error != "" {
		markFailed(span, ended.Error)
	}

	span.End(trace.WithTimestamp(endOf(last)))
	r.failures.addSpans(1 + len(ended.Attempts))
}

// recordAttempt makes the span of an attempt.
func (r *requestTracer) recordAttempt(
	ctx context.Context, run string, index uint32, number int, a worker.Attempt, at endpoint, target string,
) {
	attributes := []attribute.KeyValue{
		semconv.HTTPRequestMethodPost,
		semconv.URLFull(target),
		semconv.ServerAddress(at.host),
		semconv.ServerPort(at.port),
	}
	if a.Status != 0 {
		attributes = append(attributes, semconv.HTTPResponseStatusCode(a.Status))
	}
	if number > 0 {
		attributes = append(attributes, semconv.HTTPRequestResendCount(number))
	}

	ids := spanIDs{trace: requestTraceID(run, index), span: attemptSpanID(a)}
	_, span := r.tracer.Start(withIDs(ctx, ids), "POST",
		trace.WithSpanKind(trace.SpanKindClient),
		trace.WithTimestamp(a.Begin),
		trace.WithAttributes(attributes...),
	)

	if a.Error != "" {
		markFailed(span, a.Error)
	}

	span.End(trace.WithTimestamp(endOf(a)))
}

// describeRequest returns the attributes that the span of a request has alone. The tokens and the
// finish reason are those of the last answer.
func describeRequest(ended worker.EndedRequest) []attribute.KeyValue {
	last := ended.Attempts[len(ended.Attempts)-1]
	list := []attribute.KeyValue{
		attribute.String("promptmill.run.id", ended.Run),
		attribute.String("promptmill.shard.id", ended.Shard),
		attribute.Int64("promptmill.request.index", int64(ended.Index)),
		attribute.Int("promptmill.request.attempts", len(ended.Attempts)),
	}

	if id, err := jsonscan.Unquote(ended.CustomID); err == nil {
		list = append(list, attribute.String("promptmill.request.custom_id", string(id)))
	}
	if ended.Returned {
		list = append(list, attribute.Bool("promptmill.request.returned", true))
	}
	if last.PromptTokens > 0 {
		list = append(list, semconv.GenAIUsageInputTokens(int(last.PromptTokens)))
	}
	if last.CompletionTokens > 0 {
		list = append(list, semconv.GenAIUsageOutputTokens(int(last.CompletionTokens)))
	}
	if last.Finish != "" {
		list = append(list, semconv.GenAIResponseFinishReasons(last.Finish))
	}

	return list
}

// markFailed gives a span the class of its error. It has no message: that may quote the prompt.
func markFailed(span trace.Span, class string) {
	span.SetAttributes(semconv.ErrorTypeKey.String(class))
	span.SetStatus(codes.Error, class)
}

// endOf returns the time at which an attempt ended.
func endOf(a worker.Attempt) time.Time { return a.Begin.Add(a.Took) }
