package main

import "github.com/urfave/cli/v3"

func metricsFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:     "metrics",
			Category: groupGeneral,
			Usage:    "serve Prometheus metrics at `[HOST]:PORT`; without a host, to this machine alone",
			Sources:  flagEnv("metrics"),
		},
	}
}
