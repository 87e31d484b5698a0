// Package atomicfile writes files that appear under their names in one step, when they are
// whole, and locks files against other processes.
//
// A [File] is written beside its place, as NAME.tmp, and [File.Commit] renames it. The
// temporary file is locked while its process lives, so another process neither writes the
// same file nor removes it during the write. Files that a crash has left are removed
// by the next process ([CreateLocked], [RemoveStale]).
//
// Symbolic links are followed only where their owner could write the file anyway
// ([FollowLinks]).
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

var (
	// ErrLocked is returned when another process has the file open for writing.
	ErrLocked = errors.New("another promptmill is writing this output")

	// ErrReplaced is returned by [Lock] for a file that is no longer the one at its path:
	// another process removed or replaced it before the lock was taken.
	ErrReplaced = errors.New("the file was replaced")

	// ErrForeignLink is returned for a symbolic link that another user has made. A user
	// with write access to a shared folder could have any file overwritten by such a link.
	ErrForeignLink = errors.New("it is a symbolic link of another user")

	// ErrIrregular is returned for a folder, a device or a pipe.
	ErrIrregular = errors.New("it is not a regular file")
)

// TempSuffix ends the name of a file that is being written.
const TempSuffix = ".tmp"

// File is a file that is being written. It appears under its name when it is whole.
type File struct {
	*os.File

	path     string       // with all links followed
	finished bool         // committed or aborted
	check    func() error // nil: none
}

// Create begins a file with the permissions mode, less the umask. A file that it replaces
// keeps its permissions. A symbolic link is written through: the link stays, and its
// target is replaced.
func Create(path string, mode fs.FileMode) (*File, error) {
	target, err := FollowLinks(path)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}

	file, err := CreateLocked(target+TempSuffix, mode)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}

	if old, err := os.Stat(target); err == nil {
		if err := file.Chmod(old.Mode().Perm()); err != nil {
			Discard(file)
			return nil, fmt.Errorf("write %s: %w", path, err)
		}
	}

	return &File{File: file, path: target}, nil
}

// Path returns the path under which the file appears, with all links followed.
func (f *File) Path() string { return f.path }

// CheckBeforeCommit sets a check that Commit makes just before the file appears. An error
// of the check removes the file.
func (f *File) CheckBeforeCommit(check func() error) { f.check = check }

// Commit makes the file durable and visible. If err is not nil, Commit removes the file
// instead and returns err.
func (f *File) Commit(err error) error {
	f.finished = true

	if err == nil {
		err = f.Sync()
	}
	if err == nil && f.check != nil {
		err = f.check()
	}
	if err == nil {
		err = os.Rename(f.Name(), f.path)
	}

	if err == nil {
		err = errors.Join(SyncDir(f.path), Unlock(f.File))
	} else {
		Discard(f.File)
	}

	if err != nil {
		if pathErr, ok := errors.AsType[*fs.PathError](err); ok && pathErr.Path == f.Name() {
			err = pathErr.Err // the path is named once
		}
		return fmt.Errorf("write %s: %w", f.path, err)
	}

	return nil
}

// Abort removes the file. After [File.Commit] it does nothing.
func (f *File) Abort() {
	if !f.finished {
		f.finished = true
		Discard(f.File)
	}
}

// Discard removes a locked file and closes it.
func Discard(file *os.File) {
	os.Remove(file.Name())
	Unlock(file)
}

// CreateLocked creates a file and locks it. It first removes a file that a dead process
// has left at the path. It follows no link.
func CreateLocked(path string, mode fs.FileMode) (*os.File, error) {
	for range 10 { // more than two rounds only if other processes create it as well
		file, err := Open(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
		if errors.Is(err, fs.ErrExist) {
			if err := RemoveStale(path); err != nil && !errors.Is(err, ErrReplaced) {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}

		switch err := Lock(path, file); {
		case err == nil:
			return file, nil
		case !errors.Is(err, ErrReplaced):
			return nil, err
		}
	}

	return nil, fmt.Errorf("%w (%s)", ErrLocked, path)
}

// RemoveStale removes a file that no living process has locked. It follows no link, and a
// missing file is no error. It returns [ErrReplaced] if another process was faster: the
// file that is at the path now may be that one's.
func RemoveStale(path string) error {
	file, err := Open(path, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // what is there by now is another process's
	case err != nil:
		return Unlink(path)
	}

	return removeOpened(path, file)
}

// removeOpened is RemoveStale for a file that is open.
func removeOpened(path string, file *os.File) error {
	switch err := Lock(path, file); {
	case err == nil:
		defer Unlock(file)
	case errors.Is(err, ErrLocked), errors.Is(err, ErrReplaced):
		return err
	}
	return Unlink(path)
}

// Unlink removes a file or a link. A missing file is no error.
func Unlink(path string) error {
	err := unlink(path) // os.Remove would remove an empty folder, too
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

// Lock locks an open file. If it fails, it closes the file. It returns [ErrLocked] if
// another process has the lock, and [ErrReplaced] if the file is not at the path any more.
func Lock(path string, file *os.File) error {
	if err := TryLock(file); err != nil {
		file.Close()
		if errors.Is(err, ErrLocked) {
			return fmt.Errorf("%w (%s)", ErrLocked, path)
		}
		return fmt.Errorf("lock %s: %w", path, err)
	}

	locked, err := file.Stat()
	if err == nil {
		var atPath fs.FileInfo

		atPath, err = os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(locked, atPath) {
			err = ErrReplaced
		}
	}
	if err != nil {
		Unlock(file)
	}

	return err
}

// Unlock releases the lock and closes the file. Closing alone would leave the lock to a
// child process that is being started at this moment and still shares the file.
func Unlock(file *os.File) error {
	return errors.Join(unlock(file), file.Close())
}

// maxLinks is the number of links that Linux follows in a path (path_resolution(7)).
const maxLinks = 40

// FollowLinks returns the path that the links at path lead to. The file need not exist. It
// returns [ErrForeignLink] for a link that neither this user nor root has made, and
// [ErrIrregular] for anything that is not a regular file.
func FollowLinks(path string) (string, error) {
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
			return "", fmt.Errorf("%w: %s is %s", ErrIrregular, path, describeType(info.Mode()))
		}

		if err := checkLink(info); err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}

		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}

		if !filepath.IsAbs(target) {
			// The folder may be reached by links, too: then ".." is not the parent in path.
			dir, err := filepath.EvalSymlinks(filepath.Dir(path))
			if err != nil {
				return "", err
			}
			target = filepath.Join(dir, target)
		}

		path = target
	}

	return "", &fs.PathError{Op: "follow", Path: path, Err: syscall.ELOOP}
}

// describeType names the type of an irregular file.
func describeType(mode fs.FileMode) string {
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
