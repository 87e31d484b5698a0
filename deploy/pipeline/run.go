package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// Run runs the inputs, resumes the run that an earlier process has begun with the same
// configuration, or reports that the output is complete. It returns when each request has a line in
// the output, answered or failed.
//
// The end of ctx stops the run gracefully: workers finish their requests in flight within
// Config.Workers.Grace, and the collector writes the results that have arrived. The error wraps
// [ErrInterrupted] and the cause of ctx's end then, and the next Run with the same
// configuration resumes. A process that is killed loses nothing either.
//
// Errors of the exit package carry a hint for a person and the exit code of a command.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}

	r := &runner{
		cfg:      cfg,
		inputs:   cfg.Inputs,
		output:   output.Prefix(cfg.Output),
		stateDir: statedir.ForOutput(cfg.State, cfg.Output),
	}

	return r.run(ctx)
}

// runner is one call of [Run].
type runner struct {
	cfg      Config
	inputs   []string // absolute paths, also of the copy of standard input
	output   output.Prefix
	stateDir string // of this run alone

	table   *tableWriter
	journal *journal.Journal
	resumed bool
	stdin   *stdinCopy // nil: the input is in files

	servers  *modelservers.Set // nil if only other processes have workers
	served   modelserver.Info  // describes the servers
	unlisted error             // why they do not list their models

	link *busconn.Connection // to the bus of the configuration; nil: the bus is in this process

	// others are the other runs on the bus in this process that have not ended with it.
	others []string

	// endUnnoted is set while the bus does not have the end of the run yet.
	endUnnoted bool
}

// run runs or resumes the run, or returns the result of a complete one.
func (r *runner) run(ctx context.Context) (*Result, error) {
	// A process that completed the run may not have come to remove its state. The bus may not
	// have the end of the run then.
	hadState := files.Exists(r.stateDir)

	lock, err := statedir.Lock(r.cfg.State, r.stateDir)
	if errors.Is(err, statedir.ErrLocked) {
		return nil, exit.WithHint(fmt.Errorf("another promptmill is working on this output: %w", err),
			"wait for it, stop that process, or choose another output with -o")
	}
	if err != nil {
		return nil, err
	}

	defer lock.Close()
	defer r.removeUnstarted(hadState)

	if err := prepareUpload(ctx, r.cfg.Upload, r.cfg.Log); err != nil {
		return nil, r.describeError(ctx, err)
	}

	r.table, err = newTableWriter(r.cfg.Table, r.output, r.cfg.State, r.stateDir, r.inputs, r.cfg.Hooks)
	if err != nil {
		return nil, err
	}
	r.table.input = r.unchangedSource

	res, err := r.copyInputOrFindResult(ctx, hadState)
	if r.stdin != nil {
		defer r.stdin.discard()
	}

	if err != nil {
		return nil, err
	}
	if res != nil {
		return res, finishUpload(ctx, r.cfg.Upload, r.cfg.Hooks, res)
	}

	err = r.prepareBus(ctx)
	if r.link != nil {
		defer r.link.Close()
	}
	if err != nil {
		return nil, err
	}

	err = r.openJournal(ctx)
	if r.journal != nil {
		defer r.journal.Close()
	}
	if r.servers != nil && r.cfg.Opened == nil {
		defer r.servers.Close()
	}

	if err != nil {
		return nil, r.describeError(ctx, err)
	}

	if err := r.runParts(ctx); err != nil {
		return nil, r.describeError(ctx, r.discardUnstarted(err))
	}

	meta, err := r.output.ReadMeta()
	if err != nil {
		return nil, err
	}

	r.removeState()

	res = newResult(r.output, meta, r.cfg.Policy)

	return res, finishUpload(ctx, r.cfg.Upload, r.cfg.Hooks, res)
}

// prepareBus refuses a run whose bus could not be used, before anything is done for it. It connects
// to the bus of the configuration, if there is one.
func (r *runner) prepareBus(ctx context.Context) (err error) {
	if !r.cfg.Bus.External() {
		if !r.cfg.Shared {
			return nil
		}
		return natsserver.CheckListen(r.cfg.Listen.Address, r.cfg.State)
	}

	if r.link, err = busconn.Connect(r.cfg.Bus, proto.RoleCollector, r.cfg.Log); err != nil {
		return err
	}

	if err := checkStaysUp(ctx, r.link, "start promptmill serve, and name its bus"); err != nil {
		return err
	}

	if r.cfg.Bus.CollectsOnly() { // workers of other processes run the requests
		return nil
	}

	return r.link.CheckRole(proto.RoleWorker, r.cfg.Bus.Command)
}

// copyInputOrFindResult copies standard input into a file, if that is the input, and returns the
// result of a complete run of the input, if there is one.
func (r *runner) copyInputOrFindResult(ctx context.Context, hadState bool) (*Result, error) {
	if r.inputs[0] != "-" {
		return r.completed(ctx, hadState)
	}

	var err error
	if r.stdin, err = copyStdin(ctx, r.cfg.Stdin, r.stateDir); err != nil {
		return nil, r.describeError(ctx, err)
	}

	r.inputs = []string{r.stdin.path}

	return r.completed(ctx, hadState)
}

// openJournal resumes the run of the journal, or begins a run.
func (r *runner) openJournal(ctx context.Context) (err error) {
	r.journal, err = journal.Open(r.output.Journal())
	switch {
	case err == nil:
		r.resumed = true
		err = r.resume(ctx)
	case errors.Is(err, os.ErrNotExist):
		err = r.begin(ctx)
	case errors.Is(err, atomicfile.ErrIrregular), errors.Is(err, atomicfile.ErrForeignLink):
		err = CheckOutput(r.output)
	case errors.Is(err, atomicfile.ErrLocked):
		err = describeOutputError(err)
	case errors.Is(err, proto.ErrFormat):
		err = exit.WithHint(err,
			"it is no journal of this version of promptmill: move it away, or choose another output with -o")
	}

	return err
}

// discardUnstarted removes the files of a run that did not begin, so that another input or other
// settings can have its output. It returns why it did not begin.
func (r *runner) discardUnstarted(err error) error {
	_, refused := errors.AsType[*worker.RefusedError](err)
	switch {
	case errors.Is(err, errIDInUse) && !r.resumed:
		return errors.Join(err, r.journal.Remove())
	case refused && !r.resumed && r.journal.State().Counts.Done == 0:
		if err := errors.Join(r.journal.Remove(), os.RemoveAll(r.stateDir)); err != nil {
			r.cfg.Log.Warn().Err(err).Msg("failed to remove the files of the run; it resumes from there")
		}
	}

	return err
}

// removeState removes the state of a complete run. It is the last step: while the folder
// exists, the next Run looks for remaining work.
func (r *runner) removeState() {
	if r.endUnnoted {
		return
	}

	if len(r.others) > 0 {
		r.keepState()
		return
	}

	if err := os.RemoveAll(r.stateDir); err != nil {
		r.cfg.Log.Warn().Err(err).Msg("failed to remove the state of the complete run; it can be deleted")
	}
}

// keepState moves the state of a complete run away, because the bus has other runs that have not
// ended. The next [Run] of the same output does not find it.
func (r *runner) keepState() {
	kept := filepath.Join(r.cfg.State, "kept-"+r.journal.State().Manifest.Run)
	if err := os.Rename(r.stateDir, kept); err != nil {
		kept = r.stateDir
	}

	r.cfg.Log.Warn().Strs("runs", r.others).Str("store", kept).
		Msg("this bus ends with other runs on it that have not ended; kept its store: submit them to promptmill serve, " +
			"then delete it")
}

// removeUnstarted removes the files of a start without a journal from the state folder: standard
// input, and the folder itself, but not the log of a model server that did not start. hadState says
// that the folder existed before.
func (r *runner) removeUnstarted(hadState bool) {
	if r.endUnnoted || (hadState || r.journal != nil) && files.Exists(r.output.Journal()) {
		return
	}
	os.Remove(filepath.Join(r.stateDir, spoolFile))
	statedir.RemoveEmpty(r.stateDir)
}
