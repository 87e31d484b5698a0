package main

import (
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/scale"
)

func metricsFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:     "metrics",
			Category: groupGeneral,
			Usage:    "`[HOST]:PORT`: address to serve Prometheus metrics at; without a host, only this machine can read them",
		},
	}
}

// scaleFlag returns the flag of the boxes that are wanted.
func scaleFlag() cli.Flag {
	return &cli.DurationFlag{
		Name:     "scale-within",
		Category: groupGeneral,
		Value:    scale.DefaultWithin,
		Usage: "`DURATION`: time from its start in which a run without --expires is to end, for the number of boxes " +
			"that /scale and the metrics want",
	}
}

// checkScale refuses a time that is none.
func checkScale(c *cli.Command) error {
	if within := c.Duration("scale-within"); within <= 0 {
		return exit.Usage("", "--scale-within %s: must be more than 0", within)
	}
	return nil
}
