package telemetry

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()

	for want, cfg := range map[string]Config{
		"telemetry: Config.Share is -0.1, not from 0 to 1":                       {Share: -0.1},
		"telemetry: Config.Share is NaN, not from 0 to 1":                        {Share: math.NaN()},
		"telemetry: Config.Endpoint: it does not begin with http:// or https://": {Endpoint: "collector:4318"},
		"telemetry: Config.Endpoint: it has no host":                             {Endpoint: "http://:4318"},
		"telemetry: Config.Endpoint: it has a query or a fragment":               {Endpoint: "http://c/?a=b"},
		"telemetry: Config.Endpoint: invalid port \":x\" after host":             {Endpoint: "http://c:x"},
		"telemetry: Config.Endpoint: it has a user; credentials belong into OTEL_EXPORTER_OTLP_HEADERS": {
			Endpoint: "http://me:secret@c:4318",
		},
	} {
		if _, err := Start(t.Context(), cfg); err == nil || err.Error() != want {
			t.Errorf("%+v: %v, want %s", cfg, err, want)
		}
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()

	share := func(v float64) *float64 { return &v }
	for _, tt := range []struct {
		env  map[string]string
		want Settings
		err  string
	}{
		{},
		{
			env:  map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"},
			want: Settings{HasEndpoint: true},
		},
		{
			env:  map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c/otlp/v1/traces"},
			want: Settings{HasEndpoint: true},
		},
		{
			env: map[string]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "c:4318"},
			err: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=c:4318: it does not begin with http:// or https://",
		},
		{env: map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}},
		{
			env: map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
			err: "OTEL_EXPORTER_OTLP_PROTOCOL=grpc: promptmill sends OTLP as http/protobuf alone",
		},
		{
			env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
			err: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/json: promptmill sends OTLP as http/protobuf alone",
		},
		{env: map[string]string{"OTEL_METRICS_EXPORTER": "none"}, want: Settings{NoMetrics: true}},
		{env: map[string]string{"OTEL_TRACES_EXPORTER": "none"}, want: Settings{NoTraces: true}},
		{env: map[string]string{"OTEL_SDK_DISABLED": "true"}, want: Settings{NoMetrics: true, NoTraces: true}},
		{env: map[string]string{"OTEL_TRACES_SAMPLER": "always_on"}, want: Settings{Share: share(1)}},
		{env: map[string]string{"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, want: Settings{Share: share(0)}},
		{
			env: map[string]string{
				"OTEL_TRACES_SAMPLER":     "parentbased_traceidratio",
				"OTEL_TRACES_SAMPLER_ARG": "0.25",
			},
			want: Settings{Share: share(0.25)},
		},
		{env: map[string]string{"OTEL_TRACES_SAMPLER": "traceidratio"}, want: Settings{Share: share(1)}},
		{
			env: map[string]string{"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"},
			err: "OTEL_TRACES_SAMPLER_ARG=2: it is not a number from 0 to 1",
		},
		{
			env: map[string]string{"OTEL_TRACES_SAMPLER": "jaeger_remote"},
			err: "OTEL_TRACES_SAMPLER=jaeger_remote: promptmill does not know this sampler",
		},
	} {
		got, err := ReadSettings(func(name string) string { return tt.env[name] })
		switch {
		case tt.err != "":
			if err == nil || err.Error() != tt.err {
				t.Errorf("%v: %v, want %s", tt.env, err, tt.err)
			}
		case err != nil:
			t.Errorf("%v: %v", tt.env, err)
		default:
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%v (-want +got):\n%s", tt.env, diff)
			}
		}
	}
}
