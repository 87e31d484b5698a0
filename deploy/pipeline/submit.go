package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/inputerror"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/producer/prompt"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/jsonl"
)

// SubmitConfig describes a run to put on a bus.
type SubmitConfig struct {
	// Bus is the bus. Required.
	Bus *busconn.Connection
	// Inputs are the files of requests, as absolute paths, or "-" alone for Stdin. Required.
	Inputs []string
	// Opener opens the inputs. Defaults to files of this machine.
	Opener inputfile.Opener
	// Stdin is read if Inputs is "-". Defaults to os.Stdin.
	Stdin io.Reader
	// State is the state folder, where Stdin is copied to. Required with Stdin.
	State string
	// Settings apply to the lines of the input, see [Config.Settings]. Workers is that of the bus.
	Settings proto.Settings
	// Policy sets how the bus treats the run.
	Policy proto.RunPolicy
	// RunID is the id of the run. Defaults to that of the run in Output, else to one from the time.
	// With a given id, Submit resumes an earlier Submit that was stopped.
	RunID string
	// Output is the output that the caller collects the run into, as an absolute path. Submit
	// continues the run that the output has already. Empty: others collect the run.
	Output output.Prefix
	// Wait reports that the caller waits for the end of the run, which then may be at work already.
	Wait bool
	// Label is a name for the run, for people: see [proto.CheckLabel]. Defaults to the label that
	// the run has from the earlier Submit, or none.
	Label string
	// Hooks report the progress of Submit.
	Hooks Hooks
}

// Validate returns an error that names the field of a value that cannot be used.
func (c SubmitConfig) Validate() error {
	switch {
	case c.Bus == nil:
		return errors.New("pipeline: SubmitConfig.Bus is required")
	case len(c.Inputs) == 0:
		return errors.New("pipeline: SubmitConfig.Inputs is required")
	case slices.Contains(c.Inputs, "-") && len(c.Inputs) > 1:
		return errors.New(`pipeline: SubmitConfig.Inputs: "-" cannot be mixed with files`)
	case c.Inputs[0] == "-" && c.State == "":
		return errors.New("pipeline: SubmitConfig.State is required with standard input")
	}

	if err := checkLimits(c.Policy); err != nil {
		return fmt.Errorf("pipeline: SubmitConfig.Policy.%w", err)
	}

	if c.Label != "" {
		if err := proto.CheckLabel(c.Label); err != nil {
			return fmt.Errorf("pipeline: SubmitConfig.Label: %w", err)
		}
	}

	return nil
}

// Submit validates an input, stores it on a bus and publishes its requests: all, or as many as
// there is room for if the collector of the run publishes the rest. The end of ctx stops it;
// the error wraps [ErrInterrupted] and has a hint how to go on.
func Submit(ctx context.Context, cfg SubmitConfig) (m proto.Manifest, err error) {
	if err := cfg.Validate(); err != nil {
		return m, err
	}

	defer func() {
		if err != nil && ctx.Err() != nil {
			err = interrupted(ctx, "interrupted", cmp.Or(exit.Hint(err), "nothing is on the bus"))
		}
	}()

	l := cfg.Bus
	if err := checkStaysUp(ctx, l, "start promptmill serve, and submit there"); err != nil {
		return m, err
	}

	earlier, err := findOutputRun(cfg)
	if err != nil {
		return m, err
	}

	if earlier != nil {
		cfg.RunID = earlier.Run
	}

	inputs, forget, err := cfg.copyInput(ctx)
	if err != nil {
		return m, err
	}
	defer forget()

	if err := bus.CreateBuckets(ctx, l.JS, l.Limits); err != nil {
		return m, l.DescribeStreamError(err)
	}

	b, err := bus.Open(ctx, l.JS)
	if err != nil {
		return m, err
	}

	s := &submission{
		Bus:     b,
		link:    l,
		inputs:  inputs,
		opener:  cfg.Opener,
		hooks:   cfg.Hooks,
		earlier: earlier,
	}
	if m, err = s.prepare(ctx, cfg); err != nil {
		return m, err
	}

	if m.State != proto.StateValidating {
		return m, nil // on the bus already
	}

	// A run that this process collects into a new output has no lines yet.
	mayHaveLines := cfg.RunID != "" && !cfg.Policy.Attended
	if err := s.publish(ctx, m, mayHaveLines); err != nil {
		return m, describeSubmitError(err, m.Run)
	}

	return m, nil
}

// copyInput copies standard input into a file, if that is the input. forget removes the copy.
func (c SubmitConfig) copyInput(ctx context.Context) (inputs []string, forget func(), err error) {
	if c.Inputs[0] != "-" {
		return c.Inputs, func() {}, nil
	}

	dir, forget, err := makeSpool(c.State)
	if err != nil {
		return nil, nil, err
	}

	stdin := c.Stdin
	if stdin == nil {
		stdin = os.Stdin
	}

	input, err := copyStdin(ctx, stdin, dir)
	if err != nil {
		forget()
		return nil, nil, err
	}

	return []string{input.path}, forget, nil
}

// makeSpool makes a folder for standard input that exists as long as this process, and removes
// those of processes that were killed.
func makeSpool(state string) (dir string, forget func(), err error) {
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

// describeSubmitError adds a hint how to go on to an error of publishing a run.
func describeSubmitError(err error, run string) error {
	switch {
	case bus.IsNoStorage(err):
		return exit.WithHint(&kindError{errors.New("the bus has no room for another run"), err},
			"promptmill delete ended runs, this one ("+run+") with --force, or give the bus a larger disk")
	case errors.Is(err, proto.ErrInputChanged):
		return exit.WithHint(err, "promptmill delete --force "+run+
			" removes the parts that are there, then submit the changed input")
	case errors.Is(err, errTaken):
		return exit.WithHint(err, "promptmill status "+run+" shows it; or choose another --run")
	}

	return exit.WithDefaultHint(err, "the same promptmill submit with --run "+run+
		" continues it, promptmill delete --force "+run+" removes the parts that are there")
}

// submission is one call of [Submit].
type submission struct {
	*bus.Bus

	link   *busconn.Connection
	inputs []string
	opener inputfile.Opener
	hooks  Hooks
	// earlier is the run that the output of the caller has already. Nil: none.
	earlier *proto.Manifest
}

// source returns the input files.
func (s *submission) source() producer.Source {
	return producer.Source{Files: s.inputs, Opener: s.opener, Stored: true}
}

// prepare checks the input and makes the manifest, or returns that of the same run if it is on the
// bus already.
func (s *submission) prepare(ctx context.Context, cfg SubmitConfig) (proto.Manifest, error) {
	asking, cancel := context.WithTimeout(ctx, answerTime)
	workers, err := s.Heartbeats.Workers(asking)
	cancel()
	if err != nil {
		return proto.Manifest{}, exit.Unreachable(err, "")
	}

	old, err := s.findEarlier(ctx, cfg.RunID)
	if err != nil {
		return proto.Manifest{}, err
	}

	settings := withShardDefaults(cfg.Settings)
	if settings.Model == "" && settings.OverrideModel == "" {
		settings.Model = defaultModel(workers)
		if old != nil {
			settings.Model = old.Settings.Model // found on the bus when the run began
		}
	}

	settings.Workers = max(len(workers), sharedWorkers)
	now := time.Now().UTC()
	m := proto.Manifest{
		Schema:    proto.SchemaFor(settings),
		Run:       cmp.Or(cfg.RunID, proto.NewRunID(now)),
		Label:     cfg.Label,
		State:     proto.StateValidating,
		CreatedAt: now,
		Settings:  settings,
		Policy:    cfg.Policy,
	}

	input := inputerror.Input{
		Files:     s.inputs,
		Opener:    cfg.Opener,
		Stdin:     cfg.Inputs[0] == "-",
		Prompts:   true,
		Submitted: true,
	}
	var problems producer.Report
	m.Input, problems, err = producer.Validate(ctx, s.source(), settings, s.hooks.Validating)
	if err != nil {
		return m, input.Describe(err)
	}

	if problems.Count > 0 && !settings.SkipInvalid {
		return m, RejectInput(s.hooks, input, problems, m.Input.Requests, nameModelOf(workers))
	}

	if text := describeUnusedModel(m.Input, prompt.LineSettings(cfg.Settings).Model); text != "" {
		s.hooks.printf("%s", text)
	}
	s.explainModels(m, workers, cfg.Settings.Model == "" && settings.Model != "")

	return s.continueRun(ctx, m, cfg)
}

// nameModelOf returns the hint for requests that name no model.
func nameModelOf(workers []proto.WorkerInfo) string {
	_, served := progress.MissingModels(proto.Manifest{}, workers)
	switch {
	case len(served) > 0:
		return "name one with --model NAME: workers on this bus serve " + listNames(served)
	case slices.ContainsFunc(workers, func(w proto.WorkerInfo) bool { return w.Ready }):
		return "name it with --model NAME: the workers on this bus take any"
	}

	return "no worker is on this bus yet, so no model is known: name one with --model NAME"
}

// explainModels prints the model that requests without one get by default, and the models that no
// worker serves while workers serve others.
func (s *submission) explainModels(m proto.Manifest, workers []proto.WorkerInfo, byDefault bool) {
	if byDefault && m.Input.Models[m.Settings.Model] > 0 {
		s.hooks.printf("model %s, the only one that workers on this bus serve", m.Settings.Model)
	}

	missing, served := progress.MissingModels(m, workers)
	if len(missing) > 0 && len(served) > 0 {
		s.hooks.printf("requests for %s wait for a worker that serves it; workers on this bus serve %s, and "+
			"--override-model NAME sends all requests to one model", listNames(missing), listNames(served))
	}
}

// defaultModel returns the one model of the workers, or "" if there is none or several.
func defaultModel(workers []proto.WorkerInfo) (model string) {
	for _, w := range workers {
		its := w.DefaultModel
		if its == "" && len(w.Models) == 1 && !proto.IsPattern(w.Models[0]) { // of an older worker
			its = w.Models[0]
		}

		if its == "" || model != "" && model != its {
			return ""
		}

		model = its
	}

	return model
}

// halfSubmitted reports whether a run comes from a submit of m that was killed before all of
// the input was on the bus. If that submit still runs, both store the same input, and one of
// them begins the run.
func halfSubmitted(old, m proto.Manifest) bool {
	return old.State == proto.StateValidating && describeRunChange(old, m) == "" &&
		old.Policy.KeepResults == m.Policy.KeepResults
}

// errTaken is returned when another submit has begun the run while this one put it on the bus.
var errTaken = errors.New("another promptmill submit was first with this run")

// announce puts the manifest on the bus, as validating, so that others see what the streams are
// for.
func (s *submission) announce(ctx context.Context, m proto.Manifest) error {
	err := s.Runs.Create(ctx, m)
	if !errors.Is(err, jetstream.ErrKeyExists) {
		return err
	}

	return s.Runs.Update(ctx, m.Run, func(now *proto.Manifest) error {
		if !halfSubmitted(*now, m) {
			return errTaken
		}

		label := cmp.Or(m.Label, now.Label)
		*now = m
		now.Label = label

		return nil
	})
}

// publish stores the input on the bus, begins the run and publishes its shards. mayHaveLines is
// set if the run may have been on the bus before, so that a collector may have lines of it.
func (s *submission) publish(ctx context.Context, m proto.Manifest, mayHaveLines bool) error {
	if err := s.announce(ctx, m); err != nil {
		return err
	}

	if err := bus.EnsureStreams(ctx, s.link.JS, m, s.link.Limits); err != nil {
		return s.link.DescribeStreamError(err)
	}

	source := producer.SourceOf(m.Input, s.inputs, s.opener)
	source.Stored = true
	for i := range s.inputs {
		if err := s.storeInput(ctx, m, source, i); err != nil {
			return err
		}
	}

	if err := checkUnchanged(ctx, m.Input, m.Settings, source); err != nil {
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

	if mayHaveLines {
		if text := describeReplicas(ctx, s.link.JS, m.Run, s.link.Limits.Replicas); text != "" {
			s.hooks.printf("%s", text)
		}

		if taken, err := s.awaitCollector(ctx, m.Run); err != nil || taken {
			return err
		}
	}

	if s.earlier != nil {
		return nil // the caller has lines of the run, and publishes the requests that have none
	}

	return s.publishShards(ctx, m.Run)
}

// errOthersPublish ends publishing when the bus is full and the run's collector, which has the
// input, publishes the rest.
var errOthersPublish = errors.New("the run's collector publishes the rest")

// errPublished ends the watch for a collector when all is published.
var errPublished = errors.New("published")

// publishShards publishes the shards of the run: all, or until the bus is full and a collector
// publishes the rest.
func (s *submission) publishShards(ctx context.Context, run string) error {
	p, err := producer.New(producer.Config{
		JS:        s.link.JS,
		Run:       run,
		Files:     func(context.Context) ([]string, error) { return s.inputs, nil }, // whatever the manifest names
		Opener:    s.opener,
		Once:      true,
		Validated: true,
	})
	if err != nil {
		return err
	}

	group, publishing := errgroup.WithContext(ctx)
	group.Go(func() error { return cmp.Or(p.Run(publishing), errPublished) })
	group.Go(func() error {
		for bus.Sleep(publishing, 200*time.Millisecond) == nil {
			if !p.Stats().Full.Load() {
				continue
			}

			if _, ok, err := s.Leases.Holder(publishing, run); err == nil && ok {
				return errOthersPublish
			}
		}

		return nil
	})

	if err := group.Wait(); !errors.Is(err, errPublished) && !errors.Is(err, errOthersPublish) {
		return err
	}

	return nil
}

// collectorTime is the time that the collector of a run that is submitted again has to read its
// journal before all of the input is published.
const collectorTime = 5 * time.Second

// awaitCollector waits until a run is collected, and reports whether the collector publishes it:
// requests that have their line already are not to be run again.
func (s *submission) awaitCollector(ctx context.Context, run string) (taken bool, err error) {
	waiting, stop := context.WithTimeout(ctx, collectorTime)
	defer stop()

	for looks := 0; ; looks++ {
		_, there, err := s.Leases.Holder(waiting, run)
		if err == nil && there || s.hasEnded(waiting, run) || bus.Sleep(waiting, 100*time.Millisecond) != nil {
			break
		}

		if looks == 10 {
			s.hooks.printf("waiting up to %s for a process that collects run %s: it may have answers of an earlier start",
				collectorTime, run)
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

// hasEnded reports whether a run has ended: its collector had all of its files.
func (s *submission) hasEnded(ctx context.Context, run string) bool {
	m, err := s.Runs.Get(ctx, run)
	return err == nil && m.State.Ended()
}

// storeInput puts an input file into the run's object store, packed if it is text that is not packed.
// Parquet is packed inside, and is read in parts.
func (s *submission) storeInput(ctx context.Context, m proto.Manifest, source producer.Source, index int) error {
	object := proto.InputObject(index)
	file, err := source.Open(ctx, index)
	if err != nil {
		return fmt.Errorf("read the input: %w", err)
	}
	defer file.Close()

	compression, err := jsonl.CompressionOf(file)
	if err != nil {
		return fmt.Errorf("read the input: %w", err)
	}

	objects := s.Objects(m.Run)
	if compression != "" || m.Input.Files[index].Format == proto.FormatParquet {
		return objects.PutReader(ctx, object, file)
	}

	r, w := io.Pipe()
	var group errgroup.Group
	group.Go(func() error {
		enc, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		if err == nil {
			if _, err = io.Copy(enc, file); err == nil {
				err = enc.Close()
			}
		}
		return w.CloseWithError(err)
	})

	err = objects.PutReader(ctx, object, r)
	r.Close() // ends the writer, should it not be done
	group.Wait()

	return err
}

// AwaitEnd follows a run until it has ended, and returns its last manifest. The end of ctx ends the
// wait: the error wraps [ErrInterrupted]. So does a limit that stops the run: the error is a
// [LimitError].
func AwaitEnd(ctx context.Context, l *busconn.Connection, m proto.Manifest, hooks Hooks) (proto.Manifest, error) {
	b, err := bus.Open(ctx, l.JS)
	if ctx.Err() != nil {
		return m, stoppedWaiting(ctx, m.Run)
	}

	if err != nil {
		return m, err
	}

	var last atomic.Pointer[proto.Manifest]
	last.Store(&m)
	stop := hooks.startProgress(&progress.Source{Run: m, JS: l.JS, Counts: func() collector.Progress {
		c := last.Load().Counts
		return collector.Progress{Total: m.Input.Requests, Received: c, Found: m.Counts, Durable: c.Done}
	}})
	defer stop()

	watchCtx, endWatch := context.WithCancel(ctx)
	defer endWatch()

	var counted *time.Timer
	problem := ""
	for now, err := range b.Runs.Watch(watchCtx, m.Run) {
		switch {
		case ctx.Err() != nil:
			return *last.Load(), stoppedWaiting(ctx, m.Run)
		case watchCtx.Err() != nil:
			return *last.Load(), describeStopOnBus(*last.Load())
		case err != nil:
			return *last.Load(), err
		}

		stopped := now.State == proto.StatePaused && now.StoppedBy != nil
		if counted != nil && !stopped && !counted.Stop() {
			break // the stop is reported, though the run has been resumed just now
		}

		last.Store(&now)
		if now.State.Ended() {
			return now, nil
		}

		switch {
		case !stopped:
			counted = nil
		case now.StoppedBy.IsCounted(now.Counts):
			return now, describeStopOnBus(now)
		case counted == nil: // its collector writes the counts of the stop next
			counted = time.AfterFunc(stopSyncTime, endWatch)
			defer counted.Stop()
		}

		if text := now.Problem; text != "" && text != problem {
			hooks.printf("run %s is not collected: %s; its collector tries again", now.Run, text)
		}

		problem = now.Problem
	}

	if counted != nil && ctx.Err() == nil {
		return *last.Load(), describeStopOnBus(*last.Load())
	}

	return *last.Load(), stoppedWaiting(ctx, m.Run)
}

// stopSyncTime is the limit for the wait until a collector has written the counts of a run that it
// has stopped. It syncs every second.
const stopSyncTime = 5 * time.Second

// describeStopOnBus returns the error of a run that a limit has stopped, with the counts that the bus
// has.
func describeStopOnBus(m proto.Manifest) error {
	stop := stoppedByLimit(*m.StoppedBy)
	stop.addCounts(m.Counts, m.Input.Requests, m.Failures)

	return describeStop(m.Run, stop, "")
}

// stoppedWaiting returns the error of a wait for the end of a run that ctx has ended.
func stoppedWaiting(ctx context.Context, run string) error {
	return interrupted(ctx, "not waiting any longer; the run continues", "promptmill status "+run)
}
