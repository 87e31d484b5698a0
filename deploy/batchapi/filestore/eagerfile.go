package filestore

import "os"

// writebackStep is the number of bytes after which the disk begins to write them.
const writebackStep = 8 << 20

// eagerFile is a new file whose bytes go to the disk while more are written, so that the sync
// at the end is short: uploads of 1 GB took a sixth to a third less time with it.
type eagerFile struct {
	*os.File

	// size is the number of bytes that are written, and begun how many of them go to the disk.
	size, begun int64
}

// Write implements io.Writer.
func (f *eagerFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.size += int64(n)
	if f.size-f.begun >= writebackStep {
		startWriteback(f.File, f.begun, f.size-f.begun)
		f.begun = f.size
	}

	return n, err
}
