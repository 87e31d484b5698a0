package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/status"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// answerTime is the time limit of an answer of the bus.
const answerTime = 15 * time.Second

// busOptions are the flags of commands that use the runs on a bus.
type busOptions struct {
	busconn.Options

	verbose bool
}

// parseBus reads the flags of the bus.
func parseBus(env environment, c *cli.Command) busOptions {
	return busOptions{Options: parseConnect(env, c), verbose: c.Bool("verbose")}
}

// parseRunID reads the only argument of a command: the id of a run or a part of it.
func parseRunID(c *cli.Command) (string, error) {
	if c.Args().Len() != 1 {
		return "", exit.Usage("promptmill list shows the runs", "want the id of one run")
	}
	return c.Args().First(), nil
}

// session is a connection to a bus with the runs on it.
type session struct {
	*busconn.Connection
	*bus.Bus
}

// openSessions opens the named bus, or those of this machine.
func openSessions(ctx context.Context, env environment, o busOptions, role proto.Role) ([]*session, error) {
	screen, err := terminal.Open(env.stderr, "plain", env.getenv)
	if err != nil {
		return nil, err
	}

	links, err := busconn.ConnectAll(o.Options, role, screen.NewLog(o.verbose))
	if err != nil {
		return nil, err
	}

	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	var list []*session
	for _, l := range links {
		s, err := openSession(ctx, l)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			l.Close() // no run was ever created there
			continue
		}
		if err != nil {
			closeSessions(list)
			l.Close()
			return nil, exit.Unreachable(fmt.Errorf("look at the bus %s: %w", l.Name, err),
				"does it have JetStream, and do these credentials allow it?")
		}

		list = append(list, s)
	}

	return list, nil
}

// openSession opens the runs on a bus.
func openSession(ctx context.Context, l *busconn.Connection) (*session, error) {
	b, err := bus.Open(ctx, l.JS)
	return &session{l, b}, err
}

func closeSessions(list []*session) {
	for _, s := range list {
		s.Close()
	}
}

// look looks at the bus, and names on stderr the runs that cannot be read, and how many workers. A
// nil wanted wants all runs.
func (s *session) look(ctx context.Context, env environment, wanted func(proto.Manifest) bool) (status.Bus, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	found, err := status.Look(ctx, s.Bus, wanted)
	if err != nil {
		return found, exit.Unreachable(err, "")
	}

	unreadable, err := s.Runs.ListUnreadable(ctx)
	if err != nil {
		return found, exit.Unreachable(err, "")
	}

	for _, r := range unreadable {
		fmt.Fprintf(env.stderr, "left out run %s: %s\n", r.Run, proto.Printable(r.Err.Error()))
	}

	if n := s.Heartbeats.Unreadable(); n > 0 {
		fmt.Fprintf(env.stderr,
			"left out %d announcements of workers that cannot be read or cannot be true: they are of another version, or of a client that should not be on the bus\n",
			n)
	}

	return found, nil
}

// openRun opens the bus that has a run. run is its id, or a part of it that no other run has.
func openRun(
	ctx context.Context, env environment, o busOptions, role proto.Role, run string,
) (*session, proto.Manifest, error) {
	list, err := openSessions(ctx, env, o, role)
	if err != nil {
		return nil, proto.Manifest{}, err
	}

	s, m, err := findRun(ctx, list, run)
	closeSessions(slices.DeleteFunc(list, func(other *session) bool { return other == s }))

	return s, m, err
}

// findRun returns the run with an id and its bus, or else the one run with run as a part of its id.
func findRun(ctx context.Context, list []*session, run string) (*session, proto.Manifest, error) {
	type match struct {
		s *session
		m proto.Manifest
	}

	var matches []match
	var known []string
	for _, s := range list {
		runs, exact, err := s.listRuns(ctx, run)
		switch {
		case errors.Is(err, proto.ErrFormat): // the run is of another version
			return nil, proto.Manifest{}, err
		case err != nil:
			return nil, proto.Manifest{}, exit.Unreachable(err, "")
		case exact:
			return s, runs[0], nil
		}

		for _, m := range runs {
			known = append(known, m.Run)
			if strings.Contains(m.Run, run) {
				matches = append(matches, match{s, m})
			}
		}
	}

	switch {
	case len(matches) == 1:
		return matches[0].s, matches[0].m, nil
	case len(matches) > 1:
		return nil, proto.Manifest{}, exit.Usage("write more of its id", "%d runs are called %s in part",
			len(matches), run)
	case len(known) == 0:
		return nil, proto.Manifest{}, exit.WithHint(fmt.Errorf("there is no run %s: the bus has none", run),
			"promptmill submit makes one")
	}

	return nil, proto.Manifest{}, fmt.Errorf("there is no run %s; there are %s",
		run, strings.Join(known[max(0, len(known)-10):], ", "))
}

// listRuns returns the run with an id (exact), or all runs if there is none.
func (s *session) listRuns(ctx context.Context, id string) (runs []proto.Manifest, exact bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	if proto.CheckRunID(id) == nil {
		m, err := s.Runs.Get(ctx, id)
		switch {
		case err == nil:
			return []proto.Manifest{m}, true, nil
		case errors.Is(err, proto.ErrFormat):
			return nil, false, fmt.Errorf("run %s: %w", id, err)
		}
	}

	runs, err = s.Runs.List(ctx)

	return runs, false, err
}

// printJSON prints a value as indented JSON.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// jsonFlag is the flag of commands that can print JSON.
func jsonFlag() cli.Flag {
	return &cli.BoolFlag{
		Name:     "json",
		Category: groupOutput,
		Usage:    "print JSON",
		Sources:  flagEnv("json"),
	}
}
