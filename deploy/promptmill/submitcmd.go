package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/cmdline"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/deploy/onend"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/status"
	"github.com/promptmill/promptmill/deploy/summary"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

func submitCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "submit",
		Usage:     "submit a run to a bus",
		ArgsUsage: "INPUT...",
		Description: "submit checks the input, stores it on the bus and returns. promptmill serve or promptmill " +
			"collect writes the answers to files; so does this command with --wait -o NAME.jsonl.zst.",
		Flags: slices.Concat([]cli.Flag{
			&cli.BoolFlag{
				Name:     "wait",
				Category: groupPolicy,
				Usage:    "wait for the end of the run",
			},
			&cli.StringFlag{
				Name:     "output",
				Category: groupOutput,
				Aliases:  []string{"o"},
				Usage:    outputUsage + "; this command then collects the run; needs --wait",
			},
			shardsFlag(),
			&cli.StringFlag{
				Name:     "progress",
				Category: groupOutput,
				Value:    "auto",
				Usage:    "`MODE`: how to show the progress: auto, bar, plain, json or none",
			},
		}, inputFlags(), selectionFlags(), rowFlags(), placeFlags(), policyFlags(), shardFlags(), outputFlags(),
			reportFlags(), metricsFlags(), otlpFlags(), []cli.Flag{onEndFlag()}, busFlags(),
			[]cli.Flag{jsonFlag(), replicasFlag()}),
		Action: func(ctx context.Context, c *cli.Command) error {
			places := openPlaces(c)
			defer places.Close()

			o, err := parseSubmit(ctx, env, c, places)
			if err != nil {
				return err
			}

			if o.dryRun {
				return previewInputs(ctx, env, o.common, pipeline.DryRunConfig{
					Submitted: true,
					Inputs:    o.submit.Inputs,
					Opener:    o.submit.Opener,
					Stdin:     o.submit.Stdin,
					Settings:  o.submit.Settings,
				}, o.json)
			}

			return submit(ctx, env, o)
		},
	}
}

// submitOptions are the flags of the submit command.
type submitOptions struct {
	common commonOptions
	submit pipeline.SubmitConfig // without its bus
	bus    busconn.Options
	wait   bool
	json   bool
	dryRun bool
	// collect is for a run that this command collects. Nil if it does not.
	collect *pipeline.CollectConfig
	args    []string       // the inputs, as they were named
	onEnd   *onend.Command // nil: none
	places  *objectstore.Client
}

// parseSubmit reads and checks the flags of the submit command.
func parseSubmit(
	ctx context.Context, env environment, c *cli.Command, places *objectstore.Client,
) (o submitOptions, err error) {
	o = submitOptions{
		common: parseCommon(c, c.String("progress")),
		bus:    parseConnect(env, c),
		submit: pipeline.SubmitConfig{
			RunID:  c.String("run"),
			Opener: places,
			Stdin:  env.stdin,
			Wait:   c.Bool("wait"),
		},
		wait:   c.Bool("wait"),
		json:   c.Bool("json"),
		dryRun: c.Bool("dry-run"),
		args:   c.Args().Slice(),
		places: places,
	}

	o.bus.Standing = true
	if err := o.bus.Check(); err != nil {
		return o, err
	}

	if cmdline.IsTyped(c, "output") && !o.wait {
		return o, exit.Usage("give --wait too, or leave -o out and let promptmill serve collect the run",
			"-o needs this command to stay")
	}

	if o.submit.Label, err = parseLabel(c); err != nil {
		return o, err
	}

	if o.submit.Settings, err = parseSettings(c); err != nil {
		return o, err
	}

	if o.submit.Policy, err = parsePolicy(c, time.Now()); err != nil {
		return o, err
	}

	if _, err := parseReports(env, c); err != nil {
		return o, err
	}

	if o.onEnd, err = parseOnEnd(c); err != nil {
		return o, err
	}

	err = readPlaces(ctx, env, o.common, places, func(ctx context.Context) error {
		return o.parsePaths(ctx, env, c)
	})

	return o, err
}

// parsePaths reads the paths of the inputs and, if this command collects the run, of its output.
func (o *submitOptions) parsePaths(ctx context.Context, env environment, c *cli.Command) error {
	named, err := nameInputs(ctx, c, o.places)
	if err != nil {
		return err
	}

	if c.IsSet("output") && o.wait {
		o.submit.Policy.Attended = true
		if o.collect, err = parseCollect(ctx, env, c, o.places, ""); err != nil {
			return err
		}

		o.submit.Output = o.collect.Output
		own := pipeline.NewOwnFiles(o.collect.Output, o.collect.Table.Path, o.collect.Upload)
		if named, err = named.without(own); err != nil {
			return err
		}
	}

	if o.submit.Inputs, err = named.check(ctx, o.places, o.submit.Settings); err != nil {
		return err
	}

	if o.submit.Inputs[0] == "-" {
		if o.submit.State, err = stateOf(env, c); err != nil {
			return err
		}
	}

	if o.collect == nil {
		return nil
	}

	if err := checkInputs(o.collect.Output, o.submit.Inputs); err != nil || o.collect.Upload != nil {
		return err
	}

	return o.checkOutput()
}

// checkOutput refuses an output whose files cannot be written.
func (o submitOptions) checkOutput() error {
	if err := pipeline.CheckOutput(o.collect.Output); err != nil {
		return err
	}
	return o.collect.Table.Check(o.collect.Output, o.collect.State, o.submit.Inputs)
}

func submit(ctx context.Context, env environment, o submitOptions) (err error) {
	cmd, err := openCommand(ctx, env, o.common)
	if err != nil {
		return err
	}
	defer cmd.Close()
	defer func() { err = cmd.fail(err) }()

	o.places.LogTo(cmd.log)
	role := proto.RoleProducer
	if o.collect != nil {
		role = proto.RoleCollector
		// Before the run is on the bus.
		if err := o.collect.PrepareUpload(ctx, cmd.log); err != nil {
			return err
		}
		if err := o.checkOutput(); err != nil {
			return err
		}
	}

	noteContext(o.bus, cmd.screen)
	l, err := busconn.Connect(o.bus, role, cmd.log)
	if err != nil {
		return err
	}
	defer l.Close()

	o.submit.Bus, o.submit.Hooks = l, cmd.hooks()
	submitting, signalsToNext := untilSignal(ctx, env)
	m, err := pipeline.Submit(submitting, o.submit)
	signalsToNext()
	if err != nil {
		return err
	}

	verb := "are"
	if m.Input.Requests == 1 {
		verb = "is"
	}

	cmd.screen.Printf("run %s: %s %s on the bus at %s", m.DisplayName(),
		terminal.CountOf(m.Input.Requests, "request"), verb, l.Name)

	if o.collect != nil {
		o.collect.Bus, o.collect.Run = l, m.Run
		return collectRun(cmd, *o.collect, o.args, o.onEnd, o.json)
	}

	return cmd.reportSubmitted(ctx, l, m, o)
}

// reportSubmitted prints the next steps of a run that is on the bus, and waits for its end with
// --wait.
func (c *activeCommand) reportSubmitted(
	ctx context.Context, l *busconn.Connection, m proto.Manifest, o submitOptions,
) error {
	s, err := openSession(ctx, l)
	if err != nil {
		return err
	}

	if o.json {
		if m, err = s.Runs.Get(ctx, m.Run); err != nil {
			return err
		}
		if err := printJSON(c.env.stdout, m); err != nil {
			return err
		}
	}

	if s.isCollected(ctx, m.Run) {
		if who, ok, err := s.Leases.Holder(ctx, m.Run); err == nil && ok {
			c.screen.Printf("its answers go to %s", output.Prefix(who.String()).Results())
		}
	} else {
		now, err := s.Runs.Get(ctx, m.Run)
		if err == nil && now.State.Ended() {
			return c.reportEndedAtOnce(now, o)
		}
		c.screen.Printf("no process collects it yet: %s", status.CollectFix(m))
	}

	c.screen.Printf("check its progress: promptmill status %s", m.Run)
	c.screen.Printf("read its answers as they come: promptmill tail %s", m.Run)

	if !o.wait {
		return nil
	}

	waiting := c.untilSignals("the run continues without this command", nothingToCount, "promptmill status "+m.Run)
	m, err = pipeline.AwaitEnd(waiting, l, m, c.hooks())
	if err != nil {
		c.printCauses(err)
		return err
	}

	err = c.reportEnd(m)
	c.runOnEnd(waiting, o.onEnd, m)

	return err
}

// reportEndedAtOnce reports a run that has ended at once: its collector has refused it, or has the files of
// an earlier run with its id, input and settings.
func (c *activeCommand) reportEndedAtOnce(m proto.Manifest, o submitOptions) error {
	if m.State != proto.StateFailed {
		c.screen.Printf("its files are there already, of an earlier run with this id, input and settings")
	}

	err := c.reportEnd(m)
	if o.wait {
		c.runOnEnd(c.untilSignals("", nothingToCount, ""), o.onEnd, m)
	} else if m.State != proto.StateFailed {
		return nil
	}

	return err
}

// reportEnd reports the end of a run that another process has collected.
func (c *activeCommand) reportEnd(m proto.Manifest) error {
	if m.State == proto.StateFailed {
		return pipeline.RefusedRunError(m)
	}

	c.screen.Printf("run %s is %s: %s, in %s", m.DisplayName(), m.State, summary.FormatCounts(m.Counts),
		output.Prefix(m.Output).Results())

	if reached := m.Policy.FindReachedAtEnd(m.Counts); reached != nil {
		return exit.LimitReached(reached.Key(), fmt.Errorf("the run is complete, and %s", reached), retryHint(m))
	}

	if m.Counts.Failed > 0 {
		return exit.RequestsFailed(errors.New(summary.DescribeUnanswered(m.Counts, m.Input.Requests)), retryHint(m))
	}

	return nil
}

// retryHint returns the hint for an ended run, if it has failed requests.
func retryHint(m proto.Manifest) string {
	if m.Counts.Failed == 0 {
		return ""
	}
	return "promptmill retry " + m.Run
}

// isCollected reports whether a process begins to collect a run within a moment.
func (s *session) isCollected(ctx context.Context, run string) bool {
	for range 15 {
		if _, ok, err := s.Leases.Holder(ctx, run); err == nil && ok {
			return true
		}
		if bus.Sleep(ctx, 100*time.Millisecond) != nil {
			return false
		}
	}

	return false
}
