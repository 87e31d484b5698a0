package upload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/objectstore"
)

// Finish copies the files of the complete run that the store does not have yet, the metadata
// last, and then deletes the pieces of the journal. It can be interrupted and repeated: the
// local files stay. It returns the number of files that it has copied. The error of a store that
// fails, or that has objects of another run, has the exit code of a store that cannot be reached; the
// error of an ended ctx has none.
func (t *Target) Finish(ctx context.Context, meta *metadata.Run) (copied int, err error) {
	copied, err = t.uploadAll(ctx, meta)
	if err != nil && ctx.Err() == nil {
		err = t.describeFinish(err)
	}

	return copied, err
}

// describeFinish gives an error at the end of a run its exit code and its hint.
func (t *Target) describeFinish(err error) error {
	foreign, _ := errors.AsType[*foreignError](err)
	newer, _ := errors.AsType[*newerError](err)
	whole := "the local files are whole, in " + string(t.Local) + ".*"
	again := "run the same command again: it uploads what is missing, and runs nothing; " + whole
	refused := exit.Hint(err)

	err = fmt.Errorf("the run is complete, but its files are not all at %s: %w", t.Output().Results(), err)
	switch {
	case foreign != nil || newer != nil: // the same command is refused again
		return exit.WithHint(err, refused+"; "+whole)
	case errors.Is(err, fs.ErrPermission) && refused != "":
		return exit.Unreachable(err, refused+"; then "+again)
	}

	return exit.Unreachable(err, again)
}

// uploadAll is Finish without the words of its error.
func (t *Target) uploadAll(ctx context.Context, meta *metadata.Run) (copied int, err error) {
	paths := slices.Concat(t.files(), t.tablesOf(meta))
	paths = slices.DeleteFunc(paths, func(path string) bool { return path == t.Local.Meta() || !files.Exists(path) })

	missing, err := t.findMissing(ctx, paths, meta.TestID)
	if err != nil {
		return 0, err
	}

	last, err := t.findMissing(ctx, []string{t.Local.Meta()}, meta.TestID)
	if err != nil {
		return 0, err
	}

	if len(last) > 0 { // another machine may have continued the run since it began here
		if err := t.checkNewerThan(ctx, meta); err != nil {
			return 0, err
		}
	}

	// Metadata beside files that it does not describe would be wrong.
	if len(missing) > 0 && len(last) > 0 {
		if err := t.Store.Delete(ctx, t.keyOf(t.Local.Meta())); err != nil {
			return 0, err
		}
	}

	for _, f := range slices.Concat(missing, last) {
		if err := t.upload(ctx, f, meta.TestID); err != nil {
			return copied, err
		}
		copied++
	}

	t.abortUploads(ctx, slices.Concat(paths, t.files()))

	return copied, t.removeLeftovers(ctx, meta)
}

// abortUploads discards the uploads of files of the output, and of pieces, that dead processes
// have left. Their parts are not visible, and cost money. A user may not have the right to list
// them.
func (t *Target) abortUploads(ctx context.Context, paths []string) {
	isOurs := func(key string) bool {
		return t.isPiece(key) || slices.ContainsFunc(paths, func(path string) bool { return t.keyOf(path) == key })
	}

	if err := t.Store.AbortUploads(ctx, t.Key, isOurs); err != nil {
		t.log.Warn().Err(err).Str("url", t.URL).
			Msg(
				"failed to look for uploads that a dead process has left; a lifecycle rule of the bucket can discard them",
			)
	}
}

// localFile is a file of the output that the store does not have.
type localFile struct {
	path string
	sum  string // SHA-256
}

// findMissing returns the files that the store does not have. It refuses to replace those of
// others.
func (t *Target) findMissing(ctx context.Context, paths []string, run string) (missing []localFile, err error) {
	for _, path := range paths {
		sum, size, err := output.HashFile(path)
		if err != nil {
			return nil, err
		}

		there, err := t.Store.Stat(ctx, t.keyOf(path))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case there.Metadata[runKey] != run:
			return nil, t.refuse(t.keyOf(path), there.Metadata[runKey])
		case there.Size == size && there.Metadata[sumKey] == sum:
			continue
		}

		missing = append(missing, localFile{path, sum})
	}

	return missing, nil
}

// upload copies a file.
func (t *Target) upload(ctx context.Context, f localFile, run string) error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()

	info, err := file.Stat()
	if err != nil {
		return err
	}

	return t.Store.Upload(ctx, t.keyOf(f.path), file, info.Size(), map[string]string{runKey: run, sumKey: f.sum})
}

// removeLeftovers deletes the pieces of the journal, the last one first, and the failed
// requests of an earlier attempt that a retry has answered.
func (t *Target) removeLeftovers(ctx context.Context, meta *metadata.Run) error {
	list, err := t.Store.List(ctx, t.partPrefix())
	if err != nil {
		return err
	}

	list = slices.DeleteFunc(list, func(o objectstore.Object) bool { return !t.isPiece(o.Key) })
	if err := t.deletePieces(ctx, list, meta.TestID); err != nil {
		return err
	}

	// A process may have died before it could delete the object.
	if err := t.Store.Delete(ctx, t.tryKey()); err != nil {
		return err
	}

	if files.Exists(t.Local.Errors()) {
		return nil
	}

	owner, err := t.ownerOf(ctx, t.keyOf(t.Local.Errors()))
	if err == nil && owner == meta.TestID {
		err = t.Store.Delete(ctx, t.keyOf(t.Local.Errors()))
	}

	return err
}

// deletePieces deletes pieces of a run, the last one first, so that the pieces are a beginning of the
// lines all the time. It deletes none if one is not of the run.
func (t *Target) deletePieces(ctx context.Context, pieces []objectstore.Object, run string) error {
	for _, o := range pieces {
		there, err := t.Store.Stat(ctx, o.Key)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}

		if owner := there.Metadata[runKey]; owner != run {
			return t.refuse(o.Key, owner)
		}
	}

	for _, o := range slices.Backward(pieces) {
		if err := t.Store.Delete(ctx, o.Key); err != nil {
			return err
		}
	}

	return nil
}

// pieceKey returns the key of the piece at an offset of the journal.
func (t *Target) pieceKey(offset int64) string {
	return fmt.Sprintf("%s%016x.zst", t.partPrefix(), offset)
}

// isPiece reports whether an object with a key is a piece.
func (t *Target) isPiece(key string) bool {
	_, ok := t.pieceOffset(key)
	return ok
}

// pieceOffset returns the offset of the piece of a key.
func (t *Target) pieceOffset(key string) (int64, bool) {
	name := key[min(len(key), len(t.partPrefix())):]
	if len(name) < 16 {
		return 0, false
	}

	offset, err := strconv.ParseInt(name[:16], 16, 64)

	return offset, err == nil && key == t.pieceKey(offset)
}
