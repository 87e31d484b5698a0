package upload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/export"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/proto"
)

// The keys of an object's metadata.
const (
	runKey = "promptmill-run"
	sumKey = "promptmill-sha256"
)

// Store is a bucket: [objectstore.Bucket] implements it. Its calls retry what may pass.
type Store interface {
	// Stat describes an object. The error wraps [fs.ErrNotExist] if there is none.
	Stat(ctx context.Context, key string) (objectstore.Object, error)
	// List returns the objects whose keys begin with a prefix, in the order of their keys.
	List(ctx context.Context, prefix string) ([]objectstore.Object, error)
	// Open opens an object for reading.
	Open(ctx context.Context, key string) (io.ReadCloser, error)
	// Upload writes an object, which appears when it is whole.
	Upload(ctx context.Context, key string, file io.ReaderAt, size int64, metadata map[string]string) error
	// Create is Upload for an object that must not be there. The error wraps [fs.ErrExist] if it is.
	Create(ctx context.Context, key string, file io.ReaderAt, size int64, metadata map[string]string) error
	// Delete deletes an object. It is no error if there is none.
	Delete(ctx context.Context, key string) error
	// AbortUploads discards the uploads that dead processes have left, of the keys that a
	// function chooses.
	AbortUploads(ctx context.Context, prefix string, chosen func(key string) bool) error
}

// Config names the output, and the place that it is copied to.
type Config struct {
	// Store is the bucket. Required.
	Store Store
	// URL is the URL of the output without its ending, and Key is its key in the bucket. Required.
	URL, Key string
	// Local is the output on this machine. Required, as an absolute path.
	Local output.Prefix
	// State is the state folder that has the folder of Local, which is made when the place is prepared.
	// Defaults to none: the folder of Local is there.
	State string
	// Tables are the paths on this machine of the tables that the run writes. Defaults to none.
	Tables []string
	// PieceSize is the size in bytes from which on a piece of the journal is copied. Defaults
	// to 8 MiB.
	PieceSize int64
	// PieceTime is the time after which a smaller piece is copied. It is shorter for the first
	// pieces, so that the first answers can be read soon. Defaults to a minute.
	PieceTime time.Duration
}

// Target copies the output of one run. [Target.Prepare] comes first, and [Target.Follow] before
// [Target.Finish].
type Target struct {
	Config

	log zerolog.Logger
	// synced has the latest size of the synced journal.
	synced chan int64
}

// New returns a target.
func New(cfg Config) *Target {
	if cfg.PieceSize == 0 {
		cfg.PieceSize = 8 << 20
	}
	if cfg.PieceTime == 0 {
		cfg.PieceTime = time.Minute
	}

	return &Target{Config: cfg, synced: make(chan int64, 1)}
}

// LogTo sets the log of what fails and is tried again, and of copies to this machine. Without
// it they are not logged. It must be called before the other methods.
func (t *Target) LogTo(log zerolog.Logger) { t.log = log }

// Output names the files in the store, for people.
func (t *Target) Output() output.Prefix { return output.Prefix(t.URL) }

// partPrefix returns the beginning of the keys of the pieces.
func (t *Target) partPrefix() string { return t.Key + ".part/" }

// tryKey returns the key of the object that is written as a trial.
func (t *Target) tryKey() string { return t.partPrefix() + ".try" }

// keyOf returns the key of a local file of the output.
func (t *Target) keyOf(path string) string {
	dir, _ := splitKey(t.Key)
	return dir + filepath.Base(path)
}

// splitKey splits a key behind its last slash.
func splitKey(key string) (dir, name string) {
	i := strings.LastIndexByte(key, '/') + 1
	return key[:i], key[i:]
}

// nameOf returns the URL of a key for people.
func (t *Target) nameOf(key string) string { return strings.TrimSuffix(t.URL, t.Key) + key }

// files returns the paths of the files that every run may write, besides its tables.
func (t *Target) files() []string {
	p := t.Local
	return []string{p.Results(), p.Errors(), p.ReportMarkdown(), p.ReportHTML(), p.Meta()}
}

// checkTables refuses the tables of others.
func (t *Target) checkTables(ctx context.Context, run string) error {
	for _, path := range t.Tables {
		o, err := t.Store.Stat(ctx, t.keyOf(path))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case run == "" || o.Metadata[runKey] != run:
			return t.refuse(t.keyOf(path), o.Metadata[runKey])
		}
	}

	return nil
}

// isOurs reports whether a key is one that this output writes.
func (t *Target) isOurs(key string) bool {
	if strings.HasPrefix(key, t.partPrefix()) {
		return true
	}

	for _, path := range t.files() {
		if key == t.keyOf(path) {
			return true
		}
	}

	return false
}

// localRun is the run whose files are on this machine.
type localRun struct {
	id       string
	complete bool
}

// findLocal finds the run of the local files. Its id is empty if there is none.
func (t *Target) findLocal() (localRun, error) {
	m, err := journal.ReadManifest(t.Local.Journal())
	if err == nil {
		return localRun{id: m.Run}, nil
	}

	if files.Exists(t.Local.Journal()) || !files.Exists(t.Local.Meta()) {
		return localRun{}, nil // the run reports the fault of its journal
	}

	meta, err := t.Local.ReadMeta()
	if err != nil {
		return localRun{}, err
	}

	return localRun{id: meta.TestID, complete: true}, nil
}

// Prepare checks the place before the run begins: it can be listed and written, and no object
// of another program or another run is in the way. If the place has a complete run, and this
// machine has none, Prepare copies its files here, so that the run is found to be complete.
func (t *Target) Prepare(ctx context.Context) error {
	local, err := t.findLocal()
	if err != nil {
		return err
	}

	list, err := t.Store.List(ctx, t.Key+".")
	if err != nil {
		return t.describeError(err)
	}

	if local.id == "" {
		if err := t.adoptRemote(ctx, list); err != nil {
			return t.describeError(err)
		}
	} else {
		if err := t.checkLocal(ctx, list, local.id); err != nil {
			return t.describeError(err)
		}
		if err := t.checkNewer(ctx, list, local); err != nil {
			return t.describeError(err)
		}
	}

	if local.complete || local.id == "" && files.Exists(t.Local.Meta()) {
		return nil // there may be nothing to write
	}

	if err := t.tryWrite(ctx); err != nil {
		return t.describeError(err)
	}

	return t.makeFolder()
}

// makeFolder makes the folder of the local files.
func (t *Target) makeFolder() error {
	if t.State == "" {
		return nil
	}
	return statedir.Make(t.State, filepath.Dir(string(t.Local)))
}

// checkLocal refuses objects that are not of the run on this machine.
func (t *Target) checkLocal(ctx context.Context, list []objectstore.Object, run string) error {
	if err := t.checkOwner(ctx, list, run); err != nil {
		return err
	}
	return t.checkTables(ctx, run)
}

// tryWrite writes and deletes an object.
func (t *Target) tryWrite(ctx context.Context) error {
	text := strings.NewReader("promptmill tries whether it can write here\n")
	if err := t.Store.Upload(ctx, t.tryKey(), text, text.Size(), nil); err != nil {
		return err
	}

	return t.Store.Delete(ctx, t.tryKey())
}

// checkOwner refuses objects that are not of a run. Of the pieces it looks at the first one.
func (t *Target) checkOwner(ctx context.Context, list []objectstore.Object, run string) error {
	pieces := false
	for _, o := range list {
		piece := t.isPiece(o.Key)
		if !t.isOurs(o.Key) || o.Key == t.tryKey() || piece && pieces {
			continue
		}

		pieces = pieces || piece

		owner, err := t.ownerOf(ctx, o.Key)
		if err != nil {
			return err
		}

		if run == "" || owner != run {
			return t.refuse(o.Key, owner)
		}
	}

	return nil
}

// ownerOf returns the run that has written an object; empty: none, or there is no object.
func (t *Target) ownerOf(ctx context.Context, key string) (string, error) {
	o, err := t.Store.Stat(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}

	return o.Metadata[runKey], err
}

// foreignError is the error of an object that another program or another run has written.
type foreignError struct{ text string }

// Error implements error.
func (e *foreignError) Error() string { return e.text }

// refuse returns the error of an object that is in the way: a [foreignError].
func (t *Target) refuse(key, owner string) error {
	name := t.nameOf(key)
	if owner == "" {
		return exit.WithHint(&foreignError{name + " is there, and promptmill did not write it"},
			"move it away, or choose another output with -o")
	}

	return exit.WithHint(
		&foreignError{fmt.Sprintf("%s belongs to run %s, whose journal is not on this machine", name, owner)},
		"run the command where that run began, remove the objects of the output, or choose another one with -o")
}

// adoptRemote copies the files of a complete run in the store to this machine. It refuses any
// other object.
func (t *Target) adoptRemote(ctx context.Context, list []objectstore.Object) error {
	there := map[string]bool{}
	for _, o := range list {
		there[o.Key] = true
	}

	if !there[t.keyOf(t.Local.Meta())] {
		return t.checkLocal(ctx, list, "")
	}

	owner, err := t.ownerOf(ctx, t.keyOf(t.Local.Meta()))
	if err != nil {
		return err
	}

	if owner == "" {
		return t.refuse(t.keyOf(t.Local.Meta()), "")
	}

	if err := t.checkOwner(ctx, list, owner); err != nil {
		return err
	}

	if err := t.makeFolder(); err != nil {
		return err
	}

	t.log.Info().Str("run", owner).Str("url", t.URL).Msg("copying the complete run to this machine")
	for _, path := range t.files() { // the metadata is the last one
		if path == t.Local.Meta() {
			if err := t.downloadTables(ctx); err != nil {
				return err
			}
		}

		if there[t.keyOf(path)] {
			if err := t.download(ctx, path); err != nil {
				return err
			}
		}
	}

	return nil
}

// downloadTables copies the tables of the run to this machine.
func (t *Target) downloadTables(ctx context.Context) error {
	temporary := string(t.Local) + ".remote-meta.json"
	if err := t.downloadAs(ctx, t.keyOf(t.Local.Meta()), temporary); err != nil {
		return err
	}
	defer os.Remove(temporary)

	meta, err := metadata.Read(temporary)
	if err != nil {
		return exit.WithHint(fmt.Errorf("%s: the metadata cannot be read: %w", t.nameOf(t.keyOf(t.Local.Meta())), err),
			"remove the objects of the output, or choose another one with -o")
	}

	for _, path := range t.tablesOf(meta) {
		if err := t.download(ctx, path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}

	return nil
}

// tablesOf returns the local paths of a run's tables. It ignores the names of other files: the
// metadata may come from the store, and must not replace what else is in the folder.
func (t *Target) tablesOf(meta *metadata.Run) (paths []string) {
	for _, table := range meta.Test.Tables {
		if t.isTable(table.File) {
			paths = append(paths, t.Local.Beside(table.File))
		}
	}

	return paths
}

// isTable reports whether a table of this output has a file of a name.
func (t *Target) isTable(name string) bool {
	path := filepath.Join(filepath.Dir(string(t.Local)), name)
	if filepath.Base(path) != name {
		return false
	}

	whole := string(t.Local) + export.Ending(name)
	table, _ := export.ParsePath(path)

	return export.Ending(name) != "" && (path == whole || table == whole)
}

// describeError gives the error of a store its exit code, unless it has one.
func (t *Target) describeError(err error) error {
	if err == nil || exit.IsError(err) || errors.Is(err, proto.ErrFormat) {
		return err
	}

	return exit.Unreachable(err, "")
}
