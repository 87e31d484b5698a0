package output

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/promptmill/promptmill/collector/atomicfile"
)

var (
	// ErrClaimed is returned for an output when another run writes one of its files, and
	// that run is incomplete or has left its metadata.
	ErrClaimed = errors.New("another run writes it")

	// ErrSameFile is returned for an output of which two files are one.
	ErrSameFile = errors.New("they are one file")

	// ErrRedirected is returned when a file of the output leads to another place than when
	// the run was started: a link was made, changed or removed meanwhile.
	ErrRedirected = errors.New("it leads to another file than when the run was started")
)

// errForeignLock reports that a file has the name of a lock file, and another program made it.
var errForeignLock = errors.New("a file is in the way that promptmill has not written")

// lockSuffix ends the name of the lock file of the file before it. It is as long as
// atomicfile.TempSuffix.
const lockSuffix = ".lck"

// maxPath is the longest path of Linux (limits.h, PATH_MAX).
const maxPath = 4096

// Claim keeps other runs from the files of an output.
//
// A file under its own name needs no lock file: the locked journal, with its name, shows
// which run writes the file. A file that is reached by a link has a lock file beside it,
// which holds the path of the run's journal. The lock file stays when the process is
// killed, and the run resumes with its claim.
//
// Each process makes its journal and its lock files first, and looks for those of others
// afterwards. So of two that start at once, at least one sees the other.
//
// A nil Claim creates files without any check.
type Claim struct {
	targets map[string]string // by path of the output, with all links followed
	locks   []*os.File
}

// NewClaim claims the files of an output for the run of a journal. The claim outlives the
// process: it ends when it is released as complete.
func NewClaim(out Prefix, journal string) (*Claim, error) {
	targets, err := out.resolveAll()
	if err != nil {
		return nil, err
	}

	journal, err = filepath.Abs(journal) // for processes in other folders
	if err != nil {
		return nil, err
	}

	c := &Claim{targets: targets}

	err = c.lockLinked(out, journal)
	if err == nil {
		err = c.checkOthers(out, journal)
	}
	if err != nil {
		c.Release(journal, true)
		return nil, err
	}

	return c, nil
}

// Release gives up the lock files. remove also deletes them: the run is complete, or has
// not begun.
func (c *Claim) Release(journal string, remove bool) {
	if c == nil {
		return
	}

	for _, file := range c.locks {
		if remove {
			atomicfile.Unlink(file.Name())
		}
		atomicfile.Unlock(file)
	}

	if !remove {
		return
	}

	for _, target := range c.targets {
		removeStaleLock(target+lockSuffix, journal) // from when the file was reached by a link
	}
}

// lockLinked makes the lock files of the files that are reached by links.
func (c *Claim) lockLinked(out Prefix, journal string) error {
	for _, path := range out.files() {
		if !isLink(path) {
			continue
		}

		file, err := createLockFile(c.targets[path]+lockSuffix, journal)
		if err != nil {
			return fmt.Errorf("%s cannot be written: %w", path, withoutPath(err))
		}

		c.locks = append(c.locks, file)
	}

	return nil
}

// createLockFile makes a lock file, or takes over one of this journal, or of one that is
// gone.
func createLockFile(path, journal string) (*os.File, error) {
	for {
		file, err := atomicfile.Open(path, os.O_RDWR|os.O_CREATE, Mode)
		if err != nil {
			return nil, err
		}

		if err := atomicfile.Lock(path, file); errors.Is(err, atomicfile.ErrReplaced) {
			continue
		} else if err != nil {
			return nil, err
		}

		err = checkLockFile(file, journal)
		if err == nil {
			err = file.Truncate(0)
		}
		if err == nil {
			_, err = file.WriteAt([]byte(journal), 0)
		}
		if err == nil {
			err = file.Sync()
		}
		if err != nil {
			atomicfile.Unlock(file)
			return nil, err
		}

		return file, nil
	}
}

// checkLockFile returns an error that wraps [ErrClaimed] if a lock file belongs to another
// journal which exists, and errForeignLock if another program made the file.
func checkLockFile(file *os.File, journal string) error {
	text, err := io.ReadAll(io.NewSectionReader(file, 0, maxPath))
	if err != nil {
		return err
	}

	switch other := string(text); {
	case other != "" && !filepath.IsAbs(other): // an empty file was just made, or left by a crash
		return fmt.Errorf("%w: %s", errForeignLock, file.Name())
	case exists(other) && !isSameFile(other, journal):
		return fmt.Errorf("%w: the unfinished run of %s", ErrClaimed, other)
	}

	return nil
}

// checkOthers looks for other runs that write a file of the output.
func (c *Claim) checkOthers(out Prefix, journal string) error {
	for _, path := range out.files() {
		target := c.targets[path]

		err := checkOtherOutputs(target, out, journal)
		if err == nil && !c.hasLock(target+lockSuffix) {
			err = removeStaleLock(target+lockSuffix, journal)
		}
		if err != nil {
			return fmt.Errorf("%s cannot be written: %w", path, withoutPath(err))
		}
	}

	return nil
}

// hasLock reports whether a lock file belongs to this claim.
func (c *Claim) hasLock(path string) bool {
	for _, file := range c.locks {
		if file.Name() == path {
			return true
		}
	}

	return false
}

// removeStaleLock removes a lock file if its run is gone, and returns an error that wraps
// [ErrClaimed] if it is not. Files of other programs under that name stay.
func removeStaleLock(path, journal string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil
	}
	if err != nil {
		return err
	}

	file, err := atomicfile.Open(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("its lock file %s: %w", path, withoutPath(err))
	}

	if err := atomicfile.Lock(path, file); errors.Is(err, atomicfile.ErrReplaced) {
		return nil
	} else if err != nil {
		return err
	}

	defer atomicfile.Unlock(file)

	switch err := checkLockFile(file, journal); {
	case errors.Is(err, errForeignLock):
		return nil
	case err != nil || exists(journal):
		return err // this run resumes with it, or may yet
	}

	return atomicfile.Unlink(path)
}

// checkOtherOutputs returns an error that wraps [ErrClaimed] if a file also has the name of
// another run's file, and that run has a journal or has left its metadata. A link may lead
// to such a file, and a.errors.jsonl.zst has the failures of a.jsonl.zst.
func checkOtherOutputs(target string, own Prefix, journal string) error {
	for _, suffix := range []string{
		ResultsSuffix, errorsSuffix, metaSuffix, markdownSuffix, htmlSuffix, JournalSuffix,
	} {
		base, ok := strings.CutSuffix(target, suffix)
		if !ok {
			continue
		}

		other := Prefix(base)
		if exists(other.Journal()) && !isSameFile(other.Journal(), journal) {
			return fmt.Errorf("%w: the unfinished run of %s", ErrClaimed, other.Journal())
		}

		if exists(other.Meta()) && !isSameFile(other.Meta(), own.Meta()) {
			return fmt.Errorf("%w: that of %s", ErrClaimed, other.Meta())
		}
	}

	return nil
}

// CreateFile begins a file of the output. It returns an error that wraps [ErrRedirected] if
// the path leads elsewhere than when it was claimed, and so does the file's Commit.
func (c *Claim) CreateFile(path string) (*atomicfile.File, error) {
	file, err := atomicfile.Create(path, Mode)
	if err != nil || c == nil {
		return file, err
	}

	if err := c.checkTarget(path); err != nil {
		file.Abort()
		return nil, err
	}

	file.CheckBeforeCommit(func() error { return c.checkTarget(path) })

	return file, nil
}

// CheckTargets returns an error that wraps [ErrRedirected] if a file of the output leads
// elsewhere than when it was claimed.
func (c *Claim) CheckTargets(out Prefix) error {
	if c == nil {
		return nil
	}

	for _, path := range out.files() {
		if err := c.checkTarget(path); err != nil {
			return err
		}
	}

	return nil
}

// checkTarget is CheckTargets for one path.
func (c *Claim) checkTarget(path string) error {
	target, err := resolvePath(path)
	if err == nil && target != c.targets[path] {
		err = fmt.Errorf("%w: to %s, and then it was %s", ErrRedirected, target, c.targets[path])
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}

	return nil
}

// resolveAll returns the files that the paths of the output lead to, by path.
func (p Prefix) resolveAll() (map[string]string, error) {
	targets := map[string]string{}
	pathOf := map[string]string{}
	for _, path := range p.files() {
		target, err := resolvePath(path)
		if err != nil {
			return nil, fmt.Errorf("%s cannot be written: %w", path, withoutPath(err))
		}

		if other := pathOf[target]; other != "" {
			return nil, fmt.Errorf("%s and %s cannot be written: %w, %s", other, path, ErrSameFile, target)
		}

		targets[path], pathOf[target] = target, path
	}

	return targets, nil
}

// resolvePath returns the path that a path leads to, with the links of its folders
// followed as well.
func resolvePath(path string) (string, error) {
	target, err := atomicfile.FollowLinks(path)
	if err != nil {
		return "", err
	}

	dir, err := filepath.EvalSymlinks(filepath.Dir(target))
	if err != nil {
		return "", err
	}

	return filepath.Join(dir, filepath.Base(target)), nil
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func isSameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)

	return err == nil && os.SameFile(one, other)
}
