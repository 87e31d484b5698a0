package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

func joinListCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list the join strings that were made for one box each",
		Description: "A string is valid, expired, revoked, or void: then identity.pem in the state folder was replaced " +
			"since it was made. One that ended a year ago is not listed any more.",
		Flags: []cli.Flag{jsonFlag(), stateFlag()},
		Action: func(_ context.Context, c *cli.Command) error {
			state, err := stateOf(env, c)
			if err != nil {
				return err
			}

			joins, err := readJoins(state)
			if err != nil {
				return err
			}

			return listJoins(env, c, joins)
		},
	}
}

// shownJoin is a join string as programs see it.
type shownJoin struct {
	Name      string             `json:"name"`
	Role      proto.Role         `json:"role"`
	State     localbus.JoinState `json:"state"`
	CreatedAt time.Time          `json:"created_at"`
	ExpiresAt time.Time          `json:"expires_at,omitzero"`
	RevokedAt time.Time          `json:"revoked_at,omitzero"`
	// SeenAt is when it was used last, to the minute. Absent: never.
	SeenAt time.Time `json:"last_seen_at,omitzero"`
	// Connections is the number of connections that are open now.
	Connections int `json:"connections"`
}

// readJoins reads the join strings of a state folder, and how they are used.
func readJoins(state string) ([]shownJoin, error) {
	records, _, err := localbus.OpenJoins(state).Read()
	if err != nil {
		return nil, explainJoinFile(err)
	}

	shown := []shownJoin{} // never null
	if len(records) == 0 {
		return shown, nil
	}

	id, err := localbus.LoadIdentity(state)
	if err != nil {
		return nil, err
	}

	seen, connections := localbus.ReadSeen(state), countConnections(state)
	for _, r := range records {
		shown = append(shown, shownJoin{
			Name:        r.Name,
			Role:        r.Role,
			State:       r.StateAt(time.Now(), id),
			CreatedAt:   r.CreatedAt,
			ExpiresAt:   r.ExpiresAt,
			RevokedAt:   r.RevokedAt,
			SeenAt:      seen[r.ID],
			Connections: connections[r.ID],
		})
	}

	return shown, nil
}

// countConnections returns the open connections of each join string at the buses of this machine, by the IDs of the
// records.
func countConnections(state string) map[string]int {
	counts := map[string]int{}
	for _, b := range localbus.List(state) {
		if !b.Listens() {
			continue // it was killed, and has left its files
		}

		says, _ := localbus.ReadJoined(b.Dir) // none: it knows no names
		for id, n := range says.Connections {
			counts[id] += n
		}
	}

	return counts
}

// listJoins prints join strings.
func listJoins(env environment, c *cli.Command, joins []shownJoin) error {
	if c.Bool("json") {
		return printJSON(env.stdout, joins)
	}

	if len(joins) == 0 {
		env.printf("there are no join strings with names; %s NAME makes one", writeJoinCommand(c, "create"))
		return nil
	}

	cells := terminal.CellsOf(joins)

	width, _ := terminalSize(env.stdout)

	return terminal.Columns{
		{
			Head:  "NAME",
			Cells: cells(func(j shownJoin) string { return j.Name }),
			CutAt: 1,
			Least: 12,
		},
		{Head: "ROLE", Cells: cells(func(j shownJoin) string { return string(j.Role) })},
		{Head: "STATE", Cells: cells(func(j shownJoin) string { return string(j.State) })},
		{Head: "CREATED", Cells: cells(func(j shownJoin) string { return formatMinute(j.CreatedAt, "-") })},
		{Head: "EXPIRES", Cells: cells(func(j shownJoin) string { return formatMinute(j.ExpiresAt, "never") })},
		{Head: "LAST SEEN", Cells: cells(describeSeen)},
	}.Print(env.stdout, width)
}

// describeSeen says when a join string was used last.
func describeSeen(j shownJoin) string {
	switch j.Connections {
	case 0:
		return formatMinute(j.SeenAt, "never")
	case 1:
		return "now"
	}
	return fmt.Sprintf("now, %d connections", j.Connections)
}

// joinsOfState are the names of the join strings that may still be revoked, for completion.
func joinsOfState(env environment, c *cli.Command) (list []string) {
	state, err := stateOf(env, c)
	if err != nil {
		return nil
	}

	records, _, _ := localbus.OpenJoins(state).Read() // a broken file completes nothing
	for _, r := range records {
		if r.RevokedAt.IsZero() {
			list = append(list, r.Name+"\t"+string(r.Role))
		}
	}

	return list
}
