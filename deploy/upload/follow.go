package upload

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/promptmill/promptmill/deploy/objectstore"
)

// Synced notes the size of the synced journal. It does not wait.
func (t *Target) Synced(size int64) {
	for {
		select {
		case t.synced <- size:
			return
		default:
		}

		select {
		case <-t.synced: // an older one, which was not taken yet
		default:
		}
	}
}

// Follow copies the synced journal of a run, of which size bytes are synced already, until ctx
// ends. A store that fails does not end it: it warns once, and tries again with the next
// frames. It returns an error if another run has the output: a process of another machine may have
// begun at the same time.
func (t *Target) Follow(ctx context.Context, run string, size int64) error {
	f := &follower{
		target: t,
		run:    run,
		size:   size,
	}

	timer := time.NewTimer(0) // the first piece also keeps others from the output
	defer timer.Stop()

	pause := t.PieceTime / 32

	for {
		select {
		case <-ctx.Done():
			return nil
		case f.size = <-t.synced:
			if f.known && f.size-f.copied < t.PieceSize {
				continue // the timer is set
			}
		case <-timer.C:
		}

		if err := f.step(ctx); err != nil {
			return err
		}

		timer.Reset(pause)
		pause = min(2*pause, t.PieceTime)
	}
}

// follower copies the journal of a run in pieces.
type follower struct {
	target *Target
	run    string
	// size is the size of the synced journal.
	size int64
	// file describes the journal whose pieces are in the store, and copied is their size.
	file   fs.FileInfo
	copied int64
	// known reports that file and copied are known.
	known bool
	// warned reports that the store has failed, and that this was logged.
	warned bool
}

// step copies the synced frames. It returns the error of an output that another run has, and logs any
// other one.
func (f *follower) step(ctx context.Context) error {
	err := f.copyPiece(ctx)
	if _, ok := errors.AsType[*foreignError](err); ok {
		return err
	}

	f.logFailure(ctx, err)

	return nil
}

// logFailure logs the first of the failures in a row. err may be nil.
func (f *follower) logFailure(ctx context.Context, err error) {
	switch {
	case err == nil:
		f.warned = false
	case ctx.Err() != nil:
	case !f.warned:
		f.warned = true
		f.target.log.Warn().Err(err).Str("url", f.target.URL).
			Msg("failed to copy partial results to the store; the run continues, and it is tried again")
	}
}

// copyPiece copies the journal from where the pieces end.
func (f *follower) copyPiece(ctx context.Context) error {
	journal, err := os.Open(f.target.Local.Journal())
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the run is complete
	}
	if err != nil {
		return err
	}

	defer journal.Close()

	info, err := journal.Stat()
	if err != nil {
		return err
	}

	// A journal that was repaired is another file, with other offsets.
	if !f.known || !os.SameFile(info, f.file) || f.size < f.copied {
		if f.copied, err = f.target.matchPieces(ctx, journal, min(f.size, info.Size()), f.run); err != nil {
			f.known = false
			return err
		}
		f.file, f.known = info, true
	}

	length := min(f.size, info.Size()) - f.copied
	if length <= 0 {
		return nil
	}

	sum, err := hashPiece(journal, f.copied, length)
	if err != nil {
		return err
	}

	write := f.target.Store.Upload
	if f.copied == 0 { // of two runs that begin at the same time, one has the output
		write = f.target.Store.Create
	}

	err = write(ctx, f.target.pieceKey(f.copied), io.NewSectionReader(journal, f.copied, length), length,
		map[string]string{runKey: f.run, sumKey: sum})
	switch {
	case err == nil:
		f.copied += length
	case errors.Is(err, fs.ErrExist):
		// A piece of another run is refused. One of this run has arrived late, from a process that has died.
		f.known = false
		_, err = f.target.matchPieces(ctx, journal, 0, f.run)
	}

	return err
}

// matchPieces compares the pieces in the store with the journal, and deletes those from the
// first one on that is not a part of it: its torn tail may have been cut off. It returns where
// the pieces end.
func (t *Target) matchPieces(ctx context.Context, journal io.ReaderAt, size int64, run string) (int64, error) {
	list, err := t.Store.List(ctx, t.partPrefix())
	if err != nil {
		return 0, err
	}

	list = slices.DeleteFunc(list, func(o objectstore.Object) bool { return !t.isPiece(o.Key) })

	end, good := int64(0), 0
	for _, o := range list {
		offset, _ := t.pieceOffset(o.Key)
		if offset != end || o.Size == 0 || offset+o.Size > size {
			break
		}

		same, err := t.isSamePiece(ctx, journal, offset, o, run)
		if err != nil {
			return 0, err
		}

		if !same {
			break
		}

		end, good = offset+o.Size, good+1
	}

	return end, t.deletePieces(ctx, list[good:], run)
}

// isSamePiece compares a piece in the store with the journal.
func (t *Target) isSamePiece(
	ctx context.Context, journal io.ReaderAt, offset int64, piece objectstore.Object, run string,
) (bool, error) {
	o, err := t.Store.Stat(ctx, piece.Key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}

	if owner := o.Metadata[runKey]; owner != run {
		return false, t.refuse(piece.Key, owner)
	}

	sum, err := hashPiece(journal, offset, piece.Size)

	return sum == o.Metadata[sumKey], err
}

// hashPiece returns the SHA-256 of a part of the journal.
func hashPiece(journal io.ReaderAt, offset, length int64) (string, error) {
	hash := sha256.New()
	n, err := io.Copy(hash, io.NewSectionReader(journal, offset, length))
	if err == nil && n != length {
		err = io.ErrUnexpectedEOF
	}

	return hex.EncodeToString(hash.Sum(nil)), err
}
