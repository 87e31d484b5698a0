package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/proto"
)

func joinCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "join",
		Usage:     "print the join string of the bus on this machine",
		ArgsUsage: "[worker|producer|collector|reader]",
		Description: "For another box: promptmill worker --join STRING. A producer may submit runs, pause and\n" +
			"cancel them; a collector may take results and delete runs, too; a reader may only look.",
		Flags: []cli.Flag{
			&cli.BoolFlag{
				Name:    "details",
				Usage:   "print what the string is made of, for NATS clients that are not promptmill",
				Sources: flagEnv("details"),
			},
			&cli.StringFlag{
				Name:        "advertise",
				Usage:       "what other boxes call this one, `HOST[:PORT]`",
				DefaultText: "its addresses",
				Sources:     flagEnv("advertise"),
			},
			&cli.StringFlag{
				Name:        "state",
				Usage:       "folder for state",
				DefaultText: "$XDG_STATE_HOME/promptmill",
				Sources:     flagEnv("state"),
			},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			role := proto.RoleWorker
			if c.Args().Present() {
				role = proto.Role(c.Args().First())
			}

			if !slices.Contains(proto.Roles(), role) {
				return exit.Usage("want worker, producer, collector or reader", "there is no role %q", role)
			}

			state, err := stateOf(env, c)
			if err != nil {
				return err
			}

			id, err := localbus.LoadIdentity(state)
			if err != nil {
				return err
			}

			buses := localbus.List(state)
			if len(buses) == 0 {
				return exit.Unreachable(errors.New("no bus runs on this machine"), "promptmill serve starts one")
			}

			for _, b := range buses {
				j := id.Join(role, localbus.Addresses(b.Listen, cmp.Or(c.String("advertise"), b.Advertise)))
				if strings.HasPrefix(b.Listen, "127.") {
					fmt.Fprintln(env.stderr,
						"this bus listens to this machine alone; start it with --listen HOST:PORT for others")
				}

				if !c.Bool("details") {
					fmt.Fprintln(env.stdout, j)
					continue
				}

				certificate, err := id.WriteCertificate(state)
				if err != nil {
					return err
				}

				fmt.Fprintf(env.stdout,
					"servers        %s\nuser           %s\npassword       %s\ninbox prefix   %s\ncertificate    %s\n",
					"tls://"+strings.Join(j.Addresses, ",tls://"), j.User(), j.Password(),
					role.InboxPrefix(), certificate)
			}

			return nil
		},
	}
}
