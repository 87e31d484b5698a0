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
	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/report"
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
	// again is set if the command has connected before: the warnings are in the log already.
	again bool
}

// parseBus reads the flags of the bus.
func parseBus(env environment, c *cli.Command) busOptions {
	return busOptions{Options: parseConnect(env, c), verbose: c.Bool("verbose")}
}

// parseRunID reads the only argument of a command: the name of a run.
func parseRunID(c *cli.Command) (string, error) {
	if c.Args().Len() != 1 || c.Args().First() == "" {
		return "", exit.Usage("promptmill list shows the runs", "want the id of one run, or its label")
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

	log := screen.NewLog(o.verbose)
	if o.again {
		log = zerolog.Nop()
	}

	if !o.again {
		noteContext(o.Options, screen)
	}

	links, err := busconn.ConnectAll(o.Options, role, log)
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
			defer l.Close()

			return nil, l.Explain(err)
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
		return found, s.Explain(err)
	}

	unreadable, err := s.Runs.ListUnreadable(ctx)
	if err != nil {
		return found, s.Explain(err)
	}

	for _, r := range unreadable {
		env.printf("left out run %s: %s", r.Run, r.Err)
	}

	if n := s.Heartbeats.Unreadable(); n > 0 {
		env.printf("left out %d announcements of workers that cannot be read or cannot be true: "+
			"they are of another version, or of a client that should not be on the bus", n)
	}

	return found, nil
}

// openRun opens the bus that has a run. run is its id, its label, a part of its id, or the id of its batch.
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

// findRun returns the run that a name means, and its bus: by its id, or else by its label, or
// else by a part of its id, or else by the id of its batch.
func findRun(ctx context.Context, list []*session, name string) (*session, proto.Manifest, error) {
	var all []proto.Manifest
	buses := map[string]*session{}
	for _, s := range list {
		runs, exact, err := s.listRuns(ctx, name)
		switch {
		case errors.Is(err, proto.ErrFormat): // the run is of another version
			return nil, proto.Manifest{}, err
		case err != nil:
			return nil, proto.Manifest{}, s.Explain(err)
		case exact:
			return s, runs[0], nil
		}

		all = append(all, runs...)
		for _, m := range runs {
			buses[m.Run] = s
		}
	}

	found := proto.FindNamed(all, name, func(m proto.Manifest) (id, label string) { return m.Run, m.Label })
	switch len(found) {
	case 0:
		if run, ok := cutBatchID(name); ok {
			return findRun(ctx, list, run)
		}
		if err := shortPartError(nameRuns(all), name); err != nil {
			return nil, proto.Manifest{}, err
		}
		return nil, proto.Manifest{}, unknownRunError(all, name)
	case 1:
		return buses[found[0].Run], found[0], nil
	}

	return nil, proto.Manifest{}, severalRunsError(nameRuns(found), name)
}

// cutBatchID returns the id of the run of a batch, whose id the batch API has given.
func cutBatchID(name string) (run string, ok bool) {
	run, ok = strings.CutPrefix(name, "batch_")
	return run, ok && run != ""
}

// nameRuns returns runs of a bus for a list.
func nameRuns(list []proto.Manifest) (named []namedRun) {
	for _, m := range list {
		named = append(named, namedRun{m.Run, m.Label, m.Input.Name(), m.State, m.CreatedAt})
	}
	return named
}

// unknownRunError returns the error for a name that no run on a bus has.
func unknownRunError(all []proto.Manifest, name string) error {
	quoted := report.ShellWords(name)
	if len(all) == 0 {
		return exit.Usage("promptmill submit makes one", "%w",
			unknownRun{"there is no run " + quoted + ": the bus has none"})
	}

	var names []string
	for _, m := range all {
		names = append(names, m.Run, m.Label)
	}

	return exit.Usage(suggestRun(name, names)+"promptmill list shows the runs", "%w",
		unknownRun{"there is no run " + quoted + " on this bus"})
}

// unknownRun is the error for a name that no run on a bus has.
type unknownRun struct{ text string }

func (e unknownRun) Error() string { return e.text }

// namedRun is a run in the list of those that a name may mean.
type namedRun struct {
	id, label string
	input     string
	state     proto.State
	began     time.Time
}

// severalRunsError returns the error for a name that several runs have, which lists them.
func severalRunsError(found []namedRun, name string) error {
	text := fmt.Sprintf("%d runs have %s in their ids:", len(found), report.ShellWords(name))
	hint := "write more of the id"
	if found[0].label == name {
		text = fmt.Sprintf("%d runs have the label %s:", len(found), report.ShellWords(name))
		hint = "name the run by its id"
	}

	return exit.Usage(hint, "%s", text+listNamedRuns(found, 10))
}

// shortPartError returns the error for a part of an id that is too short to name a run, with runs
// that it may mean, or nil.
func shortPartError(all []namedRun, name string) error {
	if len(name) >= proto.MinIDPart {
		return nil
	}

	meant := slices.DeleteFunc(all, func(r namedRun) bool { return !proto.IsIDPart(r.id, name) })
	if len(meant) == 0 {
		return nil
	}

	return exit.Usage(fmt.Sprintf("write %d characters or more of its beginning or its end", proto.MinIDPart),
		"%s is too short a part of an id:%s", report.ShellWords(name), listNamedRuns(meant, 5))
}

// listNamedRuns returns a line for each of some runs, at most so many.
func listNamedRuns(list []namedRun, most int) (text string) {
	for i, r := range list {
		if i == most {
			return text + fmt.Sprintf("\n  and %d more", len(list)-most)
		}

		words := slices.DeleteFunc([]string{r.id, r.label, r.input}, func(s string) bool { return s == "" })
		text += fmt.Sprintf("\n  %s, %s, begun %s ago", strings.Join(words, ", "), r.state,
			terminal.FormatAge(time.Since(r.began)))
	}

	return text
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
	e.SetEscapeHTML(false)

	return e.Encode(v)
}

// jsonFlag is the flag of commands that can print JSON.
func jsonFlag() cli.Flag {
	return &cli.BoolFlag{
		Name:     "json",
		Category: groupOutput,
		Usage:    "print JSON",
	}
}
