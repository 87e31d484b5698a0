package main

import "github.com/urfave/cli/v3"

func metricsFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:     "metrics",
			Category: groupGeneral,
			Usage:    "`[HOST]:PORT`: address to serve Prometheus metrics at; without a host, only this machine can read them",
		},
	}
}
