package telemetry

import (
	"context"
	"encoding/binary"
	"math/rand/v2"

	"github.com/cespare/xxhash/v2"
	"go.opentelemetry.io/otel/trace"
)

// requestTraceID returns the id of the trace of a request. It is a hash of its run and of its
// index, so that all workers choose the same requests, and attempts of several workers at one
// request are in one trace. Its last eight bytes decide as those of a random id do, see
// [sampler.has].
func requestTraceID(run string, index uint32) (id trace.TraceID) {
	var d xxhash.Digest
	d.Reset()
	d.WriteString(run)

	var tail [5]byte // a zero byte ends the run's id
	binary.LittleEndian.PutUint32(tail[1:], index)
	d.Write(tail[:])
	binary.BigEndian.PutUint64(id[8:], d.Sum64())

	d.Write(tail[:])
	binary.BigEndian.PutUint64(id[:8], d.Sum64())

	return id
}

// sampler chooses a share of all traces by their ids.
type sampler struct{ bound uint64 }

// newSampler returns the sampler of a share from 0 to 1.
func newSampler(share float64) sampler { return sampler{uint64(share * (1 << 63))} }

// has reports whether a trace is chosen. It decides as TraceIDRatioBased of the OpenTelemetry SDKs
// does, so that a receiver that samples by that rule with a larger share keeps all of them.
func (s sampler) has(id trace.TraceID) bool { return binary.BigEndian.Uint64(id[8:])>>1 < s.bound }

// newSpanID returns a random id.
func newSpanID() (id trace.SpanID) {
	for !id.IsValid() {
		binary.LittleEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}

// idsKey is the key of the ids of the span that a context is to begin.
type idsKey struct{}

// spanIDs are the ids of a span that were chosen before it begins.
type spanIDs struct {
	trace trace.TraceID
	span  trace.SpanID // zero: any
}

// withIDs returns a context whose next span has the ids.
func withIDs(ctx context.Context, ids spanIDs) context.Context {
	return context.WithValue(ctx, idsKey{}, ids)
}

// idGenerator gives spans the ids of their contexts.
type idGenerator struct{}

// NewIDs returns the ids of a span that begins a trace.
func (g idGenerator) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	ids, ok := ctx.Value(idsKey{}).(spanIDs)
	if !ok {
		binary.LittleEndian.PutUint64(ids.trace[:8], rand.Uint64())
		binary.LittleEndian.PutUint64(ids.trace[8:], rand.Uint64()|1)
	}

	return ids.trace, g.NewSpanID(ctx, ids.trace)
}

// NewSpanID returns the id of a span within a trace.
func (idGenerator) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	if ids, ok := ctx.Value(idsKey{}).(spanIDs); ok && ids.span.IsValid() {
		return ids.span
	}
	return newSpanID()
}
