package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/summary"
	"github.com/promptmill/promptmill/deploy/sweep"
	"github.com/promptmill/promptmill/deploy/terminal"
)

func trialCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "trial",
		Usage:     "find which model, server and settings are best for a job, on a sample of its input",
		ArgsUsage: "INPUT...",
		Description: "Each --model, with each combination of the --vary values, is a variant, and so is each --url. The " +
			"server of each is started, runs the same sample of INPUT until its speed is known, and is stopped. " +
			"NAME.trial.html says which variant to take, and which differences are real. Stopped or killed, the " +
			"same command goes on. INPUT is the same as for promptmill run.",
		Flags: slices.Concat(trialFlags(), []cli.Flag{
			setFlag(),
			skipInvalidFlag(),
			endpointFlag(),
			&cli.BoolFlag{
				Name:     "dry-run",
				Category: groupTrial,
				Usage:    "print the variants and their commands, and start nothing",
			},
			schemaFlag(),
		}, rowFlags(), placeFlags(), requestFlags(), estimateFlags(), []cli.Flag{stateFlag(), verboseFlag()}),
		Action: func(ctx context.Context, c *cli.Command) error {
			places := openPlaces(c)
			defer places.Close()

			o, err := parseTrial(ctx, env, c, places)
			if err != nil {
				return err
			}

			switch {
			case o.dryRun:
				return printSpecs(env, o)
			case o.hasOnlyBeside():
				return compareBeside(ctx, env, o)
			}

			return runTrial(ctx, env, o)
		},
	}
}

// printSpecs prints the variants of a trial.
func printSpecs(env environment, o trialOptions) error {
	if o.json {
		return printJSON(env.stdout, o.specs)
	}

	names, models, servers := make([]string, len(o.specs)), make([]string, len(o.specs)), make([]string, len(o.specs))
	for i, s := range o.specs {
		names[i], models[i], servers[i] = s.Name, s.Model, s.Command
		if s.Command == "" {
			servers[i] = s.URL
		}
	}

	return terminal.Columns{
		{Head: "VARIANT", Cells: names},
		{Head: "MODEL", Cells: models},
		{Head: "SERVER", Cells: servers},
	}.Print(env.stdout, 0)
}

// compareBeside writes the page of other trials and runs alone.
func compareBeside(ctx context.Context, env environment, o trialOptions) (err error) {
	cmd, err := openCommand(ctx, env, o.common)
	if err != nil {
		return err
	}
	defer cmd.Close()
	defer func() { err = cmd.fail(err) }()

	cfg := o.sweep
	r := trial.Evaluate(trial.Trial{
		Name:      filepath.Base(cfg.Output),
		CreatedAt: time.Now().UTC(),
		UpdatedAt: time.Now().UTC(),
		Done:      true,
		Variants:  cfg.Beside,
	}, trial.Options{
		Goal:      cfg.Goal,
		Prices:    cfg.Report.Prices,
		Estimates: cfg.Report.Estimates,
	})
	if err := r.WriteFiles(cfg.Output); err != nil {
		return err
	}

	return printTrial(cmd, o, r)
}

// runTrial runs a trial and prints its result.
func runTrial(ctx context.Context, env environment, o trialOptions) (err error) {
	cmd, err := openCommand(ctx, env, o.common)
	if err != nil {
		return err
	}
	defer cmd.Close()
	defer func() { err = cmd.fail(err) }()

	o.places.LogTo(cmd.log)
	cmd.limitMemory()

	display := progress.NewTrialDisplay(cmd.screen, o.sweep.Precision, o.sweep.Budget)
	display.ShowStart(describeTrial(o))

	o.sweep.Log = cmd.log
	o.sweep.Hooks = sweep.Hooks{
		Printf:   cmd.screen.Printf,
		Drawing:  progress.ShowDrawing(cmd.screen),
		Begin:    display.Begin,
		Loading:  display.Loading,
		Progress: display.Progress,
		End:      display.End,
	}

	doing := fmt.Sprintf("ending the variant that runs, at most %s", o.sweep.Workers.Grace)
	r, err := sweep.Run(cmd.untilSignals(doing, nothingToCount, continueHint), o.sweep)
	display.Close()
	if err != nil {
		return err
	}

	if err := printTrial(cmd, o, r); err != nil {
		return err
	}

	return judgeTrial(r)
}

// describeTrial describes a trial at its start.
func describeTrial(o trialOptions) progress.TrialStart {
	names, inputs := []string{}, []string{}
	plan := ""
	if o.tuning != nil {
		plan = o.tuning.Plan(o.sweep.Budget)
	} else {
		for _, s := range o.specs {
			names = append(names, s.Name)
		}
	}

	for _, input := range o.inputs {
		inputs = append(inputs, nameInput(input))
	}

	return progress.TrialStart{
		Inputs:    inputs,
		Variants:  names,
		Plan:      plan,
		Sample:    o.sweep.Sample,
		Precision: o.sweep.Precision,
		BudgetS:   o.sweep.Budget.Seconds(),
		WithinS:   o.sweep.Within.Seconds(),
		Page:      o.sweep.Output + trial.HTMLSuffix,
	}
}

// printTrial prints the result of a trial.
func printTrial(cmd *activeCommand, o trialOptions, r *trial.Result) error {
	cmd.screen.Close()
	if o.json {
		return r.WriteJSON(cmd.env.stdout)
	}

	summary.PrintTrial(cmd.screen, r, o.sweep.Output)
	if r.Tuning != nil && r.Chosen != "" {
		cmd.screen.Printf("command: %s", terminal.Command(r.Tuning.Command))
	}

	return nil
}

// judgeTrial returns the error of a trial that is done: of variants that failed, or if none has a speed. A tuning tries
// values that may fail: it is done if the command as it is has a speed.
func judgeTrial(r *trial.Result) error {
	failed, began, variants := 0, 0, 0
	for _, row := range r.Variants {
		if row.Beside {
			continue
		}

		variants++
		if row.State == trial.Failed {
			failed++
		}
		if row.Metadata != nil {
			began++
		}
	}

	const again = "the same command with --retry runs them again"
	switch {
	case failed == 0 && r.Chosen == "":
		return exit.RequestsFailed(errors.New("no variant was measured: the time of the trial was over"),
			"the same command with --retry and more time in --within runs them")
	case failed == 0, r.Tuning != nil && r.Chosen != "":
		return nil
	case failed == variants && began == 0:
		return exit.Unreachable(fmt.Errorf("no variant has answered: the server of each has failed"), again)
	}

	return exit.RequestsFailed(fmt.Errorf("%d of %s failed", failed, terminal.CountOf(variants, "variant")), again)
}
