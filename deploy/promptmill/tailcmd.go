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

func tailCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "tail",
		Usage:     "print the results of a run as JSONL while they come, each once",
		ArgsUsage: "RUN",
		Description: "Begins with the first result that the bus has, and ends with the run. With --as NAME\n" +
			"the bus remembers what was printed, and the next tail with that name goes on there.",
		Flags: append(busFlags(),
			&cli.BoolFlag{Name: "new", Usage: "only what comes from now on", Sources: flagEnv("new")},
			&cli.StringFlag{
				Name:    "as",
				Usage:   "`NAME` under which the bus remembers what was printed",
				Sources: flagEnv("as"),
			}),
		Action: func(ctx context.Context, c *cli.Command) error {
			if name := c.String("as"); name != "" && proto.CheckRunID(name) != nil {
				return exit.Usage("", "--as %q: only letters, digits, '-' and '_' are allowed", name)
			}

			s, m, err := openRun(ctx, env, c, proto.RoleReader)
			if err != nil {
				return err
			}
			defer s.Close()

			screen, err := terminal.Open(env.stderr, "plain", env.getenv)
			if err != nil {
				return err
			}

			ctx, stop := context.WithCancelCause(ctx)
			defer stop(nil)

			go func() {
				select {
				case <-env.signals:
					stop(pipeline.ErrInterrupted)
				case <-ctx.Done():
				}
			}()

			r, err := tail.New(tail.Config{
				JS:   s.JS,
				Run:  m.Run,
				Name: c.String("as"),
				New:  c.Bool("new"),
				Log:  newLog(c.Bool("verbose"), screen),
			})
			if err != nil {
				return err
			}

			out := bufio.NewWriterSize(env.stdout, 1<<20)
			missed, m, err := r.Run(ctx, func(lines []byte) error {
				if _, err := out.Write(lines); err != nil {
					return err
				}
				return out.Flush() // who reads wants it now; a message has up to 16 lines
			})

			if n := r.Dropped(); n > 0 {
				screen.Printf("left out %d results that do not fit the run", n)
			}

			switch {
			case errors.Is(err, pipeline.ErrInterrupted):
				return exit.Interrupted(errors.New("interrupted"), "")
			case errors.Is(err, syscall.EPIPE): // who reads has had enough
				return nil
			case errors.Is(err, proto.ErrNoRun):
				return fmt.Errorf("run %s was deleted from the bus", m.Run)
			case err != nil:
				return fmt.Errorf("read the results of run %s: %w", m.Run, err)
			}

			if n := missed.GetCardinality(); n > 0 {
				return exit.WithHint(fmt.Errorf("%d results had left the bus before they could be read: those of the requests %s",
					n, firstRanges(missed.ToArray(), 10)),
					"they are in "+m.Output+output.ResultsSuffix+
						" or its errors file; promptmill submit --keep-results keeps all for readers")
			}

			return nil
		},
	}
}

// firstRanges writes numbers as ranges, at most so many.
func firstRanges(seqs []uint32, most int) string {
	text := proto.FormatIndexes(seqs)
	n := 0
	for i, r := range text {
		if r == ',' {
			if n++; n == most {
				return text[:i] + ",..."
			}
		}
	}

	return text
}
