package pipeline

import (
	"path/filepath"
	"strings"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/export"
	"github.com/promptmill/promptmill/deploy/objectstore"
)

// OwnFiles recognises the files of a run's output by their names. A folder or a pattern of the
// run's input leaves them out, so that the same command has the same input again.
type OwnFiles struct {
	// place is the output, as an absolute path without links or as a URL.
	place output.Prefix
	// tables are the tables, each without the numbers of its shards.
	tables map[string]bool
	// folder is the folder of the latest path, and resolved the same without links.
	folder, resolved string
}

// NewOwnFiles returns the files of an output on this machine, or at the URL to which upload
// copies it. upload may be nil. table is the table's path, empty if there is none.
func NewOwnFiles(out output.Prefix, table string, upload Upload) *OwnFiles {
	f := &OwnFiles{tables: map[string]bool{}}

	f.place = placeOf(upload, out)
	if upload != nil && table != "" {
		table = f.place.Beside(table)
	}

	tables := []string{table}
	if meta, err := out.ReadMeta(); err == nil { // else it is missing, or reported with the output
		for _, t := range meta.Test.Tables {
			tables = append(tables, f.place.Beside(t.File))
		}
	}

	for _, t := range tables {
		path, _ := export.ParsePath(f.resolve(t))
		f.tables[path] = true
	}

	f.place = output.Prefix(f.resolve(string(f.place)))

	return f
}

// Has reports whether a path or a URL names a file of the output.
func (f *OwnFiles) Has(path string) bool {
	path = f.resolve(path)
	if f.place.IsOwn(path) || objectstore.IsURL(path) && strings.HasPrefix(path, string(f.place)+".part/") {
		return true // the journal is copied in pieces
	}

	table, _ := export.ParsePath(strings.TrimSuffix(path, atomicfile.TempSuffix))

	return f.tables[table]
}

// resolve returns an absolute path without links in its folder. A URL stays as it is.
func (f *OwnFiles) resolve(path string) string {
	if objectstore.IsURL(path) {
		return path
	}

	folder, name := filepath.Split(path)
	if folder != f.folder || f.resolved == "" {
		f.folder, f.resolved = folder, folder
		if absolute, err := filepath.Abs(folder); err == nil {
			f.resolved = absolute
		}
		if target, err := filepath.EvalSymlinks(f.resolved); err == nil {
			f.resolved = target
		}
	}

	return filepath.Join(f.resolved, name)
}
