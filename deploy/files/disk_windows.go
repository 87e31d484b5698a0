package files

import (
	"fmt"

	"golang.org/x/sys/windows"
)

// MeasureDisk returns the bytes that are free for this user on the disk of a folder, and the size of the disk.
func MeasureDisk(dir string) (free, size int64, err error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, 0, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}

	var available, all uint64
	if err := windows.GetDiskFreeSpaceEx(name, &available, &all, nil); err != nil {
		return 0, 0, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}

	return int64(available), int64(all), nil
}
