package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/proto/bus"
)

// revokeTime is the longest time that join revoke waits until the running buses have ended the connections.
const revokeTime = 10 * time.Second

func joinRevokeCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "revoke",
		Usage:     "revoke the join string of a box, by its name",
		ArgsUsage: "BOX",
		Description: "A bus that runs ends the connections of that string at once, and lets nobody in with it. A worker " +
			"with it says so and ends; what it had in flight goes to other workers.",
		Flags: []cli.Flag{jsonFlag(), stateFlag()},
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.Args().First() == "" {
				return exit.Usage(writeJoinCommand(c, "list")+" shows the names", "want the name of one join string")
			}

			state, err := stateOf(env, c)
			if err != nil {
				return err
			}

			return revokeJoin(ctx, env, c, state)
		},
	}
}

// revokeJoin revokes a join string, waits until the buses of this machine have ended its connections, and prints that.
func revokeJoin(ctx context.Context, env environment, c *cli.Command, state string) error {
	file, name := localbus.OpenJoins(state), c.Args().First()
	records, _, err := file.Read()
	if err != nil {
		return explainJoinFile(err)
	}

	var revision int64
	err = localbus.ErrNoJoin
	if len(records) > 0 { // a file that is not there stays away
		_, revision, err = file.Revoke(name)
	}

	switch {
	case errors.Is(err, localbus.ErrNoJoin):
		return unknownJoinError(c, file, records)
	case errors.Is(err, localbus.ErrJoinEnded):
		return exit.Usage(writeJoinCommand(c, "list")+" shows the others", "the join string %s was revoked already",
			report.ShellWords(name))
	case err != nil:
		return explainJoinFile(err)
	}

	if err := awaitBuses(ctx, state, revision); err != nil {
		return err
	}

	if c.Bool("json") {
		joins, err := readJoins(state)
		if err != nil {
			return err
		}

		i := slices.IndexFunc(joins, func(j shownJoin) bool { return strings.EqualFold(j.Name, name) })

		return printJSON(env.stdout, joins[i])
	}

	fmt.Fprintln(env.stdout, "revoked "+name)

	return nil
}

// awaitBuses waits until the buses of this machine have acted on a change of the join strings. A bus that knows no
// names has none to end.
func awaitBuses(ctx context.Context, state string, revision int64) error {
	ctx, cancel := context.WithTimeout(ctx, revokeTime)
	defer cancel()

	for _, b := range localbus.List(state) {
		for {
			says, err := localbus.ReadJoined(b.Dir)
			if errors.Is(err, fs.ErrNotExist) || err == nil && says.Revision >= revision || !b.Listens() {
				break
			}

			if bus.Sleep(ctx, 20*time.Millisecond) != nil {
				return exit.WithHint(fmt.Errorf(
					"the join string is revoked, but the bus at %s has not ended its connections within %s", b.LocalAddress(),
					revokeTime), "look at its log, or start it again")
			}
		}
	}

	return nil
}

// unknownJoinError returns the error for a name that no join string has.
func unknownJoinError(c *cli.Command, file *localbus.JoinFile, records []localbus.NamedJoin) error {
	name := c.Args().First()
	if len(records) == 0 {
		return exit.Usage(writeJoinCommand(c, "create")+" NAME makes one", "there is no join string %s: %s has none",
			report.ShellWords(name), file.Path())
	}

	var known []string
	for _, r := range records {
		known = append(known, r.Name)
	}

	return exit.Usage(suggestName(name, known)+writeJoinCommand(c, "list")+" shows the names",
		"there is no join string %s", report.ShellWords(name))
}
