package main

import (
	"bytes"
	"cmp"
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
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/jsonl"
	"github.com/promptmill/promptmill/worker"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// runner does what the run command does.
type runner struct {
	options runOptions
	env     environment
	screen  *terminal.Screen

	journal *journal.Journal
	resumed bool
	stdin   *stdinCopy // nil: the input is in files

	collecting atomic.Pointer[collector.Collector] // once it does
	untidy     bool                                // the bus has not heard of the end of the run
	models     *modelservers.Set                   // nil if only others work
	serves     modelserver.Info                    // what the server has
	unlisted   error                               // why it does not say what it has

	measured exporter
}

var errInterrupted = errors.New("interrupted")

// run runs, or resumes, or says that all is done. The metadata is nil unless the run
// is complete.
func (r *runner) run(ctx context.Context) (*metadata.Run, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)

	go interrupt(ctx, r.env, r.screen, stop,
		fmt.Sprintf("finishing what is in flight, at most %s", r.options.workers.Grace), r.safe)
	go r.screen.PrintStatusOnSignal(ctx, r.env.asked)
	go limitMemory(ctx, r.env.getenv)

	// What an earlier process did not come to remove. If it completed the run, the bus may
	// not have heard of that.
	left := files.Exists(r.options.stateDir)
	lock, err := statedir.Lock(r.options.state, r.options.stateDir)
	if errors.Is(err, statedir.ErrLocked) {
		return nil, exit.WithHint(fmt.Errorf("another promptmill is working on this output: %w", err),
			"wait for it, stop that process, or choose another output with -o")
	}
	if err != nil {
		return nil, err
	}

	defer lock.Close()
	defer r.forgetStart(left)

	fromStdin := r.options.inputs[0] == "-"
	if !fromStdin {
		if meta, err := r.already(ctx, left); meta != nil || err != nil {
			return meta, err
		}
	}

	unmeasure, err := startMetrics(r.options.metrics, &r.measured)
	if err != nil {
		return nil, err
	}
	defer unmeasure()

	if fromStdin {
		if r.stdin, err = copyStdin(ctx, r.env.stdin, r.options.stateDir); err != nil {
			return nil, r.explain(ctx, err)
		}
		defer r.stdin.discard()

		r.options.inputs = []string{r.stdin.path}
		if meta, err := r.already(ctx, left); meta != nil || err != nil {
			return meta, err
		}
	}

	r.journal, err = journal.Open(r.options.output.Journal())
	switch {
	case err == nil:
		r.resumed = true
		err = r.resume(ctx)
	case errors.Is(err, os.ErrNotExist):
		err = r.begin(ctx)
	case errors.Is(err, atomicfile.ErrIrregular), errors.Is(err, atomicfile.ErrForeignLink):
		err = checkOutput(r.options.output)
	case errors.Is(err, atomicfile.ErrLocked):
		err = unwritable(err)
	case errors.Is(err, proto.ErrFormat):
		err = exit.WithHint(err,
			"it is no journal of this version of promptmill: move it away, or choose another output with -o")
	}

	if r.journal != nil {
		defer r.journal.Close()
	}
	if r.models != nil {
		defer r.models.Close()
	}

	if err != nil {
		return nil, r.explain(ctx, err)
	}

	if err := r.work(ctx); err != nil {
		_, refused := errors.AsType[*worker.RefusedError](err)
		switch {
		case errors.Is(err, errOtherRun) && !r.resumed:
			err = errors.Join(err, r.journal.Remove()) // it was made for a run that does not begin
		case refused && !r.resumed && r.journal.State().Counts.Done == 0:
			r.forget()
		}
		return nil, r.explain(ctx, err)
	}

	meta, err := readMeta(r.options.output)
	if err != nil {
		return nil, err
	}

	r.finish()
	printSummary(r.screen, meta, r.options.output, r.options.args)

	return meta, failedError(meta)
}

// finish removes the state of a complete run. It is the last step: while the folder is
// there, the same command looks for what is left to do.
func (r *runner) finish() {
	if r.untidy {
		return
	}
	if err := os.RemoveAll(r.options.stateDir); err != nil {
		r.options.log.Warn().Err(err).Msg("failed to remove the state of the complete run; it can be deleted")
	}
}

// forgetStart removes what a start without a journal has left in the state folder: standard
// input, and the folder itself, but not the log of a model server that did not start.
// left says that the folder was there before.
func (r *runner) forgetStart(left bool) {
	if r.untidy || (left || r.journal != nil) && files.Exists(r.options.output.Journal()) {
		return
	}
	os.Remove(filepath.Join(r.options.stateDir, spoolFile))
	statedir.RemoveEmpty(r.options.stateDir)
}

// already finds out whether the output is complete, and whether it is this run's. left
// says that the process that completed it may have died before it had tidied up.
func (r *runner) already(ctx context.Context, left bool) (*metadata.Run, error) {
	out := r.options.output
	if files.Exists(out.Journal()) {
		return nil, nil
	}

	if !files.Exists(out.Meta()) {
		return nil, foreign(out)
	}

	meta, err := readMeta(out)
	if err != nil {
		return nil, exit.WithHint(err, metaHint(err))
	}

	if err := r.same(ctx, *meta.Manifest); err != nil {
		return nil, err
	}

	if err := checkWritten(out, meta); err != nil {
		return nil, err
	}

	r.settle(ctx, meta, left)
	if r.options.retry && meta.Results.FailureCount > 0 {
		return nil, r.reopen(meta)
	}

	r.finish()
	if !files.Exists(out.ReportHTML()) {
		r.options.reports.write(meta, out, r.options.log)
	}

	r.screen.Printf("complete already: run %s of %s, %d answered, %d failed",
		meta.TestID, meta.Timestamp.Local().Format(time.DateTime), meta.Results.SuccessCount, meta.Results.FailureCount)
	printCauses(r.screen, meta, r.options.output.Errors())
	printFiles(r.screen, meta, r.options.output, r.options.args)

	return meta, failedError(meta)
}

// foreign refuses an output of which a file is there that no run of ours has described.
func foreign(out output.Prefix) error {
	for _, path := range []string{out.Results(), out.Errors(), out.ReportMarkdown(), out.ReportHTML()} {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}

		if !info.Mode().IsRegular() {
			return checkOutput(out)
		}

		return exit.WithHint(fmt.Errorf("%s is there, and was not written by promptmill, or its metadata is gone",
			path),
			"move it away, or choose another output with -o")
	}

	return nil
}

// checkWritten refuses a complete output whose files are not those of its metadata: nobody
// may take them for its answers.
func checkWritten(out output.Prefix, meta *metadata.Run) error {
	err := out.CheckFiles(meta)
	if errors.Is(err, output.ErrModified) {
		return exit.WithHint(fmt.Errorf("run %s is complete, but %w", meta.TestID, err),
			"put the file back, or remove "+files.Short(out.Meta())+
				" and what is left of the output to run all of it again")
	}

	return err
}

// settle does what the process that completed the run did not come to: it tells the bus
// of the end, and removes temporary files and the state. What fails is a warning.
func (r *runner) settle(ctx context.Context, meta *metadata.Run, left bool) {
	if err := r.options.output.RemoveStale(); err != nil {
		r.options.log.Warn().Err(err).Msg("failed to remove temporary files")
	}

	if !left {
		return
	}

	if r.options.connection.External() {
		if err := r.settleBus(ctx, meta); err != nil {
			r.untidy = true
			r.options.log.Warn().Err(err).
				Msg("failed to note the end of the run on the bus; the same command tries it again")
		}
	}

	// A bus of before has the answers of before, those that failed among them.
	if err := statedir.Clear(r.options.stateDir, r.options.inputs); err != nil {
		r.options.log.Warn().Err(err).Msg("failed to remove the state of the complete run; it can be deleted")
	}
}

// settleBus notes the end of a complete run on a bus that is not ours.
func (r *runner) settleBus(ctx context.Context, meta *metadata.Run) error {
	l, err := busconn.Connect(r.options.connection, proto.RoleCollector, r.options.log)
	if err != nil {
		return err
	}
	defer l.Close()

	b, err := bus.Open(ctx, l.JS)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil
	}
	if err != nil {
		return err
	}

	runs := b.Runs

	m, err := runs.Get(ctx, meta.TestID)
	switch {
	case errors.Is(err, proto.ErrNoRun):
	case err != nil:
		return err
	case m.CreatedAt.Equal(meta.Manifest.CreatedAt) && m.Retries == meta.Manifest.Retries:
		// else another run has the name
		if err := settleRun(ctx, l, runs, meta); err != nil {
			return err
		}
	}

	return sweep(ctx, l, runs, time.Now(), r.screen)
}

// reopen makes a journal of a complete output whose failed requests are to be run
// again.
func (r *runner) reopen(meta *metadata.Run) error {
	if err := checkOutput(r.options.output); err != nil {
		return err
	}

	if meta.Config.Plain {
		return exit.WithHint(fmt.Errorf("%s: %w", r.options.output.Results(), journal.ErrPlain),
			"run the failed lines of the input again, with another output")
	}

	m := *meta.Manifest
	m.State, m.EndedAt, m.Policy.ExpiresAt, m.Publish = proto.StateInProgress, nil, r.options.terms.ExpiresAt,
		proto.PublishState{}
	m.Retries++

	j, err := journal.CreateFromOutput(r.options.output, meta, m, journal.Position{})
	if err != nil {
		return err
	}

	r.screen.Printf("running the %d failed requests again", meta.Results.FailureCount)

	return j.Close()
}

// same refuses to go on with another input or other settings than a run has.
func (r *runner) same(ctx context.Context, m proto.Manifest) error {
	o := r.options
	const mend = "give the same command as then, or choose another output with -o"
	if o.runID != "" && o.runID != m.Run {
		return exit.WithHint(fmt.Errorf("%s belongs to run %s, not to %s", o.output.Results(), m.Run, o.runID), mend)
	}

	want, has := o.settings, m.Settings
	if want.Model == "" {
		want.Model = has.Model // found on the server when the run began
	}

	if text := changed(has, want); text != "" {
		return exit.WithHint(fmt.Errorf("%s belongs to run %s, %s", o.output.Results(), m.Run, text), mend)
	}

	if want.ShardSize != has.ShardSize || want.GroupByPrefix != has.GroupByPrefix {
		r.screen.Printf("the run was begun with --shard-size %d --group-by-prefix=%t, and keeps them",
			has.ShardSize, has.GroupByPrefix)
	}

	return r.sameInput(ctx, m.Input, mend)
}

// changed says which setting of those that change the results was another, or nothing.
func changed(then, now proto.Settings) string {
	for _, d := range []struct {
		name      string
		then, now any
		same      bool
	}{
		{"--sim", then.Simulated, now.Simulated, then.Simulated == now.Simulated},
		{"--model", then.Model, now.Model, then.Model == now.Model},
		{"--override-model", cmp.Or(then.OverrideModel, "none"), cmp.Or(now.OverrideModel, "none"),
			then.OverrideModel == now.OverrideModel},
		{"--set", then.Set, now.Set, maps.Equal(then.Set, now.Set)},
		{"--skip-invalid", then.SkipInvalid, now.SkipInvalid, then.SkipInvalid == now.SkipInvalid},
		{"--retry-truncated", then.RetryTruncated, now.RetryTruncated, then.RetryTruncated == now.RetryTruncated},
		{"--schema", schemaText(then.Schema), schemaText(now.Schema),
			schemaText(then.Schema) == schemaText(now.Schema)},
	} {
		if !d.same {
			return fmt.Sprintf("which had other settings: %s was %v and is %v now", d.name, d.then, d.now)
		}
	}

	return ""
}

// otherInput says that an input is not the one of then.
func otherInput(then, now string) string {
	return fmt.Sprintf("made from another input: its text had a SHA-256 that begins with %.12s, now it begins with %.12s",
		then, now)
}

// schemaText is the schema of a run, or "none". The metadata has it with line breaks.
func schemaText(schema json.RawMessage) string {
	var compact bytes.Buffer
	if len(schema) == 0 || json.Compact(&compact, schema) != nil {
		return "none"
	}
	return compact.String()
}

// sameInput compares the input files with what they were: by their contents, unless they
// are the very files of then and nobody has touched them.
func (r *runner) sameInput(ctx context.Context, in proto.Input, mend string) error {
	same := len(in.Files) == len(r.options.inputs)
	for i := 0; same && i < len(in.Files); i++ {
		info, err := os.Stat(r.options.inputs[i])
		if err != nil {
			return exit.Usage("", "input: %w", err)
		}
		same = in.Files[i].Path == r.options.inputs[i] && producer.IsUnchanged(in.Files[i], info)
	}

	if same {
		return nil
	}

	sum, err := producer.Checksum(ctx, r.options.inputs)
	if err != nil {
		return err
	}

	if sum != in.SHA256 {
		return exit.WithHint(fmt.Errorf("%s was %s", r.options.output.Results(), otherInput(in.SHA256, sum)), mend)
	}

	return nil
}

// resume goes on with the run of the journal.
func (r *runner) resume(ctx context.Context) error {
	state := r.journal.State()
	if err := r.same(ctx, state.Manifest); err != nil {
		return err
	}

	if err := r.keepStdin(); err != nil {
		return err
	}

	if err := checkOutput(r.options.output); err != nil {
		return err
	}

	if err := claimOutput(r.journal, r.options.output); err != nil {
		return err
	}

	// The file may have been moved: its contents are the same.
	for i, path := range r.options.inputs {
		if i < len(state.Manifest.Input.Files) {
			state.Manifest.Input.Files[i].Path = path
		}
	}

	if state.CutBytes > 0 {
		r.screen.Printf("cut %d torn bytes off %s", state.CutBytes, r.options.output.Journal())
	}

	r.screen.Printf("resuming run %s: %d of %d requests have their line",
		state.Manifest.Run, state.Counts.Done, state.Manifest.Input.Requests)

	if err := r.connect(ctx, state.Manifest.Models()); err != nil {
		return err
	}

	return r.served(state.Manifest.Input)
}

// begin validates the input and makes the journal of a new run.
func (r *runner) begin(ctx context.Context) error {
	if err := r.keepStdin(); err != nil {
		return err
	}

	o := &r.options
	if err := checkOutput(o.output); err != nil {
		return err
	}

	named := o.settings.Model != "" || o.settings.OverrideModel != ""
	if o.servers.Sim != nil && !named {
		o.settings.Model = "sim"
	} else if o.servers.Sim == nil {
		if err := r.connect(ctx, nil); err != nil {
			return err
		}
		if !named {
			o.settings.Model = r.serves.DefaultModel()
		}
	}

	m := proto.Manifest{
		Schema:    proto.ManifestSchema,
		Run:       o.runID,
		State:     proto.StateInProgress,
		CreatedAt: time.Now().UTC(),
		Settings:  o.settings,
		Policy:    o.terms,
	}
	if m.Run == "" {
		m.Run = proto.NewRunID(m.CreatedAt)
	}

	var problems producer.Report
	var err error
	m.Input, problems, err = producer.Validate(ctx, o.inputs, o.settings, progress.ShowValidation(r.screen))
	if err != nil {
		return unreadable(err, o.inputs)
	}

	if problems.Count > 0 && !o.settings.SkipInvalid {
		if errors.Is(r.unlisted, modelserver.ErrKeyRequired) && lackOnlyModels(problems) {
			return exit.Unreachable(r.unlisted,
				"set PROMPTMILL_API_KEY to a key that the server takes, or name a model with --model")
		}
		return refuse(r.screen, problems, m.Input.Requests, r.serves.ModelNames())
	}

	if o.servers.Sim != nil {
		if err := r.connect(ctx, m.Models()); err != nil {
			return err
		}
	}

	if err := r.served(m.Input); err != nil {
		return err
	}

	if r.journal, err = createJournal(o.output, m); err != nil {
		if exit.IsError(err) {
			return err
		}
		return exit.WithHint(err, "choose another output with -o")
	}

	if files.Exists(o.output.Meta()) || foreign(o.output) != nil {
		// Another process, with another state folder, began and completed it meanwhile.
		return exit.WithHint(errors.Join(fmt.Errorf("another promptmill has just written %s", o.output.Results()),
			r.journal.Remove()),
			"run the same command again to see what it is, or choose another output with -o")
	}

	if r.models == nil {
		r.screen.Printf("run %s: %d requests; no model server here, waiting for workers", m.Run, m.Input.Requests)
	} else {
		r.screen.Printf("run %s: %d requests for %s, %s", m.Run, m.Input.Requests, r.platform(), o.workers)
	}

	return nil
}

// unreadable gives an error of reading the input its exit code.
func unreadable(err error, inputs []string) error {
	switch {
	case errors.Is(err, producer.ErrEmpty):
		return exit.Usage("", "%s: %w", strings.Join(inputs, ", "), err)
	case errors.Is(err, jsonl.ErrDamaged):
		return exit.Usage("", "%w", err)
	}
	return err
}

// lacksModel reports whether a line cannot be sent since it names no model.
func lacksModel(p producer.Problem) bool { return p.Reason == producer.ErrNoModel.Error() }

// lackOnlyModels reports whether nothing else is known to be wrong with the lines. A server that
// wants a key before it says what it has leaves them all so.
func lackOnlyModels(p producer.Report) bool {
	return !slices.ContainsFunc(p.Problems, func(p producer.Problem) bool { return !lacksModel(p) })
}

// refuse lists the lines that cannot be sent.
func refuse(screen *terminal.Screen, p producer.Report, requests int, served []string) error {
	for _, problem := range p.Problems {
		screen.Printf("%s", problem)
	}

	if p.Count > len(p.Problems) {
		screen.Printf("... and %d more", p.Count-len(p.Problems))
	}

	if p.Count == producer.MaxBad {
		screen.Printf("... and no further line was read")
	}

	hint := "fix them, or give --skip-invalid to run the others and have these in the errors file"
	if len(served) > 0 && slices.ContainsFunc(p.Problems, lacksModel) {
		hint = "name one with --model; there are " + strings.Join(served, ", ")
	}

	return exit.Usage(hint,
		"%d of %d lines cannot be sent; nothing was sent", p.Count, requests)
}

// connect finds the model server, or starts one.
func (r *runner) connect(ctx context.Context, simulated []string) (err error) {
	o := r.options
	if o.connection.CollectsOnly() {
		return nil // others work
	}

	cfg := o.servers
	if cfg.Sim != nil {
		server := *cfg.Sim
		server.Models, cfg.Sim = simulated, &server
	}

	r.models, err = modelservers.Open(ctx, cfg)
	if errors.Is(err, modelservers.ErrNone) && o.shared {
		return nil // others work
	}
	if err != nil {
		return err
	}

	if found := r.models.Servers; len(found) > 1 && len(cfg.URLs) == 0 {
		r.screen.Printf("found %d model servers, using %s; --url names another, or several", len(found), found[0].URL())
		r.models.KeepFirst()
	}

	if r.models.Process != nil {
		r.screen.Printf("starting the model server of --exec, and waiting for it at %s; --url names another place",
			r.models.Servers[0].URL())
	}

	info, err := r.models.AwaitReady(ctx, showLoading(r.screen))
	if errors.Is(err, modelserver.ErrUnreachable) {
		return exit.Unreachable(err, "start your model server, name it with --url, or try --sim")
	}
	if exit.Code(err) == exit.CodeUnreachable || ctx.Err() != nil {
		return err
	}
	if err != nil { // a server that answers, but has no list: it may still serve
		o.log.Warn().Err(err).Msg("the model server does not say what it serves")
		r.unlisted = err
	}

	r.serves = info

	return nil
}

// platform is the model servers in words.
func (r *runner) platform() string {
	if r.models == nil {
		return "OpenAI-compatible servers"
	}
	return r.models.String()
}

// served refuses requests for models that the server does not have: they would wait
// for ever.
func (r *runner) served(in proto.Input) error {
	names := r.serves.ModelNames()
	if r.options.shared {
		return nil
	}

	has := "server has"
	if r.models != nil && len(r.models.Servers) > 1 {
		has = "servers that answer have"
	}

	for _, model := range slices.Sorted(maps.Keys(in.Models)) {
		if !proto.Serves(names, model) {
			return exit.Usage(otherModel(model, names)+
				"start a server with that model, or send all requests to another with --override-model NAME",
				"%d requests name the model %q, but the %s %s",
				in.Models[model], model, has, cmp.Or(strings.Join(names, ", "), "none"))
		}
	}

	return nil
}

// otherModel asks whether a model that is served was meant, which has the same name but
// for its case, or what stands before it.
func otherModel(model string, served []string) string {
	base := func(name string) string { return strings.ToLower(name[strings.LastIndex(name, "/")+1:]) }
	for _, name := range served {
		if base(name) == base(model) {
			return fmt.Sprintf("did you mean %s? Else ", name)
		}
	}
	return ""
}

// work runs all parts until the collector has written the output.
func (r *runner) work(ctx context.Context) error {
	o := r.options
	var own *natsserver.Server // the embedded one, if there is
	var l *busconn.Connection
	var err error
	noteUnusedURL(r.env, o.connection, r.screen)
	if o.connection.External() {
		l, err = busconn.Connect(o.connection, proto.RoleCollector, o.log)
		if err != nil {
			return err
		}
		defer l.Close()
		r.screen.Printf("using the bus at %s", l.Name)
	} else {
		if own, err = natsserver.Start(natsserver.Config{
			State:  o.state,
			Dir:    o.stateDir,
			Listen: o.listen,
			Log:    o.log,
		}); err != nil {
			return err
		}
		defer own.Stop()

		l = own.Connection
	}

	if err := makeBuckets(ctx, l, o.log); err != nil {
		return err
	}

	if err := r.prepare(ctx, l, own != nil && !o.shared); err != nil {
		return err
	}

	if own != nil && o.shared {
		r.screen.Printf("to add a box, run this there:\n  promptmill worker --join %s",
			own.JoinString(proto.RoleWorker))
	}

	m := r.journal.State().Manifest
	log := o.log.With().Str("run", m.Run).Logger()
	files := func(context.Context) ([]string, error) { return o.inputs, nil } // whatever the manifest on the bus names
	parts := crew{
		producer: producer.New(producer.Config{
			JS:        l.JS,
			Run:       m.Run,
			Files:     files,
			Validated: !r.resumed,
			Log:       log,
		}),
		models: m.Models(),
		log:    log,
	}
	if own != nil {
		parts.also = append(parts.also, own.Watch)
	}

	view := &progress.Source{Run: m, JS: l.JS}
	if r.models != nil {
		if err := r.hire(&parts, view, l, log); err != nil {
			return err
		}
	}

	parts.collector = collector.New(collector.Config{
		JS:      l.JS,
		Journal: r.journal,
		Output:  o.output,
		Host:    hostName(),
		Limits:  l.Limits,
		Flush:   o.flush,
		Format:  o.format,
		Written: func() { o.reports.writeOf(o.output, o.log) },
		Input:   runInput{m, func() ([]string, error) { return o.inputs, nil }},
		Meta: collector.Origin{
			Platform:    r.platform(),
			Version:     versionText(),
			Concurrency: o.workers.Concurrency,
		},
		Log: log,
	})

	r.collecting.Store(parts.collector)
	defer r.measured.addRun(namedRun{m.Run, parts.producer, parts.collector})()

	view.Counts = parts.collector.Progress
	showing, hide := context.WithCancel(context.Background())
	var show sync.WaitGroup
	show.Go(func() { progress.Show(showing, r.screen, view) })
	defer show.Wait()
	defer hide()

	if err := parts.run(ctx); err != nil {
		return err
	}

	if own != nil {
		own.AwaitReaders(10 * time.Second)
		return nil
	}

	// The output is whole: the bus can do no more to it.
	tidying, stop := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
	defer stop()

	if err := tidy(tidying, l, r.screen); err != nil {
		r.options.log.Warn().Err(err).Msg("failed to delete runs whose time on the bus is over")
	}

	return nil
}

// hire adds a worker for each model server.
func (r *runner) hire(parts *crew, view *progress.Source, l *busconn.Connection, log zerolog.Logger) error {
	o, samples, loading := r.options, r.samples(), showLoading(r.screen)
	for i, server := range r.models.Servers {
		cfg := o.workers.workerConfig(l.JS, r.models, server, o.state, log)
		cfg.Name = workerName(cfg.Name, i, len(r.models.Servers))
		cfg.Run, cfg.StopRefused, cfg.Samples = view.Run.Run, !o.shared, samples

		w, err := worker.New(cfg)
		if err != nil {
			return err
		}

		named := progress.LocalWorker{Name: cfg.Name, Limiter: cfg.Limiter, Worker: w}
		parts.workers = append(parts.workers, w)
		parts.also = append(parts.also, func(ctx context.Context) error {
			return r.models.Watch(ctx, w, server, loading)
		})

		view.Workers = append(view.Workers, named)
		r.measured.addWorker(named)
	}

	return nil
}

// forgetOthers takes from the bus what a process has left there for itself that was killed:
// shards that are out, and its claim on the run, which names the output as it was called then,
// on a host that may have another name now.
func forgetOthers(ctx context.Context, l *busconn.Connection, m proto.Manifest) error {
	if err := bus.ResetConsumers(ctx, l.JS, m); err != nil {
		return err
	}

	return bus.New(l.JS).Leases.Release(ctx, m.Run)
}

// prepare puts the run on the bus, or what of it is not there (any more). alone says
// that nobody else can have been working for it.
func (r *runner) prepare(ctx context.Context, l *busconn.Connection, alone bool) error {
	state := r.journal.State()
	m := state.Manifest

	b, err := bus.Open(ctx, l.JS)
	if err != nil {
		return err
	}

	runs := b.Runs

	now, err := runs.Get(ctx, m.Run)
	known := err == nil
	if err != nil && !errors.Is(err, proto.ErrNoRun) {
		return err
	}

	if known {
		if err := r.sameRun(now, m); err != nil {
			return err
		}

		if alone {
			if err := forgetOthers(ctx, l, m); err != nil {
				return err
			}
		}

		err = runs.Update(ctx, m.Run, func(now *proto.Manifest) error {
			now.Input.Files = m.Input.Files
			if now.State != proto.StatePaused && now.State != proto.StateCancelling {
				now.State = proto.StateInProgress
			}
			return nil
		})
		if err != nil {
			return err
		}

		if now.State == proto.StatePaused {
			r.screen.Printf("the run is paused: promptmill resume %s", m.Run)
		}
	}

	if err := bus.EnsureStreams(ctx, l.JS, m, l.Limits); err != nil {
		return err
	}

	if known {
		if n := countResults(ctx, l.JS, m, state); n > 0 {
			r.screen.Printf("%d more are on the bus, with their results", n)
		}
		return nil
	}

	if !r.resumed || state.Done.IsEmpty() {
		return runs.Create(ctx, m)
	}

	// The bus does not know of the run: it has lost its store, or the run had ended and
	// its failed requests are run again. The files have the truth.
	missing := state.Missing()
	if m.Retries == 0 {
		r.screen.Printf("the bus's store is gone: publishing the %d requests that lack a line",
			missing.GetCardinality())
	}

	m.Publish.Done = true
	if err := runs.Create(ctx, m); err != nil || missing.IsEmpty() {
		return err
	}

	return collector.StartRound(ctx, l.JS, runs, m.Run, 0, missing)
}

// errOtherRun is returned when the bus has another run of the id.
var errOtherRun = errors.New("the id is in use")

// sameRun refuses to take another run on the bus for the one of the journal, whose id it
// has. A journal that was just made begins a run, so one that has ended is another, too:
// its failed requests would count as tried.
func (r *runner) sameRun(there, m proto.Manifest) error {
	text := difference(there, m)
	if text == "" && !r.resumed && there.State.Ended() {
		text = fmt.Sprintf("which is %s", there.State)
	}

	if text == "" {
		return nil
	}

	fix := "take that one off the bus first: promptmill delete " + m.Run
	if !there.State.Ended() {
		fix += " --force"
	}
	if !r.options.connection.External() {
		fix = "remove " + r.options.stateDir + " to begin again"
	}
	if !r.resumed { // else the journal has the id
		fix = "choose another --run, or " + fix
	}

	return exit.WithHint(fmt.Errorf("%w: the bus has a run %s already, %s", errOtherRun, m.Run, text), fix)
}

// keepStdin makes the copy of standard input that of the run.
func (r *runner) keepStdin() error {
	if r.stdin == nil {
		return nil
	}

	if err := r.stdin.keep(); err != nil {
		return err
	}

	r.options.inputs = []string{r.stdin.path}

	return nil
}

// samples are a few requests that have their line, most of them answered: with these the
// worker tells a server that refuses all requests from one that refuses those left.
func (r *runner) samples() (list []proto.Request) {
	const enough = 3
	done := r.journal.State().Done
	if done.IsEmpty() {
		return nil
	}

	in, err := producer.NewReader(r.options.inputs, r.journal.State().Manifest.Settings, nil)
	if err != nil {
		return nil // the producer is going to say so
	}
	defer in.Close()

	for len(list) < min(enough, int(done.GetCardinality())) {
		item, err := in.Next()
		if err != nil {
			return list
		}

		if item.Err == nil && done.Contains(item.Index) {
			list = append(list, proto.Request{
				Index: item.Index,
				URL:   strings.Clone(item.URL),
				Body:  bytes.Clone(item.Body),
			})
		}
	}

	return list
}

// forget removes what a run has left that has no line, so that another input or other
// settings can have its output.
func (r *runner) forget() {
	err := errors.Join(r.journal.Remove(), os.RemoveAll(r.options.stateDir))
	if err != nil {
		r.options.log.Warn().Err(err).Msg("failed to remove what the run has left; it goes on from there")
	}
}

// explain puts an error into words for the person who waits for the run.
func (r *runner) explain(ctx context.Context, err error) error {
	again := "run the same command again to go on; nothing is lost"
	done := ""
	if r.journal != nil {
		s := r.journal.State()
		done = fmt.Sprintf(": %d of %d requests have their line", s.Counts.Done, s.Manifest.Input.Requests)
	}

	refused, _ := errors.AsType[*worker.RefusedError](err)
	switch {
	case errors.Is(context.Cause(ctx), errInterrupted):
		return exit.Interrupted(fmt.Errorf("interrupted%s", done), again)
	case errors.Is(err, errOtherRun):
		return err
	case errors.Is(err, proto.ErrInputChanged):
		return exit.WithHint(fmt.Errorf("%w%s; nothing final was written", err, done),
			"put the input back as it was and run the same command again: answers to other lines are found and run again. Or choose another output with -o")
	case refused != nil:
		if !files.Exists(r.options.output.Journal()) {
			return exit.Unreachable(fmt.Errorf("%w; no request was run", refused),
				refused.Fix()+", then run the same command again")
		}
		return exit.Unreachable(fmt.Errorf("%w%s", refused, done), refused.Fix()+", then "+again)
	case errors.Is(err, collector.ErrDeleted):
		return exit.WithHint(fmt.Errorf("%w by another process%s", err, done),
			"run the same command again to begin it anew on the bus; what is done is kept")
	case errors.Is(err, natsserver.ErrStore):
		return exit.Unreachable(fmt.Errorf("%w (%s)%s", err, r.options.stateDir, done),
			"free space on that disk, then "+again)
	case errors.Is(err, syscall.ENOSPC):
		return exit.WithHint(fmt.Errorf("%w%s", err, done), "free space on that disk, then "+again)
	case exit.Code(err) != exit.CodeError || r.journal == nil:
		return err
	}

	return exit.WithDefaultHint(outputError(err), "fix that, then "+again)
}

// metaHint says how to go on with metadata that cannot be read.
func metaHint(err error) string {
	if errors.Is(err, proto.ErrFormat) || errors.Is(err, metadata.ErrFormat) {
		return "move it away, with the files beside it, or choose another output with -o"
	}
	return "let this user read it, or choose another output with -o"
}

// readMeta reads the metadata of an output.
func readMeta(out output.Prefix) (*metadata.Run, error) {
	meta, err := metadata.Read(out.Meta())
	if err != nil {
		return nil, fmt.Errorf("read metadata: %w", err)
	}

	if meta.Manifest == nil {
		return nil, fmt.Errorf("read metadata %s: %w: another program wrote it", out.Meta(), proto.ErrFormat)
	}

	if meta.Manifest.Schema != proto.ManifestSchema {
		return nil, fmt.Errorf("read metadata %s: %w", out.Meta(), proto.SchemaError(meta.Manifest.Schema))
	}

	return meta, nil
}

// failedError is the error of a run that is done but for failed requests.
func failedError(meta *metadata.Run) error {
	if meta.Results.FailureCount == 0 {
		return nil
	}
	return exit.RequestsFailed(fmt.Errorf("%d of %d requests failed", meta.Results.FailureCount, meta.Test.NumRequests),
		report.ShellWords("zstd", "-dc", files.Short(*meta.Test.ErrorFile))+" shows why")
}
