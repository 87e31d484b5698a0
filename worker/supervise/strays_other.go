//go:build unix && !linux

package supervise

import "time"

// killStrays kills none: this system does not show the environment of a process.
func killStrays(string, time.Duration) bool { return true }
