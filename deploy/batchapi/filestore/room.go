package filestore

import (
	"os"

	"github.com/promptmill/promptmill/deploy/files"
)

// roomStep is the number of bytes that are written before the disks are looked at again.
const roomStep = 1 << 20

// checkRoom returns an error that wraps syscall.ENOSPC if the disk of the store has no room for more bytes, or
// one of the other disks has less than its reserve.
func (s *Store) checkRoom(more int64) error {
	for _, dir := range s.others {
		if err := files.CheckRoom(dir, 0); err != nil {
			return err
		}
	}

	return files.CheckRoom(s.filesDir, more)
}

// roomWriter writes a file while the disks have room.
type roomWriter struct {
	*eagerFile

	store *Store
	left  int64 // bytes until the disks are looked at
}

func newRoomWriter(temp *os.File, s *Store) *roomWriter {
	return &roomWriter{eagerFile: &eagerFile{File: temp}, store: s}
}

// Write implements io.Writer.
func (w *roomWriter) Write(p []byte) (int, error) {
	if w.left -= int64(len(p)); w.left < 0 {
		if err := w.store.checkRoom(int64(len(p))); err != nil {
			return 0, err
		}
		w.left = roomStep
	}

	return w.eagerFile.Write(p)
}
