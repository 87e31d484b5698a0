package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/metrics"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/deploy/summary"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// ServeConfig describes the bus to serve and the folder for the answers of its runs.
type ServeConfig struct {
	// Dir is the folder of the output files. It is made if it is not there. Required, as an absolute
	// path.
	Dir string
	// Bus names the NATS server. Defaults to one that is embedded in this process and stays up.
	Bus busconn.Options
	// Listen is where the embedded server listens, HOST:PORT. Defaults to a free port of this
	// machine alone.
	Listen natsserver.ListenAddress
	// JoinFile, if not empty, is the path of a file that gets the join string for workers, which only this user may
	// read, once the embedded server listens; the string is then not printed. An older file is replaced. It is not
	// written with Bus.
	JoinFile string
	// State is the state folder. Required.
	State string
	// FlushInterval is the longest time until an answer is in an output file. Defaults to 5 s.
	FlushInterval time.Duration
	// Format is the format of the output files.
	Format output.Format
	// Report adds data to the reports besides the run.
	Report report.Options
	// Version is the version of the program, for the metadata.
	Version string
	// Metrics, if not nil, exports the counters of the collectors, the bus, and the disks of the folders.
	Metrics *metrics.Exporter
	// Log gets warnings and errors. The zero value discards them.
	Log zerolog.Logger
	// Hooks report the progress of the server.
	Hooks Hooks
	// API, if not nil, serves the runs to clients of another protocol. It is called when the bus is
	// ready, and runs until ctx ends; the bus stays up until it returns. Its error ends Serve. It runs on
	// while an embedded bus cannot write since its disk is full.
	API func(ctx context.Context, link *busconn.Connection) error
	// Collects reports whether Serve collects a run that other servers leave alone, see
	// [proto.RunPolicy.Attended]: a batch of the batch API here. Defaults to no such run.
	Collects func(run string) bool
	// OpenEvents, if not nil, is called once the bus is served and before a run is collected. What it returns
	// gets the runs that end.
	OpenEvents func(context.Context, *busconn.Connection) (Events, error)
}

// Events gets the runs of a server that end.
type Events interface {
	// AddRun takes a run that has ended. A run may come more than once, also after a restart of the server,
	// and comes again after an error. Its time on the bus does not end before AddRun has taken it.
	AddRun(context.Context, proto.Manifest) error
	// Run works beside the collectors until ctx ends.
	Run(context.Context) error
}

// Validate returns an error that names the field of a value that cannot be used.
func (c ServeConfig) Validate() error {
	switch {
	case !filepath.IsAbs(c.Dir):
		return fmt.Errorf("pipeline: ServeConfig.Dir is %q, must be an absolute path", c.Dir)
	case c.State == "":
		return errors.New("pipeline: ServeConfig.State is required")
	case c.FlushInterval < 0:
		return fmt.Errorf("pipeline: ServeConfig.FlushInterval is %s, must not be negative", c.FlushInterval)
	}

	return nil
}

// Serve collects all runs that are submitted to a bus until ctx ends, and starts the bus if the
// configuration names none. It resumes the runs of an earlier Serve, and deletes ended runs when
// their time on the bus is over. The error wraps [ErrInterrupted] after the end of ctx.
func Serve(ctx context.Context, cfg ServeConfig) error {
	if err := cfg.Validate(); err != nil {
		return err
	}

	s := &server{ServeConfig: cfg, stateDir: filepath.Join(cfg.State, "serve"), active: map[string]bool{}}

	// A port that is taken is refused later: another serve of this state folder may have it.
	if err := natsserver.CheckListen(s.Listen.Address, s.State); exit.Code(err) == exit.CodeUsage && !s.Bus.External() {
		return err
	}

	if s.Bus.External() {
		var err error
		if s.link, err = busconn.Connect(s.Bus, proto.RoleCollector, s.Log); err != nil {
			return err
		}
		defer s.link.Close()
	}

	lock, err := statedir.Lock(s.State, s.stateDir)
	if errors.Is(err, statedir.ErrLocked) {
		return exit.WithHint(fmt.Errorf("another promptmill serve is running with this state folder: %w", err),
			"stop it, or give another --state DIR")
	}
	if err != nil {
		return err
	}

	defer lock.Close()

	if s.link == nil {
		if err := s.startBus(); err != nil {
			return err
		}
		defer s.embedded.Stop()
	}

	if err := makeOutputFolder(s.Dir); err != nil {
		return err
	}

	err = s.run(ctx)
	switch {
	case ctx.Err() != nil:
		return interrupted(ctx, "interrupted", "")
	case errors.Is(err, natsserver.ErrStore):
		return exit.Unreachable(fmt.Errorf("%w (%s)", err, s.stateDir),
			"free space on that disk, then start promptmill serve again; nothing is lost")
	}

	return cmp.Or(s.link.ClosedErr(), err)
}

// server is one call of [Serve].
type server struct {
	ServeConfig

	stateDir string
	link     *busconn.Connection
	embedded *natsserver.Server // nil: the bus is not ours
	runs     *bus.RunStore
	ended    *endedRuns // nil: nothing gets them

	// mu guards the field below.
	mu         sync.Mutex
	active     map[string]bool // runs that are being collected
	collectors sync.WaitGroup
}

// makeOutputFolder makes the folder of the output files. It refuses one that this user cannot write into, which a run
// would find out only when its first answers come. A full disk is no reason: it may have room by then.
func makeOutputFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return exit.WithHint(fmt.Errorf("make the folder of the outputs: %w", err),
			statedir.WriteHint(dir, err, "choose another one with --dir"))
	}

	probe, err := os.CreateTemp(dir, ".promptmill-*")
	switch {
	case err == nil:
		probe.Close()
		return os.Remove(probe.Name())
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return exit.WithHint(fmt.Errorf("no output can be written into %s: %w", dir, err),
			statedir.WriteHint(dir, err, "choose another one with --dir"))
	}

	return nil
}

// sayJoin says how a worker joins: by the file for the join string, if there is one. The string is then not printed:
// what a service prints stands in a log, which more people read than the file.
func (s *server) sayJoin() error {
	if s.JoinFile == "" {
		s.Hooks.printJoin(s.embedded)
		return nil
	}

	err := files.WriteSecret(s.JoinFile, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, s.embedded.JoinString(proto.RoleWorker))
		return err
	})
	if err != nil {
		return exit.WithHint(fmt.Errorf("store the join string for workers: %w", err),
			"name a file that this user may write with --write-join")
	}
	s.Hooks.printf("the join string for workers is in %s, for worker --join-file", s.JoinFile)

	return nil
}

// startBus starts an embedded server.
func (s *server) startBus() (err error) {
	if s.embedded, err = natsserver.Start(natsserver.Config{
		State:  s.State,
		Dir:    s.stateDir,
		Listen: s.Listen,
		Shared: true,
		Log:    s.Log,
	}); err != nil {
		return err
	}

	s.link = s.embedded.Connection

	return nil
}

// run prepares the bus and collects its runs until ctx ends.
func (s *server) run(ctx context.Context) (err error) {
	if err := makeBuckets(ctx, s.link, s.Log); err != nil {
		return err
	}

	b, err := bus.Open(ctx, s.link.JS)
	if err != nil {
		return err
	}

	s.runs = b.Runs
	s.Metrics.SetFolder(metrics.FolderState, s.State)
	s.Metrics.SetFolder(metrics.FolderOutput, s.Dir)
	defer s.Metrics.SetBus(s.link.JS, nil)()

	if s.embedded != nil {
		if err := s.runs.SetLimits(ctx, s.embedded.Limits); err != nil {
			return err
		}
		if err := s.runs.SetEndsWith(ctx, ""); err != nil { // the store may be one that run has kept
			return err
		}
		s.Hooks.printf("serving on %s, output in %s", s.embedded.Addr(), s.Dir)
		if err := s.sayJoin(); err != nil {
			return err
		}
	} else {
		s.Hooks.printf("serving the runs on %s, output in %s", s.link.Name, s.Dir)
	}

	if err := s.reportRuns(ctx); err != nil {
		return err
	}

	if s.OpenEvents != nil {
		events, err := s.OpenEvents(ctx, s.link)
		if err != nil {
			return err
		}
		s.ended = newEndedRuns(events, s.collects, s.Log)
	}

	if err := s.restoreLost(ctx); err != nil {
		return err
	}

	s.removeLeftInputs()

	return s.collectAll(ctx)
}

// reportRuns reports the runs that are on the bus at the start.
func (s *server) reportRuns(ctx context.Context) error {
	runs, err := s.runs.List(ctx)
	if err != nil {
		return err
	}

	unreadable, err := s.runs.ListUnreadable(ctx)
	if err != nil {
		return err
	}

	ended := 0
	for _, m := range runs {
		if m.State.Ended() {
			ended++
		}
	}

	where := "on the bus"
	if s.embedded != nil {
		where = "in the store " + s.stateDir
	}

	if len(runs) == 0 {
		s.Hooks.printf("no runs %s yet", where)
	} else {
		s.Hooks.printf("%s %s, %s of them ended", terminal.CountOf(len(runs), "run"), where, terminal.FormatCount(ended))
	}

	for _, r := range unreadable {
		s.Hooks.printf("run %s is left alone: %v", r.Run, r.Err)
	}

	return nil
}

// collectAll collects all runs until ctx ends.
func (s *server) collectAll(ctx context.Context) error {
	group, working := errgroup.WithContext(ctx)
	if s.embedded != nil {
		group.Go(func() error { return s.watchBus(working) })
	}

	group.Go(func() error {
		stopped := map[string]bool{} // runs that a limit has stopped
		freed := map[string]bool{}   // runs whose results the bus has no room set aside for
		for all, err := range s.runs.WatchAll(working) {
			if err != nil {
				return err
			}

			s.ended.follow(all)

			for _, m := range all {
				if stopped[m.Run] && m.State == proto.StateInProgress {
					s.Hooks.printf("run %s is resumed", m.DisplayName())
				}
				stopped[m.Run] = m.StoppedBy != nil

				if ended, known := freed[m.Run]; !known || ended != m.State.Ended() {
					s.setRoom(working, m)
					freed[m.Run] = m.State.Ended()
				}

				if !m.State.Ended() && m.State != proto.StateValidating && s.collects(m) {
					s.startCollector(working, m)
				}
			}
		}

		return nil
	})

	group.Go(func() error { return s.sweep(working) })

	if s.ended != nil {
		group.Go(func() error { return s.ended.run(working) })
		group.Go(func() error { return s.ended.events.Run(working) })
	}

	if s.API != nil {
		group.Go(func() error { return s.API(working, s.link) })
	}

	err := group.Wait()
	s.collectors.Wait()

	return err
}

// watchBus returns an error when the bus cannot write its store. With an API it first waits until the disk has
// room: until then clients read what is there, and can delete files.
func (s *server) watchBus(ctx context.Context) error {
	err := s.embedded.Watch(ctx)
	if s.API == nil || !errors.Is(err, natsserver.ErrStore) || files.CheckRoom(s.stateDir, 0) == nil {
		return err
	}

	s.Hooks.printf("%v (%s): the API answers what it has until there is space on that disk, then promptmill serve ends",
		err, s.stateDir)
	for files.CheckRoom(s.stateDir, 0) != nil {
		if err := bus.Sleep(ctx, time.Second); err != nil {
			return err
		}
	}

	return err
}

// setRoom has the bus of this server set aside room for the results of a run that works, and for none that has ended:
// ended runs stay for a day, and would leave no room for others.
func (s *server) setRoom(ctx context.Context, m proto.Manifest) {
	if s.embedded == nil || m.Policy.KeepResults {
		return // another's bus, or results without a bound
	}

	var err error
	if m.State.Ended() {
		err = bus.FreeResults(ctx, s.link.JS, m.Run)
	} else {
		err = bus.BoundResults(ctx, s.link.JS, m.Run, s.link.Limits)
	}

	if err != nil && ctx.Err() == nil {
		s.Log.Warn().Err(err).Str("run", m.Run).Msg("failed to change the room for the results of the run")
	}
}

// collects reports whether this server collects a run.
func (s *server) collects(m proto.Manifest) bool {
	return !m.Policy.Attended || s.Collects != nil && s.Collects(m.Run)
}

// sweep deletes runs whose time on the bus is over, again and again, until ctx ends.
func (s *server) sweep(ctx context.Context) error {
	for round := 0; ; round++ {
		if round%60 == 0 { // in ten minutes; each run that was ever deleted is looked for
			if err := SweepDeleted(ctx, s.link.JS, s.runs, orphanAge, s.Hooks); err != nil && ctx.Err() == nil {
				s.Log.Warn().Err(err).Msg("failed to delete the remains of deleted runs; retrying later")
			}
		}

		err := sweepEnded(ctx, s.link.JS, s.runs, time.Now(), s.ended.pass, s.Hooks)
		if err != nil && ctx.Err() == nil {
			s.Log.Warn().Err(err).Msg("failed to delete runs whose time on the bus is over; retrying")
		}

		if err := bus.Sleep(ctx, 10*time.Second); err != nil {
			return err
		}
	}
}

// inputCopies returns the folder of copies of inputs. Runs of our bus and of others may have the
// same ids.
func (s *server) inputCopies() string {
	if s.embedded != nil {
		return filepath.Join(s.stateDir, "runs")
	}
	return filepath.Join(s.stateDir, "runs-elsewhere")
}

// removeLeftInputs removes copies of inputs that a crash has left of complete outputs.
func (s *server) removeLeftInputs() {
	dir := s.inputCopies()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // there is none
	}

	for _, e := range entries {
		out := output.Prefix(filepath.Join(s.Dir, e.Name()))
		if !files.Exists(out.Meta()) || files.Exists(out.Journal()) {
			continue
		}

		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			s.Log.Warn().Err(err).Msg("failed to remove the copy of an input; it can be deleted")
		}
	}
}

// startCollector starts to collect a run, unless this process does already.
func (s *server) startCollector(ctx context.Context, m proto.Manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.active[m.Run] {
		return
	}

	s.active[m.Run] = true
	s.collectors.Go(func() {
		defer func() {
			s.mu.Lock()
			delete(s.active, m.Run)
			s.mu.Unlock()

			s.collectRetried(ctx, m)
		}()

		s.Hooks.printf("run %s: %s of %s", m.DisplayName(), terminal.CountOf(m.Input.Requests, "request"),
			terminal.JoinFew(m.Models(), 3))
		s.collectRun(ctx, m)
	})
}

// collectRetried starts to collect a run that was retried before its collector had returned: nothing else on
// the bus may change then, so that no other look would find it.
func (s *server) collectRetried(ctx context.Context, then proto.Manifest) {
	now, err := s.runs.Get(ctx, then.Run)
	if err == nil && now.Retries > then.Retries && !now.State.Ended() {
		s.startCollector(ctx, now)
	}
}

// collectRun collects a run until it has ended, whatever gets in the way.
func (s *server) collectRun(ctx context.Context, m proto.Manifest) {
	c := s.newCollector(m.Run)
	c.begun = func() {
		os.Remove(s.deletedMark(m.Run)) // of an earlier run of the id; mostly there is none
	}

	var reported string
	for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, 30*time.Second) {
		meta, err := c.collectUntilEnd(ctx)
		switch {
		case err == nil:
			s.addEnded(ctx, m.Run)
			s.Hooks.printf("run %s is %s: %s, in %s", m.DisplayName(), meta.Status, summary.FormatOutcome(meta.Results),
				c.Output.Results())
			return
		case ctx.Err() != nil:
			return
		case errors.Is(err, collector.ErrDeleted), errors.Is(err, proto.ErrNoRun):
			s.Hooks.printf("run %s was deleted; its finished lines are in %s", m.Run, c.Output.Journal())
			s.noteDeleted(ctx, m.Run)
			return
		}

		if _, ended := errors.AsType[endedError](err); ended {
			s.Hooks.printf("%v", err) // another process has ended it
			return
		}

		if _, foreign := errors.AsType[foreignFilesError](err); foreign && c.failRun(ctx, s.runs, m, err.Error()) {
			s.Hooks.printf("run %s is refused: %v; %s", m.Run, err, RefusedFix(m.Run))
			return
		}

		if text := err.Error(); text != reported {
			reported = text
			s.Hooks.printf("run %s: %v; trying again", m.Run, err)
		}

		s.noteProblem(ctx, m, err)

		bus.Sleep(ctx, pause)
		if now, err := s.runs.Get(ctx, m.Run); err == nil && now.State.Ended() && now.Output != c.info().String() {
			s.Hooks.printf("run %s is %s, in %s", m.Run, now.State, cmp.Or(now.Output, "no files"))
			return // another process has ended it
		}
	}
}

// addEnded passes on a run that has just ended, before another process deletes it.
func (s *server) addEnded(ctx context.Context, run string) {
	if s.ended == nil {
		return
	}

	if m, err := s.runs.Get(ctx, run); err == nil {
		s.ended.add(slices.Values([]proto.Manifest{m}))
	}
}

// noteProblem notes on the bus why a run is not collected. It does so after each attempt: the note is gone if the
// attempt began well, or the bus was away.
func (s *server) noteProblem(ctx context.Context, m proto.Manifest, problem error) {
	text := problem.Error()
	if errors.Is(problem, proto.ErrLeaseHeld) {
		text = "" // no problem of the run
	}

	if err := saveProblem(ctx, s.runs, m, text); err != nil {
		s.Log.Warn().Err(err).Str("run", m.Run).
			Msg("failed to note on the bus why the run is not collected")
	}
}

// RefusedFix returns the hint for a run that its collector has refused.
func RefusedFix(run string) string {
	return "promptmill delete " + run +
		", then submit it again with another --run, or with this one once the files are moved away"
}

// newCollector returns the collector of a run.
func (s *server) newCollector(run string) *runCollector {
	c := &runCollector{
		CollectConfig: CollectConfig{
			Bus:           s.link,
			Run:           run,
			Output:        output.Prefix(filepath.Join(s.Dir, run)),
			State:         s.State,
			FlushInterval: s.FlushInterval,
			Format:        s.Format,
			Report:        s.Report,
			Version:       s.Version,
			Metrics:       s.Metrics,
			Log:           s.Log.With().Str("run", run).Logger(),
		},
		dir: filepath.Join(s.inputCopies(), run),
		stopped: func(reached proto.ReachedLimit, failures map[string]int64) {
			causes := ""
			if reached.Metric == proto.MetricFailed {
				causes = "; failures of the run so far: " + summary.FormatCauses(failures)
			}

			s.Hooks.printf("run %s is stopped: %s%s; %s", run, reached, causes, progress.FormatResume(run, reached))
		},
	}
	// A table that promptmill collect has made beside the files of the server gets the answers of a retry, too.
	c.table = &tableWriter{
		output: c.Output,
		input:  c.source,
		note:   tableNote{s.State, statedir.ForOutput(s.State, string(c.Output))},
		hooks:  s.Hooks,
	}

	return c
}

// RefusedRunError returns the error of a run that its collector has refused.
func RefusedRunError(m proto.Manifest) error {
	return exit.WithHint(fmt.Errorf("run %s is refused by its collector: %s", m.Run, m.Problem), RefusedFix(m.Run))
}
