package telemetry

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0"
)

// The boundaries of the histograms are those of the semantic conventions.
var (
	durationBounds = []float64{
		0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
	}
	tokenBounds = []float64{
		1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864,
	}
)

// requestMetrics are the metrics of attempts, under the names of the semantic conventions. The
// conventions have no word for an attempt: each is an operation.
type requestMetrics struct {
	duration metric.Float64Histogram
	tokens   metric.Int64Histogram

	// mu guards the field below.
	mu      sync.RWMutex
	options map[operation]operationOptions
}

// operation is what attempts have in common that are counted together.
type operation struct {
	endpoint
	errorType string // empty: answered
}

// operationOptions are the attributes of an operation as the instruments take them. They are made
// once, since that costs more than to count.
type operationOptions struct {
	duration      []metric.RecordOption
	input, output []metric.RecordOption
}

// newRequestMetrics returns the metrics of a provider.
func newRequestMetrics(meters metric.MeterProvider) (*requestMetrics, error) {
	meter := meters.Meter(scopeName, metric.WithSchemaURL(semconv.SchemaURL))
	m := &requestMetrics{options: map[operation]operationOptions{}}

	var err error
	m.duration, err = meter.Float64Histogram("gen_ai.client.operation.duration",
		metric.WithUnit("s"),
		metric.WithDescription("GenAI operation duration: each attempt at a request is one."),
		metric.WithExplicitBucketBoundaries(durationBounds...))
	if err != nil {
		return nil, err
	}

	m.tokens, err = meter.Int64Histogram("gen_ai.client.token.usage",
		metric.WithUnit("{token}"),
		metric.WithDescription("Number of input and output tokens used, of each answer."),
		metric.WithExplicitBucketBoundaries(tokenBounds...))

	return m, err
}

// record counts an attempt.
func (m *requestMetrics) record(o operation, took time.Duration, input, output int64) {
	ctx, options := context.Background(), m.optionsOf(o)
	m.duration.Record(ctx, took.Seconds(), options.duration...)

	if input > 0 {
		m.tokens.Record(ctx, input, options.input...)
	}
	if output > 0 {
		m.tokens.Record(ctx, output, options.output...)
	}
}

// optionsOf returns the attributes of an operation.
func (m *requestMetrics) optionsOf(o operation) operationOptions {
	m.mu.RLock()
	options, ok := m.options[o]
	m.mu.RUnlock()

	if ok {
		return options
	}

	m.mu.Lock()
	defer m.mu.Unlock()

	about := o.attributes()
	with := func(more ...attribute.KeyValue) []metric.RecordOption {
		set := attribute.NewSet(slices.Concat(about, more)...)
		return []metric.RecordOption{metric.WithAttributeSet(set)}
	}

	options = operationOptions{
		duration: with(),
		input:    with(semconv.GenAITokenTypeInput),
		output:   with(semconv.GenAITokenTypeOutput),
	}
	if o.errorType != "" {
		options.duration = with(semconv.ErrorTypeKey.String(o.errorType))
	}

	m.options[o] = options

	return options
}
