package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

// errLink is returned for each link: whose it is would take the security descriptor of the link itself.
var errLink = errors.New("it is a symbolic link, which promptmill does not follow on Windows")

// Open opens a file that is going to be locked, as [os.OpenFile] does. It follows no link, and leaves the file free to
// be renamed and removed, which [os.OpenFile] does not on Windows.
func Open(path string, flag int, _ fs.FileMode) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}

	how := uint32(windows.OPEN_EXISTING)
	switch {
	case flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0:
		how = windows.CREATE_NEW
	case flag&os.O_CREATE != 0:
		how = windows.OPEN_ALWAYS
	}

	handle, err := windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE,
		windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, nil, how,
		windows.FILE_ATTRIBUTE_NORMAL|windows.FILE_FLAG_OPEN_REPARSE_POINT, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}

	file := os.NewFile(uintptr(handle), path)
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		file.Close()
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.Join(err, errLink)}
	}

	return file, nil
}

// The byte that is locked. A lock keeps other processes from reading the bytes under it, so it lies behind all of them.
const (
	lockedLow  = 0
	lockedHigh = 1 << 30 // at 2^62
)

// TryLock locks an open file until it is closed, or returns [ErrLocked] if another process has the lock.
func TryLock(file *os.File) error {
	err := windows.LockFileEx(windows.Handle(file.Fd()),
		windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, lockedByte())
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return ErrLocked
	}
	return err
}

func unlock(file *os.File) error {
	return windows.UnlockFileEx(windows.Handle(file.Fd()), 0, 1, 0, lockedByte())
}

func lockedByte() *windows.Overlapped {
	return &windows.Overlapped{Offset: lockedLow, OffsetHigh: lockedHigh}
}

func unlink(path string) error { return syscall.Unlink(path) }

// checkLink refuses each link.
func checkLink(fs.FileInfo) error { return errLink }

// SyncDir does nothing: Windows has no sync of a folder. NTFS writes names into its own journal.
func SyncDir(string) error { return nil }
