package collector

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrOthersLink is returned for a symbolic link that another user has made: whoever may
// write into a shared folder could have any file overwritten by it.
var ErrOthersLink = errors.New("it is a symbolic link of another user")

// ErrIrregular is returned for an output that is a folder, a device or a pipe.
var ErrIrregular = errors.New("it is not a regular file")

// tempSuffix is what the name of a file that is being written ends in, and trySuffix
// that of a file which only shows that one can be made. Both have the same length.
const (
	tempSuffix = ".tmp"
	trySuffix  = ".try"
)

// File is being written and appears under its name, in one step, when it is whole.
type File struct {
	*os.File
	path string // with all links followed
	done bool   // committed or aborted

	unmoved func() error // if not nil, asked before the file appears under its name
}

// CreateFile begins a file with permissions mode, less the umask; a file that it takes
// the place of keeps its own. A symbolic link is written through: it stays, and what it
// points to is written.
func CreateFile(path string, mode fs.FileMode) (*File, error) {
	target, err := follow(path)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}

	file, err := createLocked(target+tempSuffix, mode)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}

	if old, err := os.Stat(target); err == nil {
		if err := file.Chmod(old.Mode().Perm()); err != nil {
			discard(file)
			return nil, fmt.Errorf("write %s: %w", path, err)
		}
	}

	return &File{File: file, path: target}, nil
}

// Commit makes the file durable and visible, unless err is set: then it removes what
// was written.
func (f *File) Commit(err error) error {
	f.done = true
	if err == nil {
		err = f.Sync()
	}
	if err == nil && f.unmoved != nil {
		err = f.unmoved()
	}
	if err == nil {
		err = os.Rename(f.Name(), f.path)
	}
	if err == nil {
		err = errors.Join(syncDir(f.path), unlock(f.File))
	} else {
		discard(f.File)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}

	return nil
}

// Abort removes what was written. After [File.Commit] it does nothing.
func (f *File) Abort() {
	if !f.done {
		f.done = true
		discard(f.File)
	}
}

// discard removes a file that was not finished.
func discard(file *os.File) {
	os.Remove(file.Name())
	unlock(file)
}

// createLocked makes a file that was not there and takes its lock. One that a process
// has left which is gone is removed before. It follows no link.
func createLocked(path string, mode fs.FileMode) (*os.File, error) {
	for range 10 { // more than twice only if others make it, too
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
		if errors.Is(err, fs.ErrExist) {
			if err := removeLeft(path); err != nil && !errors.Is(err, errMoved) {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}

		switch err := lock(path, file); {
		case err == nil:
			return file, nil
		case !errors.Is(err, errMoved):
			return nil, err
		}
	}

	return nil, fmt.Errorf("%w (%s)", ErrLocked, path)
}

// removeLeft removes a file that no living process has locked. It follows no link, and
// it is no error if there is no file. It returns errMoved if another process was faster:
// what is at the path now may be that one's.
func removeLeft(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return unlink(path)
	}
	return removeOpened(path, file)
}

// removeOpened is removeLeft of a file that was opened.
func removeOpened(path string, file *os.File) error {
	switch err := lock(path, file); {
	case err == nil:
		defer unlock(file)
	case errors.Is(err, ErrLocked), errors.Is(err, errMoved):
		return err
	}
	return unlink(path)
}

// unlink removes a file or a link. Where nothing is, it does nothing.
func unlink(path string) error {
	err := syscall.Unlink(path) // os.Remove would remove an empty folder, too
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

// errMoved says that a file is not that of its path any more: another process has
// removed or replaced it before its lock was taken.
var errMoved = errors.New("the file was replaced")

// lock takes the lock of an open file, which it closes if it cannot.
func lock(path string, file *os.File) error {
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("%w (%s)", ErrLocked, path)
		}
		return fmt.Errorf("lock %s: %w", path, err)
	}

	mine, err := file.Stat()
	if err == nil {
		var there fs.FileInfo
		if there, err = os.Lstat(path); errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(mine, there) {
			err = errMoved
		}
	}
	if err != nil {
		unlock(file)
	}

	return err
}

// unlock gives up the lock and closes the file. Closing alone would leave the lock to a
// child process that is being started at this moment and shares the file still.
func unlock(file *os.File) error {
	return errors.Join(syscall.Flock(int(file.Fd()), syscall.LOCK_UN), file.Close())
}

// maxLinks is how many links Linux follows in a path (path_resolution(7)).
const maxLinks = 40

// follow returns the path that the links at path lead to. Nothing need be there.
func follow(path string) (string, error) {
	for range maxLinks {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return path, nil
		}
		if err != nil {
			return "", err
		}

		if info.Mode().IsRegular() {
			return path, nil
		}

		if info.Mode()&fs.ModeSymlink == 0 {
			return "", fmt.Errorf("%w: %s is %s", ErrIrregular, path, kindOf(info.Mode()))
		}

		if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() && owner != 0 {
			return "", fmt.Errorf("%s: %w", path, ErrOthersLink)
		}

		to, err := os.Readlink(path)
		if err != nil {
			return "", err
		}

		if !filepath.IsAbs(to) {
			// The folder may be reached by links, too, so that ".." is not what it looks like.
			dir, err := filepath.EvalSymlinks(filepath.Dir(path))
			if err != nil {
				return "", err
			}
			to = filepath.Join(dir, to)
		}

		path = to
	}

	return "", &fs.PathError{Op: "follow", Path: path, Err: syscall.ELOOP}
}

// kindOf names what is no regular file.
func kindOf(mode fs.FileMode) string {
	switch mode.Type() {
	case fs.ModeDir:
		return "a folder"
	case fs.ModeNamedPipe:
		return "a pipe"
	case fs.ModeSocket:
		return "a socket"
	}

	return "a device"
}

// syncDir makes the name of a file last.
func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()

	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync folder of %s: %w", path, err)
	}

	return nil
}
