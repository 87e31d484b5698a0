package batch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/proto"
)

// recordSuffix ends the names of records.
const recordSuffix = ".json"

// records is the folder of records.
type records struct {
	dir  string
	lock *os.File
}

// recordPath returns the path of the record of a run.
func recordPath(dir, run string) string { return filepath.Join(dir, IDPrefix+run+recordSuffix) }

// IsIn returns a function that reports whether a run is a batch that has its record in a
// folder. The server with that folder collects the run, and no other server does.
func IsIn(dir string) func(run string) bool {
	return func(run string) bool { return proto.CheckRunID(run) == nil && files.Exists(recordPath(dir, run)) }
}

// openRecords opens the folder, makes it if it is not there, and keeps other processes away.
func openRecords(dir string) (*records, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of batches: %w", err)
	}

	if err := errors.Join(atomicfile.SyncDir(dir), atomicfile.SyncDir(filepath.Dir(dir))); err != nil {
		return nil, fmt.Errorf("make the folder of batches: %w", err)
	}

	path := filepath.Join(dir, "lock")
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the folder of batches: %w", err)
	}

	switch err := atomicfile.Lock(path, lock); {
	case errors.Is(err, atomicfile.ErrLocked):
		return nil, exit.WithHint(fmt.Errorf("another promptmill serves the batches in %s", dir),
			"stop it, or choose another folder with --dir")
	case err != nil:
		return nil, fmt.Errorf("lock the folder of batches: %w", err)
	}

	return &records{dir: dir, lock: lock}, nil
}

// close lets other processes use the folder.
func (d *records) close() error { return atomicfile.Unlock(d.lock) }

// load reads all records. damaged is called for a file that cannot be read, which is left alone.
func (d *records) load(damaged func(path string, err error)) ([]*record, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, fmt.Errorf("read the folder of batches: %w", err)
	}

	var list []*record
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), recordSuffix)
		run, isRecord := strings.CutPrefix(name, IDPrefix)
		if !ok || !isRecord {
			continue
		}

		path := recordPath(d.dir, run)
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read a batch: %w", err)
		}

		r, err := parseRecord(run, text)
		if err != nil {
			damaged(path, err)
			continue
		}

		list = append(list, r)
	}

	return list, nil
}

// parseRecord reads the record of a run.
func parseRecord(run string, text []byte) (*record, error) {
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("not the record of a batch: %w", err)
	}

	switch {
	case r.Version != recordVersion:
		return nil, fmt.Errorf("the record of another version of promptmill (version %d, this one reads %d)", r.Version,
			recordVersion)
	case r.Run != run || proto.CheckRunID(run) != nil:
		return nil, fmt.Errorf("the record of run %q", r.Run)
	case rank(r.State) == 4 && !r.State.Ended():
		return nil, fmt.Errorf("a batch in the unknown state %q", r.State)
	}

	return &r, nil
}

// write stores a record. It is on disk when write returns.
func (d *records) write(r *record) error {
	err := files.Write(recordPath(d.dir, r.Run), 0o600, func(w io.Writer) error {
		return json.NewEncoder(w).Encode(r)
	})
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("store batch %s: %w", r.id(), pathErr)
	}
	return err
}

// remove removes a record, if it is there.
func (d *records) remove(r *record) error { return atomicfile.Unlink(recordPath(d.dir, r.Run)) }
