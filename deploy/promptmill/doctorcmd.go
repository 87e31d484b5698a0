package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/doctor"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/limit"
)

func doctorCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "check the bus, model server, disk, clock and GPU, and name fixes",
		ArgsUsage: "[INPUT...]",
		Description: "Without --join and --nats, doctor checks the bus of this machine, or whether run could start " +
			"one. Without --url, it checks the model servers of this machine. With INPUT, it also checks that the " +
			"free space is enough for it; with --prompt, INPUT is a table, whose first rows it renders. It changes nothing, except that each model server gets one small " +
			"request.\n\nExit codes: 0 no check failed, 1 a check failed, 4 the bus or a model server of a flag cannot " +
			"be reached or used.",
		Flags: slices.Concat([]cli.Flag{
			urlFlag(),
			eachAddressFlag(),
			apiKeyFlag(),
			modelKeyFileFlag(),
			modelCAFlag(),
			&cli.StringFlag{
				Name:        "model",
				Category:    groupModel,
				Usage:       "`NAME`: model to send a small request to",
				DefaultText: "one that the server lists",
			},
			&cli.IntFlag{
				Name:     "max-concurrency",
				Category: groupModel,
				Value:    limit.DefaultMax,
				Usage:    "`N`: number of concurrent requests that this machine must be able to make",
			},
			&cli.StringFlag{
				Name:        "output",
				Category:    groupOutput,
				Aliases:     []string{"o"},
				Usage:       "`PATH`: future output, whose disk is checked",
				DefaultText: "this folder",
			},
			setFlag(),
			endpointFlag(),
		}, rowFlags(), placeFlags(), busFlags(), []cli.Flag{jsonFlag()}),
		Action: func(ctx context.Context, c *cli.Command) error {
			places := openPlaces(c)
			defer places.Close()

			o, err := parseDoctor(ctx, env, c, places)
			if err != nil {
				return err
			}

			return examine(ctx, env, o, c.Bool("json"))
		},
	}
}

// parseDoctor reads the flags of doctor.
func parseDoctor(
	ctx context.Context, env environment, c *cli.Command, places *objectstore.Client,
) (doctor.Options, error) {
	o := doctor.Options{
		Bus:         parseConnect(env, c),
		Model:       c.String("model"),
		Output:      c.String("output"),
		Opener:      places,
		Concurrency: c.Int("max-concurrency"),
		ShardBytes:  pipeline.DefaultShardBytes,
		Version:     versionText(),
	}

	if err := o.Bus.Check(); err != nil {
		return o, err
	}

	if o.Concurrency < 1 {
		return o, exit.Usage("", "--max-concurrency %d: must be at least 1", o.Concurrency)
	}

	var err error
	if o.Servers, err = parseServers(c); err != nil {
		return o, err
	}

	if o.State, err = stateOf(env, c); err != nil {
		return o, err
	}

	if o.Settings, err = parseTableSettings(c); err != nil {
		return o, err
	}

	if c.Args().Present() {
		shown := commonOptions{progress: string(terminal.ModePlain), verbose: c.Bool("verbose")}
		err = readPlaces(ctx, env, shown, places, func(ctx context.Context) (err error) {
			o.Inputs, err = parseInputs(ctx, c, places, o.Settings)
			return err
		})
		if err != nil {
			return o, err
		}
	}

	screen, err := terminal.Open(env.stderr, "plain", env.getenv)
	if err != nil {
		return o, err
	}

	o.Log = screen.NewLog(c.Bool("verbose"))
	o.Servers.Log = o.Log

	return o, nil
}

// parseTableSettings reads the flags that make requests of the rows of a table.
func parseTableSettings(c *cli.Command) (s proto.Settings, err error) {
	if s.Rows, err = parseRows(c); err != nil || s.Rows == nil {
		return s, err
	}

	if !c.Args().Present() {
		return s, exit.Usage("name the table, or leave out the prompt", "there is no INPUT for the rows")
	}

	if err := parseSelection(c, &s); err != nil {
		return s, err
	}

	s.Set, err = parseSet(textsOf(c, "set"), true)

	return s, err
}

// examine prints the findings of doctor as they come, or all of them as JSON at the end.
func examine(ctx context.Context, env environment, o doctor.Options, asJSON bool) error {
	ctx, done := untilSignal(ctx, env)
	defer done()

	colour := terminal.HasColour(env.stdout, env.getenv)
	d, err := doctor.Examine(ctx, o, func(f doctor.Finding) {
		if !asJSON {
			f.Print(env.stdout, colour)
		}
	})
	if errors.Is(err, pipeline.ErrInterrupted) {
		return exit.Interrupted(err, "")
	}
	if err != nil {
		return err
	}

	if asJSON {
		if err := printJSON(env.stdout, d); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(env.stdout, d.Summary())
	}

	return d.Err()
}
