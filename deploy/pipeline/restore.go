package pipeline

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/deploy/terminal"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// restoreLost puts runs back on the bus that have a journal, and that the bus has lost with its
// store or a part of it. It reports the runs that cannot continue.
func (s *server) restoreLost(ctx context.Context) error {
	journals, err := filepath.Glob(filepath.Join(s.Dir, "*"+output.JournalSuffix))
	if err != nil || len(journals) == 0 {
		return err // the pattern is good
	}

	deleted, err := s.runs.ListDeleted(ctx)
	if err != nil {
		return err
	}

	for _, path := range journals {
		m, err := journal.ReadManifest(path)
		if err != nil || output.Prefix(filepath.Join(s.Dir, m.Run)).Journal() != path || !s.collects(m) ||
			m.State.Ended() || slices.Contains(deleted, m.Run) || files.Exists(s.deletedMark(m.Run)) {
			continue // another program's, one of the run command, a copy of an ended run, or deleted
		}

		_, err = s.runs.Get(ctx, m.Run)
		if !errors.Is(err, proto.ErrNoRun) {
			continue // a manifest that cannot be read is there
		}

		if m.Policy.Batch {
			continue // the batch API puts it on the bus again
		}

		err = errElsewhere
		if s.embedded != nil {
			err = s.restore(ctx, m.Run)
		}
		if err != nil {
			s.Hooks.printf("run %s is not on the bus, and cannot continue: %v; its finished lines are in %s. To continue, submit the same input again with --run %s",
				m.Run, err, path, m.Run)
		}
	}

	return nil
}

// errElsewhere is the reason why a run is not put on a bus that is not ours.
var errElsewhere = errors.New("this bus may differ from the bus of the run")

// deletedMark returns the file that marks a run as deleted, in case the bus loses that.
func (s *server) deletedMark(run string) string { return filepath.Join(s.stateDir, "deleted", run) }

// noteDeleted marks a run as deleted, unless the bus does not list it so: it may have lost the
// manifest.
func (s *server) noteDeleted(ctx context.Context, run string) {
	deleted, err := s.runs.ListDeleted(ctx)
	if err == nil && !slices.Contains(deleted, run) {
		return
	}

	mark := s.deletedMark(run)
	if err == nil {
		err = statedir.Make(s.stateDir, filepath.Dir(mark))
	}
	if err == nil {
		err = os.WriteFile(mark, nil, 0o600)
	}
	if err != nil {
		s.Log.Warn().Err(err).Str("run", run).
			Msg("failed to note that the run was deleted; if the bus loses its store, the run would resume")
	}
}

// restore puts a run back on the bus, with its input, and has the requests published that have no
// line in the journal.
func (s *server) restore(ctx context.Context, run string) error {
	c := s.newCollector(run)
	j, err := journal.Open(c.Output.Journal())
	if err != nil {
		return err
	}

	state := j.State()
	m, missing := state.Manifest, state.Missing()

	if err := j.Close(); err != nil {
		return err
	}

	files, err := c.inputFiles(ctx, m)
	if err != nil {
		return err
	}

	if err := bus.EnsureStreams(ctx, s.link.JS, m, s.link.Limits); err != nil {
		return err
	}

	for i, path := range files {
		if err := s.putBack(ctx, run, proto.InputObject(i), path); err != nil {
			return err
		}
	}

	work, err := bus.FindStream(ctx, s.link.JS, proto.WorkStream(run))
	if err != nil {
		return err
	}

	m.State, m.StoppedBy, m.Publish = proto.StateInProgress, nil, proto.PublishState{Round: m.Publish.Round, Done: true}
	if err := s.runs.Create(ctx, m); err != nil {
		return err
	}

	s.Hooks.printf("run %s: the bus has lost it; resuming from its journal with the %s of %s requests that lack a line",
		run, terminal.FormatCount(missing.GetCardinality()), terminal.FormatCount(m.Input.Requests))

	if missing.IsEmpty() {
		return nil
	}

	return collector.RepublishMissing(ctx, s.link.JS, s.runs, run, work.CachedInfo().State.LastSeq, missing)
}

// putBack stores a file of the input on the bus, unless it is there.
func (s *server) putBack(ctx context.Context, run, object, path string) error {
	objects := bus.New(s.link.JS).Objects(run)
	has, err := objects.Has(ctx, object)
	if err != nil || has {
		return err
	}

	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()

	return objects.PutReader(ctx, object, file)
}
