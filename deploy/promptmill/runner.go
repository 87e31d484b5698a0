package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker"
)

// runner does what the run command does.
type runner struct {
	options runOptions
	env     environment
	screen  *screen

	journal *collector.Journal
	resumed bool
	server  *worker.Server
	models  []string // that the server serves; nil if it does not tell
	sim     *simServer
}

var (
	errInterrupted = errors.New("interrupted")
	errCompleted   = errors.New("completed")
)

// run runs, or resumes, or says that all is done. The metadata is nil unless the run
// is complete.
func (r *runner) run(ctx context.Context) (*collector.Meta, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go r.interrupt(ctx, stop)
	go limitMemory(ctx, r.env.getenv)

	if meta, err := r.already(ctx); meta != nil || err != nil {
		return meta, err
	}
	lock, err := lockState(r.options.stateDir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if r.options.inputs[0] == "-" {
		path, err := spool(ctx, r.env.stdin, r.options.stateDir)
		if err != nil {
			return nil, err
		}
		r.options.inputs = []string{path}
	}
	r.journal, err = collector.OpenJournal(r.options.output.Journal())
	switch {
	case err == nil:
		r.resumed = true
		err = r.resume(ctx)
	case errors.Is(err, os.ErrNotExist):
		err = r.begin(ctx)
	case errors.Is(err, proto.ErrFormat):
		err = withHint(err, "it is no journal of this version of promptmill: move it away, or choose another output with -o")
	}
	if r.journal != nil {
		defer r.journal.Close()
	}
	if r.sim != nil {
		defer r.sim.stop()
	}
	if err != nil {
		return nil, r.explain(ctx, err)
	}
	defer r.server.Close()
	if err := r.work(ctx); err != nil {
		return nil, r.explain(ctx, err)
	}
	if err := os.RemoveAll(r.options.stateDir); err != nil {
		r.options.log.Warn().Err(err).Msg("remove the state of the run")
	}
	meta, err := r.readMeta()
	if err != nil {
		return nil, err
	}
	r.summary(meta)
	return meta, failedError(meta)
}

// interrupt ends the run at the first signal, and the process at the second.
func (r *runner) interrupt(ctx context.Context, stop context.CancelCauseFunc) {
	select {
	case <-r.env.signals:
	case <-ctx.Done():
		return
	}
	r.screen.say("stopping: finishing what is in flight, at most %s; press Ctrl-C again to stop now. Nothing is lost either way", r.options.grace)
	stop(errInterrupted)
	<-r.env.signals
	r.env.exit(exitInterrupted)
}

// already finds out whether the output is complete, and whether it is this run's.
func (r *runner) already(ctx context.Context) (*collector.Meta, error) {
	out := r.options.output
	if exists(out.Journal()) {
		return nil, nil
	}
	if !exists(out.Meta()) {
		if exists(out.Results()) {
			return nil, withHint(fmt.Errorf("%s is there, and was not written by promptmill", out.Results()), "move it away, or choose another output with -o")
		}
		return nil, nil
	}
	meta, err := r.readMeta()
	if err != nil {
		return nil, withHint(err, "move it away, or choose another output with -o")
	}
	if r.options.inputs[0] != "-" {
		if err := r.same(ctx, meta.Manifest); err != nil {
			return nil, err
		}
	}
	r.screen.say("complete already: run %s of %s, %d answered, %d failed", meta.TestID, meta.Timestamp.Local().Format(time.DateTime), meta.Results.SuccessCount, meta.Results.FailureCount)
	r.files(meta)
	return meta, failedError(meta)
}

// same refuses to go on with another input or other settings than a run has.
func (r *runner) same(ctx context.Context, m proto.Manifest) error {
	o := r.options
	const mend = "give the same command as then, or choose another output with -o"
	if o.runID != "" && o.runID != m.Run {
		return &failure{exitError, fmt.Errorf("%s belongs to run %s, not to %s", o.output.Results(), m.Run, o.runID), mend}
	}
	want, has := o.settings, m.Settings
	if want.Model == "" {
		want.Model = has.Model // found on the server when the run began
	}
	for _, d := range []struct {
		name      string
		then, now any
		same      bool
	}{
		{"--sim", has.Simulated, want.Simulated, has.Simulated == want.Simulated},
		{"--model", has.Model, want.Model, has.Model == want.Model},
		{"--set", has.Set, want.Set, maps.Equal(has.Set, want.Set)},
		{"--skip-invalid", has.SkipInvalid, want.SkipInvalid, has.SkipInvalid == want.SkipInvalid},
	} {
		if !d.same {
			return &failure{exitError, fmt.Errorf("%s belongs to run %s, which had other settings: %s was %v and is %v now", o.output.Results(), m.Run, d.name, d.then, d.now), mend}
		}
	}
	return r.sameInput(ctx, m.Input, mend)
}

// sameInput compares the input files with what they were: by size and time, and by
// their contents where these differ.
func (r *runner) sameInput(ctx context.Context, in proto.Input, mend string) error {
	same := len(in.Files) == len(r.options.inputs)
	for i := 0; same && i < len(in.Files); i++ {
		info, err := os.Stat(r.options.inputs[i])
		if err != nil {
			return usage("", "input: %w", err)
		}
		f := in.Files[i]
		same = f.Path == r.options.inputs[i] && f.Bytes == info.Size() && f.ModTime.Equal(info.ModTime())
	}
	if same {
		return nil
	}
	sum, err := producer.Checksum(ctx, r.options.inputs)
	if err != nil {
		return err
	}
	if sum != in.SHA256 {
		return &failure{exitError, fmt.Errorf("%s was made from another input: its text had a SHA-256 that begins with %.12s, now it begins with %.12s", r.options.output.Results(), in.SHA256, sum), mend}
	}
	return nil
}

// resume goes on with the run of the journal.
func (r *runner) resume(ctx context.Context) error {
	state := r.journal.State()
	if err := r.same(ctx, state.Manifest); err != nil {
		return err
	}
	// The file may have been moved: its contents are the same.
	for i, path := range r.options.inputs {
		if i < len(state.Manifest.Input.Files) {
			state.Manifest.Input.Files[i].Path = path
		}
	}
	if state.Cut > 0 {
		r.screen.say("cut %d torn bytes off %s", state.Cut, r.options.output.Journal())
	}
	r.screen.say("resuming run %s: %d of %d requests have their line", state.Manifest.Run, state.Counts.Done, state.Manifest.Input.Requests)
	if err := r.connect(ctx, state.Manifest.Models()); err != nil {
		return err
	}
	return r.served(state.Manifest.Input)
}

// begin validates the input and makes the journal of a new run.
func (r *runner) begin(ctx context.Context) error {
	o := &r.options
	if o.sim && o.settings.Model == "" {
		o.settings.Model = "sim"
	} else if !o.sim {
		if err := r.connect(ctx, nil); err != nil {
			return err
		}
		if o.settings.Model == "" && len(r.models) == 1 {
			o.settings.Model = r.models[0]
		}
	}
	m := proto.Manifest{
		Schema: proto.ManifestSchema, Run: o.runID, State: proto.StateInProgress,
		CreatedAt: time.Now().UTC(), Settings: o.settings,
	}
	if m.Run == "" {
		m.Run = proto.NewRunID(m.CreatedAt)
	}
	var problems producer.Report
	var err error
	m.Input, problems, err = producer.Validate(ctx, o.inputs, o.settings, r.screen.validating)
	if errors.Is(err, producer.ErrEmpty) {
		return usage("", "%s: %w", strings.Join(o.inputs, ", "), err)
	}
	if err != nil {
		return err
	}
	if problems.Count > 0 && !o.settings.SkipInvalid {
		return r.refuse(problems, m.Input.Requests)
	}
	if o.sim {
		if err := r.connect(ctx, m.Models()); err != nil {
			return err
		}
	}
	if err := r.served(m.Input); err != nil {
		return err
	}
	if r.journal, err = collector.CreateJournal(o.output.Journal(), m); err != nil {
		return err
	}
	r.screen.say("run %s: %d requests, %d at once, answered by %s", m.Run, m.Input.Requests, o.concurrency, r.server.URL())
	return nil
}

// refuse lists the lines that cannot be sent.
func (r *runner) refuse(p producer.Report, requests int) error {
	for _, problem := range p.Problems {
		r.screen.say("%s", problem)
	}
	if p.Count > len(p.Problems) {
		r.screen.say("... and %d more", p.Count-len(p.Problems))
	}
	return usage("mend them, or give --skip-invalid to run the others and have these in the errors file",
		"%d of %d lines cannot be sent; nothing was sent", p.Count, requests)
}

// connect finds the model server, or starts the simulated one.
func (r *runner) connect(ctx context.Context, models []string) error {
	o := r.options
	if o.sim {
		cfg, err := simConfig(o.command, models)
		if err != nil {
			return err
		}
		if r.sim, err = startSim("127.0.0.1:0", cfg); err != nil {
			return err
		}
		o.url = r.sim.url
	}
	var err error
	if r.server, err = worker.NewServer(o.url, o.key); err != nil {
		return usage("", "--url: %w", err)
	}
	r.models, err = r.server.Models(ctx)
	if errors.Is(err, worker.ErrUnreachable) {
		return &failure{exitUnreachable, err, "start your model server, name it with --url, or try --sim"}
	}
	if err != nil { // a server that answers, but has no list: it may still serve
		r.options.log.Warn().Err(err).Msg("the model server does not say what it serves")
		r.models = nil
	}
	return nil
}

// served refuses requests for models that the server does not have: they would wait
// for ever.
func (r *runner) served(in proto.Input) error {
	if len(r.models) == 0 {
		return nil
	}
	for _, model := range slices.Sorted(maps.Keys(in.Models)) {
		if !slices.Contains(r.models, model) {
			return usage("start a server with that model, or change the requests",
				"%d requests name the model %q, but the server has %s", in.Models[model], model, strings.Join(r.models, ", "))
		}
	}
	return nil
}

// work runs all parts until the collector has written the output.
func (r *runner) work(ctx context.Context) error {
	o := r.options
	b, err := startBus(filepath.Join(o.stateDir, "nats"), o.log)
	if err != nil {
		return err
	}
	defer b.stop()
	m := r.journal.State().Manifest
	if err := r.prepare(ctx, b); err != nil {
		return err
	}
	log := o.log.With().Str("run", m.Run).Logger()
	host, err := os.Hostname()
	if err != nil {
		host = "worker"
	}
	p := producer.New(producer.Config{JS: b.js, Run: m.Run, Log: log})
	w := worker.New(worker.Config{
		JS: b.js, Run: m.Run, Models: m.Models(), Server: r.server, Limiter: worker.NewFixedLimit(o.concurrency),
		Name: host, Attempts: o.attempts, Timeout: o.timeout, Grace: o.grace, Log: log,
	})
	platform := "OpenAI-compatible server at " + r.server.URL()
	if o.sim {
		platform = "promptmill simulated server"
	}
	c := collector.New(collector.Config{
		JS: b.js, Journal: r.journal, Output: o.output, Limits: b.limits, Flush: o.flush, Format: o.format,
		Meta: collector.Origin{Platform: platform, Version: versionText(), Concurrency: o.concurrency}, Log: log,
	})
	var show sync.WaitGroup
	showing, hide := context.WithCancel(context.Background())
	show.Go(func() { r.screen.show(showing, m, w, c) })
	defer show.Wait()
	defer hide()

	// The worker ends first, then the collector, so that what is answered in the last
	// moment is still in the file.
	group, working := errgroup.WithContext(ctx)
	collecting, stopCollecting := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopCollecting(nil)
	var workers sync.WaitGroup
	workers.Add(1)
	group.Go(func() error { return b.watch(working) })
	group.Go(func() error { return p.Run(working) })
	group.Go(func() error {
		defer workers.Done()
		return w.Run(working)
	})
	group.Go(func() error {
		<-working.Done()
		workers.Wait()
		stopCollecting(context.Cause(working))
		return nil
	})
	group.Go(func() error {
		if err := c.Run(collecting); err != nil {
			return err
		}
		return errCompleted // ends the other parts
	})
	if err := group.Wait(); !errors.Is(err, errCompleted) {
		return err
	}
	return nil
}

// prepare puts the run on the bus, or what of it is not there (any more).
func (r *runner) prepare(ctx context.Context, b *bus) error {
	state := r.journal.State()
	m := state.Manifest
	runs, err := proto.OpenRuns(ctx, b.js)
	if err != nil {
		return err
	}
	_, err = runs.Get(ctx, m.Run)
	known := err == nil
	if err != nil && !errors.Is(err, proto.ErrNoRun) {
		return err
	}
	if known {
		// Nobody else can have a shard: the workers of before are gone.
		if err := proto.ResetConsumers(ctx, b.js, m); err != nil {
			return err
		}
		err = runs.Update(ctx, m.Run, func(now *proto.Manifest) error {
			now.State, now.Input.Files = proto.StateInProgress, m.Input.Files
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := proto.EnsureStreams(ctx, b.js, m, b.limits); err != nil || known {
		return err
	}
	if !r.resumed || state.Done.IsEmpty() {
		return runs.Create(ctx, m)
	}
	// The bus has lost its store. The files have the truth.
	missing := collector.Missing(state.Done, m.Input.Requests)
	r.screen.say("the bus's store is gone: publishing the %d requests that lack a line", missing.GetCardinality())
	m.Publish.Done = true
	if err := runs.Create(ctx, m); err != nil || missing.IsEmpty() {
		return err
	}
	return collector.StartRound(ctx, b.js, runs, m.Run, 0, missing)
}

// explain puts an error into words for the person who waits for the run.
func (r *runner) explain(ctx context.Context, err error) error {
	again := "run the same command again to go on; nothing is lost"
	done := ""
	if r.journal != nil {
		s := r.journal.State()
		done = fmt.Sprintf(": %d of %d requests have their line", s.Counts.Done, s.Manifest.Input.Requests)
	}
	switch {
	case errors.Is(context.Cause(ctx), errInterrupted):
		return &failure{exitInterrupted, fmt.Errorf("interrupted%s", done), again}
	case errors.Is(err, errBusStore):
		return &failure{exitUnreachable, fmt.Errorf("%w (%s)%s", err, r.options.stateDir, done), "free space on that disk, then " + again}
	case errors.Is(err, syscall.ENOSPC):
		return withHint(fmt.Errorf("%w%s", err, done), "free space on that disk, then "+again)
	case codeOf(err) != exitError || r.journal == nil:
		return err
	}
	return withHint(err, "mend it, then "+again)
}

func (r *runner) readMeta() (*collector.Meta, error) {
	data, err := os.ReadFile(r.options.output.Meta())
	if err != nil {
		return nil, fmt.Errorf("read metadata: %w", err)
	}
	var meta collector.Meta
	if err := json.Unmarshal(data, &meta); err != nil {
		return nil, fmt.Errorf("read metadata %s: %w", r.options.output.Meta(), err)
	}
	if meta.SchemaVersion != collector.MetaSchema || meta.Manifest.Schema != proto.ManifestSchema {
		return nil, fmt.Errorf("read metadata %s: %w", r.options.output.Meta(), proto.ErrFormat)
	}
	return &meta, nil
}

// failedError is the error of a run that is done but for failed requests.
func failedError(meta *collector.Meta) error {
	if meta.Results.FailureCount == 0 {
		return nil
	}
	return &failure{exitFailed, fmt.Errorf("%d of %d requests failed", meta.Results.FailureCount, meta.Test.NumRequests),
		"zstd -dc " + *meta.Test.ErrorFile + " shows why"}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
