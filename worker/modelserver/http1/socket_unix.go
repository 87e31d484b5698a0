//go:build unix

package http1

import "syscall"

// readSocket reads what has come on a socket, and does not wait. It leaves the bytes there if keep is set.
func readSocket(fd uintptr, p []byte, keep bool) (int, error) {
	if keep {
		n, _, err := syscall.Recvfrom(int(fd), p, syscall.MSG_PEEK)
		return n, err
	}
	return syscall.Read(int(fd), p)
}
