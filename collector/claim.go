package collector

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrClaimed is returned for an output of which another run, which is not complete or
// has left its metadata, writes a file.
var ErrClaimed = errors.New("another run writes it")

// ErrOneFile is returned for an output of which two files are one.
var ErrOneFile = errors.New("they are one file")

// ErrRedirected is returned when a file of the output leads elsewhere than when the run
// began to work: a link was made, changed or removed meanwhile.
var ErrRedirected = errors.New("it leads to another file than when the run was started")

// claimSuffix is what the name of a file ends in that claims the file before it. It is as
// long as [tempSuffix].
const claimSuffix = ".lck"

// claim keeps other runs from the files of an output.
//
// A file under its own name needs none: the name of the journal, which is locked, shows who
// writes it. A file that is reached by a link has a lock file beside it, with
// the path of the journal that it belongs to. That file stays when the process is killed,
// since the run then goes on with what is its own.
//
// Whoever begins makes its journal and its lock files first, and looks for those of others
// afterwards: so of two that begin at once, one sees the other.
type claim struct {
	targets map[string]string // by path of the output, with all links followed
	locks   []*os.File
}

// Claim makes sure that no other run writes a file of the output, from now until the
// journal is closed, and over the death of the process until the run is complete. It does
// nothing the second time.
func (j *Journal) Claim(out Output) error {
	if j.claim != nil {
		return nil
	}

	targets, err := out.targets()
	if err != nil {
		return err
	}

	path, err := filepath.Abs(j.path) // for processes in other folders
	if err != nil {
		return err
	}

	c := &claim{targets: targets}
	err = c.lock(out, path)
	if err == nil {
		err = c.check(out, path)
	}
	if err != nil {
		c.release(path, true)
		return err
	}

	j.claim = c

	return nil
}

// lock makes the lock files of the files that are reached by links.
func (c *claim) lock(out Output, journal string) error {
	for _, path := range out.files() {
		if !isLink(path) {
			continue
		}

		file, err := lockClaim(c.targets[path]+claimSuffix, journal)
		if err != nil {
			return fmt.Errorf("%s cannot be written: %w", path, pathless(err))
		}

		c.locks = append(c.locks, file)
	}

	return nil
}

// lockClaim makes a lock file, or takes over one of this journal, or of one that is gone.
func lockClaim(path, journal string) (*os.File, error) {
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, outputMode)
		if err != nil {
			return nil, err
		}

		if err := lock(path, file); errors.Is(err, errMoved) {
			continue
		} else if err != nil {
			return nil, err
		}

		err = claimedBy(file, journal)
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
			unlock(file)
			return nil, err
		}

		return file, nil
	}
}

// claimedBy returns an error that wraps [ErrClaimed] if a lock file is that of another
// journal which is there, and errNoClaim if it is no lock file of ours.
func claimedBy(file *os.File, journal string) error {
	text, err := io.ReadAll(io.NewSectionReader(file, 0, maxPath))
	if err != nil {
		return err
	}

	switch other := string(text); {
	case other != "" && !filepath.IsAbs(other): // what is empty was just made, or left by a crash
		return fmt.Errorf("%w: %s", errNoClaim, file.Name())
	case exists(other) && !sameFile(other, journal):
		return fmt.Errorf("%w: the unfinished run of %s", ErrClaimed, other)
	}

	return nil
}

// errNoClaim says that a file has the name of a lock file, and is another program's.
var errNoClaim = errors.New("a file is in the way that promptmill has not written")

// maxPath is the longest path of Linux (limits.h, PATH_MAX).
const maxPath = 4096

// check looks for other runs that write a file of the output. journal is that of the run.
func (c *claim) check(out Output, journal string) error {
	for _, path := range out.files() {
		target := c.targets[path]
		err := otherOutput(target, out, journal)
		if err == nil && !c.holds(target+claimSuffix) {
			err = lookAtClaim(target+claimSuffix, journal)
		}
		if err != nil {
			return fmt.Errorf("%s cannot be written: %w", path, pathless(err))
		}
	}

	return nil
}

// holds reports whether a lock file is one of this claim.
func (c *claim) holds(path string) bool {
	for _, file := range c.locks {
		if file.Name() == path {
			return true
		}
	}

	return false
}

// lookAtClaim finds out whether a lock file, if there is one, is that of another run, and
// removes it if that run is gone. What others keep under that name stays.
func lookAtClaim(path, journal string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil
	}
	if err != nil {
		return err
	}

	file, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("its lock file %s: %w", path, pathless(err))
	}

	if err := lock(path, file); errors.Is(err, errMoved) {
		return nil
	} else if err != nil {
		return err
	}

	defer unlock(file)

	switch err := claimedBy(file, journal); {
	case errors.Is(err, errNoClaim):
		return nil
	case err != nil || exists(journal):
		return err // this run goes on with it, or may yet
	}

	return unlink(path)
}

// otherOutput finds out whether a file has the name of one of another run, too: of one
// that has a journal, or has left its metadata. A link may lead to such a file, and
// a.errors.jsonl.zst has the failures of a.jsonl.zst.
func otherOutput(target string, own Output, journal string) error {
	for _, suffix := range []string{OutputSuffix, errorsSuffix, metaSuffix, markdownSuffix, htmlSuffix, JournalSuffix} {
		base, ok := strings.CutSuffix(target, suffix)
		if !ok {
			continue
		}

		other := Output(base)
		if exists(other.Journal()) && !sameFile(other.Journal(), journal) {
			return fmt.Errorf("%w: the unfinished run of %s", ErrClaimed, other.Journal())
		}

		if exists(other.Meta()) && !sameFile(other.Meta(), own.Meta()) {
			return fmt.Errorf("%w: that of %s", ErrClaimed, other.Meta())
		}
	}

	return nil
}

// release gives the lock files up, and removes them if the run is complete, or has not begun.
func (c *claim) release(journal string, remove bool) {
	for _, file := range c.locks {
		if remove {
			unlink(file.Name())
		}
		unlock(file)
	}

	if !remove {
		return
	}

	for _, target := range c.targets {
		lookAtClaim(target+claimSuffix, journal) // of when it was reached by a link
	}
}

// create is [CreateFile] for a file of the output, unless that leads elsewhere now.
func (j *Journal) create(path string) (*File, error) {
	file, err := CreateFile(path, outputMode)
	if err != nil || j.claim == nil {
		return file, err
	}

	if err := j.claim.unmoved(path); err != nil {
		file.Abort()
		return nil, err
	}

	file.unmoved = func() error { return j.claim.unmoved(path) }

	return file, nil
}

// unmoved returns an error that wraps [ErrRedirected] if a path of the output leads
// elsewhere than when it was claimed.
func (c *claim) unmoved(path string) error {
	target, err := resolve(path)
	if err == nil && target != c.targets[path] {
		err = fmt.Errorf("%w: to %s, and then it was %s", ErrRedirected, target, c.targets[path])
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}

	return nil
}

// allUnmoved is unmoved for all files of the output.
func (j *Journal) allUnmoved(out Output) error {
	if j.claim == nil {
		return nil
	}

	for _, path := range out.files() {
		if err := j.claim.unmoved(path); err != nil {
			return err
		}
	}

	return nil
}

// targets are the files that the paths of the output lead to.
func (o Output) targets() (map[string]string, error) {
	all := map[string]string{}
	pathOf := map[string]string{}
	for _, path := range o.files() {
		target, err := resolve(path)
		if err != nil {
			return nil, fmt.Errorf("%s cannot be written: %w", path, pathless(err))
		}

		if other := pathOf[target]; other != "" {
			return nil, fmt.Errorf("%s and %s cannot be written: %w, %s", other, path, ErrOneFile, target)
		}

		all[path], pathOf[target] = target, path
	}

	return all, nil
}

// resolve is the path that a path leads to, with the links of its folders followed, too.
func resolve(path string) (string, error) {
	target, err := follow(path)
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

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)

	return err == nil && os.SameFile(one, other)
}
