package filestore

import (
	"os"

	"golang.org/x/sys/unix"
)

// startWriteback makes the kernel begin to write a part of a file to the disk, and does not
// wait for it: the disk works while the rest comes, and the sync at the end has less to do. It
// is only a hint.
func startWriteback(file *os.File, offset, n int64) {
	unix.SyncFileRange(int(file.Fd()), offset, n, unix.SYNC_FILE_RANGE_WRITE)
}
