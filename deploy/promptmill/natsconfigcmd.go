package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/natsserver"
)

func natsConfigCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "nats-config",
		Usage: "print the accounts, users and permissions for a NATS server of yours",
		Description: "Put the text into a file, include it in the server's configuration, and set the\n" +
			"passwords in the server's environment. JetStream must be on.",
		Action: func(context.Context, *cli.Command) error { return natsserver.WriteConfig(env.stdout) },
	}
}
