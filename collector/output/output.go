// Package output names, claims, writes and checks the files of a run's output.
//
// A [Prefix] is the common beginning of their paths: "dir/run" stands for
//
//	dir/run.jsonl.zst          answered requests
//	dir/run.errors.jsonl.zst   failed requests
//	dir/run.meta.json          metadata
//	dir/run.report.md, .html   the report
//	dir/run.part.zst           the journal, until the run is complete
//
// A [Claim] keeps other runs from these files. [LineWriter] writes lines as one zstd frame
// or in the seekable format. Each file appears in one step, when it is whole (package
// atomicfile).
package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/collector/atomicfile"
)

// ResultsSuffix ends the name of a file of answered requests.
const ResultsSuffix = ".jsonl.zst"

// JournalSuffix ends the name of a journal.
const JournalSuffix = ".part.zst"

// NewJournalSuffix ends the name of a journal that is being filled from a complete output.
const NewJournalSuffix = ".new"

// The endings of the other files' names.
const (
	errorsSuffix   = ".errors" + ResultsSuffix
	metaSuffix     = ".meta.json"
	markdownSuffix = ".report.md"
	htmlSuffix     = ".report.html"
)

// probeSuffix ends the name of a file that only shows that one can be made. It is as long
// as atomicfile.TempSuffix, so that a name which is too long is found.
const probeSuffix = ".try"

// Mode are the permissions of output files, less the umask.
const Mode = 0o666

// Prefix is the common beginning of the paths of a run's output files.
type Prefix string

// Results returns the path of the answered requests.
func (p Prefix) Results() string { return string(p) + ResultsSuffix }

// Errors returns the path of the failed requests.
func (p Prefix) Errors() string { return string(p) + errorsSuffix }

// Meta returns the path of the metadata.
func (p Prefix) Meta() string { return string(p) + metaSuffix }

// ReportMarkdown returns the path of the report in Markdown.
func (p Prefix) ReportMarkdown() string { return string(p) + markdownSuffix }

// ReportHTML returns the path of the report in HTML.
func (p Prefix) ReportHTML() string { return string(p) + htmlSuffix }

// Journal returns the path of the journal, which exists until the run is complete.
func (p Prefix) Journal() string { return string(p) + JournalSuffix }

// Beside returns the path of a file in the folder of the output. name may have a folder, which is
// ignored.
func (p Prefix) Beside(name string) string {
	dir, _ := filepath.Split(string(p)) // as it is written: the prefix may be a URL
	return dir + filepath.Base(name)
}

// files returns the paths of all files that a run may make, the journal included.
func (p Prefix) files() []string {
	return []string{p.Results(), p.Errors(), p.Meta(), p.ReportMarkdown(), p.ReportHTML(), p.Journal()}
}

// IsOwn reports whether a path is, by its name, that of a file that a run with this output makes.
// Temporary files and lock files count too.
func (p Prefix) IsOwn(path string) bool {
	ending, ok := strings.CutPrefix(path, string(p))
	if !ok {
		return false
	}

	for _, suffix := range []string{atomicfile.TempSuffix, probeSuffix, lockSuffix, NewJournalSuffix} {
		ending = strings.TrimSuffix(ending, suffix)
	}

	return slices.Contains(Prefix("").files(), ending)
}

// Format is the form of the output files.
type Format struct {
	// Seekable writes the zstd seekable format instead of one frame.
	Seekable bool
	// Ordered writes lines in the order of the input instead of that of completion.
	Ordered bool
	// Plain leaves the key "promptmill" out of the lines.
	Plain bool
}

// Check reports why the files of a run could not be written, before anything has been done
// for the run: a name is too long for its file system or belongs to a folder, a device or a
// pipe, two of them are one file, another run writes one of them, or the folder cannot be
// written. It makes files of the longest names to find out, and removes them.
func (p Prefix) Check() error {
	targets, err := p.resolveAll()
	if err != nil {
		return err
	}

	if err := (&Claim{targets: targets}).checkOthers(p, targets[p.Journal()]); err != nil {
		return err
	}

	longest := map[string]string{} // name by folder: links may lead into other folders
	for _, path := range p.files() {
		dir, name := filepath.Split(targets[path])
		if len(name) > len(longest[dir]) {
			longest[dir] = name
		}
	}

	for dir, name := range longest {
		file, err := atomicfile.CreateLocked(dir+name+probeSuffix, 0o600)
		if errors.Is(err, atomicfile.ErrLocked) {
			continue // another process has just made it
		}
		if err != nil {
			return fmt.Errorf("%s cannot be written: %w", dir+name, withoutPath(err))
		}

		atomicfile.Discard(file)
	}

	return nil
}

// RemoveStale removes temporary files and lock files that a dead process has left. Those of
// a living process stay.
func (p Prefix) RemoveStale() error {
	var all error
	for _, path := range p.files() {
		target, err := atomicfile.FollowLinks(path)
		if err != nil {
			all = errors.Join(all, err)
			continue
		}

		stale := []string{target + atomicfile.TempSuffix, target + probeSuffix}
		if path == p.Journal() {
			stale = append(stale, target+NewJournalSuffix)
		}

		for _, path := range stale {
			err := atomicfile.RemoveStale(path)
			if !errors.Is(err, atomicfile.ErrLocked) && !errors.Is(err, atomicfile.ErrReplaced) {
				all = errors.Join(all, err)
			}
		}

		err = removeStaleLock(target+lockSuffix, p.Journal())
		if !errors.Is(err, atomicfile.ErrLocked) && !errors.Is(err, ErrClaimed) {
			all = errors.Join(all, err)
		}
	}

	return all
}

// FindSame returns the path of the run's file that is the same file as another, or "". A
// temporary file counts too.
func (p Prefix) FindSame(other fs.FileInfo) string {
	for _, path := range p.files() {
		for _, suffix := range []string{"", atomicfile.TempSuffix, probeSuffix, NewJournalSuffix} {
			if info, err := os.Stat(path + suffix); err == nil && os.SameFile(info, other) {
				return path + suffix
			}
		}
	}

	return ""
}

// withoutPath takes the path out of an error that names it in another place.
func withoutPath(err error) error {
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
