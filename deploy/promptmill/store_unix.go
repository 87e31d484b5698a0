//go:build unix

package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// writable says why this user may not make files in a folder, or nil.
func writable(dir string) error {
	if err := unix.Access(dir, unix.R_OK|unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}
