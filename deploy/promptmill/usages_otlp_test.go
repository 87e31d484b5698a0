package main

import "testing"

func TestUsageOfTelemetry(t *testing.T) {
	t.Parallel()

	const example = "for example --otlp http://collector:4318"

	testUsages(t, []usage{
		{
			args:  "run in.jsonl --sim --otlp collector:4318",
			files: oneRequest,
			err:   "--otlp collector:4318: it does not begin with http:// or https://",
			hint:  example,
			code:  2,
		},
		{
			args: "serve --otlp http://",
			err:  "--otlp http://: it has no host",
			hint: example,
			code: 2,
		},
		{
			args: "worker --sim --otlp grpc://collector:4317",
			err:  "--otlp grpc://collector:4317: it does not begin with http:// or https://",
			hint: example,
			code: 2,
		},
		{
			args: "worker --sim --otlp env",
			err:  "--otlp env: OTEL_EXPORTER_OTLP_ENDPOINT is not set",
			hint: "set it, or name the receiver: --otlp http://collector:4318",
			code: 2,
		},
		{
			args:  "run in.jsonl --sim --otlp http://c:4318 --otlp-traces 2",
			files: oneRequest,
			err:   "--otlp-traces 2: it is not a number from 0 to 1",
			hint:  "for example --otlp-traces 0.01",
			code:  2,
		},
		{
			args:  "run in.jsonl --sim --otlp http://c:4318 --otlp-traces NaN",
			files: oneRequest,
			err:   "--otlp-traces NaN: it is not a number from 0 to 1",
			hint:  "for example --otlp-traces 0.01",
			code:  2,
		},
		{
			args:  "run in.jsonl --sim --otlp-traces 0.1",
			files: oneRequest,
			err:   "--otlp-traces needs --otlp",
			hint:  "give --otlp too, or leave out --otlp-traces",
			code:  2,
		},
		{
			args:  "run in.jsonl --sim --otlp http://c:4318",
			env:   []string{"OTEL_EXPORTER_OTLP_PROTOCOL=grpc"},
			files: oneRequest,
			err:   "OTEL_EXPORTER_OTLP_PROTOCOL=grpc: promptmill sends OTLP as http/protobuf alone",
			hint:  "unset it, and name the receiver's port for HTTP, which is usually 4318",
			code:  2,
		},
		{
			args:  "run in.jsonl --sim --otlp env",
			env:   []string{"OTEL_EXPORTER_OTLP_ENDPOINT=c:4318"},
			files: oneRequest,
			err:   "OTEL_EXPORTER_OTLP_ENDPOINT=c:4318: it does not begin with http:// or https://",
			hint:  "for example http://collector:4318",
			code:  2,
		},
	})
}
