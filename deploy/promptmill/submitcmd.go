package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/jsonl"
)

func submitCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "submit",
		Usage:     "put a run on a bus and return",
		ArgsUsage: "INPUT...",
		Description: "Checks the input, stores it on the bus and publishes it. Who serves the bus (promptmill\n" +
			"serve) collects the answers, or promptmill collect does, or this command with --wait -o.",
		Flags: slices.Concat([]cli.Flag{
			&cli.BoolFlag{Name: "wait", Usage: "until the run has ended", Sources: flagEnv("wait")},
			&cli.StringFlag{
				Name:    "output",
				Aliases: []string{"o"},
				Usage:   "with --wait: collect the run into `NAME.jsonl.zst` here",
				Sources: flagEnv("output"),
			},
			&cli.StringFlag{
				Name:    "progress",
				Value:   "auto",
				Usage:   "auto, bar, plain, json or none",
				Sources: flagEnv("progress"),
			},
		}, inputFlags(), termsFlags(), outputFlags(), reportFlags(), metricsFlags(), busFlags(),
			[]cli.Flag{jsonFlag(), replicasFlag()}),
		Action: func(ctx context.Context, c *cli.Command) error { return submit(ctx, env, c) },
	}
}

func submit(ctx context.Context, env environment, c *cli.Command) (err error) {
	if c.IsSet("output") && !c.Bool("wait") {
		return exit.Usage("give --wait too, or leave -o out and let promptmill serve collect the run",
			"-o needs this command to stay")
	}

	settings, err := parseSettings(c)
	if err != nil {
		return err
	}

	terms, err := parseTerms(c, time.Now())
	if err != nil {
		return err
	}

	terms.Attended = c.IsSet("output")
	if _, err := parseReports(c); err != nil { // before anything is on the bus
		return err
	}

	inputs, err := parseInputs(c)
	if err != nil {
		return err
	}

	var out output.Prefix
	if terms.Attended {
		if out, err = outputOf(c, ""); err != nil {
			return err
		}

		if err := checkInputs(out, inputs); err != nil {
			return err
		}

		for _, path := range []string{
			out.Journal(), out.Meta(), out.Results(), out.Errors(), out.ReportMarkdown(), out.ReportHTML(),
		} {
			if files.Exists(path) {
				return exit.WithHint(fmt.Errorf("%s is there already, of another run", path),
					"choose another output with -o")
			}
		}

		if err := checkOutput(out); err != nil {
			return err
		}
	}

	screen, err := terminal.Open(env.stderr, c.String("progress"), env.getenv)
	if err != nil {
		return err
	}
	defer func() {
		screen.Close()
		err = screen.ReportError(err)
	}()

	whole := ctx
	ctx, signalsToNext := untilSignal(ctx, env)
	defer signalsToNext()
	defer func() {
		if errors.Is(context.Cause(ctx), errInterrupted) {
			err = interruptedSubmit(err)
		}
	}()

	log := newLog(c.Bool("verbose"), screen)
	role := proto.RoleProducer
	if terms.Attended {
		role = proto.RoleCollector
	}

	l, err := busconn.Connect(parseConnect(env, c), role, log)
	if err != nil {
		return err
	}
	defer l.Close()

	if inputs[0] == "-" {
		dir, forget, err := makeSpool(env, c)
		if err != nil {
			return err
		}
		defer forget()

		input, err := copyStdin(ctx, env.stdin, dir)
		if err != nil {
			return err
		}

		inputs = []string{input.path}
	}

	if err := bus.CreateBuckets(ctx, l.JS, l.Limits); err != nil {
		return err
	}

	b, err := bus.Open(ctx, l.JS)
	if err != nil {
		return err
	}

	s := &session{l, b}

	m, err := s.prepareRun(ctx, c, screen, inputs, settings, terms)
	if err != nil {
		return err
	}

	if err := s.publishRun(ctx, m, inputs, c.IsSet("run")); err != nil {
		if bus.IsNoStorage(err) {
			return exit.WithHint(fmt.Errorf("the bus has no room for another run: %w", err),
				"promptmill delete ended runs, this one ("+m.Run+") with --force, or give the bus a larger disk")
		}

		if errors.Is(err, proto.ErrInputChanged) {
			return exit.WithHint(err, "promptmill delete --force "+m.Run+
				" takes away what is there of it, then submit the input as it is now")
		}
		if errors.Is(err, errTaken) {
			return exit.WithHint(err, "promptmill status "+m.Run+" shows it; or choose another --run")
		}

		return exit.WithDefaultHint(err,
			"the same promptmill submit with --run "+m.Run+" goes on, promptmill delete --force "+
				m.Run+" takes away what is there of it")
	}

	signalsToNext()
	ctx = whole
	screen.Printf("run %s: %d requests are on the bus", m.Run, m.Input.Requests)

	if terms.Attended {
		return collectRun(ctx, env, c, l, m.Run, out, c.Args().Slice())
	}

	if c.Bool("json") {
		if m, err = s.Runs.Get(ctx, m.Run); err != nil {
			return err
		}
		if err := printJSON(env.stdout, m); err != nil {
			return err
		}
	}

	if !s.served(ctx, m.Run) {
		now, err := s.Runs.Get(ctx, m.Run)
		if err == nil && now.State == proto.StateFailed {
			return refusedRun(now)
		}
		screen.Printf("nobody collects it yet: promptmill serve, or promptmill collect %s -o OUT%s",
			m.Run, ".jsonl.zst")
	}

	screen.Printf("look at it: promptmill status %s", m.Run)
	if c.Bool("wait") {
		return s.wait(ctx, env, screen, m)
	}

	return nil
}

// interruptedSubmit is the error of a submit that a signal ended before all was on the bus.
// The hint of err says how to go on, if something is there already.
func interruptedSubmit(err error) error {
	return exit.Interrupted(errInterrupted, cmp.Or(exit.Hint(err), "nothing is on the bus"))
}

// makeSpool makes a folder for standard input that is there for as long as this process,
// and removes those of processes that were killed.
func makeSpool(env environment, c *cli.Command) (dir string, forget func(), err error) {
	state, err := stateOf(env, c)
	if err != nil {
		return "", nil, err
	}

	left, _ := filepath.Glob(filepath.Join(state, "submit-*")) // the pattern is good
	for _, dir := range left {
		if lock, err := statedir.Lock(state, dir); err == nil {
			os.RemoveAll(dir)
			lock.Close()
		}
	}

	if err := os.MkdirAll(state, 0o700); err != nil {
		return "", nil, exit.WithHint(fmt.Errorf("make the state folder: %w", err),
			"choose another place with --state DIR")
	}

	if dir, err = os.MkdirTemp(state, "submit-"); err != nil {
		return "", nil, fmt.Errorf("spool standard input: %w", err)
	}

	lock, err := statedir.Lock(state, dir)
	if err != nil {
		return "", nil, err
	}

	return dir, func() { os.RemoveAll(dir); lock.Close() }, nil
}

// served reports whether somebody begins to collect a run within a moment.
func (s *session) served(ctx context.Context, run string) bool {
	for range 15 {
		if _, ok, err := s.Leases.Holder(ctx, run); err == nil && ok {
			return true
		}
		if bus.Sleep(ctx, 100*time.Millisecond) != nil {
			return false
		}
	}

	return false
}

// prepareRun checks the input and makes the manifest.
func (s *session) prepareRun(
	ctx context.Context, c *cli.Command, screen *terminal.Screen, inputs []string, settings proto.Settings,
	terms proto.RunPolicy,
) (proto.Manifest, error) {
	asking, cancel := context.WithTimeout(ctx, answerTime)
	workers, err := s.Heartbeats.Workers(asking)
	cancel()
	if err != nil {
		return proto.Manifest{}, exit.Unreachable(err, "")
	}

	if settings.Model == "" && settings.OverrideModel == "" {
		settings.Model = defaultModel(workers)
	}

	for _, w := range workers {
		settings.Capacity += w.Concurrency
	}

	settings.Capacity = max(settings.Capacity, manyBoxes)
	now := time.Now().UTC()
	m := proto.Manifest{
		Schema:    proto.ManifestSchema,
		Run:       cmp.Or(c.String("run"), proto.NewRunID(now)),
		State:     proto.StateValidating,
		CreatedAt: now,
		Settings:  settings,
		Policy:    terms,
	}

	var problems producer.Report
	m.Input, problems, err = producer.Validate(ctx, inputs, settings, progress.ShowValidation(screen))
	if err != nil {
		return m, unreadable(err, inputs)
	}

	if problems.Count > 0 && !settings.SkipInvalid {
		_, served := progress.MissingModels(m, workers)
		return m, refuse(screen, problems, m.Input.Requests, served)
	}

	old, err := s.Runs.Get(ctx, m.Run)
	switch {
	case errors.Is(err, proto.ErrNoRun) || err == nil && halfSubmitted(old, m): // the first to use the id, or to go on
		return m, nil
	case err != nil:
		return m, err
	case old.State == proto.StateValidating:
		return m, exit.WithHint(fmt.Errorf("there is a run %s on the bus already, whose submit has not ended, %s",
			m.Run, cmp.Or(difference(old, m), "with another --keep-results")),
			"choose another --run, or promptmill delete --force "+m.Run)
	}

	return m, exit.WithHint(fmt.Errorf("there is a run %s on the bus already%s", m.Run, ofWhich(old, m)),
		"choose another --run, or leave it out")
}

// ofWhich says in what a run on the bus is another than the one that was to be, if it is.
func ofWhich(there, wanted proto.Manifest) string {
	if text := difference(there, wanted); text != "" {
		return ", " + text
	}

	return ", with the same input and settings"
}

// defaultModel is the one model of the workers that are there, or "" if there is none or
// several.
func defaultModel(workers []proto.WorkerInfo) (model string) {
	for _, w := range workers {
		its := w.DefaultModel
		if its == "" && len(w.Models) == 1 && !proto.IsPattern(w.Models[0]) { // of a worker that is older than this
			its = w.Models[0]
		}

		if its == "" || model != "" && model != its {
			return ""
		}

		model = its
	}

	return model
}

// halfSubmitted reports whether a run is what a submit of m has left that was killed
// before all of the input was on the bus. Should that one be alive, both store the same,
// and one of them begins the run.
func halfSubmitted(old, m proto.Manifest) bool {
	return old.State == proto.StateValidating && difference(old, m) == "" &&
		old.Policy.KeepResults == m.Policy.KeepResults
}

// announce puts the manifest on the bus, as validating, so that whoever looks sees what
// the streams are for.
func (s *session) announce(ctx context.Context, m proto.Manifest) error {
	err := s.Runs.Create(ctx, m)
	if !errors.Is(err, jetstream.ErrKeyExists) {
		return err
	}

	return s.Runs.Update(ctx, m.Run, func(now *proto.Manifest) error {
		if !halfSubmitted(*now, m) {
			return errTaken
		}
		*now = m
		return nil
	})
}

// errTaken says that a run was begun by somebody else while it was put on the bus.
var errTaken = errors.New("another promptmill submit was first with this run")

// publishRun stores the input on the bus, begins the run and publishes its shards: all,
// or as many as there is room for if somebody else publishes the rest. again says that the
// run may have been on the bus before.
func (s *session) publishRun(ctx context.Context, m proto.Manifest, inputs []string, again bool) error {
	if err := s.announce(ctx, m); err != nil {
		return err
	}

	if err := bus.EnsureStreams(ctx, s.JS, m, s.Limits); err != nil {
		return err
	}

	for i, path := range inputs {
		if err := s.store(ctx, m.Run, proto.InputObject(i), path); err != nil {
			return err
		}
	}

	if err := checkUnchanged(ctx, m.Input); err != nil {
		return err
	}

	err := s.Runs.Update(ctx, m.Run, func(now *proto.Manifest) error {
		if now.State != proto.StateValidating {
			return errTaken
		}
		now.State, now.Input.Stored = proto.StateInProgress, true
		return nil
	})
	if err != nil {
		return err
	}

	if again {
		if taken, err := s.awaitCollector(ctx, m.Run); err != nil || taken {
			return err
		}
	}

	files := func(context.Context) ([]string, error) { return inputs, nil } // whatever the manifest on the bus names
	p := producer.New(producer.Config{
		JS:        s.JS,
		Run:       m.Run,
		Files:     files,
		Once:      true,
		Validated: true,
	})

	publishing, stop := context.WithCancelCause(ctx)
	defer stop(nil)

	go func() {
		for bus.Sleep(publishing, 200*time.Millisecond) == nil {
			if !p.Stats().Full.Load() {
				continue
			}

			if _, ok, err := s.Leases.Holder(publishing, m.Run); err == nil && ok {
				stop(errOthersPublish)
				return
			}
		}
	}()

	if err := p.Run(publishing); err != nil && !errors.Is(err, errOthersPublish) {
		return err
	}

	return nil
}

// collectorTime is how long the collector of a run that is submitted again may take to read
// its journal, before all of the input is published.
const collectorTime = 5 * time.Second

// awaitCollector waits until a run is collected, and reports whether the collector publishes
// it: what has its line already is not to be run again.
func (s *session) awaitCollector(ctx context.Context, run string) (taken bool, err error) {
	waiting, stop := context.WithTimeout(ctx, collectorTime)
	defer stop()

	for {
		_, there, err := s.Leases.Holder(waiting, run)
		if err == nil && there || bus.Sleep(waiting, 100*time.Millisecond) != nil {
			break
		}
	}

	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}

	now, err := s.Runs.Get(ctx, run)
	if err != nil {
		return false, err
	}

	return now.Publish.Round > 0 || now.Publish.Done || now.State.Ended(), nil
}

// errOthersPublish ends publishing when the bus is full and the run's collector, which
// has the input, publishes the rest.
var errOthersPublish = errors.New("the run's collector publishes the rest")

// store puts an input file into the run's object store, packed if it is not.
func (s *session) store(ctx context.Context, run, object, path string) error {
	packed, err := jsonl.IsCompressed(path)
	if err != nil {
		return fmt.Errorf("read the input: %w", err)
	}

	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the input: %w", err)
	}
	defer file.Close()

	objects := s.Objects(run)
	if packed {
		return objects.PutReader(ctx, object, file)
	}

	r, w := io.Pipe()
	defer r.Close()

	go func() {
		enc, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		if err == nil {
			if _, err = io.Copy(enc, file); err == nil {
				err = enc.Close()
			}
		}
		w.CloseWithError(err)
	}()

	return objects.PutReader(ctx, object, r)
}

// wait shows a run's progress until it has ended.
func (s *session) wait(ctx context.Context, env environment, screen *terminal.Screen, m proto.Manifest) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)

	go interrupt(ctx, env, screen, stop, "the run goes on without this command", nothingLost)
	go screen.PrintStatusOnSignal(ctx, env.asked)
	var counts atomic.Pointer[proto.Counts]
	counts.Store(&m.Counts)
	showing, hide := context.WithCancel(ctx)
	defer hide()

	var show sync.WaitGroup
	show.Go(func() {
		progress.Show(showing, screen, &progress.Source{Run: m, JS: s.JS, Counts: func() collector.Progress {
			c := *counts.Load()
			return collector.Progress{Total: m.Input.Requests, Received: c, Durable: c.Done}
		}})
	})

	problem := ""
	var err error
	for now, watchErr := range s.Runs.Watch(ctx, m.Run) {
		if err = watchErr; err != nil {
			break
		}

		m = now
		counts.Store(&now.Counts)

		if text := now.Problem; text != "" && text != problem && !now.State.Ended() {
			screen.Printf("run %s is not collected: %s; its collector tries again", now.Run, text)
		}

		problem = now.Problem
		if now.State.Ended() {
			break
		}
	}

	hide()
	show.Wait()

	if errors.Is(context.Cause(ctx), errInterrupted) {
		return exit.Interrupted(errors.New("not waiting any longer; the run goes on"), "promptmill status "+m.Run)
	}

	if err != nil {
		return err
	}

	if m.State == proto.StateFailed {
		return refusedRun(m)
	}

	screen.Printf("run %s is %s: %d answered, %d failed, in %s",
		m.Run, m.State, m.Counts.Done-m.Counts.Failed, m.Counts.Failed, m.Output)

	if m.Counts.Failed > 0 {
		return exit.RequestsFailed(fmt.Errorf("%d of %d requests failed", m.Counts.Failed, m.Input.Requests),
			"promptmill retry "+m.Run)
	}

	return nil
}

// refusedRun is the error of a run that its collector has refused.
func refusedRun(m proto.Manifest) error {
	return exit.WithHint(fmt.Errorf("run %s is refused by its collector: %s", m.Run, m.Problem), refusedFix(m.Run))
}
