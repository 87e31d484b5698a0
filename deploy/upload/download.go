package upload

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/objectstore"
)

// Download copies the output of a run from a store to this machine: the files of Config.Local,
// and those of Config.Tables, as far as they are there. Of a run that is not complete it copies
// the pieces of the journal, as the journal. It replaces the files that are there. It
// returns an error with the exit code of a wrong usage if the store has no such output.
func Download(ctx context.Context, cfg Config) error {
	t := New(cfg)
	list, err := t.Store.List(ctx, t.Key+".")
	if err != nil {
		return err
	}

	there := map[string]bool{}
	for _, o := range list {
		there[o.Key] = true
	}

	found := false
	for _, path := range t.files() {
		if there[t.keyOf(path)] {
			found = true
			if err := t.download(ctx, path); err != nil {
				return err
			}
		}
	}

	if !there[t.keyOf(t.Local.Meta())] {
		pieces, err := t.downloadJournal(ctx, list)
		if err != nil {
			return err
		}
		found = found || pieces > 0
	}

	for _, path := range t.Tables {
		err := t.download(ctx, path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		found = found || err == nil
	}

	if !found {
		return exit.Usage("give the results of a run, which end in "+output.ResultsSuffix, "%s is not there",
			t.Output().Results())
	}

	return nil
}

// downloadJournal copies the pieces of a journal into one file, and returns their number. list
// has the objects of the output.
func (t *Target) downloadJournal(ctx context.Context, list []objectstore.Object) (int, error) {
	pieces := slices.DeleteFunc(slices.Clone(list), func(o objectstore.Object) bool { return !t.isPiece(o.Key) })
	if len(pieces) == 0 {
		return 0, nil
	}

	return len(pieces), files.Write(t.Local.Journal(), output.Mode, func(w io.Writer) error {
		end := int64(0)
		for _, o := range pieces {
			if offset, _ := t.pieceOffset(o.Key); offset != end {
				return fmt.Errorf("%s begins at byte %d of the journal, and the piece before it ends at byte %d",
					t.nameOf(o.Key), offset, end)
			}

			n, err := t.copyObject(ctx, w, o.Key)
			if err != nil {
				return err
			}

			end += n
		}

		return nil
	})
}

// download copies an object to its place on this machine.
func (t *Target) download(ctx context.Context, path string) error {
	return t.downloadAs(ctx, t.keyOf(path), path)
}

// downloadAs copies an object into a file.
func (t *Target) downloadAs(ctx context.Context, key, path string) error {
	return files.Write(path, output.Mode, func(w io.Writer) error {
		_, err := t.copyObject(ctx, w, key)
		return err
	})
}

// copyObject copies the bytes of an object, and returns their number. It refuses bytes that are
// not the uploaded ones. An object that another program has copied may have no SHA-256.
func (t *Target) copyObject(ctx context.Context, w io.Writer, key string) (int64, error) {
	described, err := t.Store.Stat(ctx, key)
	if err != nil {
		return 0, err
	}

	body, err := t.Store.Open(ctx, key)
	if err != nil {
		return 0, err
	}
	defer body.Close()

	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, hash), body)
	if err != nil {
		return n, err
	}

	sum, want := hex.EncodeToString(hash.Sum(nil)), described.Metadata[sumKey]
	if n == described.Size && (want == "" || sum == want) {
		return n, nil
	}

	if n != described.Size {
		err = fmt.Errorf("%s has %d bytes, and the store sends %d", t.nameOf(key), described.Size, n)
	} else {
		err = fmt.Errorf("%s is damaged: its SHA-256 is %s, and the uploaded file had %s", t.nameOf(key), sum, want)
	}

	return n, exit.WithHint(err,
		"remove the object, and run the command of the run again where it began: it uploads the file again")
}
