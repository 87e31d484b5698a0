package telemetry

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Config says what is sent where. The SDK reads further settings from the environment: OTEL_* for
// the resource, headers, certificates, compression, intervals and the limits of queues.
type Config struct {
	// Endpoint is the URL of the receiver, such as http://collector:4318, to which /v1/metrics and
	// /v1/traces are added. Defaults to those of OTEL_EXPORTER_OTLP_ENDPOINT and of its relatives
	// for one signal.
	Endpoint string
	// Share is the share of the requests that are traced, from 0 to 1. Failed requests are traced
	// beyond that, at most one a second. Defaults to 0: no request is traced, not even failed ones.
	Share float64
	// NoMetrics is set if no metrics are sent.
	NoMetrics bool
	// Metrics are sent beside those of the requests. Defaults to none.
	Metrics prometheus.Gatherer
	// Version is the version of the program.
	Version string
	// Log receives a warning when something cannot be sent, at most once a minute. The zero value
	// discards it.
	Log zerolog.Logger
}

// check returns an error that names the field of a value that cannot be used.
func (c *Config) check() error {
	if !(c.Share >= 0 && c.Share <= 1) {
		return fmt.Errorf("telemetry: Config.Share is %v, not from 0 to 1", c.Share)
	}

	if c.Endpoint == "" {
		return nil
	}

	if err := CheckEndpoint(c.Endpoint); err != nil {
		return fmt.Errorf("telemetry: Config.Endpoint: %w", err)
	}

	return nil
}

// CheckEndpoint returns the reason why a URL cannot be that of a receiver.
func CheckEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	switch {
	case !strings.HasPrefix(endpoint, "http://") && !strings.HasPrefix(endpoint, "https://"):
		return errors.New("it does not begin with http:// or https://")
	case err != nil:
		return errors.Unwrap(err) // the text around it repeats the URL
	case u.Hostname() == "":
		return errors.New("it has no host")
	case u.User != nil:
		return errors.New("it has a user; credentials belong into OTEL_EXPORTER_OTLP_HEADERS")
	case u.RawQuery != "" || u.Fragment != "":
		return errors.New("it has a query or a fragment")
	}

	return nil
}

// endpointOf returns the URL of a signal at a receiver.
func endpointOf(receiver, signal string) string {
	return strings.TrimRight(receiver, "/") + "/v1/" + signal
}

// The environment variables that name a receiver: for all signals, and for each one.
const (
	variableEndpoint        = "OTEL_EXPORTER_OTLP_ENDPOINT"
	variableMetricsEndpoint = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
	variableTracesEndpoint  = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
)

// Settings are those of the standard environment variables that this package reads itself, since
// the SDK for Go does not.
type Settings struct {
	// Share is the share of OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG; nil: neither is set.
	Share *float64
	// NoMetrics and NoTraces are set by OTEL_METRICS_EXPORTER=none and OTEL_TRACES_EXPORTER=none,
	// and by OTEL_SDK_DISABLED=true.
	NoMetrics, NoTraces bool
	// HasEndpoint is set if a variable names a receiver.
	HasEndpoint bool
}

// SettingError is a standard environment variable with a value that cannot be used.
type SettingError struct {
	// Name and Value are those of the variable.
	Name, Value string
	// Reason is why the value cannot be used, Hint a remedy.
	Reason, Hint string
}

func (e *SettingError) Error() string { return fmt.Sprintf("%s=%s: %s", e.Name, e.Value, e.Reason) }

// ReadSettings reads the standard environment variables. Its errors are of type [SettingError].
func ReadSettings(getenv func(string) string) (s Settings, err error) {
	for _, name := range []string{
		"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
	} {
		if value := getenv(name); value != "" && value != "http/protobuf" {
			return s, &SettingError{
				Name:   name,
				Value:  value,
				Reason: "promptmill sends OTLP as http/protobuf alone",
				Hint:   "unset it, and name the receiver's port for HTTP, which is usually 4318",
			}
		}
	}

	for _, name := range []string{variableEndpoint, variableMetricsEndpoint, variableTracesEndpoint} {
		value := getenv(name)
		if value == "" {
			continue
		}

		s.HasEndpoint = true
		if err := CheckEndpoint(value); err != nil {
			return s, &SettingError{
				Name:   name,
				Value:  value,
				Reason: err.Error(),
				Hint:   "for example http://collector:4318",
			}
		}
	}

	disabled := strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true")
	s.NoMetrics = disabled || getenv("OTEL_METRICS_EXPORTER") == "none"
	s.NoTraces = disabled || getenv("OTEL_TRACES_EXPORTER") == "none"

	s.Share, err = readSampler(getenv("OTEL_TRACES_SAMPLER"), getenv("OTEL_TRACES_SAMPLER_ARG"))

	return s, err
}

// readSampler returns the share that a sampler of the environment means; nil: none is set.
func readSampler(sampler, arg string) (*float64, error) {
	share := 1.0
	switch strings.TrimPrefix(sampler, "parentbased_") {
	case "":
		return nil, nil
	case "always_on":
	case "always_off":
		share = 0
	case "traceidratio":
		var err error
		if share, err = ParseShare(cmp.Or(arg, "1")); err != nil {
			return nil, &SettingError{
				Name:   "OTEL_TRACES_SAMPLER_ARG",
				Value:  arg,
				Reason: err.Error(),
				Hint:   "for example 0.001",
			}
		}
	default:
		return nil, &SettingError{
			Name:   "OTEL_TRACES_SAMPLER",
			Value:  sampler,
			Reason: "promptmill does not know this sampler",
			Hint:   "it knows always_on, always_off and traceidratio, with parentbased_ or without",
		}
	}

	return &share, nil
}
