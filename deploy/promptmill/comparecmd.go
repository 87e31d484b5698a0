package main

import (
	"context"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
)

func compareCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "compare",
		Usage:     "compare runs, the fastest first",
		ArgsUsage: "META META...",
		Description: "META is the same as for promptmill report. All runs are compared with the fastest, with " +
			"intervals where the runs are long enough for them. Runs on different inputs get a warning.",
		Flags: slices.Concat(estimateFlags(), []cli.Flag{estimateWorkersFlag()}, reportWriterFlags(), busFlags()),
		Action: func(ctx context.Context, c *cli.Command) error {
			names := c.Args().Slice()
			if len(names) < 2 {
				return exit.Usage("for example: promptmill compare A.meta.json B.meta.json, or two runs of promptmill history",
					"want the metadata of two runs or more, or their ids")
			}

			o, err := parseEstimateFlags(c)
			if err != nil {
				return err
			}

			if o.Workers, err = parseEstimateWorkers(c); err != nil {
				return err
			}

			to, err := parseReportWriter(env, c)
			if err != nil {
				return err
			}

			finder, err := newMetaFinder(env, c)
			if err != nil {
				return err
			}

			return compareRuns(ctx, o, to, finder, names)
		},
	}
}

// compareRuns writes the comparison of the runs that some names mean.
func compareRuns(ctx context.Context, o report.Options, to reportWriter, finder metaFinder, names []string) error {
	var runs []report.Named
	for _, name := range names {
		path, run, err := finder.open(ctx, name)
		if err != nil {
			return err
		}
		runs = append(runs, report.Named{Path: path, Run: run})
	}

	return to.write(report.Compare(runs, o))
}
