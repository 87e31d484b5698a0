package filestore

import (
	"fmt"
	"os"
	"syscall"
)

const (
	// mostReserve is the most bytes of a disk that uploads leave free: usually the bus and the journals are
	// on the same disk, and a bus that cannot write ends the whole server. A smaller disk has a
	// twentieth of it in reserve.
	mostReserve = 1 << 30
	// roomStep is the number of bytes that are written before the disk is looked at again.
	roomStep = 1 << 20
)

// checkRoom returns an error that wraps syscall.ENOSPC if the disk of a folder has no room for more bytes
// besides its reserve.
func checkRoom(dir string, more int64) error {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return fmt.Errorf("look at the disk of %s: %w", dir, err)
	}

	block := int64(disk.Bsize) //nolint:unconvert // it is a uint32 on macOS
	size, free := int64(disk.Blocks)*block, int64(disk.Bavail)*block
	if reserve := min(size/20, mostReserve); free-more < reserve {
		return fmt.Errorf("the disk of %s has %d bytes free, and uploads leave %d: %w", dir, free, reserve, syscall.ENOSPC)
	}

	return nil
}

// roomWriter writes a file in a folder while the disk has room.
type roomWriter struct {
	*eagerFile

	dir  string
	left int64 // bytes until the disk is looked at
}

func newRoomWriter(temp *os.File, dir string) *roomWriter {
	return &roomWriter{eagerFile: &eagerFile{File: temp}, dir: dir}
}

// Write implements io.Writer.
func (w *roomWriter) Write(p []byte) (int, error) {
	if w.left -= int64(len(p)); w.left < 0 {
		if err := checkRoom(w.dir, int64(len(p))); err != nil {
			return 0, err
		}
		w.left = roomStep
	}

	return w.eagerFile.Write(p)
}
