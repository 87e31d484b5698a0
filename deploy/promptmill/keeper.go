package main

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

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// keeper collects a run that is on a bus, and publishes what of it is not yet, or not
// any more.
type keeper struct {
	link   *busconn.Connection
	run    string
	output output.Prefix
	format output.Format
	flush  time.Duration
	dir    string // for a copy of the input
	// reports say what to write when the run has ended.
	reports reports
	log     zerolog.Logger
	// show, if not nil, is called when collecting begins.
	show func(proto.Manifest, *collector.Collector)

	measured *exporter // may be nil

	mu    sync.Mutex
	files []string // the copy of the input, once it is there
}

// keep works until the run has ended and its files are written, its report with them,
// and returns its metadata.
func (k *keeper) keep(ctx context.Context) (*metadata.Run, error) {
	b, err := bus.Open(ctx, k.link.JS)
	if err != nil {
		return nil, err
	}

	runs := b.Runs

	m, err := runs.Get(ctx, k.run)
	if err != nil {
		return nil, err
	}

	if m.State == proto.StateValidating {
		return nil, fmt.Errorf("run %s: %w", k.run, errUnsubmitted)
	}

	if err := k.checkFree(ctx); err != nil {
		return nil, err
	}

	if err := checkOutput(k.output); err != nil {
		return nil, err
	}

	problem := m.Problem
	m.Problem = "" // the journal keeps the manifest

	j, err := k.journal(ctx, m)
	if errors.Is(err, errWritten) {
		defer k.forgetInput()
		return k.settle(ctx, runs)
	}
	if err != nil {
		return nil, err
	}

	defer j.Close()

	if err := claimOutput(j, k.output); err != nil {
		return nil, err
	}

	if err := bus.EnsureStreams(ctx, k.link.JS, m, k.link.Limits); err != nil {
		return nil, err
	}

	if problem != "" {
		if err := noteProblem(ctx, runs, m, ""); err != nil {
			return nil, err
		}
	}

	if err := k.publishMissing(ctx, runs, m, j.State()); err != nil {
		return nil, err
	}

	c := collector.New(collector.Config{
		JS:      k.link.JS,
		Journal: j,
		Output:  k.output,
		Host:    hostName(),
		Limits:  k.link.Limits,
		Flush:   k.flush,
		Format:  k.format,
		Written: func() { k.reports.writeOf(k.output, k.log) },
		Input:   runInput{m, func() ([]string, error) { return k.input(ctx, m) }},
		Meta:    collector.Origin{Platform: "OpenAI-compatible servers", Version: versionText()},
		Log:     k.log,
	})

	p := producer.New(producer.Config{
		JS:    k.link.JS,
		Run:   k.run,
		Yield: true,
		Log:   k.log,
		Files: func(ctx context.Context) ([]string, error) { return k.input(ctx, m) },
	})
	if k.measured != nil {
		defer k.measured.addRun(namedRun{k.run, p, c})()
	}

	if k.show != nil {
		k.show(m, c)
	}

	if err := (crew{producer: p, collector: c}).run(ctx); err != nil {
		return nil, err
	}

	k.forgetInput()

	return readMeta(k.output)
}

// checkFree fails if another process collects the run. What is wrong with the files here is
// then of no concern to the run.
func (k *keeper) checkFree(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	b, err := bus.Open(ctx, k.link.JS)
	if err != nil {
		return err
	}

	who, there, err := b.Leases.Holder(ctx, k.run)
	if err == nil && there && who != k.info() {
		err = fmt.Errorf("%w: into %s", proto.ErrLeaseHeld, who)
	}

	return err
}

// info is what the collector is for others.
func (k *keeper) info() proto.CollectorInfo {
	return proto.CollectorInfo{Host: hostName(), Output: string(k.output)}
}

// publishMissing has only the requests published that have no line in the journal, if the
// run was submitted again because the bus had lost it. Its submit waits for that.
func (k *keeper) publishMissing(
	ctx context.Context, runs *bus.RunStore, m proto.Manifest, state *journal.State,
) error {
	if m.Publish.Round > 0 || m.Publish.Done || state.Done.IsEmpty() || state.Manifest.CreatedAt.Equal(m.CreatedAt) {
		return nil
	}

	end, err := collector.EndOfResults(ctx, k.link.JS, k.run)
	if err != nil {
		return err
	}

	if end.Created.Equal(state.Position.Created) {
		return nil // these lines came since it was submitted again
	}

	work, err := k.link.JS.Stream(ctx, proto.WorkStream(k.run))
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", proto.WorkStream(k.run), err)
	}

	missing := state.Missing()
	k.log.Warn().Uint64("requests", missing.GetCardinality()).
		Msg("the bus had lost the run; publishing only the requests that have no line")
	if !missing.IsEmpty() {
		return collector.StartRound(ctx, k.link.JS, runs, k.run, work.CachedInfo().State.LastSeq, missing)
	}

	return updateSame(ctx, runs, m, func(now *proto.Manifest) { now.Publish.Done = true })
}

// forgetInput removes the copy of the input. The run is whole, so no more than a warning
// comes of what goes wrong.
func (k *keeper) forgetInput() {
	if err := os.RemoveAll(k.dir); err != nil {
		k.log.Warn().Err(err).Msg("failed to remove the copy of the input; it can be deleted")
	}
}

// errUnsubmitted says that nobody can collect a run yet.
var errUnsubmitted = fmt.Errorf("%w: its input is not on the bus yet", bus.ErrWrongState)

// errWritten says that the output files of a run are there.
var errWritten = errors.New("the output is written already")

// journal opens the journal, or makes it: anew, or of the files that the run has left
// when its failed requests are to be run again.
func (k *keeper) journal(ctx context.Context, m proto.Manifest) (*journal.Journal, error) {
	if then, err := journal.ReadManifest(k.output.Journal()); err == nil {
		if err := k.sameJournal(then, m); err != nil {
			return nil, err // before it is opened: that would cut off its torn end
		}
	}

	j, err := journal.Open(k.output.Journal())
	if _, ok := errors.AsType[*journal.CorruptionError](err); ok {
		// The bus has the run, and most results still. Serve has nobody to ask; run, which
		// knows less of whose file it is, leaves it to its user.
		aside := k.output.Journal() + ".damaged"
		if err := os.Rename(k.output.Journal(), aside); err != nil {
			return nil, fmt.Errorf("put a damaged journal aside: %w", err)
		}
		k.log.Error().Err(err).Str("kept", aside).Msg("the journal is damaged; collecting the run anew")
		j, err = nil, fmt.Errorf("%s: %w", k.output.Journal(), os.ErrNotExist)
	}
	if errors.Is(err, proto.ErrFormat) {
		return nil, othersFiles{exit.WithHint(err, "move it away, or choose another output with -o")}
	}
	if err == nil {
		if err := k.sameJournal(j.State().Manifest, m); err != nil {
			j.Close()
			return nil, err
		}
	}
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return j, err
	}

	if !files.Exists(k.output.Meta()) {
		if err := foreign(k.output); err != nil {
			return nil, othersFiles{err}
		}
		return createJournal(k.output, m)
	}

	meta, err := readMeta(k.output)
	if errors.Is(err, proto.ErrFormat) || errors.Is(err, metadata.ErrFormat) {
		err = othersFiles{err}
	}
	if err != nil {
		return nil, exit.WithHint(err, metaHint(err))
	}

	if meta.TestID != k.run {
		return nil, othersFiles{exit.WithHint(fmt.Errorf("%s belongs to run %s", k.output.Results(), meta.TestID),
			"choose another output with -o")}
	}

	if err := k.same(k.output.Results(), *meta.Manifest, m); err != nil {
		return nil, err
	}

	if err := checkWritten(k.output, meta); err != nil {
		return nil, err
	}

	if meta.Manifest.Retries == m.Retries {
		return nil, errWritten
	}

	at, err := collector.EndOfResults(ctx, k.link.JS, k.run)
	if err != nil {
		return nil, err
	}

	return journal.CreateFromOutput(k.output, meta, m, at)
}

// othersFiles is the error of an output whose files are of something else than the run:
// waiting does not help.
type othersFiles struct{ error }

func (e othersFiles) Unwrap() error { return e.error }

// sameJournal refuses to go on with a journal of another run than m.
func (k *keeper) sameJournal(then, m proto.Manifest) error {
	if then.Run != k.run {
		return othersFiles{exit.WithHint(fmt.Errorf("%s belongs to run %s", k.output.Journal(), then.Run),
			"choose another output with -o")}
	}

	return k.same(k.output.Journal(), then, m)
}

// same refuses to go on with what another run has left that had the same name, and has
// left the bus: its lines would be taken for those of this one.
func (k *keeper) same(path string, then, now proto.Manifest) error {
	text := difference(then, now)
	if text == "" {
		return nil
	}
	return othersFiles{exit.WithHint(fmt.Errorf("%s is of an earlier run %s, %s", path, k.run, text),
		"move it away, or choose another output with -o")}
}

// noteProblem notes on the bus what keeps a run from being collected, or that nothing does.
func noteProblem(ctx context.Context, runs *bus.RunStore, m proto.Manifest, text string) error {
	return updateSame(ctx, runs, m, func(now *proto.Manifest) {
		now.Problem = strings.ToValidUTF8(text[:min(len(text), maxProblem)], "")
	})
}

// refuseRun ends a run that cannot be collected, unless another collector has begun to. It
// reports whether it does.
func (k *keeper) refuseRun(ctx context.Context, runs *bus.RunStore, m proto.Manifest, text string) bool {
	refused := true // or ended meanwhile
	err := updateSame(ctx, runs, m, func(now *proto.Manifest) {
		if refused = now.Output == "" || now.Output == k.info().String(); refused {
			ended := time.Now().UTC()
			now.State, now.EndedAt, now.Problem = proto.StateFailed, &ended, strings.ToValidUTF8(text[:min(len(text),
				maxProblem)], "")
		}
	})

	return refused && err == nil
}

// maxProblem is how many bytes of an error a manifest has.
const maxProblem = 1000

// updateSame changes the manifest of a run that goes on, and is not another of its id.
func updateSame(ctx context.Context, runs *bus.RunStore, m proto.Manifest, change func(*proto.Manifest)) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	return runs.Update(ctx, m.Run, func(now *proto.Manifest) error {
		if now.CreatedAt.Equal(m.CreatedAt) && !now.State.Ended() {
			change(now)
		}
		return nil
	})
}

// settle notes on the bus that the run has ended, should a crash have come between
// that and its files.
func (k *keeper) settle(ctx context.Context, runs *bus.RunStore) (*metadata.Run, error) {
	meta, err := readMeta(k.output)
	if err != nil {
		return nil, err
	}

	if err := k.output.RemoveStale(); err != nil {
		k.log.Warn().Err(err).Msg("failed to remove temporary files")
	}

	if !files.Exists(k.output.ReportHTML()) {
		k.reports.write(meta, k.output, k.log)
	}

	return meta, settleRun(ctx, k.link, runs, meta)
}

// settleRun notes on the bus that a run has ended, should the process that completed its
// files have died before it did. A run that has left the bus needs nothing.
func settleRun(ctx context.Context, l *busconn.Connection, runs *bus.RunStore, meta *metadata.Run) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	err := runs.Update(ctx, meta.TestID, func(m *proto.Manifest) error {
		if !m.State.Ended() {
			m.State, m.EndedAt, m.Counts = meta.Status, meta.Manifest.EndedAt, meta.Manifest.Counts
		}
		return nil
	})
	if errors.Is(err, proto.ErrNoRun) {
		return nil
	}
	if err != nil {
		return err
	}

	return bus.DeleteStream(ctx, l.JS, proto.WorkStream(meta.TestID))
}

// input returns copies of the files of the run's input, which is on the bus.
func (k *keeper) input(ctx context.Context, m proto.Manifest) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()

	if k.files != nil {
		return k.files, nil
	}

	if !m.Input.Stored {
		// The paths are of whoever wrote the manifest, and may name any file of this box.
		return nil, exit.WithHint(fmt.Errorf("the input of run %s is not on the bus", k.run),
			"run the promptmill run command that made it again, where its input is")
	}

	var files []string
	for i := range m.Input.Files {
		path := filepath.Join(k.dir, proto.InputObject(i))
		if err := k.copy(ctx, proto.InputObject(i), path); err != nil {
			return nil, fmt.Errorf("copy the input from the bus: %w", err)
		}
		files = append(files, path)
	}

	k.files = files

	return files, nil
}

func (k *keeper) copy(ctx context.Context, object, path string) error {
	if files.Exists(path) {
		return nil
	}

	if err := statedir.Make(k.reports.state, k.dir); err != nil {
		return err
	}

	return files.Write(path, 0o600, func(w io.Writer) error {
		return bus.New(k.link.JS).Objects(k.run).Copy(ctx, w, object)
	})
}

// hostName is what this machine is called.
func hostName() string {
	name, _ := os.Hostname() // without one it is just a host
	return cmp.Or(name, "host")
}
