package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/natsserver"
)

func natsConfigCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "nats-config",
		Usage: "print the users and permissions for a NATS server of your own",
		Description: "Put the text into a file, include that in the server's configuration, and set the passwords " +
			"in the server's environment. JetStream must be on.",
		Action: func(context.Context, *cli.Command) error { return natsserver.WriteConfig(env.stdout) },
	}
}
