package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/metrics"
	"github.com/promptmill/promptmill/deploy/telemetry"
)

// otlpFromEnv is the value of --otlp for the receiver that the standard variables name.
const otlpFromEnv = "env"

// defaultTraced is the share of the requests that are traced.
const defaultTraced = 0.001

func otlpFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:     "otlp",
			Category: groupGeneral,
			Usage: "`URL`: OpenTelemetry receiver to send metrics and traces to, with OTLP over HTTP, " +
				"or \"env\" for that of OTEL_EXPORTER_OTLP_ENDPOINT",
		},
		&cli.FloatFlag{
			Name:     "otlp-traces",
			Category: groupGeneral,
			Value:    defaultTraced,
			Usage: "`SHARE`: share of the requests that are traced, from 0 to 1; of the failed ones one a second " +
				"is traced beyond that. 0 traces none",
		},
	}
}

// otlpOptions are the flags of telemetry.
type otlpOptions struct {
	receiver string   // empty: nothing is sent
	share    *float64 // nil: not given
}

// parseOTLP reads the flags of telemetry.
func parseOTLP(c *cli.Command) (o otlpOptions) {
	o.receiver = c.String("otlp")
	if c.IsSet("otlp-traces") {
		share := c.Float("otlp-traces")
		o.share = &share
	}

	return o
}

// config checks the flags and the standard environment variables. It returns nil if nothing is sent:
// a variable alone sends nothing, since it may be meant for another program.
func (o otlpOptions) config(getenv func(string) string) (*telemetry.Config, error) {
	if o.receiver == "" {
		return nil, nil
	}

	cfg := &telemetry.Config{Share: defaultTraced, Version: versionText()}
	if o.receiver != otlpFromEnv {
		cfg.Endpoint = o.receiver
		if err := telemetry.CheckEndpoint(o.receiver); err != nil {
			return nil, exit.Usage("for example --otlp http://collector:4318", "--otlp %s: %w", o.receiver, err)
		}
	}

	settings, err := telemetry.ReadSettings(getenv)
	if wrong, ok := errors.AsType[*telemetry.SettingError](err); ok {
		return nil, exit.Usage(wrong.Hint, "%w", err)
	}

	if cfg.Endpoint == "" && !settings.HasEndpoint {
		return nil, exit.Usage("set it, or name the receiver: --otlp http://collector:4318",
			"--otlp env: OTEL_EXPORTER_OTLP_ENDPOINT is not set")
	}

	switch {
	case o.share != nil:
		cfg.Share = *o.share
	case settings.Share != nil:
		cfg.Share = *settings.Share
	}

	if !(cfg.Share >= 0 && cfg.Share <= 1) {
		return nil, exit.Usage("for example --otlp-traces 0.01", "--otlp-traces %v: it is not a number from 0 to 1",
			cfg.Share)
	}

	if cfg.NoMetrics = settings.NoMetrics; settings.NoTraces {
		cfg.Share = 0
	}

	return cfg, nil
}

// startTelemetry begins to send telemetry, with the metrics of this process; nil: none is sent.
func (c *activeCommand) startTelemetry(ctx context.Context, cfg *telemetry.Config) (*telemetry.Telemetry, error) {
	if cfg == nil {
		return nil, nil
	}

	cfg.Metrics, cfg.Log = metrics.NewRegistry(nil, c.metrics.Pushed()), c.log

	return telemetry.Start(ctx, *cfg)
}
