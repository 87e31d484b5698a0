package http1

import "context"

// traceParentKey is the key of a context's traceparent.
type traceParentKey struct{}

// WithTraceParent returns a context whose requests have the header traceparent (W3C Trace Context)
// with the value, which must be printable ASCII.
func WithTraceParent(ctx context.Context, value string) context.Context {
	return context.WithValue(ctx, traceParentKey{}, value)
}

// TraceParent returns the value of [WithTraceParent]; empty: its requests have no such header.
func TraceParent(ctx context.Context) string {
	value, _ := ctx.Value(traceParentKey{}).(string)
	return value
}
