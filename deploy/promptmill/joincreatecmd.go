package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/cmdline"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/deploy/recordfile"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/proto"
)

// joinCreateOptions are the flags of join create.
type joinCreateOptions struct {
	name      string
	role      proto.Role
	expires   time.Time // zero: never
	state     string    // folder
	advertise string    // HOST[:PORT]; empty: that of the bus
}

func joinCreateCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "make a join string for one box, and print it",
		ArgsUsage: "NAME",
		Description: "The string goes to standard output, and is not printed again. It lets its holder in as a role until " +
			"it expires, or until promptmill join revoke NAME ends it and no other. A bus that runs accepts it at once.",
		Flags: []cli.Flag{
			&cli.StringFlag{
				Name:     "role",
				Category: groupBus,
				Value:    string(proto.RoleWorker),
				Usage:    "`ROLE`: worker, producer, collector or reader",
				Local:    true, // a variable of this name is for other programs
			},
			&cli.StringFlag{
				Name:        "expires",
				Category:    groupBus,
				Usage:       "`TIME`: when the string ends: 12h or 30d from now, or at the end of a day such as 2027-01-31",
				DefaultText: "never",
				Local:       true,
			},
			advertiseFlag(),
			stateFlag(),
		},
		Action: func(_ context.Context, c *cli.Command) error {
			o, err := parseJoinCreate(env, c, time.Now())
			if err != nil {
				return err
			}
			return createJoin(env, c, o)
		},
	}
}

// parseJoinCreate reads and checks the flags of join create.
func parseJoinCreate(env environment, c *cli.Command, now time.Time) (o joinCreateOptions, err error) {
	o = joinCreateOptions{
		name:      c.Args().First(),
		role:      proto.Role(c.String("role")),
		advertise: c.String("advertise"),
	}
	if o.name == "" {
		return o, exit.Usage("for example promptmill join create box7", "want a name for the join string")
	}

	if err := proto.CheckJoinName(o.name); err != nil {
		return o, exit.Usage("choose another name, such as box7; --role says the role", "the name %s: %w",
			report.ShellWords(o.name), err)
	}

	if !slices.Contains(proto.Roles(), o.role) {
		return o, exit.Usage("want worker, producer, collector or reader", "--role: there is no role %q", o.role)
	}

	if cmdline.IsTyped(c, "expires") {
		if o.expires, err = parseExpiry(c.String("expires"), now); err != nil {
			return o, exit.Usage("for example --expires 30d, --expires 12h or --expires 2027-01-31", "--expires %s: %w",
				report.ShellWords(c.String("expires")), err)
		}
	}

	if err := checkAdvertise(o.advertise); err != nil {
		return o, err
	}

	o.state, err = stateOf(env, c)

	return o, err
}

// lastExpiry is the latest end of a join string: later ones are typing errors, and JSON cannot hold years of five
// digits.
var lastExpiry = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// parseExpiry returns the time that a text means: so long from now, the end of a day of this machine's time zone, or a
// time of RFC 3339. It is in whole seconds.
func parseExpiry(text string, now time.Time) (end time.Time, err error) {
	d, err := cmdline.ParseDuration(text)
	day, dayErr := time.ParseInLocation(time.DateOnly, text, time.Local)
	moment, momentErr := time.Parse(time.RFC3339, text)
	switch {
	case err == nil:
		end = now.Add(d)
	case dayErr == nil:
		end = day.AddDate(0, 0, 1)
	case momentErr == nil:
		end = moment
	default:
		return end, errors.New("it is no duration, no date and no time")
	}

	end = end.Truncate(time.Second).UTC()
	switch {
	case !end.After(now):
		return end, errors.New("that is over already")
	case end.After(lastExpiry):
		return end, errors.New("that is after the year 9998")
	}

	return end, nil
}

// createJoin makes a join string and prints it.
func createJoin(env environment, c *cli.Command, o joinCreateOptions) error {
	b, err := chooseBus(env, o)
	if err != nil {
		return err
	}

	if err := statedir.Make(o.state, o.state); err != nil {
		return err
	}

	id, err := localbus.LoadIdentity(o.state)
	if err != nil {
		return explainIdentity(err)
	}

	if err := checkBusOfJoin(b, id); err != nil {
		return err
	}

	record, _, err := localbus.OpenJoins(o.state).Create(o.name, o.role, o.expires, id)
	switch {
	case errors.Is(err, localbus.ErrJoinExists):
		return exit.Usage("choose another name, or revoke that string first with "+writeJoinCommand(c, "revoke")+" "+o.name,
			"there is a join string %s already", o.name)
	case err != nil:
		return explainJoinFile(err)
	}

	fmt.Fprintln(env.stdout, id.NamedJoin(record, b.JoinAddresses()))
	env.printf("this is the join string %s of a %s, which %s; it is not shown again", record.Name, record.Role,
		describeExpiry(record.ExpiresAt))

	return nil
}

// writeJoinCommand returns the command line of a command of join for the state folder of another.
func writeJoinCommand(c *cli.Command, name string) string {
	line := "promptmill join " + name
	if cmdline.IsTyped(c, "state") { // a variable holds for the command too
		line += " --state " + report.ShellWords(c.String("state"))
	}
	return line
}

// describeExpiry says when a string ends.
func describeExpiry(end time.Time) string {
	if end.IsZero() {
		return "does not expire"
	}
	return "expires at " + end.Local().Format("2006-01-02 15:04:05 MST")
}

// chooseBus returns the bus whose addresses a join string gets: the one that runs, that of serve if several do, and the
// one that serve would start if none does.
func chooseBus(env environment, o joinCreateOptions) (b localbus.Bus, err error) {
	buses := slices.DeleteFunc(localbus.List(o.state), func(b localbus.Bus) bool { return !b.Listens() })
	standing := slices.IndexFunc(buses, func(b localbus.Bus) bool { return filepath.Base(b.Dir) == "serve" })
	switch {
	case len(buses) == 0:
		b.Listen = net.JoinHostPort("0.0.0.0", fmt.Sprint(natsserver.DefaultPort))
		b.Advertise = o.advertise
		env.printf("no bus of this machine runs; the string is for one that promptmill serve --listen %s starts", b.Listen)
		return b, nil
	case len(buses) > 1 && standing < 0:
		var addresses []string
		for _, b := range buses {
			addresses = append(addresses, b.LocalAddress())
		}
		return b, exit.Usage("end the other one, or start promptmill serve",
			"%d buses run on this machine, each for one run: %s", len(buses), strings.Join(addresses, ", "))
	}

	b = buses[max(0, standing)]
	if o.advertise != "" {
		b.Advertise = o.advertise
	}

	noteLocalBus(env, b)

	return b, nil
}

// noteLocalBus prints that other boxes do not reach a bus, if it listens to this machine alone.
func noteLocalBus(env environment, b localbus.Bus) {
	if len(b.Addresses()) > 0 {
		return
	}

	_, port, _ := net.SplitHostPort(b.Listen)
	fmt.Fprintf(env.stderr, "this bus listens to this machine alone; start it with --listen %s for other boxes\n",
		net.JoinHostPort("0.0.0.0", port))
}

// checkBusOfJoin refuses to make a string for a bus that runs and would not accept it.
func checkBusOfJoin(b localbus.Bus, id *localbus.Identity) error {
	if b.Dir == "" {
		return nil // none runs
	}

	says, err := localbus.ReadJoined(b.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return exit.WithHint(fmt.Errorf("the bus at %s knows no join strings with names: an earlier promptmill started it",
			b.LocalAddress()), "start it again with this promptmill")
	case err == nil && says.Identity != id.ID():
		return exit.WithHint(fmt.Errorf("the bus at %s has another identity than %s in the state folder", b.LocalAddress(),
			localbus.IdentityFile), "start it again: that file was replaced since its start")
	}

	return nil
}

// explainIdentity gives an error of the identity its hint, unless it has one.
func explainIdentity(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return explainJoinFile(err)
	}

	return err
}

// explainJoinFile gives an error of the file of join strings, or of the identity, its hint.
func explainJoinFile(err error) error {
	switch {
	case errors.Is(err, localbus.ErrJoinFile):
		return exit.WithHint(err, localbus.JoinFileHint)
	case errors.Is(err, syscall.ENOSPC):
		return exit.WithHint(err, "free space on that disk, then run the same command again: nothing has changed")
	case errors.Is(err, recordfile.ErrFull):
		return exit.WithHint(err, "give one string to several boxes; the record of one that ended goes after a year")
	case errors.Is(err, fs.ErrPermission):
		return exit.WithHint(err, "run this as the user of promptmill serve, for example with sudo -u promptmill")
	}

	return exit.WithHint(err, "name another state folder with --state")
}
