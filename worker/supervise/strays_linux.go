package supervise

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"
)

// killStrays kills the processes with a mark in their environment, and waits for a time until there is none. It
// returns false if one is still there.
func killStrays(mark string, within time.Duration) bool {
	done := make(chan bool, 1)
	go func() { done <- killMarked(mark, time.Now().Add(within)) }()

	select {
	case gone := <-done:
		return gone
	case <-time.After(within + lateKillWait): // the kernel shows no environment while the process hangs in a driver
		return false
	}
}

// killMarked is killStrays until a time, and without a bound for the kernel.
func killMarked(mark string, deadline time.Time) bool {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		strays := findMarked(mark)
		if len(strays) == 0 {
			return true
		}

		for _, pid := range strays {
			syscall.Kill(pid, syscall.SIGKILL)
		}

		if time.Now().After(deadline) {
			return false
		}

		time.Sleep(pause)
	}
}

// findMarked returns the processes with a mark in their environment, as far as this process may read it. A dead one
// has none.
func findMarked(mark string) (found []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}

	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}

		environment, err := os.ReadFile("/proc/" + entry.Name() + "/environ")
		if err == nil && bytes.Contains(environment, []byte(mark)) {
			found = append(found, pid)
		}
	}

	return found
}
