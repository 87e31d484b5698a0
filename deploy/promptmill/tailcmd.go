package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/tail"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// tailOptions are the flags of tail.
type tailOptions struct {
	bus  busOptions
	run  string // or a part of its id
	name string // under which the bus remembers the printed results; empty: it does not
	new  bool   // leave out the results that are there
}

func tailCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "tail",
		Usage:     "print the results of a run as JSONL while they arrive",
		ArgsUsage: "RUN",
		Description: "tail begins with the first result that the bus has, prints each result once, and ends with " +
			"the run. With --as NAME, the bus remembers what was printed, and the next tail with that name " +
			"resumes there.",
		Flags: append(busFlags(),
			&cli.BoolFlag{
				Name:     "new",
				Category: groupOutput,
				Usage:    "print only results that arrive from now on",
			},
			&cli.StringFlag{
				Name:     "as",
				Category: groupOutput,
				Usage:    "`NAME`: name under which the bus remembers the printed results",
			}),
		Action: func(ctx context.Context, c *cli.Command) error {
			o := tailOptions{bus: parseBus(env, c), name: c.String("as"), new: c.Bool("new")}
			if o.name != "" && proto.CheckRunID(o.name) != nil {
				return exit.Usage("", "--as %q: only letters, digits, '-' and '_' are allowed", o.name)
			}

			var err error
			if o.run, err = parseRunID(c); err != nil {
				return err
			}

			return tailRun(ctx, env, o)
		},
	}
}

// tailRun prints the results of a run until it ends.
func tailRun(ctx context.Context, env environment, o tailOptions) error {
	s, m, err := openRun(ctx, env, o.bus, proto.RoleReader, o.run)
	if err != nil {
		return err
	}
	defer s.Close()

	screen, err := terminal.Open(env.stderr, "plain", env.getenv)
	if err != nil {
		return err
	}

	ctx, done := untilSignal(ctx, env)
	defer done()

	r, err := tail.New(tail.Config{
		JS:   s.JS,
		Run:  m.Run,
		Name: o.name,
		New:  o.new,
		Log:  screen.NewLog(o.bus.verbose),
	})
	if err != nil {
		return err
	}

	out := bufio.NewWriterSize(env.stdout, 1<<20)
	missed, m, err := r.Run(ctx, func(lines []byte) error {
		if _, err := out.Write(lines); err != nil {
			return err
		}
		return out.Flush() // the reader wants it now; a message has up to 16 lines
	})

	if n := r.Dropped(); n > 0 {
		screen.Printf("left out %d results that do not fit the run", n)
	}

	switch {
	case errors.Is(err, pipeline.ErrInterrupted):
		hint := "with --as NAME, the next promptmill tail resumes where this one stopped"
		if o.name != "" {
			hint = "the same command resumes there"
		}
		return exit.Interrupted(fmt.Errorf("stopped reading the results of run %s", m.DisplayName()), hint)
	case errors.Is(err, syscall.EPIPE): // the reader of stdout has closed it
		return nil
	case errors.Is(err, proto.ErrNoRun):
		return fmt.Errorf("run %s was deleted from the bus", m.DisplayName())
	case err != nil:
		return fmt.Errorf("read the results of run %s: %w", m.DisplayName(), err)
	}

	if n := missed.GetCardinality(); n > 0 {
		return exit.WithHint(fmt.Errorf("%d results of run %s had left the bus before they could be read: "+
			"those of the requests %s", n, m.DisplayName(), formatRanges(missed.ToArray(), 10)),
			"they are in "+m.Output+output.ResultsSuffix+
				" or its errors file; promptmill submit --keep-results keeps all for readers")
	}

	return nil
}

// formatRanges formats the first ranges of the indexes.
func formatRanges(indexes []uint32, limit int) string {
	text := proto.FormatIndexes(indexes)
	n := 0
	for i, r := range text {
		if r == ',' {
			if n++; n == limit {
				return text[:i] + ",..."
			}
		}
	}

	return text
}
