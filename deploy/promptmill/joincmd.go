package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/cmdline"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/proto"
)

// joinOptions are the flags of join.
type joinOptions struct {
	role      proto.Role
	state     string // folder
	advertise string // HOST[:PORT]; empty: that of the bus
	details   bool
	json      bool
}

func joinCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "join",
		Usage:     "print, make and revoke join strings, and keep buses under names",
		ArgsUsage: "[worker|producer|collector|reader]",
		Description: "Another box uses the string as promptmill worker --join STRING. Each role has a string of its " +
			"own: a worker may only run requests, a producer may also submit, pause and cancel runs, a collector " +
			"may also collect and delete them, and a reader may only look. All boxes may share the string of a role; join " +
			"create makes one for a single box, which can expire and be revoked.",
		Commands: slices.Concat([]*cli.Command{
			joinCreateCommand(env),
			joinListCommand(env),
			joinRevokeCommand(env),
		}, joinContextCommands(env)),
		Flags: []cli.Flag{
			&cli.BoolFlag{
				Name:     "details",
				Category: groupOutput,
				Usage:    "print the parts of the string, for other NATS clients",
			},
			&cli.BoolFlag{
				Name:     "json",
				Category: groupOutput,
				Usage:    "print them as JSON, which is also a context file of the nats program",
			},
			advertiseFlag(),
			stateFlag(),
		},
		Action: func(_ context.Context, c *cli.Command) error {
			o, err := parseJoin(env, c)
			if err != nil {
				return err
			}
			return printJoinStrings(env, o)
		},
	}
}

// parseJoin reads the flags of join.
func parseJoin(env environment, c *cli.Command) (o joinOptions, err error) {
	o = joinOptions{
		role:      proto.RoleWorker,
		advertise: c.String("advertise"),
		details:   c.Bool("details"),
		json:      c.Bool("json"),
	}
	if o.details && o.json {
		return o, exit.Usage("leave out one of them", "--details and --json print the same, for people and for programs")
	}

	if c.Args().Present() {
		o.role = proto.Role(c.Args().First())
	}

	if !slices.Contains(proto.Roles(), o.role) {
		return o, unknownRoleError(c, o.role)
	}

	if err := checkAdvertise(o.advertise); err != nil {
		return o, err
	}

	o.state, err = stateOf(env, c)

	return o, err
}

// unknownRoleError returns the error for an argument that is neither a role nor a command of join.
func unknownRoleError(c *cli.Command, role proto.Role) error {
	var commands []string
	for _, sub := range c.Commands {
		commands = append(commands, sub.Name)
	}

	if meant := cmdline.Suggest(string(role), commands); meant != "" {
		return exit.Usage("did you mean promptmill join "+meant+"?", "there is no role %q", role)
	}

	return exit.Usage("want worker, producer, collector or reader", "there is no role %q", role)
}

// printJoinStrings prints the join string of each bus of this machine.
func printJoinStrings(env environment, o joinOptions) error {
	buses := slices.DeleteFunc(localbus.List(o.state), func(b localbus.Bus) bool { return !b.Listens() })
	if len(buses) == 0 {
		return exit.Unreachable(busconn.ErrNoBus, "promptmill serve starts one")
	}

	id, err := localbus.LoadIdentity(o.state)
	if err != nil {
		return err
	}

	for _, b := range buses {
		b.Advertise = cmp.Or(o.advertise, b.Advertise)
		addresses := b.JoinAddresses()
		noteLocalBus(env, b)

		if !o.details && !o.json {
			fmt.Fprintln(env.stdout, id.Join(o.role, addresses))
			continue
		}

		client, err := id.ClientContext(o.state, o.role, addresses)
		if err != nil {
			return err
		}

		if o.json {
			if err := printJSON(env.stdout, client); err != nil {
				return err
			}
			continue
		}

		fmt.Fprintf(env.stdout,
			"servers        %s\nuser           %s\npassword       %s\ninbox prefix   %s\ncertificate    %s\n",
			client.URL, client.User, client.Password, client.InboxPrefix, client.CA)
	}

	return nil
}
