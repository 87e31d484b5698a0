package files

import (
	"fmt"
	"syscall"
)

// mostReserve is the most bytes of a disk that [CheckRoom] leaves free: usually the bus and the journals are
// on the same disk, and a bus that cannot write has to be started again. A smaller disk has a twentieth of it
// in reserve.
const mostReserve = 1 << 30

// CheckRoom returns an error that wraps syscall.ENOSPC if the disk of a folder has no room for more bytes
// besides its reserve: a twentieth of it, and 1 GiB at most.
func CheckRoom(dir string, more int64) error {
	free, size, err := MeasureDisk(dir)
	if err != nil {
		return err
	}

	if reserve := min(size/20, mostReserve); free-more < reserve {
		return fmt.Errorf("the disk of %s has %d bytes free, and %d are its reserve: %w", dir, free, reserve,
			syscall.ENOSPC)
	}

	return nil
}
