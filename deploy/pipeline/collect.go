package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
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
	"github.com/promptmill/promptmill/deploy/metrics"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// CollectConfig selects a run on a bus and the files to collect it into.
type CollectConfig struct {
	// Bus is the bus that has the run. Required.
	Bus *busconn.Connection
	// Run is the id of the run. Required.
	Run string
	// Output names the files, see [Config.Output]. Required, as an absolute path.
	Output output.Prefix
	// State is the state folder. Required.
	State string
	// FlushInterval is the longest time until an answer is in the output file. Defaults to 5 s.
	FlushInterval time.Duration
	// Format is the format of the output file.
	Format output.Format
	// Table is a table of the answers beside the output's files. Defaults to none.
	Table TableOutput
	// Report adds data to the report besides the run.
	Report report.Options
	// Upload, if not nil, copies the output to another place.
	Upload Upload
	// Version is the version of the program, for the metadata.
	Version string
	// Metrics, if not nil, exports the counters of the collector.
	Metrics *metrics.Exporter
	// Log gets warnings and errors. The zero value discards them.
	Log zerolog.Logger
	// Hooks report the progress of the collector.
	Hooks Hooks
}

// Validate returns an error that names the field of a value that cannot be used.
func (c CollectConfig) Validate() error {
	switch {
	case c.Bus == nil:
		return errors.New("pipeline: CollectConfig.Bus is required")
	case c.Run == "":
		return errors.New("pipeline: CollectConfig.Run is required")
	case !filepath.IsAbs(string(c.Output)):
		return fmt.Errorf("pipeline: CollectConfig.Output is %q, must be an absolute path", c.Output)
	case c.State == "":
		return errors.New("pipeline: CollectConfig.State is required")
	case c.FlushInterval < 0:
		return fmt.Errorf("pipeline: CollectConfig.FlushInterval is %s, must not be negative", c.FlushInterval)
	}

	if err := c.Table.validate(c.Output, c.Format); err != nil {
		return fmt.Errorf("pipeline: CollectConfig.%w", err)
	}

	return nil
}

// Collect collects a run that is on a bus until it has ended and its files are written. It
// publishes the shards that are not published yet. The end of ctx stops it: the error wraps
// [ErrInterrupted], and the next Collect resumes.
func Collect(ctx context.Context, cfg CollectConfig) (*Result, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}

	dir := statedir.ForOutput(cfg.State, string(cfg.Output))
	c := &runCollector{CollectConfig: cfg, dir: filepath.Join(dir, "input")}

	if err := prepareUpload(ctx, cfg.Upload, cfg.Log); err != nil {
		return nil, c.describeError(ctx, err)
	}

	var meta *metadata.Run
	var err error
	c.table, err = newTableWriter(cfg.Table, cfg.Output, cfg.State, dir, nil, cfg.Hooks)
	if err == nil {
		c.table.input = c.source
		meta, err = c.collectUntilEnd(ctx)
	}

	os.Remove(dir) // if it is empty
	if err != nil {
		return nil, c.describeError(ctx, err)
	}

	if err := sweepEndedRuns(context.WithoutCancel(ctx), cfg.Bus.JS, cfg.Hooks); err != nil {
		cfg.Log.Warn().Err(err).Msg("failed to delete runs whose time on the bus is over")
	}

	res := newResult(cfg.Output, meta, meta.Manifest.Policy)
	res.Copied = c.copied

	return res, finishUpload(ctx, cfg.Upload, cfg.Hooks, res)
}

// describeError puts an error into words for the person who waits for the run.
func (c *runCollector) describeError(ctx context.Context, err error) error {
	again := "run promptmill collect " + c.Run + " -o " + files.Short(c.place().Results()) +
		" to continue; nothing is lost"

	if limit, ok := errors.AsType[*LimitError](err); ok {
		return describeStop(c.Run, limit, "; promptmill collect "+c.Run+" -o "+
			files.Short(c.place().Results())+" collects the rest")
	}

	switch {
	case ctx.Err() != nil:
		return interrupted(ctx, "interrupted", again)
	case c.Bus.ClosedErr() != nil:
		return c.Bus.ClosedErr()
	case errors.Is(err, proto.ErrLeaseHeld):
		return exit.WithHint(err, "its results are written there; promptmill tail "+c.Run+" shows them here as well")
	case errors.Is(err, collector.ErrDeleted):
		return fmt.Errorf("%w by another process; its finished lines are in %s", err, files.Short(c.Output.Journal()))
	case errors.Is(err, atomicfile.ErrLocked):
		return describeOutputError(err)
	case errors.Is(err, errNotSubmitted):
		return exit.WithHint(err,
			"wait until promptmill submit has ended; if it was stopped, the same promptmill submit with --run "+
				c.Run+" continues it")
	}

	return exit.WithDefaultHint(describeRedirect(err), "fix that, then "+again)
}

// runCollector collects a run that is on a bus, and publishes the shards that are not published yet
// or were lost.
type runCollector struct {
	CollectConfig

	dir   string // for a copy of the input
	table *tableWriter
	// wasStopped reports that a limit had stopped the run when collecting began.
	wasStopped bool
	// failedAtWork reports that the last attempt failed after it had begun to collect.
	failedAtWork bool
	// begun, if not nil, is called when collecting begins.
	begun func()
	// stopped, if not nil, is called when a limit has stopped the run, which is collected further.
	// Otherwise that ends collecting.
	stopped func(reached proto.ReachedLimit, failures map[string]int64)

	// unnoted reports that the run is not noted in the history, since it had ended before.
	unnoted bool
	// copied reports that the files are a copy of an ended run.
	copied bool

	// mu guards the field below.
	mu    sync.Mutex
	files []string // the copy of the input, once it is complete
}

// collectUntilEnd works until the run has ended and its files are written, its report with them,
// and returns its metadata.
func (c *runCollector) collectUntilEnd(ctx context.Context) (*metadata.Run, error) {
	b, err := bus.Open(ctx, c.Bus.JS)
	if err != nil {
		return nil, err
	}

	m, err := c.findRun(ctx, b)
	if err != nil {
		return nil, err
	}

	if m.State.Ended() {
		return c.copyEnded(ctx, b.Runs, m)
	}

	problem := m.Problem
	c.wasStopped = m.StoppedBy != nil
	m.Problem, m.StoppedBy = "", nil // the journal keeps the manifest

	j, err := c.openJournal(ctx, m)
	if errors.Is(err, errWritten) {
		return c.finishWritten(ctx, b.Runs)
	}
	if err != nil {
		return nil, err
	}

	defer j.Close()

	if err := claimOutput(j, c.Output); err != nil {
		return nil, err
	}

	if err := bus.EnsureStreams(ctx, c.Bus.JS, m, c.Bus.Limits); err != nil {
		return nil, c.Bus.DescribeStreamError(err)
	}

	if problem != "" && !c.failedAtWork { // else the problem is over with the next synced line
		if err := saveProblem(ctx, b.Runs, m, ""); err != nil {
			return nil, err
		}
	}

	if err := c.publishMissing(ctx, b.Runs, m, j.State()); err != nil {
		return nil, err
	}

	if err := c.runParts(ctx, m, j); err != nil {
		return nil, err
	}

	c.removeInput()

	return c.Output.ReadMeta()
}

// runParts runs the parts of the run until the collector has written its files.
func (c *runCollector) runParts(ctx context.Context, m proto.Manifest, j *journal.Journal) error {
	p, err := c.newParts(ctx, m, j)
	if err != nil {
		return err
	}

	p.addUpload(c.Upload, j)
	defer c.Metrics.AddRun(c.Run, p.Producer, p.Collector)()

	if c.begun != nil {
		c.begun()
	}

	v := progress.NewStart("collect", m, c.Output, j.State().Counts.Done)
	setPlace(&v, c.Table, c.Upload)
	v.Bus = describeBus(c.Bus)
	c.Hooks.start(v)
	defer c.Hooks.startProgress(&progress.Source{Run: m, Counts: p.Collector.Progress, JS: c.Bus.JS})()

	err = p.Run(ctx)
	if c.failedAtWork = err != nil; err != nil {
		if limit, ok := errors.AsType[*LimitError](err); ok {
			limit.addDetails(j)
		}
		return err
	}

	return nil
}

// place names the files where they end up.
func (c *runCollector) place() output.Prefix { return placeOf(c.Upload, c.Output) }

// finishWritten does the last steps for files that are written already.
func (c *runCollector) finishWritten(ctx context.Context, runs *bus.RunStore) (*metadata.Run, error) {
	defer c.removeInput()

	meta, err := c.finishCleanup(ctx, runs)
	if err != nil {
		return nil, err
	}

	c.Hooks.printLines(listIgnoredFormat(meta.Config, c.Format))

	err = c.table.complete(ctx, meta)

	return meta, err
}

// findRun returns the manifest of the run, if this process can collect it.
func (c *runCollector) findRun(ctx context.Context, b *bus.Bus) (proto.Manifest, error) {
	m, err := b.Runs.Get(ctx, c.Run)
	if err != nil {
		return m, err
	}

	if m.State == proto.StateValidating {
		return m, fmt.Errorf("run %s: %w", c.Run, errNotSubmitted)
	}

	if !m.State.Ended() {
		if err := c.checkNotCollected(ctx); err != nil {
			return m, err
		}
	}

	return m, CheckOutput(c.Output)
}

// newParts makes the collector of the run, and a producer for the shards that are not
// published yet.
func (c *runCollector) newParts(ctx context.Context, m proto.Manifest, j *journal.Journal) (*Parts, error) {
	p := &Parts{}
	stopped := func(reached proto.ReachedLimit) { c.stopped(reached, p.Collector.Failures()) }
	if c.stopped == nil {
		stopped = p.endAtLimit(func(reached proto.ReachedLimit) {
			if !c.wasStopped {
				c.Hooks.printf("stopping: %s", reached)
			}
		})
	}

	var err error
	p.Collector, err = collector.New(collector.Config{
		JS:            c.Bus.JS,
		Journal:       j,
		Output:        c.Output,
		Host:          HostName(),
		Limits:        c.Bus.Limits,
		FlushInterval: c.FlushInterval,
		Format:        c.Table.format(c.Format),
		WriteTables:   c.table.forCollector(m, c.Format),
		OnWritten:     func() { c.reporter().writeFor(c.Output) },
		OnStopped:     stopped,
		OnSynced:      onSynced(c.Upload),
		Input:         Input{Run: m, Files: c.filesOf(m)},
		Info:          collector.RunInfo{Platform: "OpenAI-compatible servers", Version: c.Version},
		Log:           c.Log,
	})
	if err != nil {
		return nil, err
	}

	p.Producer, err = producer.New(producer.Config{
		JS:    c.Bus.JS,
		Run:   c.Run,
		Yield: true,
		Log:   c.Log,
		Files: c.filesOf(m),
	})

	return p, err
}

// reporter returns the writer of the run's report.
func (c *runCollector) reporter() reporter { return reporter{c.Report, c.State, c.Log, c.unnoted} }

// checkNotCollected fails if another process collects the run. Problems with the files here do not
// concern the run then.
func (c *runCollector) checkNotCollected(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	b, err := bus.Open(ctx, c.Bus.JS)
	if err != nil {
		return err
	}

	who, there, err := b.Leases.Holder(ctx, c.Run)
	if err == nil && there && who != c.info() {
		err = fmt.Errorf("%w: into %s", proto.ErrLeaseHeld, who)
	}

	return err
}

// info describes the collector for other processes.
func (c *runCollector) info() proto.CollectorInfo {
	return proto.CollectorInfo{Host: HostName(), Output: string(c.Output)}
}

// publishMissing has only the requests published that have no line in the journal, if the run was
// submitted again because the bus had lost it. Its submit waits for that.
func (c *runCollector) publishMissing(
	ctx context.Context, runs *bus.RunStore, m proto.Manifest, state *journal.State,
) error {
	if m.Publish.Round > 0 || m.Publish.Done || state.Done.IsEmpty() || state.Manifest.CreatedAt.Equal(m.CreatedAt) {
		return nil
	}

	end, err := collector.EndOfResults(ctx, c.Bus.JS, c.Run)
	if err != nil {
		return err
	}

	if end.Created.Equal(state.Position.Created) {
		return nil // these lines came since it was submitted again
	}

	work, err := c.Bus.JS.Stream(ctx, proto.WorkStream(c.Run))
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", proto.WorkStream(c.Run), err)
	}

	missing := state.Missing()
	c.Log.Warn().Uint64("requests", missing.GetCardinality()).
		Msg("the bus had lost the run; publishing only the requests that have no line")
	if !missing.IsEmpty() {
		return collector.RepublishMissing(ctx, c.Bus.JS, runs, c.Run, work.CachedInfo().State.LastSeq, missing)
	}

	return updateRun(ctx, runs, m, func(now *proto.Manifest) { now.Publish.Done = true })
}

// removeInput removes the copy of the input. The run is complete, so a failure is a warning.
func (c *runCollector) removeInput() {
	if err := errors.Join(os.RemoveAll(c.dir), c.table.note.remove()); err != nil {
		c.Log.Warn().Err(err).Msg("failed to remove the copy of the input; it can be deleted")
	}
}

// errNotSubmitted is returned for a run that cannot be collected yet.
var errNotSubmitted = fmt.Errorf("%w: its input is not on the bus yet", bus.ErrWrongState)

// errWritten is returned when the output files of a run are complete.
var errWritten = errors.New("the output is written already")

// openJournal opens the journal, or makes one: a new one, or one from the files of a complete run
// whose failed requests are to be run again. It returns errWritten if there is nothing to collect.
func (c *runCollector) openJournal(ctx context.Context, m proto.Manifest) (*journal.Journal, error) {
	if then, err := journal.ReadManifest(c.Output.Journal()); err == nil {
		if err := c.checkJournal(then, m); err != nil {
			return nil, err // before it is opened: that would cut off its torn end
		}
	}

	j, err := journal.Open(c.Output.Journal())
	corruption, _ := errors.AsType[*journal.CorruptionError](err)
	switch {
	case err == nil:
		if err := c.checkJournal(j.State().Manifest, m); err != nil {
			j.Close()
			return nil, err
		}
		if !isStaleCopy(j.State().Manifest, m) {
			return j, nil
		}
		if err := errors.Join(j.Remove(), j.Close()); err != nil {
			return nil, err
		}
	case corruption != nil:
		if err := c.putAsideJournal(err); err != nil {
			return nil, err
		}
	case errors.Is(err, proto.ErrFormat):
		return nil, foreignFilesError{exit.WithHint(err, "move it away, or choose another output with -o")}
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	}

	if files.Exists(c.Output.Meta()) {
		return c.reopenComplete(ctx, m)
	}

	if err := checkNotForeign(c.Output); err != nil {
		return nil, foreignFilesError{err}
	}

	return createJournal(c.Output, m)
}

// putAsideJournal moves a damaged journal away. The bus has the run, and most results still. Serve
// cannot ask its user; run, which knows less of whose file it is, leaves it to its user.
func (c *runCollector) putAsideJournal(damage error) error {
	aside := c.Output.Journal() + ".damaged"
	if err := os.Rename(c.Output.Journal(), aside); err != nil {
		return fmt.Errorf("put a damaged journal aside: %w", err)
	}

	c.Log.Error().Err(damage).Str("kept", aside).Msg("the journal is damaged; collecting the run from its start")

	return nil
}

// reopenComplete makes the journal of a run from its complete files, if its failed requests are to
// be run again. Otherwise it returns errWritten.
func (c *runCollector) reopenComplete(ctx context.Context, m proto.Manifest) (*journal.Journal, error) {
	meta, err := c.Output.ReadMeta()
	if errors.Is(err, proto.ErrFormat) || errors.Is(err, metadata.ErrFormat) {
		err = foreignFilesError{err}
	}
	if err != nil {
		return nil, exit.WithHint(err, metaHint(err))
	}

	if meta.TestID != c.Run {
		return nil, foreignFilesError{exit.WithHint(fmt.Errorf("%s belongs to run %s", c.Output.Results(), meta.TestID),
			"choose another output with -o")}
	}

	if err := c.checkSame(c.Output.Results(), *meta.Manifest, m); err != nil {
		return nil, err
	}

	if err := checkWritten(c.Output, meta); err != nil {
		return nil, err
	}

	switch {
	case meta.Manifest.Retries == m.Retries:
		return nil, errWritten
	case m.State.Ended():
		return nil, refuseRetried(m)
	}

	if err := c.table.checkRetry(c.Format); err != nil {
		return nil, err
	}

	position, err := collector.EndOfResults(ctx, c.Bus.JS, c.Run)
	if err != nil {
		return nil, err
	}

	return journal.CreateFromOutput(c.Output, meta, m, position)
}

// foreignFilesError is the error of an output whose files do not belong to the run. Waiting
// does not help.
type foreignFilesError struct{ error }

func (e foreignFilesError) Unwrap() error { return e.error }

// checkJournal refuses to go on with a journal of another run than m.
func (c *runCollector) checkJournal(then, m proto.Manifest) error {
	if then.Run != c.Run {
		return foreignFilesError{exit.WithHint(fmt.Errorf("%s belongs to run %s", c.Output.Journal(), then.Run),
			"choose another output with -o")}
	}

	return c.checkSame(c.Output.Journal(), then, m)
}

// checkSame refuses to go on with the files of an earlier run of the same name that has left
// the bus: its lines would be taken for lines of this run.
func (c *runCollector) checkSame(path string, then, now proto.Manifest) error {
	text := describeRunChange(then, now)
	if text == "" {
		return nil
	}
	return foreignFilesError{exit.WithHint(fmt.Errorf("%s is of an earlier run %s, %s", path, c.Run, text),
		"move it away, or choose another output with -o")}
}

// saveProblem notes on the bus why a run is not collected, or with an empty text that it is.
func saveProblem(ctx context.Context, runs *bus.RunStore, m proto.Manifest, text string) error {
	return updateRun(ctx, runs, m, func(now *proto.Manifest) { now.Problem = cutProblem(text) })
}

// failRun ends a run that cannot be collected, unless another process has begun to collect it. It
// reports whether the run has ended.
func (c *runCollector) failRun(ctx context.Context, runs *bus.RunStore, m proto.Manifest, text string) bool {
	refused := true // or ended meanwhile
	err := updateRun(ctx, runs, m, func(now *proto.Manifest) {
		if refused = now.Output == "" || now.Output == c.info().String(); refused {
			ended := time.Now().UTC()
			now.State, now.EndedAt, now.Problem = proto.StateFailed, &ended, cutProblem(text)
		}
	})

	return refused && err == nil
}

// cutProblem returns as much of an error as a manifest has.
func cutProblem(text string) string {
	const most = 1000 // bytes
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}

// updateRun changes the manifest of a run that has not ended, and is not another of its id.
func updateRun(ctx context.Context, runs *bus.RunStore, m proto.Manifest, change func(*proto.Manifest)) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	return runs.Update(ctx, m.Run, func(now *proto.Manifest) error {
		if now.CreatedAt.Equal(m.CreatedAt) && !now.State.Ended() {
			change(now)
		}
		return nil
	})
}

// finishCleanup does the last steps of a process that died after it had completed the files.
func (c *runCollector) finishCleanup(ctx context.Context, runs *bus.RunStore) (*metadata.Run, error) {
	meta, err := c.Output.ReadMeta()
	if err != nil {
		return nil, err
	}

	if err := c.Output.RemoveStale(); err != nil {
		c.Log.Warn().Err(err).Msg("failed to remove temporary files")
	}

	if !files.Exists(c.Output.ReportHTML()) {
		c.reporter().write(meta, c.Output)
	}

	return meta, noteEnd(ctx, c.Bus.JS, runs, meta, c.info().String())
}

// noteEnd notes on the bus that a run has ended, in case the process that completed its files died
// before it did, or the run was submitted again after it had left the bus. out is the run's output,
// as HOST:PATH. A run that has left the bus needs nothing.
func noteEnd(
	ctx context.Context, js jetstream.JetStream, runs *bus.RunStore, meta *metadata.Run, out string,
) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	err := runs.Update(ctx, meta.TestID, func(m *proto.Manifest) error {
		if !m.State.Ended() {
			m.State, m.EndedAt, m.Output = meta.Status, meta.Manifest.EndedAt, out
			m.Counts, m.Failures = meta.Manifest.Counts, meta.Manifest.Failures

			if !m.CreatedAt.Equal(meta.Manifest.CreatedAt) { // its time on the bus begins again
				m.EndedAt = new(time.Now().UTC())
			}
		}

		return nil
	})
	if errors.Is(err, proto.ErrNoRun) {
		return nil
	}
	if err != nil {
		return err
	}

	return bus.DeleteStream(ctx, js, proto.WorkStream(meta.TestID))
}

// inputFiles returns copies of the files of the run's input, which is on the bus.
func (c *runCollector) inputFiles(ctx context.Context, m proto.Manifest) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()

	if c.files != nil {
		return c.files, nil
	}

	if !m.Input.Stored {
		// The manifest's paths come from another process, and may name any file of this machine.
		return nil, exit.WithHint(fmt.Errorf("the input of run %s is not on the bus", c.Run),
			"run the promptmill run command that made it again, where its input is")
	}

	copies, isNew, err := c.copyInput(ctx, m)
	if err != nil && !isNew && ctx.Err() == nil { // copies that were there: of another run, or damaged
		if err := os.RemoveAll(c.dir); err != nil {
			return nil, fmt.Errorf("replace the copy of the input: %w", err)
		}
		copies, _, err = c.copyInput(ctx, m)
	}
	if err != nil {
		return nil, fmt.Errorf("copy the input from the bus: %w", err)
	}

	c.files = copies

	return copies, nil
}

// copyInput copies the input from the bus, except for files that are there already, and checks the copies. isNew
// reports that no file was there.
func (c *runCollector) copyInput(ctx context.Context, m proto.Manifest) (copies []string, isNew bool, err error) {
	isNew = true
	for i := range m.Input.Files {
		path := filepath.Join(c.dir, proto.InputObject(i))
		isNew = isNew && !files.Exists(path)
		if err := c.copyObject(ctx, proto.InputObject(i), path); err != nil {
			return nil, isNew, err
		}
		copies = append(copies, path)
	}

	return copies, isNew, producer.CheckInput(ctx, m.Input, m.Settings, producer.SourceOf(m.Input, copies, nil))
}

// filesOf returns inputFiles for a run.
func (c *runCollector) filesOf(m proto.Manifest) func(context.Context) ([]string, error) {
	return func(ctx context.Context) ([]string, error) { return c.inputFiles(ctx, m) }
}

// source returns the copies of the input as the input of the run.
func (c *runCollector) source(ctx context.Context, m proto.Manifest) (producer.Source, error) {
	paths, err := c.inputFiles(ctx, m)
	return producer.SourceOf(m.Input, paths, nil), err
}

// copyObject copies an object of the run into a file, unless that is there.
func (c *runCollector) copyObject(ctx context.Context, object, path string) error {
	if files.Exists(path) {
		return nil
	}

	if err := statedir.Make(c.State, c.dir); err != nil {
		return err
	}

	return files.Write(path, 0o600, func(w io.Writer) error {
		return bus.New(c.Bus.JS).Objects(c.Run).Copy(ctx, w, object)
	})
}

// HostName returns the name of this machine.
func HostName() string {
	name, _ := os.Hostname() // may have none
	return cmp.Or(name, "host")
}
