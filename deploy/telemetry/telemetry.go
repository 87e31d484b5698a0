package telemetry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0"
)

const (
	// scopeName is the name of the instrumentation scope.
	scopeName = "github.com/promptmill/promptmill/deploy/telemetry"

	// closeTime is the longest time that the end of a process waits for the receiver.
	closeTime = 3 * time.Second

	// maxTextLength is the greatest length of an attribute's value: a custom_id can be long.
	maxTextLength = 1024
)

// Telemetry sends the metrics and traces of this process. A nil Telemetry sends nothing.
type Telemetry struct {
	failures *failureLog
	metrics  *requestMetrics // nil: none are sent
	tracer   *requestTracer  // nil: nothing is traced

	meters *sdkmetric.MeterProvider
	spans  *sdktrace.TracerProvider
	stop   func(context.Context) error // ends exports of spans that are under way

	endBy time.Time // as EndBy says
}

// Start begins to send telemetry. It connects to nothing: a receiver that is away is no error. The
// errors and the log of the SDK, which has one of each for the process, go to the last Telemetry's
// log.
func Start(ctx context.Context, cfg Config) (*Telemetry, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}

	t := &Telemetry{failures: &failureLog{log: cfg.Log}}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { t.failures.record(err, 0) }))
	otel.SetLogger(logr.Discard()) // what it says is said by the error handler, too

	about, err := describeProcess(ctx, cfg.Version)
	if err != nil {
		cfg.Log.Warn().Err(err).Msg("the resource of the telemetry is incomplete")
	}

	if !cfg.NoMetrics {
		if err := t.startMetrics(ctx, cfg, about); err != nil {
			return nil, err
		}
	}

	if cfg.Share > 0 {
		if err := t.startTraces(ctx, cfg, about); err != nil {
			t.Close()
			return nil, err
		}
	}

	return t, nil
}

// describeProcess returns the resource: this process, with what OTEL_SERVICE_NAME and
// OTEL_RESOURCE_ATTRIBUTES say of it.
func describeProcess(ctx context.Context, version string) (*resource.Resource, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}

	return resource.New(ctx,
		resource.WithSchemaURL(semconv.SchemaURL),
		resource.WithAttributes(
			semconv.ServiceName("promptmill"),
			semconv.ServiceVersion(version),
			semconv.ServiceInstanceID(fmt.Sprintf("%s-%d", host, os.Getpid())),
			semconv.HostName(host),
		),
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(),
	)
}

// startMetrics begins to send metrics.
func (t *Telemetry) startMetrics(ctx context.Context, cfg Config, about *resource.Resource) error {
	var options []otlpmetrichttp.Option
	if cfg.Endpoint != "" {
		options = append(options, otlpmetrichttp.WithEndpointURL(endpointOf(cfg.Endpoint, "metrics")))
	}

	exporter, err := otlpmetrichttp.New(ctx, options...)
	if err != nil {
		return fmt.Errorf("telemetry: metrics: %w", err)
	}

	var reading []sdkmetric.PeriodicReaderOption
	if cfg.Metrics != nil {
		reading = append(reading, sdkmetric.WithProducer(bridge.NewMetricProducer(bridge.WithGatherer(cfg.Metrics))))
	}

	t.meters = sdkmetric.NewMeterProvider(
		sdkmetric.WithResource(about),
		sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter, reading...)),
	)

	t.metrics, err = newRequestMetrics(t.meters)

	return err
}

// startTraces begins to send traces.
func (t *Telemetry) startTraces(ctx context.Context, cfg Config, about *resource.Resource) error {
	var options []otlptracehttp.Option
	if cfg.Endpoint != "" {
		options = append(options, otlptracehttp.WithEndpointURL(endpointOf(cfg.Endpoint, "traces")))
	}

	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return fmt.Errorf("telemetry: traces: %w", err)
	}

	limits := sdktrace.NewSpanLimits()
	if limits.AttributeValueLengthLimit < 0 {
		limits.AttributeValueLengthLimit = maxTextLength
	}

	t.stop = exporter.Shutdown
	t.spans = sdktrace.NewTracerProvider(
		sdktrace.WithResource(about),
		sdktrace.WithRawSpanLimits(limits),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // the tracer has decided
		sdktrace.WithIDGenerator(idGenerator{}),
		sdktrace.WithBatcher(countingExporter{exporter, t.failures}),
	)
	t.tracer = newRequestTracer(t.spans, cfg.Share, t.failures)

	return nil
}

// EndBy lets a later Close take no longer than until a time; zero: there is no such time. It is not for
// several goroutines.
func (t *Telemetry) EndBy(at time.Time) {
	if t != nil {
		t.endBy = at
	}
}

// Close sends what is left, and waits for the receiver at most for a few seconds. It logs how many
// spans were lost.
func (t *Telemetry) Close() {
	if t == nil {
		return
	}

	by := time.Now().Add(closeTime)
	if !t.endBy.IsZero() && t.endBy.Before(by) {
		by = t.endBy
	}

	ctx, cancel := context.WithDeadline(context.Background(), by)
	defer cancel()

	var ending sync.WaitGroup
	if t.meters != nil {
		ending.Go(func() { t.failures.recordLast(t.meters.Shutdown(ctx)) })
	}

	if t.spans != nil {
		ending.Go(func() {
			err := t.spans.Shutdown(ctx)
			if errors.Is(err, context.DeadlineExceeded) {
				err = errors.Join(err, t.stop(ctx))
			}
			t.failures.recordLast(err)
		})
	}

	ending.Wait()
	t.failures.close()
}
