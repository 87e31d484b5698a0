package main

import (
	"cmp"
	"context"
	"os"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/deploy/onend"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/summary"
	"github.com/promptmill/promptmill/proto"
)

func collectCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "collect",
		Usage:     "write the answers of a run on a bus to files here",
		ArgsUsage: "RUN",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{
				Name:        "output",
				Category:    groupOutput,
				Aliases:     []string{"o"},
				Usage:       outputUsage,
				DefaultText: "RUN.jsonl.zst in this folder",
			},
			shardsFlag(),
			&cli.StringFlag{
				Name:     "progress",
				Category: groupOutput,
				Value:    "auto",
				Usage:    "`MODE`: how to show the progress: auto, bar, plain, json or none",
			},
		}, outputFlags(), placeFlags(), reportFlags(), metricsFlags(), otlpFlags(), []cli.Flag{onEndFlag()}, busFlags(),
			[]cli.Flag{jsonFlag(), replicasFlag()}),
		Action: func(ctx context.Context, c *cli.Command) error {
			run, err := parseRunID(c)
			if err != nil {
				return err
			}

			s, m, err := openRun(ctx, env, parseBus(env, c), proto.RoleCollector, run)
			if err != nil {
				return err
			}
			defer s.Close()

			places := openPlaces(c)
			defer places.Close()

			cfg, err := parseCollect(ctx, env, c, places, m.Run+output.ResultsSuffix)
			if err != nil {
				return err
			}

			onEnd, err := parseOnEnd(c)
			if err != nil {
				return err
			}

			s.Limits.Replicas = max(1, c.Int("replicas"))
			cfg.Bus, cfg.Run = s.Connection, m.Run

			return collect(ctx, env, parseCommon(c, c.String("progress")), *cfg, places, onEnd, c.Bool("json"))
		},
	}
}

func collect(
	ctx context.Context, env environment, o commonOptions, cfg pipeline.CollectConfig, places *objectstore.Client,
	onEnd *onend.Command, json bool,
) (err error) {
	cmd, err := openCommand(ctx, env, o)
	if err != nil {
		return err
	}
	defer cmd.Close()
	defer func() { err = cmd.fail(err) }()

	places.LogTo(cmd.log)

	return collectRun(cmd, cfg, nil, onEnd, json)
}

// checkInputs refuses an output of which a file is one of the inputs.
func checkInputs(out output.Prefix, inputs []string) error {
	for _, input := range inputs {
		info, err := os.Stat(input)
		if err != nil {
			continue // a URL, standard input, or it is missed later
		}

		if path := out.FindSame(info); path != "" {
			return exit.Usage("choose another output with -o",
				"the input %s is the file %s, which the run would write", files.Short(input), files.Short(path))
		}
	}

	return nil
}

// parseCollect reads and checks the flags for the place of a run's output. name is the output's
// default name.
func parseCollect(
	ctx context.Context, env environment, c *cli.Command, places *objectstore.Client, name string,
) (cfg *pipeline.CollectConfig, err error) {
	cfg = &pipeline.CollectConfig{
		FlushInterval: c.Duration("flush"),
		Format:        formatOf(c),
		Version:       versionText(),
	}

	if cfg.FlushInterval <= 0 {
		return nil, exit.Usage("", "--flush %s: must be more than 0", cfg.FlushInterval)
	}

	var local string
	if local, cfg.Upload, err = placeOutput(ctx, env, c, places); err != nil {
		return nil, err
	}

	if cfg.Output, cfg.Table, err = outputOf(c, cmp.Or(local, name)); err != nil {
		return nil, err
	}

	if cfg.State, err = stateOf(env, c); err != nil {
		return nil, err
	}

	cfg.Report, err = parseReports(env, c)

	return cfg, err
}

// collectRun collects a run in the foreground, with progress and a summary. inputs are the
// run's inputs as the user named them, if known.
func collectRun(
	cmd *activeCommand, cfg pipeline.CollectConfig, inputs []string, onEnd *onend.Command, json bool,
) error {
	cfg.Log, cfg.Metrics, cfg.Hooks = cmd.log, cmd.metrics, cmd.hooks()
	cmd.limitMemory()

	collecting := cmd.untilSignals("syncing the results received", cmd.countSafe, continueHint)
	res, err := pipeline.Collect(collecting, cfg)
	cmd.screen.Close()
	if err != nil {
		cmd.printCauses(err)
		return err
	}

	written := summary.Files{
		Local:  res.Output,
		Place:  res.Place,
		Inputs: inputs,
		Table:  cfg.Table.FirstName(),
	}
	if res.Copied {
		summary.PrintCopied(cmd.screen, res.Metadata, written)
	} else {
		summary.Print(cmd.screen, res.Metadata, written)
	}

	if json {
		if err := printJSON(cmd.env.stdout, res.Metadata); err != nil {
			return err
		}
	}

	if !res.Copied {
		cmd.runOnEndOf(collecting, onEnd, res)
	}

	retry := report.ShellWords("promptmill", "retry", res.Run)

	return summary.Err(res.Metadata, res.Output.Errors(), res.Reached, retry)
}
