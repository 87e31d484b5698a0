package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

func collectCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "collect",
		Usage:     "collect a run on a bus into files here",
		ArgsUsage: "RUN",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{
				Name:    "output",
				Aliases: []string{"o"},
				Usage:   "output `NAME.jsonl.zst`; by default RUN.jsonl.zst in this folder",
				Sources: flagEnv("output"),
			},
			&cli.StringFlag{
				Name:    "progress",
				Value:   "auto",
				Usage:   "auto, bar, plain, json or none",
				Sources: flagEnv("progress"),
			},
		}, outputFlags(), reportFlags(), metricsFlags(), busFlags(), []cli.Flag{jsonFlag(), replicasFlag()}),
		Action: func(ctx context.Context, c *cli.Command) error {
			s, m, err := openRun(ctx, env, c, proto.RoleCollector)
			if err != nil {
				return err
			}
			defer s.Close()

			s.Limits.Replicas = max(1, c.Int("replicas"))
			out, err := outputOf(c, m.Run+output.ResultsSuffix)
			if err != nil {
				return err
			}

			return collectRun(ctx, env, c, s.Connection, m.Run, out, nil)
		},
	}
}

// outputOf is the output that -o names, or else name in the working directory.
func outputOf(c *cli.Command, name string) (output.Prefix, error) {
	if out := c.String("output"); out != "" {
		name = out
	}

	if !strings.HasSuffix(name, output.ResultsSuffix) {
		example := name + output.ResultsSuffix
		if info, err := os.Stat(name); err == nil && info.IsDir() {
			example = filepath.Join(name, "results"+output.ResultsSuffix)
		} else if err == nil && !info.Mode().IsRegular() {
			return "", exit.Usage("promptmill tail prints the answers of a run as they come",
				"-o %s: a run writes several files, and cannot write into a device or a pipe", name)
		}

		return "", exit.Usage("for example -o "+report.ShellWords(example), "-o %s: must end in %s", name,
			output.ResultsSuffix)
	}

	name, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}

	if info, err := os.Stat(filepath.Dir(name)); err != nil || !info.IsDir() {
		return "", exit.Usage("make it first", "the folder of the output, %s, is not there", filepath.Dir(name))
	}

	return output.Prefix(strings.TrimSuffix(name, output.ResultsSuffix)), nil
}

// checkInputs refuses an output of which a file is one of the inputs.
func checkInputs(out output.Prefix, inputs []string) error {
	for _, input := range inputs {
		info, err := os.Stat(input)
		if err != nil {
			continue // standard input, or it is missed later
		}

		if path := out.FindSame(info); path != "" {
			return exit.Usage("choose another output with -o",
				"the input %s is the file %s, which the run would write", files.Short(input), files.Short(path))
		}
	}

	return nil
}

// checkOutput refuses an output that could not be written in the end, before anything is
// done for it.
func checkOutput(out output.Prefix) error {
	return unwritable(out.Check())
}

// createJournal makes the journal of a new run, unless another run writes a file of the
// output.
func createJournal(out output.Prefix, m proto.Manifest) (*journal.Journal, error) {
	j, err := journal.Create(out.Journal(), m)
	if err != nil {
		return nil, err
	}

	if err := claimOutput(j, out); err != nil {
		return nil, errors.Join(err, j.Remove(), j.Close())
	}

	return j, nil
}

// claimOutput keeps other runs from the files of the output.
func claimOutput(j *journal.Journal, out output.Prefix) error { return unwritable(j.Claim(out)) }

// outputError gives what became of an output while a run worked its hint.
func outputError(err error) error {
	if errors.Is(err, output.ErrRedirected) {
		return exit.WithHint(err,
			"put the link back as it was, or point it where this file is to be written, then run the same command again to go on; nothing is lost")
	}

	return err
}

// unwritable says how to go on with an output that cannot be written.
func unwritable(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENAMETOOLONG):
		return exit.Usage("a run adds up to 21 bytes to NAME: choose a shorter one with -o NAME"+output.ResultsSuffix,
			"the output %w", err)
	case errors.Is(err, atomicfile.ErrForeignLink):
		return exit.Usage("delete it, or choose another output with -o", "the output %w", err)
	case errors.Is(err, atomicfile.ErrIrregular), errors.Is(err, output.ErrSameFile):
		return exit.Usage("choose another output with -o", "the output %w", err)
	case errors.Is(err, output.ErrClaimed), errors.Is(err, atomicfile.ErrLocked):
		return exit.WithHint(fmt.Errorf("the output %w", err),
			"choose another output with -o, or let that run end first")
	}

	return exit.WithHint(fmt.Errorf("the output %w", err),
		"make room or let this user write there, or choose another output with -o")
}

// collectRun collects a run in the foreground, with progress and a summary.
func collectRun(
	ctx context.Context, env environment, c *cli.Command, l *busconn.Connection, run string, out output.Prefix,
	inputs []string,
) (err error) {
	if c.Duration("flush") <= 0 {
		return exit.Usage("", "--flush %s: must be more than 0", c.Duration("flush"))
	}

	state, err := stateOf(env, c)
	if err != nil {
		return err
	}

	reports, err := parseReports(c)
	if err != nil {
		return err
	}

	reports.state = state
	screen, err := terminal.Open(env.stderr, c.String("progress"), env.getenv)
	if err != nil {
		return err
	}
	defer func() {
		screen.Close()
		err = screen.ReportError(err)
	}()

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)

	go interrupt(ctx, env, screen, stop, "syncing what has come", nothingLost)
	go screen.PrintStatusOnSignal(ctx, env.asked)
	go limitMemory(ctx, env.getenv)
	var show sync.WaitGroup
	showing, hide := context.WithCancel(context.WithoutCancel(ctx))
	defer hide()

	measured := &exporter{}
	unmeasure, err := startMetrics(c.String("metrics"), measured)
	if err != nil {
		return err
	}
	defer unmeasure()

	k := &keeper{
		measured: measured,
		link:     l,
		run:      run,
		output:   out,
		format:   formatOf(c),
		flush:    c.Duration("flush"),
		reports:  reports,
		dir:      filepath.Join(statedir.ForOutput(state, string(out)), "input"),
		log:      newLog(c.Bool("verbose"), screen),
		show: func(m proto.Manifest, got *collector.Collector) {
			show.Go(func() { progress.Show(showing, screen, &progress.Source{Run: m, Counts: got.Progress, JS: l.JS}) })
		},
	}

	meta, err := k.keep(ctx)
	os.Remove(filepath.Dir(k.dir)) // once it is empty
	hide()
	show.Wait()
	screen.Close()

	again := "run promptmill collect " + run + " -o " + files.Short(out.Results()) + " to go on; nothing is lost"
	switch {
	case errors.Is(context.Cause(ctx), errInterrupted):
		return exit.Interrupted(errors.New("interrupted"), again)
	case errors.Is(err, proto.ErrLeaseHeld):
		return exit.WithHint(err, "its results are written there; promptmill tail "+run+" shows them here, too")
	case errors.Is(err, collector.ErrDeleted):
		return fmt.Errorf("%w by another process; what was done is in %s", err, files.Short(out.Journal()))
	case errors.Is(err, atomicfile.ErrLocked):
		return unwritable(err)
	case errors.Is(err, errUnsubmitted):
		return exit.WithHint(err,
			"wait until promptmill submit has ended; should it have been stopped, the same promptmill submit with --run "+
				run+" goes on")
	case err != nil:
		return exit.WithDefaultHint(outputError(err), "fix that, then "+again)
	}

	printSummary(screen, meta, out, inputs)
	if err := tidy(context.WithoutCancel(ctx), l, screen); err != nil {
		k.log.Warn().Err(err).Msg("failed to delete runs whose time on the bus is over")
	}

	if c.Bool("json") {
		if err := printJSON(env.stdout, meta); err != nil {
			return err
		}
	}

	return failedError(meta)
}
