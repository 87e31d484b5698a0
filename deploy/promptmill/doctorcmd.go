package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/limit"
)

func doctorCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "check bus, model server, disk, clock, limits and GPU, and say how to fix them",
		ArgsUsage: "[INPUT...]",
		Description: "Without --join and --nats it looks at the bus of this machine, or tries whether run could\n" +
			"start one; without --url at the model servers of this machine. INPUT, if given, is what\n" +
			"the free space must do for. It changes nothing, but for one small request to each model\n" +
			"server. Exit codes: 0 no check failed, 1 one did, 4 the bus or a model server that a flag\n" +
			"names cannot be reached.",
		Flags: slices.Concat([]cli.Flag{
			urlFlag(),
			eachAddressFlag(),
			apiKeyFlag(),
			modelCAFlag(),
			&cli.StringFlag{
				Name:        "model",
				Usage:       "model to ask",
				DefaultText: "one that the server has",
				Sources:     flagEnv("model"),
			},
			&cli.IntFlag{
				Name:    "max-concurrency",
				Value:   limit.DefaultMax,
				Usage:   "requests at a model server at once that this machine must be able to hold",
				Sources: flagEnv("max-concurrency"),
			},
			&cli.StringFlag{
				Name:        "output",
				Aliases:     []string{"o"},
				Usage:       "where the output will be",
				DefaultText: "this folder",
				Sources:     flagEnv("output"),
			},
		}, busFlags(), []cli.Flag{jsonFlag()}),
		Action: func(ctx context.Context, c *cli.Command) error {
			checks, err := checksOf(env, c)
			if err != nil {
				return err
			}
			return examine(ctx, env, c.Bool("json"), checks)
		},
	}
}

// checksOf are the checks that a command line asks for, in the order of the output.
func checksOf(env environment, c *cli.Command) ([]check, error) {
	if err := checkDoctorFlags(c); err != nil {
		return nil, err
	}

	state, err := stateOf(env, c)
	if err != nil {
		return nil, err
	}

	var inputs []string
	if c.Args().Present() {
		if inputs, err = parseInputs(c); err != nil {
			return nil, err
		}
	}

	screen, err := terminal.Open(env.stderr, "plain", env.getenv)
	if err != nil {
		return nil, err
	}

	log := newLog(c.Bool("verbose"), screen)
	connection := parseConnect(env, c)

	servers, err := parseServers(c)
	if err != nil {
		return nil, err
	}

	servers.Log = log
	urls, options := servers.URLs, servers.Options()

	checks := []check{
		{"versions", time.Second, func(context.Context) []finding { return []finding{versions()} }},
		{"bus", 30 * time.Second, func(ctx context.Context) []finding { return lookAtBuses(ctx, connection, log) }},
	}
	for _, url := range urls {
		checks = append(checks, check{"model server", modelLimit, func(ctx context.Context) []finding {
			return lookAtNamedServer(ctx, servers, url, c.String("model"))
		}})
	}

	if len(urls) == 0 {
		checks = append(checks, check{"model server", modelLimit, func(ctx context.Context) []finding {
			return lookForServers(ctx, servers.APIKey, c.String("model"), options)
		}})
	}

	return append(checks,
		check{"disk", 15 * time.Second, func(context.Context) []finding {
			return lookAtDisks(state, c.String("output"), inputs, connection.External())
		}},
		check{"open files", time.Second, func(context.Context) []finding {
			return []finding{openFiles(c.Int("max-concurrency") * max(1, len(urls)))}
		}},
		check{"GPU", 10 * time.Second, func(ctx context.Context) []finding { return []finding{lookAtGPUs(ctx)} }},
	), nil
}

func checkDoctorFlags(c *cli.Command) error {
	if join := c.String("join"); join != "" {
		if _, err := proto.ParseJoin(join); err != nil {
			return exit.Usage("paste all of it, as promptmill serve or run --listen has printed it", "--join: %w", err)
		}
	}

	if n := c.Int("max-concurrency"); n < 1 {
		return exit.Usage("", "--max-concurrency %d: must be at least 1", n)
	}

	_, err := parseServers(c)

	return err
}

// lookAtBuses looks at the bus that a command names, or at all of this machine, or
// tries what run would do.
func lookAtBuses(ctx context.Context, o busconn.Options, log zerolog.Logger) []finding {
	role := proto.RoleCollector // it sees the most
	if o.External() {
		role = proto.RoleReader // whatever is named will do
	}

	links, err := busconn.ConnectAll(o, role, log)
	switch {
	case err == nil:
	case o.External():
		return []finding{failed("bus", err)}
	default:
		return []finding{
			{
				Name:   "bus",
				Status: doubtful,
				Detail: err.Error(),
				Mend:   "promptmill run starts its own; to share one, promptmill serve starts it, and --join or --nats names another",
			},
			ownBus(ctx, o.State),
		}
	}

	var list []finding
	for _, l := range links {
		list = append(list, lookAtBus(ctx, l, roleOf(o, role))...)
		l.Close()
	}

	return list
}

// roleOf is the role that a command has on its bus, or "" if it is not known.
func roleOf(o busconn.Options, local proto.Role) proto.Role {
	switch {
	case o.Join != "":
		j, _ := proto.ParseJoin(o.Join) // checked before
		return j.Role
	case o.External():
		return ""
	}

	return local
}

// examine runs all checks at once, prints what they find in their order, and returns
// the error that gives the exit code.
func examine(ctx context.Context, env environment, asJSON bool, checks []check) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	var results []<-chan []finding
	for _, c := range checks {
		results = append(results, c.begin(ctx))
	}

	d := diagnosis{SchemaVersion: 1}
	paint := painter(env)
	for _, result := range results {
		select {
		case found := <-result:
			d.Checks = append(d.Checks, found...)
			for _, f := range found {
				if !asJSON {
					f.print(env.stdout, paint)
				}
			}
		case <-env.signals:
			return exit.Interrupted(errors.New("interrupted"), "")
		}
	}

	d.OK = d.count(broken) == 0
	if asJSON {
		if err := printJSON(env.stdout, d); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(env.stdout, "%d ok, %d to look at, %d failed\n", d.count(fine), d.count(doubtful), d.count(broken))
	}

	return d.err()
}
