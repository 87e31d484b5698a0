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
		Name: "nats-config", Usage: "print the users and permissions for a NATS server of yours",
		Description: "Put the text into a file, include it in the server's configuration, and set the\n" +
			"passwords in the server's environment. JetStream has to be on.",
		Action: func(context.Context, *cli.Command) error { return writeNATSConfig(env.stdout) },
	}
}

// writeNATSConfig writes what the embedded server is configured with, in the language
// of nats-server's configuration files.
func writeNATSConfig(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# promptmill's users. Passwords come from the environment of nats-server.\n")
	fmt.Fprintf(&b, "max_payload: %d\n", maxPayload)
	fmt.Fprintf(&b, "max_pending: %d\n", 256<<20)
	fmt.Fprintf(&b, "accounts {\n  PROMPTMILL {\n    jetstream: enabled\n    users: [\n")
	fmt.Fprintf(&b, "      # for promptmill run and serve, which do all that the others do\n")
	fmt.Fprintf(&b, "      { user: owner, password: $PROMPTMILL_OWNER_PASSWORD }\n")
	for _, role := range proto.Roles() {
		p := role.Permissions()
		fmt.Fprintf(&b, "      { user: %s, password: $PROMPTMILL_%s_PASSWORD, permissions: {\n", role, strings.ToUpper(string(role)))
		fmt.Fprintf(&b, "          publish: { allow: %s", quoted(p.Publish))
		if len(p.Deny) > 0 {
			fmt.Fprintf(&b, ", deny: %s", quoted(p.Deny))
		}
		fmt.Fprintf(&b, " }\n          subscribe: { allow: %s }\n      } }\n", quoted(p.Subscribe))
	}
	fmt.Fprintf(&b, "    ]\n  }\n}\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func quoted(list []string) string {
	var b strings.Builder
	b.WriteString("[\n")
	for _, s := range list {
		fmt.Fprintf(&b, "            %q\n", s)
	}
	return b.String() + "          ]"
}
