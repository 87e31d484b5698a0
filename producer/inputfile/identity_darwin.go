package inputfile

import (
	"io/fs"
	"syscall"
	"time"
)

// fileIdentity returns the inode of a file and when it was last changed in any way.
func fileIdentity(info fs.FileInfo) (inode uint64, changed time.Time) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, time.Time{}
	}

	return stat.Ino, time.Unix(stat.Ctimespec.Unix()).UTC()
}
