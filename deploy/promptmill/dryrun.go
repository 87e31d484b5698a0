package main

import (
	"cmp"
	"context"
	"errors"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/dryrun"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// dryRunFlag returns the flag for a look at the requests.
func dryRunFlag() cli.Flag {
	return &cli.BoolFlag{
		Name:     "dry-run",
		Category: groupInput,
		Usage:    "check the whole input, print three of its requests and the lengths of all prompts, and send nothing",
	}
}

// unnamedModel stands for the model in the requests of a dry run if no flag names one: a run
// asks the model server, or the bus.
const unnamedModel = "MODEL-OF-THE-SERVER"

// maxShownText is the most characters of a text in a request that a dry run prints on a terminal.
const maxShownText = 1000

// nameInput names an input for a person.
func nameInput(path string) string {
	if path == "-" {
		return "standard input"
	}
	return files.Short(path)
}

// previewInputs prints the requests of inputs instead of running them.
func previewInputs(
	ctx context.Context, env environment, o commonOptions, cfg pipeline.DryRunConfig, asJSON bool,
) (err error) {
	cmd, err := openCommand(ctx, env, o)
	if err != nil {
		return err
	}
	defer cmd.Close()
	defer func() { err = cmd.fail(err) }()

	if s := &cfg.Settings; s.OverrideModel == "" {
		s.Model = cmp.Or(s.Model, unnamedModel)
	} else {
		s.Model = ""
	}

	cfg.Hooks = cmd.hooks()

	previewing, signalsToNext := untilSignal(ctx, env)
	p, err := pipeline.DryRun(previewing, cfg)
	signalsToNext()
	if errors.Is(err, pipeline.ErrInterrupted) {
		return exit.Interrupted(err, "")
	}
	if err != nil {
		return err
	}

	cmd.screen.Close()
	if asJSON {
		return printJSON(env.stdout, p)
	}

	shown := dryrun.PrintOptions{Unit: "line", ShortName: nameInput}
	if cfg.Settings.Rows != nil {
		shown.Unit = "row"
	}
	if terminal.IsTerminal(env.stdout) {
		shown.MaxText = maxShownText
	}

	if err := p.Print(env.stdout, shown); err != nil {
		return err
	}

	cmd.screen.Printf("nothing was sent, and nothing was written")

	return nil
}
