package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/metrics"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/prompt"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker"
)

// runParts puts the run on the bus and runs all parts until the collector has written the output.
func (r *runner) runParts(ctx context.Context) error {
	l, own, closeBus, err := r.openBus()
	if err != nil {
		return err
	}
	defer closeBus()

	if err := makeBuckets(ctx, l, r.cfg.Log); err != nil {
		return err
	}

	if own != nil { // also the store that an earlier version made
		if err := bus.New(l.JS).Runs.SetEndsWith(ctx, r.journal.State().Manifest.Run); err != nil {
			return err
		}
	}

	found, err := r.putOnBus(ctx, l, own != nil && !r.cfg.Shared)
	if err != nil {
		return err
	}

	r.cfg.Hooks.start(r.describeStart(l, own, found.results))
	for _, note := range found.notes {
		r.cfg.Hooks.printf("%s", note)
	}

	if own != nil && r.cfg.Shared {
		r.cfg.Hooks.printJoin(own)
	}

	m := r.journal.State().Manifest
	v := &progress.Source{Run: m, JS: l.JS}
	p, err := r.newParts(ctx, l, v)
	if err != nil {
		return err
	}

	p.addUpload(r.cfg.Upload, r.journal)
	r.addWatchers(p, l, own)

	v.Counts = p.Collector.Progress
	defer r.cfg.Metrics.AddRun(m.Run, p.Producer, p.Collector)()
	defer r.cfg.Metrics.SetBus(l.JS, func(other proto.Manifest) bool { return other.Run == m.Run })()
	r.cfg.Metrics.SetFolder(metrics.FolderState, r.cfg.State)
	r.cfg.Metrics.SetFolder(metrics.FolderOutput, filepath.Dir(string(r.output)))
	defer r.cfg.Hooks.startProgress(v)()

	if err := p.Run(ctx); err != nil {
		return err
	}

	if own != nil {
		r.findOthers(ctx, l)
		own.AwaitReaders(10 * time.Second)
	} else {
		r.sweepBus(ctx, l)
	}

	return nil
}

// addWatchers adds what runs beside the parts: the watch of the own bus's store, and the API.
func (r *runner) addWatchers(p *Parts, l *busconn.Connection, own *natsserver.Server) {
	if own != nil {
		p.Watchers = append(p.Watchers, own.Watch)
	}

	if r.cfg.API == nil {
		return
	}

	live := LiveRun{
		Bus:    l,
		Run:    r.journal.State().Manifest.Run,
		Inputs: r.inputs,
		Output: r.output,
	}
	p.Watchers = append(p.Watchers, func(ctx context.Context) error { return r.cfg.API(ctx, live) })
}

// sweepBus deletes the runs whose time on the bus of other runs is over.
func (r *runner) sweepBus(ctx context.Context, l *busconn.Connection) {
	sweeping, stop := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
	defer stop()

	if err := sweepEndedRuns(sweeping, l.JS, r.cfg.Hooks); err != nil { // the output is whole, even if the bus fails
		r.cfg.Log.Warn().Err(err).Msg("failed to delete runs whose time on the bus is over")
	}
}

// findOthers finds the other runs on the bus of this process that have not ended. A client of an
// earlier version may have submitted them.
func (r *runner) findOthers(ctx context.Context, l *busconn.Connection) {
	looking, stop := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
	defer stop()

	list, err := bus.New(l.JS).Runs.List(looking)
	if err != nil { // the output is whole, even if the bus fails
		r.cfg.Log.Warn().Err(err).Msg("failed to look for other runs on this bus")
		return
	}

	for _, m := range list {
		if m.Run != r.journal.State().Manifest.Run && !m.State.Ended() {
			r.others = append(r.others, m.Run)
		}
	}
}

// openBus returns the connection to the bus of the configuration, or starts an embedded server. own
// is nil where that is not ours.
func (r *runner) openBus() (l *busconn.Connection, own *natsserver.Server, closeBus func(), err error) {
	if r.link != nil {
		return r.link, nil, func() {}, nil
	}

	if own, err = natsserver.Start(natsserver.Config{
		State:  r.cfg.State,
		Dir:    r.stateDir,
		Listen: r.cfg.Listen,
		Log:    r.cfg.Log,
	}); err != nil {
		return nil, nil, nil, err
	}

	return own.Connection, own, own.Stop, nil
}

// newParts makes the parts of the run, and adds its workers to the view.
func (r *runner) newParts(ctx context.Context, l *busconn.Connection, v *progress.Source) (*Parts, error) {
	m := r.journal.State().Manifest
	log := r.cfg.Log.With().Str("run", m.Run).Logger()

	publisher, err := producer.New(producer.Config{
		JS:        l.JS,
		Run:       m.Run,
		Files:     r.files, // whatever the manifest on the bus names
		Opener:    r.cfg.Opener,
		Validated: !r.resumed,
		Log:       log,
	})
	if err != nil {
		return nil, err
	}

	p := &Parts{
		Producer: publisher,
		Models:   m.Models(),
		Log:      log,
	}

	p.Collector, err = collector.New(collector.Config{
		JS:            l.JS,
		Journal:       r.journal,
		Output:        r.output,
		Host:          HostName(),
		Limits:        l.Limits,
		FlushInterval: r.cfg.FlushInterval,
		Format:        r.cfg.Table.format(r.cfg.Format),
		WriteTables:   r.table.forCollector(m, r.cfg.Format),
		OnWritten:     func() { r.reporter().writeFor(r.output) },
		OnSynced:      onSynced(r.cfg.Upload),
		OnStopped: p.endAtLimit(func(reached proto.ReachedLimit) {
			r.cfg.Hooks.printf("stopping: %s; requests in flight are finished", reached)
		}),
		Input: Input{
			Run:    m,
			Files:  r.files,
			Opener: r.cfg.Opener,
		},
		Info: collector.RunInfo{
			Platform:    r.platform(),
			Version:     r.cfg.Version,
			Concurrency: r.cfg.Workers.Concurrency,
		},
		Log: log,
	})
	if err != nil {
		return nil, err
	}

	if r.servers == nil {
		return p, nil
	}

	return p, r.addWorkers(ctx, p, v, l.JS, log)
}

// reporter returns the writer of the run's report.
func (r *runner) reporter() reporter { return reporter{r.cfg.Report, r.cfg.State, r.cfg.Log, false} }

// files returns the input files, for the producer.
func (r *runner) files(context.Context) ([]string, error) { return r.inputs, nil }

// source returns the input files.
func (r *runner) source() producer.Source {
	return producer.Source{Files: r.inputs, Opener: r.cfg.Opener}
}

// unchangedSource returns the input files, if they are as validation has read them.
func (r *runner) unchangedSource(ctx context.Context, m proto.Manifest) (producer.Source, error) {
	source := producer.SourceOf(m.Input, r.inputs, r.cfg.Opener)
	return source, checkUnchanged(ctx, m.Input, m.Settings, source)
}

// addWorkers adds a worker for each model server.
func (r *runner) addWorkers(
	ctx context.Context, p *Parts, v *progress.Source, js jetstream.JetStream, log zerolog.Logger,
) error {
	samples := r.answeredRequests(ctx)

	for i, server := range r.servers.Servers {
		cfg := r.cfg.Workers.newConfig(r.servers, server, r.cfg.State, log)
		cfg.JS = js
		cfg.Name = workerName(cfg.Name, i, len(r.servers.Servers))
		cfg.Version = r.cfg.Version
		cfg.Run = v.Run.Run
		cfg.StopRefused = !r.cfg.Shared
		cfg.Samples = samples
		if r.cfg.Observe != nil {
			cfg.Observer = r.cfg.Observe(server)
		}

		w, err := worker.New(cfg)
		if err != nil {
			return err
		}

		named := progress.LocalWorker{Name: cfg.Name, Limiter: cfg.Limiter, Worker: w}
		p.Workers = append(p.Workers, w)
		p.Watchers = append(p.Watchers, func(ctx context.Context) error {
			return r.servers.Watch(ctx, w, server, r.cfg.Hooks.Loading)
		})

		v.Workers = append(v.Workers, named)
		r.cfg.Metrics.AddWorker(named)
	}

	return nil
}

// answeredRequests returns a few requests that have their line, most of them answered. With these
// the worker distinguishes a server that refuses all requests from one that refuses the remaining
// ones.
func (r *runner) answeredRequests(ctx context.Context) (list []proto.Request) {
	const enough = 3
	done := r.journal.State().Done
	if done.IsEmpty() {
		return nil
	}

	in, err := producer.NewReader(ctx, r.source(), r.journal.State().Manifest.Settings, nil)
	if err != nil {
		return nil // the producer is going to report it
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

// describeStart describes the run for a person who starts it. own is the bus if that is in this
// process, and onBus the number of results on the bus without a line.
func (r *runner) describeStart(l *busconn.Connection, own *natsserver.Server, onBus int) progress.Start {
	state := r.journal.State()
	v := progress.NewStart("run", state.Manifest, r.output, state.Counts.Done)
	setPlace(&v, r.cfg.Table, r.cfg.Upload)
	v.Resumed, v.OnBus = r.resumed, onBus
	if r.stdin != nil {
		v.Input = "standard input"
	}

	v.Bus = describeBus(l)

	if own != nil {
		v.Bus = progress.StartBus{Own: true, Shared: r.cfg.Shared, Address: own.Addr(), Version: v.Bus.Version}
	}

	if r.servers != nil {
		var urls []string
		for _, server := range r.servers.Servers {
			urls = append(urls, server.URL())
		}
		v.SetServer(urls, r.servers.Simulated(), r.served, r.cfg.Workers.Concurrency)
	}

	return v
}

// describeBus describes a bus that is not in this process.
func describeBus(l *busconn.Connection) progress.StartBus {
	return progress.StartBus{Shared: true, Address: l.Name, Version: l.Conn.ConnectedServerVersion()}
}

// leftOnBus describes the traces of an earlier process on the bus.
type leftOnBus struct {
	results int      // of requests that have no line
	notes   []string // for a person
}

// putOnBus puts the run on the bus, or the parts of it that are not there (any more). alone is
// set if no other process can have worked for it.
func (r *runner) putOnBus(ctx context.Context, l *busconn.Connection, alone bool) (found leftOnBus, err error) {
	state := r.journal.State()
	m := state.Manifest
	if r.resumed {
		found.notes = listIgnored(m, r.cfg)
	}
	if text := describeUnusedModel(m.Input, prompt.LineSettings(r.cfg.Settings).Model); text != "" {
		found.notes = append(found.notes, text)
	}

	b, err := bus.Open(ctx, l.JS)
	if err != nil {
		return found, err
	}

	runs := b.Runs
	now, err := runs.Get(ctx, m.Run)
	known := err == nil
	if err != nil && !errors.Is(err, proto.ErrNoRun) {
		return found, err
	}

	if known {
		if err := r.continueOnBus(ctx, l, runs, now, alone); err != nil {
			return found, err
		}

		if text := describeReplicas(ctx, l.JS, m.Run, l.Limits.Replicas); text != "" {
			found.notes = append(found.notes, text)
		}

		switch {
		case now.StoppedBy != nil:
			found.notes = append(found.notes, "the run was stopped by "+now.StoppedBy.Name()+"; it continues")
		case now.State == proto.StatePaused:
			found.notes = append(found.notes, "the run is paused: promptmill resume "+m.Run)
		}
	}

	if err := bus.EnsureStreams(ctx, l.JS, m, l.Limits); err != nil {
		return found, l.DescribeStreamError(err)
	}

	if known {
		found.results = countResults(ctx, l.JS, m, state)
		return found, nil
	}

	if !r.resumed || state.Done.IsEmpty() {
		return found, runs.Create(ctx, m)
	}

	missing := state.Missing()
	if m.Retries == 0 {
		found.notes = append(found.notes, fmt.Sprintf(
			"the bus's store is gone: publishing the %s requests that lack a line",
			terminal.FormatCount(missing.GetCardinality())))
	}

	return found, createAgain(ctx, l, runs, m, missing)
}

// createAgain creates a run that the bus does not have any more, with the requests that lack a line: the bus has lost
// its store, or the run had ended and its failed requests are run again. The files have the truth.
func createAgain(
	ctx context.Context, l *busconn.Connection, runs *bus.RunStore, m proto.Manifest, missing *roaring.Bitmap,
) error {
	m.Publish.Done = true
	if err := runs.Create(ctx, m); err != nil || missing.IsEmpty() {
		return err
	}

	return collector.RepublishMissing(ctx, l.JS, runs, m.Run, 0, missing)
}

// continueOnBus takes up the run that the bus has, as now.
func (r *runner) continueOnBus(
	ctx context.Context, l *busconn.Connection, runs *bus.RunStore, now proto.Manifest, alone bool,
) error {
	m := r.journal.State().Manifest
	if err := r.checkRunOnBus(now, m); err != nil {
		return err
	}

	now.Policy, now.Counts = now.Policy.WithLimits(m.Policy), r.journal.State().Counts // the latest ones
	if err := checkTokens(now, raiseTokens); err != nil {
		return err
	}

	if alone {
		if err := releaseLeftovers(ctx, l.JS, m); err != nil {
			return err
		}
	}

	return runs.Update(ctx, m.Run, func(now *proto.Manifest) error {
		now.Label, now.Input.Files = m.Label, m.Input.Files
		now.Policy = now.Policy.WithLimits(m.Policy)
		if now.State != proto.StatePaused && now.State != proto.StateCancelling || now.StoppedBy != nil {
			now.State, now.StoppedBy = proto.StateInProgress, nil
		}
		return nil
	})
}

// releaseLeftovers removes from the bus the leftovers of a killed process: shards that
// are out, the announcements of its workers, and its lease of the run, which names the output as it
// was called then, on a host that may have another name now.
func releaseLeftovers(ctx context.Context, js jetstream.JetStream, m proto.Manifest) error {
	if err := bus.ResetConsumers(ctx, js, m); err != nil {
		return err
	}

	b := bus.New(js)
	workers, err := b.Heartbeats.Workers(ctx)
	if err != nil {
		return err
	}

	for _, w := range workers {
		if err := b.Heartbeats.Remove(ctx, cmp.Or(w.ID, w.Name)); err != nil {
			return err
		}
	}

	return b.Leases.Release(ctx, m.Run)
}

// errIDInUse is returned when the bus has another run of the id.
var errIDInUse = errors.New("the id is in use")

// checkRunOnBus refuses to take another run on the bus for the one of the journal, whose id it has.
// A journal that was just made begins a run, so one that has ended is another, too: its failed
// requests would count as tried.
func (r *runner) checkRunOnBus(there, m proto.Manifest) error {
	text := describeRunChange(there, m)
	if text == "" && !r.resumed && there.State.Ended() {
		text = "which is " + there.State.Word()
	}

	if text == "" {
		return nil
	}

	fix := "take the other run off the bus first: promptmill delete " + m.Run
	if !there.State.Ended() {
		fix += " --force"
	}
	if !r.cfg.Bus.External() {
		fix = "remove " + r.stateDir + " to begin again"
	}
	if !r.resumed { // else the journal has the id
		fix = "choose another --run, or " + fix
	}

	return exit.WithHint(fmt.Errorf("%w: the bus has a run %s already, %s", errIDInUse, m.Run, text), fix)
}

// makeBuckets makes the buckets of all runs, and upgrades those of an earlier version.
func makeBuckets(ctx context.Context, l *busconn.Connection, log zerolog.Logger) error {
	if err := bus.CreateBuckets(ctx, l.JS, l.Limits); err != nil {
		return l.DescribeStreamError(err)
	}

	if err := bus.UpgradeBuckets(ctx, l.JS, l.Limits); err != nil {
		log.Warn().Err(err).Msg(
			"objects of an earlier version of promptmill stay on the bus as they are: its roles allow more",
		)
	}

	return nil
}
