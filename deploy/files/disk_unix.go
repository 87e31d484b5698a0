//go:build unix

package files

import (
	"fmt"
	"syscall"
)

// MeasureDisk returns the bytes that are free for this user on the disk of a folder, and the size of the disk.
func MeasureDisk(dir string) (free, size int64, err error) {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return 0, 0, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}

	block := int64(disk.Bsize) //nolint:unconvert // it is a uint32 on macOS

	return int64(disk.Bavail) * block, int64(disk.Blocks) * block, nil
}
