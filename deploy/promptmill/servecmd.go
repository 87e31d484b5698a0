package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// servePort is where serve listens if it is not told: one more than NATS's number, for
// a machine that has that, too, and 100 on.
const serveAddress = "127.0.0.1:4333"

func serveCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "a bus that stays up, and the collector of all runs on it",
		Description: "Runs are submitted to it with promptmill submit, and each one's answers are written\n" +
			"to DIR/RUN.jsonl.zst. With --nats it uses a bus that is there already.",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{
				Name:    "dir",
				Value:   ".",
				Usage:   "folder of the output files",
				Sources: flagEnv("dir"),
			},
		}, outputFlags(), reportFlags(), listenFlags(), metricsFlags(), ownBusFlags(), []cli.Flag{replicasFlag()}),
		Action: func(ctx context.Context, c *cli.Command) error { return serve(ctx, env, c) },
	}
}

// makeBuckets makes the buckets of all runs, and brings what an earlier version has made up
// to this one.
func makeBuckets(ctx context.Context, l *busconn.Connection, log zerolog.Logger) error {
	if err := bus.CreateBuckets(ctx, l.JS, l.Limits); err != nil {
		return err
	}

	if err := bus.UpgradeBuckets(ctx, l.JS, l.Limits); err != nil {
		log.Warn().Err(err).Msg(
			"what an earlier version of promptmill has made on the bus stays as it is: its roles allow more",
		)
	}

	return nil
}

// outputFlags say how output files are written.
func outputFlags() []cli.Flag {
	return []cli.Flag{
		&cli.DurationFlag{
			Name:    "flush",
			Value:   5 * time.Second,
			Usage:   "an answer is in the output file after this at most",
			Sources: flagEnv("flush"),
		},
		&cli.BoolFlag{
			Name:    "ordered",
			Usage:   "write the output in the order of the input",
			Sources: flagEnv("ordered"),
		},
		&cli.BoolFlag{
			Name:    "seekable",
			Usage:   "write the zstd seekable format instead of one frame",
			Sources: flagEnv("seekable"),
		},
		&cli.BoolFlag{
			Name:    "plain",
			Usage:   "leave out the key \"promptmill\" of the output lines",
			Sources: flagEnv("plain"),
		},
	}
}

func formatOf(c *cli.Command) output.Format {
	return output.Format{Ordered: c.Bool("ordered"), Seekable: c.Bool("seekable"), Plain: c.Bool("plain")}
}

// serving is a server of all runs.
type serving struct {
	link     *busconn.Connection
	own      bool // the bus is ours
	runs     *bus.RunStore
	dir      string // of the output files
	state    string
	format   output.Format
	flush    time.Duration
	reports  reports
	screen   *terminal.Screen
	log      zerolog.Logger
	measured *exporter

	mu    sync.Mutex
	kept  map[string]bool // runs that are being collected
	tasks sync.WaitGroup
}

func serve(ctx context.Context, env environment, c *cli.Command) error {
	if c.Duration("flush") <= 0 {
		return exit.Usage("", "--flush %s: must be more than 0", c.Duration("flush"))
	}

	at, err := parseListen(c, serveAddress)
	if err != nil {
		return err
	}

	dir, err := filepath.Abs(c.String("dir"))
	if err != nil {
		return err
	}

	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return exit.Usage("make it first", "the folder of the outputs, %s, is not there", dir)
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
	screen, err := terminal.Open(env.stderr, "plain", env.getenv)
	if err != nil {
		return err
	}

	log := newLog(c.Bool("verbose"), screen)
	go limitMemory(ctx, env.getenv)
	stateDir := filepath.Join(state, "serve")
	lock, err := statedir.Lock(state, stateDir)
	if errors.Is(err, statedir.ErrLocked) {
		return exit.WithHint(fmt.Errorf("another promptmill serve is running with this state folder: %w", err),
			"stop it, or give another --state DIR")
	}
	if err != nil {
		return err
	}

	defer lock.Close()

	s := &serving{
		dir:      dir,
		state:    stateDir,
		format:   formatOf(c),
		flush:    c.Duration("flush"),
		reports:  reports,
		screen:   screen,
		log:      log,
		kept:     map[string]bool{},
		measured: &exporter{},
	}

	unmeasure, err := startMetrics(c.String("metrics"), s.measured)
	if err != nil {
		return err
	}
	defer unmeasure()

	connection := parseConnect(env, c)
	noteUnusedURL(env, connection, screen)

	var own *natsserver.Server
	if connection.External() {
		if s.link, err = busconn.Connect(connection, proto.RoleCollector, log); err != nil {
			return err
		}
		defer s.link.Close()
	} else {
		if own, err = natsserver.Start(natsserver.Config{
			State:  state,
			Dir:    stateDir,
			Listen: at,
			Shared: true,
			Log:    log,
		}); err != nil {
			return err
		}
		defer own.Stop()

		s.link, s.own = own.Connection, true
	}

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)

	go interrupt(ctx, env, screen, stop, "syncing what has come", nothingLost)
	if err := makeBuckets(ctx, s.link, log); err != nil {
		return err
	}

	b, err := bus.Open(ctx, s.link.JS)
	if err != nil {
		return err
	}

	s.runs = b.Runs

	if own != nil {
		if err := s.runs.SetLimits(ctx, own.Limits); err != nil {
			return err
		}
		screen.Printf("serving on %s, output in %s", own.Addr(), dir)
		screen.Printf("to add a box, run this there:\n  promptmill worker --join %s", own.JoinString(proto.RoleWorker))
	} else {
		screen.Printf("serving the runs on %s, output in %s", s.link.Name, dir)
	}

	if err := s.restoreLost(ctx); err != nil {
		return err
	}

	s.forgetInputs()
	err = s.serve(ctx, own)

	if errors.Is(context.Cause(ctx), errInterrupted) {
		screen.Printf("stopped; promptmill serve goes on where it was")
		return nil // a signal is how it ends
	}

	if errors.Is(err, natsserver.ErrStore) {
		return exit.Unreachable(fmt.Errorf("%w (%s)", err, stateDir),
			"free space on that disk, then start promptmill serve again; nothing is lost")
	}

	return err
}

// serve keeps all runs until ctx ends.
func (s *serving) serve(ctx context.Context, own *natsserver.Server) error {
	group, working := errgroup.WithContext(ctx)
	if own != nil {
		group.Go(func() error { return own.Watch(working) })
	}

	group.Go(func() error {
		for all, err := range s.runs.WatchAll(working) {
			if err != nil {
				return err
			}

			for _, m := range all {
				if !m.State.Ended() && m.State != proto.StateValidating && !m.Policy.Attended {
					s.keep(working, m)
				}
			}
		}

		return nil
	})

	group.Go(func() error {
		for round := 0; ; round++ {
			if round%60 == 0 { // in ten minutes; each run that was ever deleted is looked for
				if err := sweepDeleted(working, s.link, s.runs, leftAge, s.screen); err != nil && working.Err() == nil {
					s.log.Warn().Err(err).Msg("failed to delete what is left of deleted runs; trying again later")
				}
			}

			if err := sweep(working, s.link, s.runs, time.Now(), s.screen); err != nil && working.Err() == nil {
				s.log.Warn().Err(err).Msg("delete runs whose time on the bus is over; trying on")
			}

			if err := bus.Sleep(working, 10*time.Second); err != nil {
				return err
			}
		}
	})

	err := group.Wait()
	s.tasks.Wait()

	return err
}

// copies is the folder of copies of inputs. Runs of the bus of ours and of others may have
// the same ids.
func (s *serving) copies() string {
	if s.own {
		return filepath.Join(s.state, "runs")
	}
	return filepath.Join(s.state, "runs-elsewhere")
}

// forgetInputs removes copies of inputs that a crash has left behind complete outputs.
func (s *serving) forgetInputs() {
	dir := s.copies()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // there is none
	}

	for _, e := range entries {
		out := output.Prefix(filepath.Join(s.dir, e.Name()))
		if !files.Exists(out.Meta()) || files.Exists(out.Journal()) {
			continue
		}

		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			s.log.Warn().Err(err).Msg("failed to remove the copy of an input; it can be deleted")
		}
	}
}

// keep collects a run until it has ended, whatever gets in the way, unless that is
// being done already.
func (s *serving) keep(ctx context.Context, m proto.Manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.kept[m.Run] {
		return
	}

	s.kept[m.Run] = true
	s.tasks.Go(func() {
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.kept, m.Run)
		}()

		k := s.keeperOf(m.Run)
		k.show = func(proto.Manifest, *collector.Collector) {
			os.Remove(s.deletedMark(m.Run)) // of an earlier run of the id; mostly there is none
		}

		s.screen.Printf("run %s: %d requests of %s", m.Run, m.Input.Requests, terminal.JoinFew(m.Models(), 3))

		var before string
		for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, 30*time.Second) {
			meta, err := k.keep(ctx)
			switch {
			case err == nil:
				r := meta.Results
				s.screen.Printf("run %s is %s: %d answered, %d failed, in %s",
					m.Run, meta.Status, r.SuccessCount, r.FailureCount, k.output.Results())
				return
			case ctx.Err() != nil:
				return
			case errors.Is(err, collector.ErrDeleted), errors.Is(err, proto.ErrNoRun):
				s.screen.Printf("run %s was deleted; what was done is in %s", m.Run, k.output.Journal())
				s.noteDeleted(ctx, m.Run)
				return
			}

			if _, others := errors.AsType[othersFiles](err); others {
				if k.refuseRun(ctx, s.runs, m, err.Error()) {
					s.screen.Printf("run %s is refused: %v; %s", m.Run, err, refusedFix(m.Run))
					return
				}
			}

			if text := err.Error(); text != before { // once
				before = text
				s.screen.Printf("run %s: %v; trying again", m.Run, err)

				if errors.Is(err, proto.ErrLeaseHeld) {
					text = "" // no problem of the run's
				}

				if err := noteProblem(ctx, s.runs, m, text); err != nil {
					s.log.Warn().Err(err).Str("run", m.Run).
						Msg("failed to note on the bus why the run is not collected")
				}
			}

			bus.Sleep(ctx, pause)
			if now, err := s.runs.Get(ctx, m.Run); err == nil && now.State.Ended() && now.Output != k.info().String() {
				s.screen.Printf("run %s is %s, in %s", m.Run, now.State, cmp.Or(now.Output, "no files"))
				return // another process has ended it
			}
		}
	})
}

// refusedFix says how to go on with a run that serve has refused.
func refusedFix(run string) string {
	return "promptmill delete " + run +
		", then submit it again with another --run, or with this one once the files are moved away"
}

// keeperOf is the keeper of a run.
func (s *serving) keeperOf(run string) *keeper {
	return &keeper{
		link:     s.link,
		run:      run,
		output:   output.Prefix(filepath.Join(s.dir, run)),
		format:   s.format,
		flush:    s.flush,
		reports:  s.reports,
		dir:      filepath.Join(s.copies(), run),
		log:      s.log.With().Str("run", run).Logger(),
		measured: s.measured,
	}
}

// tidy sweeps once, for those who do not stay.
func tidy(ctx context.Context, l *busconn.Connection, screen *terminal.Screen) error {
	b, err := bus.Open(ctx, l.JS)
	if err != nil {
		return err
	}
	return sweep(ctx, l, b.Runs, time.Now(), screen)
}

// sweep deletes the ended runs that are not to be kept any longer.
func sweep(
	ctx context.Context, l *busconn.Connection, runs *bus.RunStore, now time.Time, screen *terminal.Screen,
) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	list, err := runs.List(ctx)
	if err != nil {
		return err
	}

	for _, m := range list {
		if !m.State.Ended() || m.EndedAt == nil ||
			now.Before(m.EndedAt.Add(time.Duration(m.Policy.KeepSeconds)*time.Second)) {
			continue
		}

		if err := deleteRun(ctx, l, runs, m); err != nil {
			return err
		}

		screen.Printf("run %s has left the bus: it ended %s ago", m.Run, terminal.FormatAge(now.Sub(*m.EndedAt)))
	}

	return nil
}

// leftAge is how old streams without a manifest must be to be removed unasked.
const leftAge = time.Minute

// sweepDeleted finishes deletions that were cut short: a run that was taken off the bus
// has no streams that are of some age. What was never deleted stays, though its manifest
// is gone: a bus may have lost that.
func sweepDeleted(
	ctx context.Context, l *busconn.Connection, runs *bus.RunStore, age time.Duration, screen *terminal.Screen,
) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	deleted, err := runs.ListDeleted(ctx)
	if err != nil {
		return err
	}

	if len(deleted) == 0 {
		return nil
	}

	// There are ever more deleted runs, and few streams: only runs that have one are looked
	// at. A role may not list the streams; it looks at all runs.
	there := map[string]bool{}
	listing, stop := context.WithTimeout(ctx, 5*time.Second) // what is not allowed has no answer
	defer stop()

	streams := l.JS.StreamNames(listing)
	for name := range streams.Name() {
		there[name] = true
	}

	listed := streams.Err() == nil
	for _, run := range deleted {
		has := func(s jetstream.StreamConfig) bool { return there[s.Name] }
		if listed && !slices.ContainsFunc(bus.RunStreamConfigs(run, bus.Limits{}), has) {
			continue
		}

		left, err := bus.OrphanedStreams(ctx, l.JS, run, age)
		if err != nil {
			return err
		}

		if len(left) == 0 {
			continue
		}

		if err := bus.DeleteStreams(ctx, l.JS, run); err != nil {
			return err
		}

		screen.Printf("run %s had been deleted, and what was left of it has left the bus", run)
	}

	return nil
}
