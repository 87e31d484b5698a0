//go:build unix

package natsserver

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// checkWritable returns an error if this user may not create files in a folder.
func checkWritable(dir string) error {
	if err := unix.Access(dir, unix.R_OK|unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}
