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
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// session is a bus with the runs on it, as the commands that look at runs and change
// them see it.
type session struct {
	*busconn.Connection
	*bus.Bus
}

// answerTime is how long a command waits for the bus.
const answerTime = 15 * time.Second

// openSessions opens the buses that a command names or this machine runs.
func openSessions(ctx context.Context, env environment, c *cli.Command, role proto.Role) ([]*session, error) {
	screen, err := terminal.Open(env.stderr, "plain", env.getenv)
	if err != nil {
		return nil, err
	}

	links, err := busconn.ConnectAll(parseConnect(env, c), role, newLog(c.Bool("verbose"), screen))
	if err != nil {
		return nil, err
	}

	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	var list []*session
	for _, l := range links {
		s, err := openSession(ctx, l)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			l.Close() // nobody has made a run there yet
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

// openRun opens the bus that has a run, which may be named by a part of its id.
func openRun(ctx context.Context, env environment, c *cli.Command, role proto.Role) (*session, proto.Manifest, error) {
	if c.Args().Len() != 1 {
		return nil, proto.Manifest{}, exit.Usage("promptmill list shows the runs", "want the id of one run")
	}

	list, err := openSessions(ctx, env, c, role)
	if err != nil {
		return nil, proto.Manifest{}, err
	}

	type hit struct {
		s *session
		m proto.Manifest
	}

	var hits []hit
	var known []string
	for _, s := range list {
		asking, cancel := context.WithTimeout(ctx, answerTime)
		if m, err := s.Runs.Get(asking, c.Args().First()); proto.CheckRunID(c.Args().First()) == nil && err == nil {
			cancel()
			hits = []hit{{s, m}}
			break
		}

		runs, err := s.Runs.List(asking)
		cancel()
		if err != nil {
			closeSessions(list)
			return nil, proto.Manifest{}, exit.Unreachable(err, "")
		}

		for _, m := range runs {
			known = append(known, m.Run)
			if strings.Contains(m.Run, c.Args().First()) {
				hits = append(hits, hit{s, m})
			}
		}
	}

	if len(hits) != 1 {
		closeSessions(list)
		if len(hits) == 0 {
			if len(known) == 0 {
				return nil, proto.Manifest{}, exit.WithHint(fmt.Errorf("there is no run %s: the bus has none",
					c.Args().First()),
					"promptmill submit makes one")
			}

			return nil, proto.Manifest{}, fmt.Errorf("there is no run %s; there are %s",
				c.Args().First(), strings.Join(known[max(0, len(known)-10):], ", "))
		}

		return nil, proto.Manifest{}, exit.Usage("write more of its id", "%d runs are called %s in part",
			len(hits), c.Args().First())
	}

	closeSessions(slices.DeleteFunc(list, func(s *session) bool { return s == hits[0].s }))

	return hits[0].s, hits[0].m, nil
}

// printJSON prints a value for a program.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// jsonFlag is that of all commands whose output a program may read.
func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print JSON", Sources: flagEnv("json")}
}
