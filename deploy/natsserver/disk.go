package natsserver

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
)

// availableBytes returns the maximum size of the store in dir: the bytes that are free on its disk,
// and its own.
func availableBytes(dir string) (int64, error) {
	room, err := FreeBytes(dir)
	if err != nil {
		return 0, err
	}

	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil && d.Type().IsRegular() {
			info, err = d.Info()
		}

		switch {
		case errors.Is(err, fs.ErrNotExist): // a server that has stopped still removes a deleted stream
			return nil
		case err == nil && info != nil:
			room += info.Size()
		}

		return err
	})
	if err != nil {
		return 0, fmt.Errorf("look at the bus's store: %w", err)
	}

	if room < 1<<20 {
		return 0, exit.WithHint(fmt.Errorf("the disk of %s is full: %d bytes are free", dir, room),
			"free some space, or choose another disk with --state DIR")
	}

	return room, nil
}

// FreeBytes returns how many bytes are free for this user on the disk of dir.
func FreeBytes(dir string) (int64, error) {
	free, _, err := files.MeasureDisk(dir)
	return free, err
}
