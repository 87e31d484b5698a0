package telemetry

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// logEvery is the least time between two warnings.
const logEvery = time.Minute

// failureLog logs that telemetry could not be sent, and counts the spans that were lost.
type failureLog struct {
	log zerolog.Logger

	// mu guards the fields below.
	mu     sync.Mutex
	logged time.Time // the last warning
	hidden int       // failures since then
	made   int       // spans that were to be sent
	sent   int       // of these
	last   error     // of the end
	closed bool
}

// addSpans counts spans that are to be sent.
func (f *failureLog) addSpans(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made += n
}

// addSent counts spans that the receiver has taken.
func (f *failureLog) addSent(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent += n
}

// record logs a failure, unless one was logged less than a minute ago. spans is the number of spans
// that are lost with it.
func (f *failureLog) record(err error, spans int) {
	f.mu.Lock()
	defer f.mu.Unlock()

	if f.closed {
		return
	}

	f.hidden++
	if now := time.Now(); f.logged.IsZero() || now.Sub(f.logged) >= logEvery {
		e := f.log.Warn().Err(err).Int("failures", f.hidden)
		if spans > 0 {
			e = e.Int("lost_spans", spans)
		}
		e.Msg("failed to export telemetry; retrying")
		f.logged, f.hidden = now, 0
	}
}

// recordLast keeps a failure of the end.
func (f *failureLog) recordLast(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()

	if err != nil {
		f.last = err
	}
}

// close logs what was lost at the end, and logs nothing afterwards.
func (f *failureLog) close() {
	f.mu.Lock()
	defer f.mu.Unlock()

	lost := f.made - f.sent
	if f.last != nil || lost > 0 {
		f.log.Warn().Err(f.last).Int("lost_spans", lost).Msg("failed to export the last telemetry")
	}
	f.closed = true
}

// countingExporter counts what an exporter of spans has sent, and logs what it has not.
type countingExporter struct {
	sdktrace.SpanExporter
	failures *failureLog
}

// ExportSpans sends spans. Its errors are in the log: it returns none.
func (e countingExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.failures.record(err, len(spans))
		return nil
	}

	e.failures.addSent(len(spans))

	return nil
}
