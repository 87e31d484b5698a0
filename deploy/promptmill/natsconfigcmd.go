package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/proto"
)

func natsConfigCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "nats-config",
		Usage: "print the accounts, users and permissions for a NATS server of yours",
		Description: "Put the text into a file, include it in the server's configuration, and set the\n" +
			"passwords in the server's environment. JetStream has to be on.",
		Action: func(context.Context, *cli.Command) error { return writeNATSConfig(env.stdout) },
	}
}

// writeNATSConfig writes what the embedded server is configured with, in the language
// of nats-server's configuration files.
func writeNATSConfig(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# promptmill's accounts and users. Passwords come from the environment of nats-server.\n")
	fmt.Fprintf(&b, "max_payload: %d\n", maxPayload)
	fmt.Fprintf(&b, "max_pending: %d\n", 256<<20)

	err := proto.WriteAccounts(&b, func(user string) string {
		return "$PROMPTMILL_" + strings.ToUpper(user) + "_PASSWORD"
	})
	if err != nil {
		return err
	}

	_, err = io.WriteString(w, b.String())

	return err
}
