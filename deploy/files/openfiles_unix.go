//go:build unix

package files

import "syscall"

// MostOpen returns how many files, connections among them, this process may have open; 0 where the system sets no
// limit.
func MostOpen() (uint64, error) {
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	return uint64(limit.Cur), err //nolint:unconvert // it is an int64 on FreeBSD
}
