package upload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/objectstore"
)

// newerError is the error of a run that another machine has continued in the store: the local
// files would replace its answers.
type newerError struct{ text string }

// Error implements error.
func (e *newerError) Error() string { return e.text }

// checkNewer refuses to continue the local run if the store has a later state of it.
func (t *Target) checkNewer(ctx context.Context, list []objectstore.Object, local localRun) error {
	if !slices.ContainsFunc(list, func(o objectstore.Object) bool { return o.Key == t.keyOf(t.Local.Meta()) }) {
		return nil
	}

	if local.complete {
		meta, err := t.Local.ReadMeta()
		if err != nil {
			return err
		}
		return t.checkNewerThan(ctx, meta)
	}

	m, err := journal.ReadManifest(t.Local.Journal())
	if err != nil {
		return err
	}

	// The journal of a retry has one retry more than the complete run that it continues.
	remote, err := t.readRemoteMeta(ctx)
	if err != nil || remote == nil || remote.TestID != m.Run || remote.Manifest.Retries < m.Retries {
		return err
	}

	return t.refuseNewer(remote, "and here the run is not complete")
}

// checkNewerThan refuses metadata of a run of which the store has a later state.
func (t *Target) checkNewerThan(ctx context.Context, meta *metadata.Run) error {
	remote, err := t.readRemoteMeta(ctx)
	if err != nil || remote == nil || remote.TestID != meta.TestID {
		return err
	}

	there, here := remote.Results.SuccessCount, meta.Results.SuccessCount
	switch {
	case there > here:
		return t.refuseNewer(remote, fmt.Sprintf("and the files on this machine have %d", here))
	case there == here && endOf(remote).After(endOf(meta)):
		return t.refuseNewer(remote, "and the files on this machine are older: of "+
			endOf(meta).Local().Format(time.DateTime))
	}

	return nil
}

// endOf returns the end of a run, or the zero time if that is not known.
func endOf(meta *metadata.Run) time.Time {
	if meta.Manifest == nil || meta.Manifest.EndedAt == nil {
		return time.Time{}
	}
	return *meta.Manifest.EndedAt
}

// readRemoteMeta returns the metadata in the store, or nil if there is none, or none of a run of
// promptmill.
func (t *Target) readRemoteMeta(ctx context.Context) (*metadata.Run, error) {
	var text bytes.Buffer
	_, err := t.copyObject(ctx, &text, t.keyOf(t.Local.Meta()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}

	meta, err := metadata.Parse(text.Bytes())
	if err != nil {
		return nil, fmt.Errorf("%s: the metadata cannot be read: %w", t.nameOf(t.keyOf(t.Local.Meta())), err)
	}

	if meta.Manifest == nil { // of another tool
		return nil, nil
	}

	return meta, nil
}

// refuseNewer returns the error of a later state in the store. here describes that of this machine.
func (t *Target) refuseNewer(remote *metadata.Run, here string) error {
	text := fmt.Sprintf("%s has a later state of run %s, which another machine has continued: it ended at %s "+
		"with %d answered requests, %s", t.nameOf(t.keyOf(t.Local.Meta())), remote.TestID,
		endOf(remote).Local().Format(time.DateTime), remote.Results.SuccessCount, here)

	return exit.WithHint(&newerError{text}, "remove the local copy, "+files.Short(filepath.Dir(string(t.Local)))+
		", to continue from the files in the store, or choose another output with -o")
}
